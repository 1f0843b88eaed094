"""Whatever fails delays nobody else, is tried again, is held where people see it, and can be brought back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from itertools import count, groupby
from pathlib import Path
from typing import Any, Literal

import pytest

import workflow
from workflow import (
    Adapters,
    Api,
    Builder,
    ConnectorEvent,
    JsonCodec,
    Outcome,
    Retry,
    Run,
    RunInProgress,
    RunState,
    RunView,
    Trigger,
    Workflow,
)
from workflow.adapters.memory import MemoryConnector, MemoryStorage
from workflow.testing import START, Faulty, RecordingMetrics, VirtualClock

RETRY = Retry(initial=1.0, multiplier=2.0, jitter=False, max_attempts=5)
"""Tries at 0, 1, 3, 7 and 15 seconds; the fifth is the last."""
TRIES = [0.0, 1.0, 3.0, 7.0, 15.0]
SECRET = "the personal data of a user"


class Stage(IntEnum):
    NEW = 1
    CHECKED = 2
    DONE = 3
    ELSEWHERE = 4


@dataclass
class Job:
    number: int = 0
    bad: bool = False
    value: Any = ""
    log: list[str] = field(default_factory=list[str])


Engine = Workflow[Job, Stage]


class Panic(BaseException):
    """Neither an `Exception` nor a wish to exit."""


class Store:
    """One store that instances are opened on, one after the other."""

    def __init__(self, kind: str, path: Path, clock: VirtualClock) -> None:
        self._kind = kind
        self._path = path
        self._clock = clock
        self._storage = MemoryStorage()
        self._opened: list[Adapters] = []

    def open(self) -> Adapters:
        if self._kind == "memory":
            made = workflow.memory(clock=self._clock, storage=self._storage)
        else:
            made = workflow.sqlite(self._path, clock=self._clock)
        self._opened.append(made)
        return made

    def close(self) -> None:
        for each in self._opened:
            each.close()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: VirtualClock) -> Iterator[Store]:
    made = Store(request.param, tmp_path / "store.db", clock)
    yield made
    made.close()


@pytest.fixture
def memory(tmp_path: Path, clock: VirtualClock) -> Iterator[Adapters]:
    made = Store("memory", tmp_path, clock)
    yield made.open()
    made.close()


class Lines:
    """A logger that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, level: int, message: str, **fields: object) -> None:
        self.lines.append(f"{level} {message} {fields}")


def jobs(total: int = 100, bad: int = 37) -> list[Trigger[Job, Stage]]:
    return [Trigger(f"job-{n}", Job(number=n, bad=n == bad)) for n in range(total)]


def trigger_all(wf: Engine, requests: Sequence[Trigger[Job, Stage]]) -> list[str]:
    answers = wf.trigger_many(requests)
    run_ids = [answer for answer in answers if isinstance(answer, str)]
    assert len(run_ids) == len(requests)
    return run_ids


def states(wf: Engine, run_ids: Sequence[str]) -> Counter[RunState]:
    return Counter(wf.get(run_id).run_state for run_id in run_ids)


def seconds(instant: datetime) -> float:
    return (instant - START).total_seconds()


def failures(wf: Engine, run_id: str) -> list[float]:
    """When a try failed, in seconds since the start."""
    return [seconds(row.at) for row in wf.history(run_id) if row.error_type]


def assert_no_free_text(wf: Engine, run_ids: Sequence[str], lines: Lines) -> None:
    """What an exception says stands on the record alone."""
    assert SECRET not in "".join(repr(wf.history(run_id)) for run_id in run_ids)
    assert SECRET not in repr(wf.items().items)
    assert SECRET not in "".join(lines.lines)


# --- steps ----------------------------------------------------------------------------------------------------------


def raising(error: Callable[[], BaseException]) -> Callable[[Run[Job, Stage]], Any]:
    def fail(run: Run[Job, Stage]) -> Any:
        raise error()

    return fail


def answering(answer: Any) -> Callable[[Run[Job, Stage]], Any]:
    return lambda run: answer


def without_end(run: Run[Job, Stage]) -> Any:
    return without_end(run)


def unencodable(run: Run[Job, Stage]) -> Any:
    run.object.number = SECRET  # type: ignore[assignment] # pyright: ignore[reportAttributeAccessIssue] - that is the point
    return Stage.CHECKED


