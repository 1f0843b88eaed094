"""What tests of workflows are made with: time that a test sets forward, faults on demand, readable failures."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from enum import IntEnum
from typing import Any, Literal

import pytest

import workflow
from workflow import (
    Builder,
    Cancelled,
    CancelToken,
    ConnectorEvent,
    InvalidInput,
    Outcome,
    Retry,
    Run,
    RunState,
    Shard,
    Unavailable,
    Workflow,
)
from workflow.adapters.memory import MemoryConnector, MemoryStorage
from workflow.protocols import Metrics, direct_publish, notify
from workflow.testing import (
    START,
    Faulty,
    VirtualClock,
    eventually,
    recording_metrics,
    run_for,
    wait_for_state,
    wait_for_status,
)


class Status(IntEnum):
    NEW = 1
    PAID = 2
    DONE = 3


@dataclass
class Order:
    amount: int = 0
    log: list[str] = field(default_factory=list[str])


@contextmanager
def started(*functions: Any) -> Generator[list[threading.Thread]]:
    """Each function on a thread of its own, joined at the end."""
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    yield threads
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


# --- run_for --------------------------------------------------------------------------------------------------------


def pay(run: Run[Order, Status]) -> Literal[Status.PAID] | Outcome:
    if run.cancelled.cancelled:
        return run.repeat()
    if run.object.amount > 10 or run.attempt > 2:
        return run.pause("too much")
    run.object.log.append(run.idempotency_key)
    return Status.PAID


def test_a_function_can_be_called_alone() -> None:
    run = run_for(Order(amount=5), Status.NEW)
    assert pay(run) is Status.PAID
    assert run.object.log == ["run-1/1/0/step"]
    assert run.entered_at == run.created_at == START
    assert pay(run_for(Order(amount=11), Status.NEW)) == Outcome("pause", reason="too much")
    assert pay(run_for(Order(), Status.NEW, attempt=3, run_id="r")) == Outcome("pause", reason="too much")


def test_a_function_sees_that_it_should_end() -> None:
    run = run_for(Order(), Status.NEW)
    run.cancelled.cancel("stop")
    assert pay(run) == run.repeat()


def test_a_field_that_a_run_does_not_have_is_an_error() -> None:
    with pytest.raises(TypeError, match="attemt"):
        run_for(Order(), Status.NEW, attemt=3)


# --- the clock ------------------------------------------------------------------------------------------------------


def test_time_stands_still_until_it_is_set_forward() -> None:
    clock = VirtualClock(datetime(2024, 2, 28, 23, tzinfo=timezone.utc))
    assert (clock.now(), clock.monotonic()) == (datetime(2024, 2, 28, 23, tzinfo=timezone.utc), 0.0)
    clock.advance(timedelta(hours=2))
    assert (clock.now(), clock.monotonic()) == (datetime(2024, 2, 29, 1, tzinfo=timezone.utc), 7200.0)
    clock.advance(0.000001)
    assert clock.now().microsecond == 1
    clock.advance_to(datetime(2024, 3, 1, tzinfo=timezone.utc))
    assert clock.now() == datetime(2024, 3, 1, tzinfo=timezone.utc)
    with pytest.raises(InvalidInput, match="back"):
        clock.advance_to(START)
    with pytest.raises(InvalidInput, match="time zone"):
        VirtualClock(datetime(2024, 1, 1))  # noqa: DTZ001 - that is the point


def test_a_signal_is_an_auto_reset_flag() -> None:
    clock = VirtualClock()
    signal = clock.signal()
    assert signal.wait(timeout=0) is False
    signal.notify()
    signal.notify()
    assert signal.wait(timeout=0) is True
    assert signal.wait(timeout=0) is False
    token = CancelToken()
    token.cancel("enough")
    with pytest.raises(Cancelled, match="enough"):
        signal.wait(token)


def test_waits_end_in_the_order_of_their_deadlines_each_at_its_own_time() -> None:
    clock = VirtualClock()
    log: list[tuple[float, str]] = []

    def sleeper(name: str, *pauses: float) -> Any:
        def sleep() -> None:
            for pause in pauses:
                assert clock.signal().wait(timeout=pause) is False
                log.append((clock.monotonic(), name))

        return sleep

    with started(sleeper("slow", 10, 10), sleeper("fast", 3, 3, 3, 3), sleeper("late", 100)):
        clock.advance(5)
        assert log == [(3, "fast")]
        clock.advance(15)
        assert log == [(3, "fast"), (6, "fast"), (9, "fast"), (10, "slow"), (12, "fast"), (20, "slow")]
        clock.advance(100)
    assert log[-1] == (100, "late")


def test_what_a_woken_thread_sets_in_motion_is_over_before_time_moves_on() -> None:
    clock = VirtualClock()
    relay = [clock.signal() for _ in range(20)]
    log: list[float] = []

    def first() -> None:
        clock.signal().wait(timeout=1)
        relay[0].notify()

    def link(index: int) -> Any:
        def pass_on() -> None:
            relay[index].wait()
            if index + 1 < len(relay):
                relay[index + 1].notify()
            else:
                log.append(clock.monotonic())

        return pass_on

    with started(first, *(link(index) for index in range(len(relay)))):
        clock.advance(3600)
    assert log == [1.0]


def test_settle_waits_for_those_that_are_at_work_and_names_them() -> None:
    clock = VirtualClock()
    go, done = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(10)
        done.set()

    with started(work) as (thread,):
        with pytest.raises(TimeoutError, match=re.escape(thread.name)):
            clock.settle(timeout=0.01)
        go.set()
        clock.settle()
        assert done.is_set()


def test_time_goes_on_without_a_thread_that_is_held_up_for_real() -> None:
    clock = VirtualClock(patience=0.05)
    go = threading.Event()
    log: list[float] = []

    def stuck() -> None:
        go.wait(10)

    def sleep() -> None:
        clock.signal().wait(timeout=60)
        log.append(clock.monotonic())

    with started(stuck, sleep):
        clock.advance(100)
        assert log == [60.0]
        go.set()


def test_the_test_itself_may_wait_and_time_flies() -> None:
    clock = VirtualClock()
    signal, never = clock.signal(), clock.signal()

    def answer() -> None:
        clock.signal().wait(timeout=3600)
        signal.notify()

    with started(answer):
        assert signal.wait(timeout=10) is False
        assert clock.monotonic() == 10.0
        assert signal.wait() is True
        assert clock.monotonic() == 3600.0
    assert never.wait(timeout=1) is False


def test_a_long_jump_is_exact_for_deadlines_and_coarse_for_looks() -> None:
    clock = VirtualClock()
    stop = CancelToken()
    looks = 0
    log: list[float] = []

    def look_again_and_again() -> None:
        nonlocal looks
        while not stop.cancelled:
            clock.signal().wait(timeout=0.1)
            looks += 1

    def sleep() -> None:
        for pause in (12345.678, 0.001, 86400.5):
            clock.signal().wait(timeout=pause)
            log.append(clock.monotonic())

    with started(look_again_and_again, sleep):
        clock.advance(timedelta(days=365))
        assert looks < 5000
        before = looks
        clock.advance(10)
        assert looks - before == 100, "afterwards it is as before"
        stop.cancel()
        clock.advance(1)
    assert log == [12345.678, 12345.679, 98746.179]


# --- waits ----------------------------------------------------------------------------------------------------------


def broken(retry: Retry | None = None) -> Builder[Order, Status]:
    builder = Builder("orders", Order, Status)

    @builder.step(Status.NEW, retry=retry)
    def reserve(run: Run[Order, Status]) -> Literal[Status.PAID]:
        if run.object.amount < 0:
            raise ValueError("a negative amount")
        return Status.PAID

    @builder.callback(Status.PAID)
    def shipped(run: Run[Order, Status], payload: bytes) -> Literal[Status.DONE]:
        return Status.DONE

    return builder


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def test_eventually_looks_until_it_holds() -> None:
    looks = iter([False, False, True])
    eventually(lambda: next(looks))
    with pytest.raises(AssertionError, match="nothing came"):
        eventually(lambda: False, timeout=0.01, message="nothing came")

    def all_arrived() -> bool:
        return False

    with pytest.raises(AssertionError, match="all_arrived did not come to hold within"):
        eventually(all_arrived, timeout=0.01)


def test_waiting_for_a_status_or_state_returns_the_run(clock: VirtualClock) -> None:
    wf = broken().build(workflow.memory(clock=clock), clock=clock)
    with wf:
        run_id = wf.trigger("order-1")
        assert wait_for_status(wf, run_id, Status.PAID).status is Status.PAID
        wf.callback("order-1", Status.PAID)
        assert wait_for_state(wf, run_id, RunState.COMPLETED).status is Status.DONE
        assert wait_for_status(wf, run_id, Status.NEW).status is Status.DONE, "it has been there"


def test_a_wait_that_fails_tells_the_story_of_the_run(clock: VirtualClock) -> None:
    wf = broken().build(workflow.memory(clock=clock), clock=clock)
    run_id = wf.trigger("order-1", initial_value=Order(amount=-1), by="alice", reason="a test")
    with pytest.raises(AssertionError, match="roles that this instance does not run: orders-1-consumer-1-of-1"):
        wait_for_status(wf, run_id, Status.PAID, timeout=0.01)
    with wf:
        clock.settle()
        with pytest.raises(AssertionError) as caught:
            wait_for_status(wf, run_id, Status.PAID, timeout=0.01)
    told = str(caught.value)
    assert f"run {run_id} of 'order-1' did not reach PAID within 0.01 s: it is RUNNING in NEW, version 2" in told
    assert "a negative amount" in told
    assert "ValueError at test_testing.py" in told
    for word in ("history:", "alice", "a test", "items: none", "object: Order(amount=-1, log=[])"):
        assert word in told
    with pytest.raises(AssertionError, match="is not PAUSED within"):
        wait_for_state(wf, run_id, RunState.PAUSED, timeout=0.01)


# --- faults ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def faults(clock: VirtualClock) -> Faulty:
    return Faulty(workflow.memory(clock=clock), clock=clock)


def test_capabilities_and_results_pass_through(faults: Faulty, clock: VirtualClock) -> None:
    assert direct_publish(faults.adapters.record_store) is not None
    assert notify(faults.adapters.event_streamer) is not None
    wf = broken().build(faults.adapters, clock=clock)
    with wf:
        run_id = wf.trigger("order-1")
        assert wf.await_status("order-1", run_id, Status.PAID, timeout=10).status is Status.PAID
        clock.settle()
    assert faults.calls("record_store.store") == 2
    assert faults.calls("receiver.ack") == 1
    assert faults.calls("sender.send") == 0, "the store publishes by itself: it was given its own streamer"
    assert faults.calls("record_store.*") > faults.calls("record_store.store")


def test_calls_fail_so_often_and_no_more(faults: Faulty, clock: VirtualClock) -> None:
    store = faults.adapters.record_store
    faults.fail("record_store.lookup", times=2)
    faults.fail("record_store.lookup", error=lambda: ValueError("odd"), when=lambda given: "b" in given[0])
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"record_store\.lookup was made to fail"):
            store.lookup(["a"])
    assert store.lookup(["a"]) == [None]
    with pytest.raises(ValueError, match="odd"):
        store.lookup(["b"])
    assert store.lookup(["b"]) == [None]
    faults.fail("*", times=None, error=Unavailable("all is lost"))
    for _ in range(3):
        with pytest.raises(Unavailable, match="all is lost"):
            store.latest("w", "f")
    faults.heal()
    assert store.latest("w", "f") is None


def test_an_answer_can_be_lost_after_the_effect(faults: Faulty, clock: VirtualClock) -> None:
    wf = broken().build(faults.adapters, clock=clock)
    faults.fail("record_store.store", times=2, after_effect=True)
    run_id = wf.trigger("order-1")
    assert faults.calls("record_store.store") == 3
    assert [row.version for row in wf.history(run_id)] == [1]
    assert clock.now() > START, "the backoff of the commit has passed"
    faults.fail("timeout_store.create", after_effect=True)
    with pytest.raises(Unavailable):
        wf.schedule("order-2", "0 * * * *")
    assert len(wf.items().items) == 1


def test_calls_can_lag(faults: Faulty, clock: VirtualClock) -> None:
    faults.delay("record_store.lookup", 5, times=2)
    for expected in (5, 10, 10):
        faults.adapters.record_store.lookup(["a"])
        assert clock.monotonic() == expected


def test_calls_can_be_held(faults: Faulty, clock: VirtualClock) -> None:
    wf = broken().build(faults.adapters, clock=clock)
    with wf:
        with faults.hold("record_store.lookup", times=1) as held:
            run_id = wf.trigger("order-1")
            clock.settle()
            assert held.waiting == 1
            assert wf.get(run_id).status is Status.NEW
        clock.settle()
        assert held.waiting == 0
        assert wf.get(run_id).status is Status.PAID


def test_a_held_call_heeds_its_own_token(faults: Faulty) -> None:
    receiver = faults.adapters.event_streamer.new_receiver("t", "n")
    held = faults.hold("receiver.recv")
    token = CancelToken()
    token.cancel("stop")
    with pytest.raises(Cancelled, match="stop"):
        receiver.recv(token)
    assert held.waiting == 0
    faults.heal()
    assert receiver.recv(CancelToken(), timeout=0) == []


def test_a_connector_can_be_made_to_fail(faults: Faulty) -> None:
    connector = MemoryConnector()
    connector.put([ConnectorEvent("e1", "k", b"", START)])
    receiver = faults.around("feed", connector).open("feed", Shard())
    faults.fail("feed.recv")
    faults.fail("feed.ack")
    with pytest.raises(Unavailable):
        receiver.recv(CancelToken())
    (delivery,) = receiver.recv(CancelToken())
    assert delivery.event.id == "e1"
    with pytest.raises(Unavailable):
        delivery.ack()
    delivery.ack()
    connector.close()


# --- metrics --------------------------------------------------------------------------------------------------------


def test_metrics_keep_what_they_are_told() -> None:
    metrics = recording_metrics()
    told: Metrics = metrics
    told.count("workflow_skipped_total", workflow="w", reason="older-event")
    told.count("workflow_skipped_total", 2, workflow="w", reason="older-event")
    told.count("workflow_skipped_total", workflow="v", reason="lost-race")
    told.gauge("depth", 3, topic="t")
    told.gauge("depth", 4, topic="t")
    told.observe("seconds", 0.5)
    assert metrics.skipped == {"older-event": 3, "lost-race": 1}
    assert metrics.total("workflow_skipped_total") == 4
    assert metrics.total("workflow_skipped_total", workflow="w") == 3
    assert metrics.total("unknown") == 0
    assert metrics.last("depth", topic="t") == 4
    assert metrics.last("depth", topic="u") is None
    assert metrics.observations("seconds") == [0.5]


def test_two_engines_on_one_clock_keep_their_roles_over_two_days(clock: VirtualClock) -> None:
    storage = MemoryStorage()
    engines: list[Workflow[Order, Status]] = [
        broken().build(workflow.memory(clock=clock, storage=storage), clock=clock) for _ in range(2)
    ]
    for engine in engines:
        engine.run()
    clock.settle()
    clock.advance(30)
    before = [engine.states() for engine in engines]
    clock.advance(timedelta(hours=48))
    assert [engine.states() for engine in engines] == before
    for engine in engines:
        engine.stop()
