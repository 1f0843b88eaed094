"""Timers fire at their own time, in their own entry into a status, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import workflow
from workflow import Adapters, Builder, Outcome, Run, RunState, Workflow
from workflow.testing import START, Faulty, RecordingMetrics, VirtualClock, wait_for_state

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


class Stage(IntEnum):
    TRIAL = 1
    REMINDED = 2
    ENDED = 3


@dataclass
class User:
    log: list[str] = field(default_factory=list[str])


Engine = Workflow[User, Stage]


def since_start(instant: datetime) -> timedelta:
    return instant - START


def changes(wf: Engine, run_id: str) -> list[tuple[timedelta, Stage]]:
    """When, after the start, the run came into which status."""
    return [(since_start(row.at), Stage(row.status)) for row in wf.history(run_id)]


def trial(after: timedelta | Callable[..., datetime | None] = HOUR) -> Builder[User, Stage]:
    """One timer of TRIAL; a callback that enters TRIAL anew; nothing else moves a run."""
    builder = Builder("onboarding", User, Stage, start=Stage.TRIAL)

    @builder.timeout(Stage.TRIAL, after=after)
    def remind(run: Run[User, Stage], now: datetime) -> Literal[Stage.REMINDED]:
        run.object.log.append(f"remind {since_start(now)}")
        return Stage.REMINDED

    @builder.callback(Stage.TRIAL)
    def again(run: Run[User, Stage], payload: bytes) -> Literal[Stage.TRIAL, Stage.ENDED]:
        return Stage.ENDED if payload else Stage.TRIAL

    @builder.callback(Stage.REMINDED)
    def back(run: Run[User, Stage], payload: bytes) -> Literal[Stage.TRIAL, Stage.ENDED]:
        return Stage.ENDED if payload else Stage.TRIAL

    return builder


def test_two_timers_of_one_status_fire_each_at_its_own_time(adapters: Adapters, clock: VirtualClock) -> None:
    builder = Builder("onboarding", User, Stage)

    @builder.timeout(Stage.TRIAL, after=HOUR)
    def nudge(run: Run[User, Stage], now: datetime) -> Literal[Stage.ENDED] | Outcome:
        run.object.log.append(f"nudge {since_start(now)}")
        return run.repeat()

    @builder.timeout(Stage.TRIAL, after=48 * HOUR)
    def end(run: Run[User, Stage], now: datetime) -> Literal[Stage.ENDED]:
        run.object.log.append(f"end {since_start(now)}")
        return Stage.ENDED

    wf = builder.build(adapters, clock=clock)
    with wf:
        run_id = wf.trigger("user-1")
        clock.settle()
        assert {(item.name, item.due_at) for item in wf.items(run_id).items} == {
            ("nudge", START + HOUR),
            ("end", START + 48 * HOUR),
        }
        clock.advance(HOUR - timedelta(microseconds=1))
        assert wf.get(run_id).object.log == []
        clock.advance(timedelta(microseconds=1))
        assert wf.get(run_id).object.log == ["nudge 1:00:00"]
        clock.advance(47 * HOUR - timedelta(microseconds=1))
        assert wf.get(run_id).object.log == ["nudge 1:00:00"]
        clock.advance(timedelta(microseconds=1))
    assert wf.get(run_id).object.log == ["nudge 1:00:00", "end 2 days, 0:00:00"]
    assert wf.get(run_id).run_state is RunState.COMPLETED
    assert wf.items(run_id).items == ()


def test_a_timer_of_an_earlier_entry_never_fires_in_the_later_one(
    adapters: Adapters, clock: VirtualClock, metrics: RecordingMetrics
) -> None:
    wf = trial().build(adapters, clock=clock, metrics=metrics)
    with wf:
        run_id = wf.trigger("user-1")
        clock.settle()
        clock.advance(30 * MINUTE)
        assert wf.callback("user-1", Stage.TRIAL)  # to itself, as declared: a new entry
        clock.settle()
        assert len(wf.items(run_id).items) == 2
        clock.advance(30 * MINUTE)
        assert wf.get(run_id).status is Stage.TRIAL
        assert metrics.total("workflow_skipped_total", process="timeout-consumer", reason="entry-over") == 1
        assert len(wf.items(run_id).items) == 1
        clock.advance(30 * MINUTE)
        assert wf.callback("user-1", Stage.REMINDED)  # there and back: another entry again
        clock.advance(HOUR)
    assert changes(wf, run_id) == [
        (0 * MINUTE, Stage.TRIAL),
        (30 * MINUTE, Stage.TRIAL),
        (90 * MINUTE, Stage.REMINDED),
        (90 * MINUTE, Stage.TRIAL),
        (150 * MINUTE, Stage.REMINDED),
    ]


def test_a_timer_of_an_earlier_run_never_fires_in_the_later_one(adapters: Adapters, clock: VirtualClock) -> None:
    wf = trial().build(adapters, clock=clock)
    with wf:
        first = wf.trigger("user-1")
        clock.settle()
        clock.advance(10 * MINUTE)
        wf.cancel(first)
        clock.advance(10 * MINUTE)
        second = wf.trigger("user-1")
        clock.settle()
        clock.advance(50 * MINUTE)
        assert wf.get(second).status is Stage.TRIAL
        clock.advance(10 * MINUTE)
    assert wf.get(first).object.log == []
    assert wf.get(second).object.log == ["remind 1:20:00"]


def test_a_repeat_does_not_restart_a_timer(adapters: Adapters, clock: VirtualClock) -> None:
    builder = trial()

    @builder.step(Stage.TRIAL)
    def look(run: Run[User, Stage]) -> Literal[Stage.ENDED] | Outcome:
        run.object.log.append(f"turn {run.turn}")
        return run.repeat(delay=25 * MINUTE)

    wf = builder.build(adapters, clock=clock)
    with wf:
        run_id = wf.trigger("user-1")
        clock.settle()
        clock.advance(3 * HOUR)
    assert wf.get(run_id).object.log == ["turn 0", "turn 1", "turn 2", "remind 1:00:00"]
    entries = [row for row in wf.history(run_id) if row.cause]
    assert [since_start(row.at) for row in entries] == [HOUR]


def test_a_paused_run_puts_its_timers_off_and_the_resume_makes_them_due(
    adapters: Adapters, clock: VirtualClock
) -> None:
    faults = Faulty(adapters, clock)
    wf = trial().build(faults.adapters, clock=clock)
    with wf:
        run_id = wf.trigger("user-1")
        clock.settle()
        clock.advance(30 * MINUTE)
        wf.pause(run_id, by="alice")
        clock.advance(5 * HOUR)
        assert faults.calls("timeout_store.reschedule") < 15, "it is looked at less and less often"
        (item,) = wf.items(run_id).items
        assert item.due_at is not None
        assert clock.now() < item.due_at <= clock.now() + HOUR
        assert item.attempt == 0, "waiting for a resume is no failure"
        wf.resume(run_id, by="alice")
        clock.settle()
    assert changes(wf, run_id)[-1] == (5 * HOUR + 30 * MINUTE, Stage.REMINDED)


def test_a_resume_while_its_timer_is_being_put_off_makes_it_due(memory: Adapters, clock: VirtualClock) -> None:
    faults = Faulty(memory, clock)
    wf = trial().build(faults.adapters, clock=clock)
    with wf:
        run_id = wf.trigger("user-1")
        clock.settle()
        wf.pause(run_id)
        clock.advance(HOUR - MINUTE)
        with faults.hold("timeout_store.reschedule"):
            clock.advance(MINUTE)
            wf.resume(run_id)
        clock.settle()
    assert changes(wf, run_id)[-1] == (HOUR, Stage.REMINDED)


def test_a_run_resumed_before_its_timer_is_due_keeps_the_time(memory: Adapters, clock: VirtualClock) -> None:
    wf = trial().build(memory, clock=clock)
    with wf:
        run_id = wf.trigger("user-1")
        clock.settle()
        clock.advance(10 * MINUTE)
        wf.pause(run_id)
        clock.advance(10 * MINUTE)
        wf.resume(run_id)
        clock.advance(5 * HOUR)
    assert changes(wf, run_id)[-1] == (HOUR, Stage.REMINDED)


def test_a_paused_run_does_not_hold_up_the_timers_of_others(memory: Adapters, clock: VirtualClock) -> None:
    wf = trial().build(memory, clock=clock)
    with wf:
        run_ids = [wf.trigger(f"user-{n}") for n in range(300)]
        clock.settle()
        for run_id in run_ids[:250]:
            wf.pause(run_id)
        clock.advance(2 * HOUR)
    assert [wf.get(run_id).status for run_id in run_ids].count(Stage.REMINDED) == 50


def test_a_timer_is_created_once_however_often_its_event_comes(memory: Adapters, clock: VirtualClock) -> None:
    faults = Faulty(memory, clock)
    calls: list[datetime] = []

    def after(run: Run[User, Stage], now: datetime) -> datetime:
        calls.append(now)
        return now + HOUR  # another instant at each call

    wf = trial(after).build(faults.adapters, clock=clock)
    run_id = wf.trigger("user-1")
    faults.fail("receiver.ack", times=None)
    for _ in range(3):
        with wf:
            clock.settle()
            clock.advance(MINUTE)
    faults.heal()
    with wf:
        clock.settle()
        assert len(calls) >= 2
        (item,) = wf.items(run_id).items
        assert item.due_at == START + HOUR, "the first one counts"
        clock.advance(HOUR)
    assert changes(wf, run_id)[-1] == (HOUR, Stage.REMINDED)


def test_a_timer_of_a_status_that_the_run_has_left_does_nothing(memory: Adapters, clock: VirtualClock) -> None:
    wf = trial().build(memory, clock=clock)
    with wf:
        run_id = wf.trigger("user-1")
        clock.settle()
        wf.callback("user-1", Stage.TRIAL, b"end")
        clock.advance(2 * HOUR)
        assert wf.get(run_id).object.log == []
        assert wf.items(run_id).items == ()


def test_after_may_be_a_function_of_the_run(memory: Adapters, clock: VirtualClock) -> None:
    def after(run: Run[User, Stage], now: datetime) -> datetime | None:
        wanted = {"soon": now + MINUTE, "past": now - HOUR, "never": None}
        return wanted[run.foreign_id]

    wf = trial(after).build(memory, clock=clock)
    with wf:
        run_ids = {name: wf.trigger(name) for name in ("soon", "past", "never")}
        clock.settle()
        clock.advance(24 * HOUR)
    told = {name: changes(wf, run_id)[1:] for name, run_id in run_ids.items()}
    assert told == {
        "soon": [(MINUTE, Stage.REMINDED)],
        "past": [(0 * MINUTE, Stage.REMINDED)],
        "never": [],
    }


def test_a_timer_of_a_restarted_process_fires(tmp_path: Path, clock: VirtualClock) -> None:
    path = tmp_path / "store.db"
    adapters = workflow.sqlite(path, clock=clock)
    with trial().build(adapters, clock=clock) as wf:
        run_id = wf.trigger("user-1")
        clock.settle()
    adapters.close()
    clock.advance(3 * HOUR)  # while nobody is there
    adapters = workflow.sqlite(path, clock=clock)
    with trial().build(adapters, clock=clock) as wf:
        wait_for_state(wf, run_id, RunState.RUNNING)
        clock.settle()
        assert changes(wf, run_id)[-1] == (3 * HOUR, Stage.REMINDED)
    adapters.close()


def test_timers_are_sharded_and_all_of_them_fire(memory: Adapters, clock: VirtualClock) -> None:
    builder: Builder[User, Stage] = Builder("onboarding", User, Stage)
    builder.defaults(parallel_count=4)

    @builder.timeout(Stage.TRIAL, after=HOUR)
    def end(run: Run[User, Stage], now: datetime) -> Literal[Stage.ENDED]:
        return Stage.ENDED

    wf: Workflow[Any, Any] = builder.build(memory, clock=clock)
    with wf:
        run_ids = [wf.trigger(f"user-{n}") for n in range(200)]
        clock.settle()
        clock.advance(HOUR)
    assert all(len(wf.history(run_id)) == 2 for run_id in run_ids)
    assert all(wf.get(run_id).run_state is RunState.COMPLETED for run_id in run_ids)