WAYS_TO_FAIL: dict[str, tuple[Callable[[Run[Job, Stage]], Any], str]] = {
    "raises": (raising(lambda: ValueError(SECRET)), "ValueError"),
    "panics": (raising(lambda: Panic(SECRET)), "Panic"),
    "interrupts": (raising(KeyboardInterrupt), "KeyboardInterrupt"),
    "recurses": (without_end, "RecursionError"),
    "raises one of ours": (raising(lambda: RunInProgress("jobs", SECRET, "x")), "RunInProgress"),
    "answers with an undeclared status": (answering(Stage.ELSEWHERE), "UndeclaredAnswer"),
    "answers with a number": (answering(2), "UndeclaredAnswer"),
    "answers with nothing": (answering(None), "UndeclaredAnswer"),
    "leaves an object that cannot be written": (unencodable, "CodecError"),
}


class Program:
    """The code that is deployed: its first step is bad for bad jobs, until it is repaired."""

    def __init__(self, bad: Callable[[Run[Job, Stage]], Any]) -> None:
        self._bad = bad
        self.repaired = False
        self.calls: Counter[int] = Counter()

    def builder(self, retry: Retry = RETRY) -> Builder[Job, Stage]:
        builder = Builder("jobs", Job, Stage)

        def check(run: Run[Job, Stage]) -> Stage | Outcome:
            self.calls[run.object.number] += 1
            if run.object.bad and not self.repaired:
                return self._bad(run)  # type: ignore[no-any-return] # it answers with whatever it likes
            return Stage.CHECKED

        builder.add_step(Stage.NEW, check, Stage.CHECKED, retry=retry)

        @builder.step(Stage.CHECKED)
        def finish(run: Run[Job, Stage]) -> Literal[Stage.DONE, Stage.ELSEWHERE]:
            return Stage.DONE

        @builder.step(Stage.ELSEWHERE)
        def back(run: Run[Job, Stage]) -> Literal[Stage.DONE]:
            return Stage.DONE

        return builder


@pytest.mark.parametrize("way", WAYS_TO_FAIL)
def test_a_step_that_fails_for_one_run_of_a_hundred(way: str, memory: Adapters, clock: VirtualClock) -> None:
    bad, error_type = WAYS_TO_FAIL[way]
    program, lines = Program(bad), Lines()
    wf = program.builder().build(memory, clock=clock, logger=lines)
    with wf:
        run_ids = trigger_all(wf, jobs())
        clock.settle()
        assert states(wf, run_ids) == {RunState.COMPLETED: 99, RunState.RUNNING: 1}, "the others complete at once"
        bad_id = run_ids[37]
        assert wf.get(bad_id).attempt == 1
        assert wf.get(bad_id).available_at == START + timedelta(seconds=1)
        clock.advance(60)
        view = wf.get(bad_id)
        assert (view.run_state, view.status, view.attempt) == (RunState.PAUSED, Stage.NEW, 5)
        assert failures(wf, bad_id) == TRIES
        last = wf.history(bad_id)[-1]
        assert (last.error_type, last.attempt) == (error_type, 5)
        assert last.reason == f"check failed 5 times, at last with {error_type}"
        assert error_type in view.error
        assert_no_free_text(wf, run_ids, lines)
        clock.advance(3600)
        assert wf.get(bad_id).version == view.version, "it waits for a person"
        program.repaired = True
        wf.resume(bad_id, by="alice")
        clock.settle()
        assert wf.get(bad_id).run_state is RunState.COMPLETED
        assert (wf.get(bad_id).attempt, wf.get(bad_id).error) == (0, "")
    assert program.calls == {n: 1 if n != 37 else 6 for n in range(100)}


def test_the_backoff_survives_restarts(store: Store, clock: VirtualClock) -> None:
    program = Program(WAYS_TO_FAIL["raises"][0])
    adapters = store.open()
    with program.builder().build(adapters, clock=clock) as wf:
        run_ids = trigger_all(wf, jobs())
        clock.settle()
        clock.advance(2)
    adapters.close()
    bad_id, told = run_ids[37], list[float]()
    for until in (2.5, 5, 9, 60):
        adapters = store.open()
        with program.builder().build(adapters, clock=clock) as wf:
            clock.advance_to(START + timedelta(seconds=until))
            clock.settle()
        told = failures(wf, bad_id)
        if until < 60:
            adapters.close()
    assert told == TRIES
    assert wf.get(bad_id).run_state is RunState.PAUSED
    assert states(wf, run_ids) == {RunState.COMPLETED: 99, RunState.PAUSED: 1}
    program.repaired = True
    with program.builder().build(adapters, clock=clock) as wf:
        wf.resume(bad_id)
        clock.settle()
        assert wf.get(bad_id).run_state is RunState.COMPLETED


