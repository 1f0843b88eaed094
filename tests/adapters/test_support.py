"""Guard, refusal and serial: what adapters share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.adapters.build import at, change, event, first, following, race, timeout
from workflow.adapters.support import serial
from workflow.adapters.support.guard import Guard
from workflow.adapters.support.refusal import Known, Verdict, judge
from workflow.errors import AlreadyApplied, Closed, CodecError, Forked, RunInProgress, StaleRecord
from workflow.event import ConnectorEvent, Event, NewTimeout, OutboxEvent, Timeout, TimeoutState
from workflow.record import Record, Transition
from workflow.run_state import RunState

# --- guard ---------------------------------------------------------------------------------------------------------


def test_a_closed_guard_raises() -> None:
    guard = Guard("the thing")
    guard.check()
    assert [guard.close(), guard.close()] == [True, False]
    assert guard.closed
    with pytest.raises(Closed, match="the thing"):
        guard.check()


def test_of_racing_closers_one_closes() -> None:
    guard = Guard("the thing")
    assert sorted(race([guard.close] * 8)) == [False] * 7 + [True]


def test_a_forked_guard_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Guard("the thing")
    guard.check()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert guard.forked
    with pytest.raises(Forked, match="fork"):
        guard.check()


# --- refusal -------------------------------------------------------------------------------------------------------

NEW = Known(current=0, write_id=None, applied=None, active=None)


def test_what_breaks_no_rule_is_written() -> None:
    one = first()
    assert judge(change(one), NEW) is Verdict.WRITE
    assert judge(change(following(one)), replace(NEW, current=1, active="run-1")) is Verdict.WRITE


def test_the_first_rule_that_applies_decides() -> None:
    known = Known(current=4, write_id="w", applied="other", active="another")
    made = change(first(), write_id="w", cause="c")
    assert judge(made, known) is Verdict.DONE
    known = replace(known, write_id="of somebody else")
    answer = judge(made, known)
    assert isinstance(answer, AlreadyApplied)
    assert (answer.cause, answer.run_id) == ("c", "other")
    known = replace(known, applied=None)
    answer = judge(made, known)
    assert isinstance(answer, StaleRecord)
    assert (answer.run_id, answer.version, answer.current) == ("run-1", 1, 4)
    known = replace(known, current=0)
    answer = judge(made, known)
    assert isinstance(answer, RunInProgress)
    assert answer.run_id == "another"


def test_without_a_cause_nothing_was_applied() -> None:
    assert judge(change(first()), replace(NEW, applied="other")) is Verdict.WRITE


def test_only_an_active_run_is_in_the_way_of_an_active_one() -> None:
    finished = first(run_state=RunState.COMPLETED)
    assert judge(change(finished), replace(NEW, active="another")) is Verdict.WRITE
    paused = first(run_state=RunState.PAUSED)
    assert isinstance(judge(change(paused), replace(NEW, active="another")), RunInProgress)


# --- serial --------------------------------------------------------------------------------------------------------

MICRO = timedelta(microseconds=1)
RECORD = first(
    object=bytes(range(256)), run_state=RunState.PAUSED, entered_at=at(0) + MICRO, error="é\n\0", suspect=True,
    attempt=3, by="x", region="eu", meta={"a": "😀"},
)  # fmt: skip
EVENT = replace(event("key"), headers={"traceparent": "1"}, id="17", run_state=RunState.CANCELLED)
TIMEOUT = Timeout(
    "1", "w", "timeout", "k", None, at(1), "n", "r", 2, 3, b"\xff", 4, "E", TimeoutState.CANCELLED, "eu"
)  # fmt: skip

CASES: dict[type[Any], tuple[Any, Callable[[Any], str], Callable[[str], Any]]] = {
    Record: (RECORD, serial.record_to_json, serial.record_from_json),
    Transition: (change(RECORD, cause="c").transition, serial.transition_to_json, serial.transition_from_json),
    Event: (EVENT, serial.event_to_json, serial.event_from_json),
    OutboxEvent: (
        OutboxEvent("1", EVENT, at(2), 3, "E"), serial.outbox_event_to_json, serial.outbox_event_from_json
    ),
    Timeout: (TIMEOUT, serial.timeout_to_json, serial.timeout_from_json),
    NewTimeout: (timeout("k", at(3), payload=b"\0"), serial.new_timeout_to_json, serial.new_timeout_from_json),
    ConnectorEvent: (
        ConnectorEvent("id", "key", b"\x80", at(0), {"h": "1"}),
        serial.connector_event_to_json,
        serial.connector_event_from_json,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_the_round_trip_is_exact(kind: type[Any]) -> None:
    value, write, read = CASES[kind]
    text = write(value)
    assert text.isascii()
    assert read(text) == value
    assert type(read(text)) is kind
    assert serial.to_dict(read(text)) == json.loads(text)


def test_enums_and_instants_come_back_as_such() -> None:
    record = serial.record_from_json(serial.record_to_json(RECORD))
    assert record.run_state is RunState.PAUSED
    assert record.entered_at.tzinfo is RECORD.entered_at.tzinfo
    assert serial.timeout_from_json(serial.timeout_to_json(TIMEOUT)).state is TimeoutState.CANCELLED


def test_what_is_unknown_is_ignored_and_what_is_missing_has_its_default() -> None:
    data = {**serial.to_dict(EVENT), "new": 1}
    del data["headers"]
    assert serial.from_dict(Event, data) == replace(EVENT, headers={})


@pytest.mark.parametrize(
    ("field", "value"),
    [("created_at", "yesterday"), ("created_at", 5), ("version", "1"), ("version", True), ("run_state", 99),
     ("headers", [1]), ("key", None)],
)  # fmt: skip
def test_an_error_names_the_field(field: str, value: object) -> None:
    with pytest.raises(CodecError, match=rf"Event\.{field}"):
        serial.from_dict(Event, {**serial.to_dict(EVENT), field: value})


@pytest.mark.parametrize("text", ["", "[]", "{", '{"topic": "t"}'])
def test_what_is_no_event_is_an_error(text: str) -> None:
    with pytest.raises(CodecError, match="Event"):
        serial.event_from_json(text)


def test_bad_base64_is_an_error() -> None:
    with pytest.raises(CodecError, match="object"):
        serial.from_dict(Record, {**serial.to_dict(RECORD), "object": "äöü"})
