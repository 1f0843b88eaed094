"""The write path: what each effect does to a record, and what it is refused on."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from workflow import IllegalRunState, Record, RunState
from workflow.environment import Fault
from workflow.record import evolve
from workflow.transition import (
    Cancelled,
    Cleared,
    Effect,
    Entered,
    Erased,
    Erasing,
    Failed,
    Hastened,
    Paused,
    Repeated,
    Resumed,
    Suspected,
    apply,
    event_of,
)

THEN = datetime(2026, 1, 1, tzinfo=timezone.utc)
NOW = THEN + timedelta(hours=1)
SOON = timedelta(seconds=30)
END = 4
FAULT = Fault("ValueError", "orders.py:1 pay", "ValueError: no")

BEFORE = Record(
    workflow_name="orders",
    foreign_id="a",
    run_id="r",
    version=7,
    run_state=RunState.RUNNING,
    status=2,
    status_entered=5,
    entered_at=THEN,
    turn=3,
    object=b"old",
    created_at=THEN,
    updated_at=THEN,
    available_at=THEN,
    attempt=2,
    error="before",
)


def after(effect: Effect, record: Record = BEFORE) -> Record:
    return apply(record, effect, NOW, frozenset({END}), "ann")


@pytest.mark.parametrize(
    ("effect", "changed"),
    [
        (
            Entered(3, b"new"),
            {
                "status": 3,
                "status_entered": 8,
                "entered_at": NOW,
                "turn": 0,
                "attempt": 0,
                "error": "",
                "object": b"new",
            },
        ),
        (
            Entered(2, b"new"),
            {"status_entered": 8, "entered_at": NOW, "turn": 0, "attempt": 0, "error": "", "object": b"new"},
        ),
        (Repeated(b"new", SOON), {"turn": 4, "attempt": 0, "error": "", "object": b"new", "available_at": NOW + SOON}),
        (Failed(FAULT, SOON), {"attempt": 3, "error": FAULT.text, "available_at": NOW + SOON}),
        (Failed(FAULT, SOON, counted=False), {"attempt": 2, "error": FAULT.text, "available_at": NOW + SOON}),
        (Suspected(SOON), {"attempt": 3, "suspect": True, "available_at": NOW + SOON}),
        (Cleared(), {"attempt": 0}),
        (Hastened(), {}),
        (Paused(), {"run_state": RunState.PAUSED}),
        (Paused(b"new"), {"run_state": RunState.PAUSED, "object": b"new"}),
        (Paused(fault=FAULT), {"run_state": RunState.PAUSED, "attempt": 3, "error": FAULT.text}),
        (Cancelled(), {"run_state": RunState.CANCELLED}),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, dict) else "",
)
def test_each_effect_changes_what_the_table_says_and_nothing_else(effect: Effect, changed: dict[str, object]) -> None:
    usual = {"version": 8, "updated_at": NOW, "available_at": NOW, "by": "ann"}
    assert after(effect) == evolve(BEFORE, **{**usual, **changed})


def test_entering_an_end_completes_the_run() -> None:
    assert after(Entered(END, b"")).run_state is RunState.COMPLETED


def test_a_suspect_version_has_counted_its_try_already() -> None:
    suspect = evolve(BEFORE, suspect=True, attempt=3)
    failed = after(Failed(FAULT, SOON), suspect)
    assert (failed.attempt, failed.suspect) == (3, False)
    assert after(Paused(fault=FAULT), suspect).attempt == 3
    assert after(Hastened(), suspect).suspect is True
    assert after(Suspected(SOON), suspect).attempt == 4


STATES = {state: evolve(BEFORE, run_state=state) for state in RunState}
ON_RUNNING: list[Effect] = [
    Entered(3, b""),
    Repeated(b"", SOON),
    Failed(FAULT, SOON),
    Suspected(SOON),
    Cleared(),
    Hastened(),
    Paused(),
]
ALLOWED: list[tuple[Effect, set[RunState]]] = [
    *((effect, {RunState.RUNNING}) for effect in ON_RUNNING),
    (Resumed(), {RunState.PAUSED}),
    (Cancelled(), {RunState.RUNNING, RunState.PAUSED}),
    (Erasing(), {RunState.COMPLETED, RunState.CANCELLED}),
    (Erased(), {RunState.DATA_DELETION_REQUESTED}),
]


@pytest.mark.parametrize(("effect", "states"), ALLOWED, ids=lambda value: type(value).__name__)
def test_every_other_run_state_refuses_it(effect: Effect, states: set[RunState]) -> None:
    for state, record in STATES.items():
        if state in states:
            assert after(effect, record).version == 8
        else:
            with pytest.raises(IllegalRunState, match=f"r is {state.name}"):
                after(effect, record)


def test_resuming_starts_counting_anew() -> None:
    resumed = after(Resumed(), STATES[RunState.PAUSED])
    assert (resumed.run_state, resumed.attempt, resumed.error) == (RunState.RUNNING, 0, "")


def test_erasing_leaves_nothing_of_the_users() -> None:
    erased = after(Erased(), STATES[RunState.DATA_DELETION_REQUESTED])
    assert (erased.object, erased.error) == (b"", "")


def test_a_running_run_is_told_to_its_status_and_any_other_to_the_run_states() -> None:
    assert event_of(BEFORE).topic == "orders-2"
    assert event_of(STATES[RunState.PAUSED]).topic == "orders-run-state"
    assert event_of(STATES[RunState.COMPLETED]).version == 7


def test_only_the_trace_travels_with_an_event() -> None:
    record = evolve(BEFORE, meta={"traceparent": "00-1-2-01", "secret": "x"})
    assert event_of(record).headers == {"traceparent": "00-1-2-01"}