def test_a_retry_can_be_had_now(memory: Adapters, clock: VirtualClock) -> None:
    program = Program(WAYS_TO_FAIL["raises"][0])
    wf = program.builder(Retry(initial=3600, maximum=3600, jitter=False)).build(memory, clock=clock)
    with wf:
        run_id = trigger_all(wf, jobs(1, 0))[0]
        clock.settle()
        program.repaired = True
        wf.retry(run_id, by="alice")
        clock.settle()
        assert wf.get(run_id).run_state is RunState.COMPLETED
    assert clock.now() == START


def test_an_object_that_cannot_be_read_is_retried_and_paused(memory: Adapters, clock: VirtualClock) -> None:
    @dataclass
    class OldJob:
        number: Any = 0

    class Anything(JsonCodec):
        """A codec that lets a wrong number through."""

        def check(self, kind: Any) -> Sequence[str]:
            return ()

        def encode(self, kind: Any, value: Any, carry: object = None) -> bytes:
            return json.dumps({"number": value.number}).encode()

    program, lines = Program(raising(AssertionError)), Lines()
    old = Builder("jobs", OldJob, Stage)
    old.add_step(Stage.NEW, lambda run: Stage.DONE, Stage.DONE)
    before = old.build(memory, clock=clock, codec=Anything())
    numbers: list[Any] = [*range(99), SECRET]
    run_ids = [before.trigger(f"job-{n}", initial_value=OldJob(number)) for n, number in enumerate(numbers)]
    wf = program.builder().build(memory, clock=clock, logger=lines)
    with wf:
        clock.settle()
        assert states(wf, run_ids) == {RunState.COMPLETED: 99, RunState.RUNNING: 1}
        clock.advance(60)
    bad_id = run_ids[99]
    assert wf.get(bad_id).run_state is RunState.PAUSED
    assert failures(wf, bad_id) == TRIES
    last = wf.history(bad_id)[-1]
    assert (last.error_type, last.error_place) == ("CodecError", "job.number")
    assert_no_free_text(wf, run_ids, lines)
    with before:
        before.resume(bad_id)
        clock.settle()
    assert before.get(bad_id).run_state is RunState.COMPLETED


def test_a_step_that_ends_its_process_is_suspected_runs_alone_and_is_paused(
    memory: Adapters, clock: VirtualClock
) -> None:
    program = Program(raising(lambda: SystemExit(1)))
    wf = program.builder().build(memory, clock=clock)
    with wf:
        run_ids = trigger_all(wf, jobs())
        clock.settle()
        clock.advance(60)
        assert states(wf, run_ids) == {RunState.COMPLETED: 99, RunState.PAUSED: 1}
        bad_id = run_ids[37]
        told = wf.history(bad_id)[-1]
        assert told.reason.startswith("check may have ended its process")
        assert told.run_state is RunState.PAUSED
        assert program.calls[37] == 6, "the first of them was no suspect yet"
        assert sum(program.calls.values()) - 6 <= 2 * 99, "those in the same batch may be called twice"
        program.repaired = True
        wf.resume(bad_id)
        clock.settle()
        assert wf.get(bad_id).run_state is RunState.COMPLETED


def test_what_is_skipped_is_counted_with_its_reason(
    memory: Adapters, clock: VirtualClock, metrics: RecordingMetrics
) -> None:
    builder = Builder("jobs", Job, Stage)

    @builder.step(Stage.NEW)
    def check(run: Run[Job, Stage]) -> Literal[Stage.DONE] | Outcome:
        return run.skip()

    wf = builder.build(memory, clock=clock, metrics=metrics)
    first = wf.trigger("job-1")
    second = wf.trigger("job-2")
    wf.pause(second)
    wf.resume(second)  # so that version 1 and 3 have an event each
    third = wf.trigger("job-3")
    wf.pause(third)
    with wf:
        clock.settle()
    assert metrics.by("reason", "workflow_skipped_total") == {"by-the-step": 2, "older-event": 2}
    assert [wf.get(each).version for each in (first, second, third)] == [1, 3, 2]


# --- hooks, deletes -------------------------------------------------------------------------------------------------


