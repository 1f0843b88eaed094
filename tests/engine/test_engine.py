"""The engine end to end: runs go through, once each, and can be asked for and operated."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.engine.orders import Order, Status, order_builder
from workflow import (
    Adapters,
    AwaitTimeout,
    Builder,
    IllegalRunState,
    InvalidInput,
    Outcome,
    ProcessState,
    Run,
    RunInProgress,
    RunNotFound,
    RunState,
    StatusUnreachable,
    Trigger,
    Workflow,
    WorkflowError,
)
from workflow import (
    Order as Direction,
)

DEADLINE = 20.0


def wait_until(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Return as soon as the condition holds; fail at the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        threading.Event().wait(0.005)


def wait_for_state(wf: Workflow[Any, Any], run_id: str, state: RunState) -> None:
    wait_until(lambda: wf.get(run_id).run_state is state)


def test_the_five_lines_of_the_readme(adapters: Adapters) -> None:
    wf = order_builder().build(adapters)
    with wf:
        run_id = wf.trigger("order-123", initial_value=Order(amount=100))
        run = wf.await_status("order-123", run_id, Status.DELIVERED, timeout=DEADLINE)
    assert run.object == Order(100, ["pay", "deliver"])
    assert run.run_state is RunState.COMPLETED
    assert [row.status for row in wf.history(run_id)] == [1, 2, 3]
    assert [row.version for row in wf.history(run_id)] == [1, 2, 3]


def test_two_thousand_runs_arrive_once_each(adapters: Adapters) -> None:
    wf = order_builder().build(adapters)
    with wf:
        started = wf.trigger_many([Trigger(f"order-{n}", Order(n)) for n in range(2000)])
        ids = [answer for answer in started if isinstance(answer, str)]
        assert len(ids) == 2000
        for n, run_id in enumerate(ids):
            wf.await_status(f"order-{n}", run_id, Status.DELIVERED if n <= 1000 else Status.CREATED, timeout=DEADLINE)
    for run_id in ids[:1001]:
        assert [row.status for row in wf.history(run_id)] == [1, 2, 3]


def test_a_run_that_is_not_served_waits(adapters: Adapters) -> None:
    wf = order_builder().build(adapters)
    run_id = wf.trigger("early")
    with pytest.raises(AwaitTimeout, match="CREATED"):
        wf.await_status("early", run_id, Status.DELIVERED, timeout=0.05)
    with wf:
        assert wf.await_status("early", run_id, Status.DELIVERED, timeout=DEADLINE).object.log == ["pay", "deliver"]


class TestAwaitStatus:
    def test_reached_and_passed_statuses_answer_at_once(self, adapters: Adapters) -> None:
        wf = order_builder().build(adapters)
        with wf:
            run_id = wf.trigger("a")
            wf.await_status("a", run_id, Status.DELIVERED, timeout=DEADLINE)
        assert wf.await_status("a", run_id, Status.DELIVERED, timeout=0).status is Status.DELIVERED
        assert wf.await_status("a", run_id, Status.PAID, timeout=0).status is Status.DELIVERED

    def test_what_can_never_be_reached_raises(self, adapters: Adapters) -> None:
        wf = order_builder().build(adapters)
        with wf:
            run_id = wf.trigger("a", initial_value=Order(-1))
            with pytest.raises(StatusUnreachable, match="REJECTED"):
                wf.await_status("a", run_id, Status.DELIVERED, timeout=DEADLINE)

    def test_an_unknown_run_raises(self, adapters: Adapters) -> None:
        wf = order_builder().build(adapters)
        with pytest.raises(RunNotFound, match="nobody"):
            wf.await_status("nobody", "none", Status.PAID, timeout=0)


class TestTriggers:
    def test_sixteen_threads_start_one_run(self, adapters: Adapters) -> None:
        wf = order_builder().build(adapters)
        outcomes: Counter[str] = Counter()
        barrier = threading.Barrier(16)

        def trigger() -> None:
            barrier.wait()
            try:
                wf.trigger("same")
                outcomes["started"] += 1
            except RunInProgress:
                outcomes["in progress"] += 1

        threads = [threading.Thread(target=trigger) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == {"started": 1, "in progress": 15}
        assert len(wf.list(limit=100).items) == 1

    def test_a_key_starts_one_run_even_after_its_end(self, adapters: Adapters) -> None:
        wf = order_builder().build(adapters)
        with wf:
            first = wf.trigger("a", idempotency_key="k")
            assert wf.trigger("a", idempotency_key="k") == first
            wf.await_status("a", first, Status.DELIVERED, timeout=DEADLINE)
            assert wf.trigger("a", idempotency_key="k") == first
            assert wf.trigger("a") != first

    def test_many_answer_one_by_one(self, adapters: Adapters) -> None:
        wf = order_builder().build(adapters)
        answers = wf.trigger_many([Trigger("a"), Trigger("a"), Trigger(""), Trigger("b", start_at=Status.PAID)])
        kinds = [type(answer) for answer in answers]
        assert kinds == [str, RunInProgress, InvalidInput, str]
        assert isinstance(answers[3], str)
        assert wf.get(answers[3]).status is Status.PAID

    def test_a_run_cannot_start_at_an_end(self, adapters: Adapters) -> None:
        wf = order_builder().build(adapters)
        with pytest.raises(InvalidInput, match="DELIVERED"):
            wf.trigger("a", start_at=Status.DELIVERED)

    def test_a_delayed_run_waits_in_the_outbox(self, adapters: Adapters) -> None:
        wf = order_builder().build(adapters)
        with wf:
            run_id = wf.trigger("a", delay=timedelta(seconds=0.2))
            assert wf.get(run_id).available_at - wf.get(run_id).created_at == timedelta(seconds=0.2)
            run = wf.await_status("a", run_id, Status.DELIVERED, timeout=DEADLINE)
        assert run.updated_at - run.created_at >= timedelta(seconds=0.2)


class TestOutcomes:
    def test_each_does_what_it_says(self, adapters: Adapters) -> None:
        builder = Builder("outcomes", Order, Status)

        def act(run: Run[Order, Status]) -> Status | Outcome:
            if run.foreign_id == "skip":
                return run.skip()
            if run.foreign_id == "cancel":
                return run.cancel("no more")
            if run.foreign_id == "pause":
                return run.pause("ask")
            run.object.amount += 1
            return run.repeat() if run.object.amount < 3 else Status.PAID

        builder.add_step(Status.CREATED, act, Status.PAID)
        wf = builder.build(adapters)
        with wf:
            repeated = wf.trigger("repeat")
            run = wf.await_status("repeat", repeated, Status.PAID, timeout=DEADLINE)
            cancelled, paused, skipped = wf.trigger("cancel"), wf.trigger("pause"), wf.trigger("skip")
            wait_for_state(wf, cancelled, RunState.CANCELLED)
            wait_for_state(wf, paused, RunState.PAUSED)
        assert run.object.amount == 3
        assert [row.status for row in wf.history(repeated)] == [1, 1, 1, 2]
        assert wf.history(cancelled)[-1].reason == "no more"
        assert wf.history(paused)[-1].reason == "ask"
        assert wf.get(skipped).version == 1


class TestOperators:
    def test_pause_resume_and_cancel(self, adapters: Adapters) -> None:
        wf = order_builder().build(adapters)
        run_id = wf.trigger("a")
        wf.pause(run_id, reason="look first", by="ann")
        with pytest.raises(IllegalRunState, match="PAUSED"):
            wf.pause(run_id)
        wf.resume(run_id, by="ann", idempotency_key="once")
        wf.resume(run_id, by="ann", idempotency_key="once")
        wf.cancel(run_id, reason="not wanted", by="bob")
        told = [(row.run_state, row.by, row.reason) for row in wf.history(run_id)]
        assert told == [
            (RunState.RUNNING, "", ""),
            (RunState.PAUSED, "ann", "look first"),
            (RunState.RUNNING, "ann", ""),
            (RunState.CANCELLED, "bob", "not wanted"),
        ]
        with pytest.raises(IllegalRunState, match="CANCELLED"):
            wf.resume(run_id)

    def test_deleting_data_leaves_the_history(self, adapters: Adapters) -> None:
        wf = order_builder().build(adapters)
        with wf:
            run_id = wf.trigger("a", initial_value=Order(7))
            with pytest.raises(IllegalRunState):
                wf.delete_data(run_id)
            wf.await_status("a", run_id, Status.DELIVERED, timeout=DEADLINE)
            wf.delete_data(run_id, by="ann")
            wait_for_state(wf, run_id, RunState.DATA_DELETED)
        assert wf.get(run_id).object is None
        assert len(wf.history(run_id)) == 5


class TestQueries:
    def test_listing_pages_and_filters(self, adapters: Adapters) -> None:
        wf = order_builder().build(adapters)
        ids = [wf.trigger(f"o-{n}") for n in range(7)]
        wf.pause(ids[3], by="ann")
        seen: list[str] = []
        cursor = ""
        while True:
            page = wf.list(after=cursor, limit=3)
            seen.extend(run.run_id for run in page.items)
            cursor = page.next
            if not cursor:
                break
        assert seen == ids
        assert [run.run_id for run in wf.list(order=Direction.DESCENDING, limit=100).items] == ids[::-1]
        assert [run.run_id for run in wf.list(run_states={RunState.PAUSED}).items] == [ids[3]]
        assert [run.run_id for run in wf.list(foreign_id="o-5").items] == [ids[5]]

    def test_states_and_diagram(self, adapters: Adapters) -> None:
        wf = order_builder().build(adapters)
        assert "CREATED --> PAID: " in wf.diagram()
        with wf:
            role = "order-processing-1-consumer-1-of-1"
            wait_until(lambda: wf.states()[role] is ProcessState.RUNNING)
        assert set(wf.states().values()) == {ProcessState.STOPPED}


class TestStopping:
    def test_no_thread_is_left(self, adapters: Adapters) -> None:
        before = set(threading.enumerate())
        wf = order_builder().build(adapters)
        with wf:
            wf.await_status("a", wf.trigger("a"), Status.DELIVERED, timeout=DEADLINE)
        wait_until(lambda: set(threading.enumerate()) <= before)

    def test_it_can_be_run_again(self, adapters: Adapters) -> None:
        wf = order_builder().build(adapters)
        for n in range(3):
            with wf:
                wf.await_status(f"a{n}", wf.trigger(f"a{n}"), Status.DELIVERED, timeout=DEADLINE)

    def test_running_twice_is_an_error(self, adapters: Adapters) -> None:
        wf = order_builder().build(adapters)
        with wf, pytest.raises(WorkflowError, match="running already"):
            wf.run()