class Flaky:
    """A function that fails for one run, until it is repaired."""

    def __init__(self, bad: str, error: Callable[[], BaseException] = lambda: ValueError(SECRET)) -> None:
        self.bad = bad
        self.error = error
        self.repaired = False
        self.done: Counter[str] = Counter()
        self.tried: list[float] = []

    def __call__(self, foreign_id: str, clock: VirtualClock) -> None:
        if foreign_id == self.bad and not self.repaired:
            self.tried.append(clock.monotonic())
            raise self.error()
        self.done[foreign_id] += 1


@pytest.fixture(params=["raises", "panics"])
def flaky(request: pytest.FixtureRequest) -> Flaky:
    errors: dict[str, Callable[[], BaseException]] = {
        "raises": lambda: ValueError(SECRET),
        "panics": lambda: Panic(SECRET),
    }
    return Flaky("job-37", errors[request.param])


def finishing() -> Builder[Job, Stage]:
    builder = Builder("jobs", Job, Stage)
    builder.defaults(retry=RETRY)

    @builder.step(Stage.NEW)
    def check(run: Run[Job, Stage]) -> Literal[Stage.DONE]:
        return Stage.DONE

    return builder


def held_item(wf: Engine, kind: str, name: str) -> str:
    """The id of the one item that is held."""
    (item,) = wf.items().items
    assert (item.kind, item.name, item.due_at) == (kind, name, None)
    assert item.attempt == (4 if kind == "parked" else 5), "a parked one had failed before"
    assert item.error_type in ("ValueError", "Panic")
    return item.id


def test_a_failing_hook_is_parked_held_and_retried(flaky: Flaky, memory: Adapters, clock: VirtualClock) -> None:
    builder, lines, others = finishing(), Lines(), Counter[str]()

    @builder.on_complete()
    def tell(run: RunView[Job, Stage]) -> None:
        flaky(run.foreign_id, clock)

    @builder.on_complete()
    def also(run: RunView[Job, Stage]) -> None:
        others[run.foreign_id] += 1

    wf = builder.build(memory, clock=clock, logger=lines)
    with wf:
        run_ids = trigger_all(wf, jobs())
        clock.settle()
        assert sum(flaky.done.values()) == 99
        assert sum(others.values()) == 100
        clock.advance(60)
        assert flaky.tried == TRIES
        item = held_item(wf, "parked", "hook.tell")
        assert_no_free_text(wf, run_ids, lines)
        flaky.repaired = True
        wf.retry(item)
        clock.settle()
        assert wf.items().items == ()
    assert flaky.done == {f"job-{n}": 1 for n in range(100)}


def test_a_failing_delete_is_parked_held_and_retried(flaky: Flaky, memory: Adapters, clock: VirtualClock) -> None:
    lines = Lines()

    def keep(run: RunView[Job, Stage]) -> Job | None:
        flaky(run.foreign_id, clock)
        return Job(number=-1) if run.object.number % 2 else None

    wf = finishing().build(memory, clock=clock, logger=lines, custom_delete=keep)
    with wf:
        run_ids = trigger_all(wf, jobs())
        clock.settle()
        for run_id in run_ids:
            wf.delete_data(run_id, by="alice")
        clock.settle()
        assert states(wf, run_ids) == {RunState.DATA_DELETED: 99, RunState.DATA_DELETION_REQUESTED: 1}
        clock.advance(60)
        assert flaky.tried == TRIES
        item = held_item(wf, "parked", "delete")
        assert_no_free_text(wf, run_ids, lines)
        flaky.repaired = True
        wf.retry(item)
        clock.settle()
        assert states(wf, run_ids) == {RunState.DATA_DELETED: 100}
        assert wf.items().items == ()
        assert wf.get(run_ids[1]).object == Job(number=-1)
        assert wf.get(run_ids[2]).object is None


# --- timers ---------------------------------------------------------------------------------------------------------


def test_a_failing_timer_is_put_off_held_and_retried(flaky: Flaky, memory: Adapters, clock: VirtualClock) -> None:
    builder, lines = Builder("jobs", Job, Stage), Lines()
    builder.defaults(retry=RETRY)

    @builder.timeout(Stage.NEW, after=timedelta(seconds=100))
    def end(run: Run[Job, Stage], now: datetime) -> Literal[Stage.DONE]:
        flaky(run.foreign_id, clock)
        return Stage.DONE

    wf = builder.build(memory, clock=clock, logger=lines)
    with wf:
        run_ids = trigger_all(wf, jobs())
        clock.settle()
        clock.advance(100)
        assert states(wf, run_ids) == {RunState.COMPLETED: 99, RunState.RUNNING: 1}
        clock.advance(60)
        assert flaky.tried == [100 + tried for tried in TRIES]
        item = held_item(wf, "timeout", "end")
        assert_no_free_text(wf, run_ids, lines)
        flaky.repaired = True
        wf.retry(item)
        clock.settle()
        assert states(wf, run_ids) == {RunState.COMPLETED: 100}


def test_a_timer_whose_time_cannot_be_told_is_parked(flaky: Flaky, memory: Adapters, clock: VirtualClock) -> None:
    builder, lines = Builder("jobs", Job, Stage), Lines()
    builder.defaults(retry=RETRY)

    def after(run: Run[Job, Stage], now: datetime) -> datetime:
        flaky(run.foreign_id, clock)
        return run.entered_at + timedelta(seconds=100)

    @builder.timeout(Stage.NEW, after=after)
    def end(run: Run[Job, Stage], now: datetime) -> Literal[Stage.DONE]:
        return Stage.DONE

    wf = builder.build(memory, clock=clock, logger=lines)
    with wf:
        run_ids = trigger_all(wf, jobs())
        clock.settle()
        assert len(wf.items(limit=500).items) == 100
        clock.advance(100)
        assert states(wf, run_ids) == {RunState.COMPLETED: 99, RunState.RUNNING: 1}
        assert flaky.tried == TRIES
        item = held_item(wf, "parked", "timeout-inserter.1")
        assert_no_free_text(wf, run_ids, lines)
        flaky.repaired = True
        wf.retry(item)
        clock.settle()
        assert states(wf, run_ids) == {RunState.COMPLETED: 100}


# --- connectors -----------------------------------------------------------------------------------------------------


def feeding(source: MemoryConnector, flaky: Flaky, clock: VirtualClock, **options: Any) -> Builder[Job, Stage]:
    """Each event starts a run and calls it back twice."""
    builder = Builder("jobs", Job, Stage)
    builder.defaults(retry=RETRY)

    @builder.callback(Stage.NEW)
    def note(run: Run[Job, Stage], payload: bytes) -> Literal[Stage.DONE] | Outcome:
        run.object.log.append(payload.decode())
        return run.repeat()

    @builder.connector("feed", source, **options)
    def feed(api: Api[Job, Stage], event: ConnectorEvent) -> None:
        api.trigger(event.key)
        api.callback(event.key, Stage.NEW, b"one")
        flaky(event.key, clock)
        api.callback(event.key, Stage.NEW, b"two")

    return builder


def events(total: int = 100) -> list[ConnectorEvent]:
    return [ConnectorEvent(f"event-{n}", f"job-{n}", b"\x00\xff", START, {"source": "test"}) for n in range(total)]


def test_a_failing_connector_event_is_parked_held_and_retried(
    flaky: Flaky, memory: Adapters, clock: VirtualClock
) -> None:
    source, lines = MemoryConnector(workflow.clock.runtime_with(clock)), Lines()
    wf = feeding(source, flaky, clock).build(memory, clock=clock, logger=lines)
    with wf:
        source.put(events())
        clock.settle()
        assert sum(flaky.done.values()) == 99
        clock.advance(60)
        assert flaky.tried == TRIES
        item = held_item(wf, "parked", "connector.feed")
        bad = wf.latest("job-37")
        assert bad is not None
        assert bad.object.log == ["one"], "what it did before it failed took effect once"
        assert_no_free_text(wf, [bad.run_id], lines)
        flaky.repaired = True
        wf.retry(item)
        clock.settle()
        assert wf.items().items == ()
        views = [wf.latest(f"job-{n}") for n in range(100)]
        assert all(view is not None and view.object.log == ["one", "two"] for view in views)
    source.close()


def test_an_ordered_connector_tries_again_in_place(flaky: Flaky, memory: Adapters, clock: VirtualClock) -> None:
    source = MemoryConnector(workflow.clock.runtime_with(clock))
    wf = feeding(source, flaky, clock, ordered=True, batch=1).build(memory, clock=clock)
    with wf:
        source.put(events())
        clock.settle()
        assert set(flaky.done) == {f"job-{n}" for n in range(37)}, "what is behind it waits"
        clock.advance(20)
        assert flaky.tried == TRIES
        assert wf.items().items == (), "nothing is parked"
        clock.advance(3600)
        assert set(flaky.done) == {f"job-{n}" for n in range(37)}
        flaky.repaired = True
        clock.advance(RETRY.maximum)
        assert list(flaky.done) == [f"job-{n}" for n in range(100)]
    source.close()


def test_an_event_that_comes_again_has_no_effect_again(memory: Adapters, clock: VirtualClock) -> None:
    source = MemoryConnector(workflow.clock.runtime_with(clock))
    flaky = Flaky("nobody")
    wf = feeding(source, flaky, clock).build(memory, clock=clock)
    with wf:
        for _ in range(3):
            source.put(events(5))
        clock.settle()
        assert flaky.done == {f"job-{n}": 3 for n in range(5)}
        assert len(wf.list(limit=100).items) == 5
        assert all(view.object.log == ["one", "two"] for view in wf.list(limit=100).items)
    source.close()


def test_an_event_is_acknowledged_after_its_effect(memory: Adapters, clock: VirtualClock) -> None:
    faults = Faulty(memory, clock)
    source = MemoryConnector(workflow.clock.runtime_with(clock))
    faults.fail("feed.ack", times=3)
    faults.fail("feed.recv", times=3, error=lambda: OSError("the line is dead"))
    flaky = Flaky("nobody")
    wf = feeding(faults.around("feed", source), flaky, clock).build(memory, clock=clock)
    with wf:
        source.put(events(5))
        clock.settle()
        clock.advance(60)
        assert all(view.object.log == ["one", "two"] for view in wf.list(limit=100).items)
        assert len(wf.list(limit=100).items) == 5
    source.close()


# --- the outbox -----------------------------------------------------------------------------------------------------


def test_an_event_that_cannot_be_sent_holds_up_no_other_and_is_never_given_up(
    memory: Adapters, clock: VirtualClock
) -> None:
    faults = Faulty(memory, clock)
    wf = finishing().build(faults.adapters, clock=clock)
    with wf:
        run_ids = [wf.trigger(f"job-{n}", delay=10) for n in range(100)]
        bad_id = run_ids[37]
        faults.fail("sender.send", times=None, when=lambda given: any(event.key == bad_id for event in given[0]))
        clock.settle()
        clock.advance(10)
        assert states(wf, run_ids) == {RunState.COMPLETED: 99, RunState.RUNNING: 1}
        clock.advance(timedelta(hours=3))
        (row,) = memory.record_store.outbox_of(bad_id)
        assert row.attempt > 100
        assert row.error_type == "Unavailable"
        assert row.available_at <= clock.now() + timedelta(seconds=60), "its backoff is capped"
        faults.heal()
        clock.advance(60)
        assert states(wf, run_ids) == {RunState.COMPLETED: 100}


# --- adapters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after_effect", [False, True])
@pytest.mark.parametrize(
    "call", ["record_store.store", "record_store.lookup", "receiver.recv", "receiver.ack", "record_store.*"]
)
def test_calls_that_fail_now_and_then_lose_and_double_nothing(
    call: str, after_effect: bool, memory: Adapters, clock: VirtualClock
) -> None:
    numbers = count()
    faults, program = Faulty(memory, clock), Program(raising(AssertionError))
    wf = program.builder().build(faults.adapters, clock=clock)
    with wf:
        clock.settle()
        faults.fail(call, times=40, after_effect=after_effect, when=lambda given: next(numbers) % 3 == 0)
        run_ids = trigger_all(wf, jobs(bad=-1))
        clock.advance(timedelta(minutes=20))
        faults.heal()
        assert states(wf, run_ids) == {RunState.COMPLETED: 100}
    for run_id in run_ids:
        statuses = [status for status, _ in groupby(row.status for row in wf.history(run_id))]
        assert statuses == [Stage.NEW, Stage.CHECKED, Stage.DONE]
    if call == "record_store.store":
        assert all(wf.get(run_id).version == 3 for run_id in run_ids), "the same call is made again, and known"
        assert set(program.calls.values()) == {1}, "and no function is called again"


@pytest.mark.parametrize("part", ["record_store.*", "event_streamer.*", "timeout_store.*", "receiver.*", "*"])
def test_an_outage_of_an_adapter_is_survived(part: str, memory: Adapters, clock: VirtualClock) -> None:
    faults, program = Faulty(memory, clock), Program(raising(AssertionError))
    wf = program.builder().build(faults.adapters, clock=clock)
    run_ids = trigger_all(wf, jobs(bad=-1))
    with wf:
        clock.settle()
        faults.fail(part, times=None)
        clock.advance(60)
        faults.heal()
        more = [wf.trigger(f"late-{n}") for n in range(20)]
        clock.advance(30)
        assert states(wf, [*run_ids, *more]) == {RunState.COMPLETED: 120}
