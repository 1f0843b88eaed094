"""What looks after runs that nobody looks at: reconcile, retention, pause-retry, delete; and what a hook sees."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import pytest

import workflow
from tests.engine.orders import Order, Status, order_builder
from workflow import Adapters, Builder, Outcome, PauseRetry, Retry, Run, RunNotFound, RunState, RunView, Workflow
from workflow.protocols import lag
from workflow.testing import (
    Faulty,
    RecordingMetrics,
    VirtualClock,
    eventually,
    wait_for_state,
    wait_for_status,
)

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class TestReconcile:
    def test_a_run_whose_event_was_lost_goes_on(
        self, adapters: Adapters, clock: VirtualClock, metrics: RecordingMetrics
    ) -> None:
        wf = order_builder().build(adapters, clock=clock, metrics=metrics, reconcile_after=60)
        with wf:
            wait_for_status(wf, wf.trigger("first"), Status.DELIVERED)
        run_id = wf.trigger("lost")
        receiver = adapters.event_streamer.new_receiver("order-processing-1", "consumer")
        deliveries = receiver.recv(workflow.CancelToken(), limit=10, timeout=0)
        deliveries[-1].ack()
        receiver.close()
        with wf:
            clock.settle()
            assert wf.get(run_id).status is Status.CREATED
            clock.advance(timedelta(minutes=5))
            wait_for_status(wf, run_id, Status.DELIVERED)
        assert metrics.total("workflow_reconciled_total") >= 1

    def test_a_run_that_waits_for_a_callback_is_left_alone(
        self, adapters: Adapters, clock: VirtualClock, metrics: RecordingMetrics
    ) -> None:
        builder = Builder("waiting", Order, Status)

        @builder.callback(Status.CREATED)
        def pay(run: Run[Order, Status], payload: bytes) -> Literal[Status.PAID]:
            return Status.PAID

        wf = builder.build(adapters, clock=clock, metrics=metrics, reconcile_after=60)
        with wf:
            wf.trigger("a")
            clock.advance(HOUR)
        assert metrics.total("workflow_reconciled_total") == 0

    def test_the_intervals_double_while_the_version_stays(
        self, adapters: Adapters, clock: VirtualClock, metrics: RecordingMetrics
    ) -> None:
        builder = Builder("skips", Order, Status)
        called: list[int] = []

        @builder.step(Status.CREATED)
        def skip(run: Run[Order, Status]) -> Literal[Status.PAID] | Outcome:
            called.append(run.version)
            return run.skip()

        wf = builder.build(adapters, clock=clock, metrics=metrics, reconcile_after=60)
        with wf:
            wf.trigger("a")
            clock.advance(HOUR)
        assert 5 <= len(called) <= 9
        assert metrics.skipped["by-the-step"] == len(called)

    def test_runs_in_statuses_that_nobody_declares_are_reported(
        self, adapters: Adapters, clock: VirtualClock, metrics: RecordingMetrics
    ) -> None:
        wf = order_builder("shop").build(adapters, clock=clock)
        run_id = wf.trigger("a", start_at=Status.PAID)
        smaller = Builder("shop", Order, Status)

        @smaller.step(Status.CREATED)
        def reject(run: Run[Order, Status]) -> Literal[Status.REJECTED]:
            return Status.REJECTED

        with smaller.build(adapters, clock=clock, metrics=metrics, reconcile_after=60):
            clock.advance(HOUR)
        assert metrics.last("workflow_undeclared_runs", status="2") == 1
        assert wf.get(run_id).version == 1


class TestRetention:
    def test_old_finished_runs_go_and_others_stay(self, adapters: Adapters, clock: VirtualClock) -> None:
        wf = order_builder().build(adapters, clock=clock, retention=DAY)
        with wf:
            old = wf.trigger("old")
            paused = wf.trigger("paused", initial_value=Order(5000))
            wait_for_status(wf, old, Status.DELIVERED)
            wait_for_state(wf, paused, RunState.PAUSED)
            clock.advance(timedelta(hours=20))
            young = wf.trigger("young")
            wait_for_status(wf, young, Status.DELIVERED)
            clock.advance(timedelta(hours=5))
            with pytest.raises(RunNotFound):
                wf.get(old)
            assert wf.get(young).run_state is RunState.COMPLETED
            assert wf.get(paused).run_state is RunState.PAUSED

    def test_its_timers_go_with_a_run(self, adapters: Adapters, clock: VirtualClock) -> None:
        builder = order_builder()
        builder.timeout(Status.CREATED, after=timedelta(days=400), name="never", to=(Status.REJECTED,))(
            lambda run, now: Status.REJECTED
        )
        wf = builder.build(adapters, clock=clock, retention=DAY)
        with wf:
            run_id = wf.trigger("a", initial_value=Order(5000))
            wait_for_state(wf, run_id, RunState.PAUSED)
            eventually(lambda: len(wf.items(run_id).items) == 1)
            wf.cancel(run_id)
            clock.advance(DAY + HOUR)
            with pytest.raises(RunNotFound):
                wf.get(run_id)
            assert wf.items().items == ()

    def test_without_a_retention_runs_are_kept(self, adapters: Adapters, clock: VirtualClock) -> None:
        wf = order_builder().build(adapters, clock=clock)
        with wf:
            run_id = wf.trigger("a")
            wait_for_status(wf, run_id, Status.DELIVERED)
            clock.advance(timedelta(days=30))
            assert wf.get(run_id).status is Status.DELIVERED

    def test_a_topic_that_nobody_reads_does_not_grow(self, adapters: Adapters, clock: VirtualClock) -> None:
        builder = Builder("unread", Order, Status)

        @builder.callback(Status.CREATED)
        def pay(run: Run[Order, Status], payload: bytes) -> Literal[Status.PAID]:
            return Status.PAID

        wf = builder.build(adapters, clock=clock)
        with wf:
            wf.trigger("a")
            clock.advance(timedelta(hours=12))
            wf.trigger("b")
            clock.advance(timedelta(hours=13))
        backlog = lag(adapters.event_streamer)
        assert backlog is not None
        assert backlog.pending("unread-1", "retention")[0] == 1


def failing(adapters: Adapters, **options: Any) -> tuple[Workflow[Order, Status], list[bool]]:
    """A step that fails until its switch is thrown, and pauses at once."""
    builder = Builder("failing", Order, Status)
    healed: list[bool] = []

    @builder.step(Status.CREATED, retry=Retry(max_attempts=1))
    def pay(run: Run[Order, Status]) -> Literal[Status.PAID]:
        if not healed:
            raise ConnectionError("the bank is away")
        return Status.PAID

    return builder.build(adapters, **options), healed


class TestPauseRetry:
    def test_what_the_engine_paused_is_resumed(self, adapters: Adapters, clock: VirtualClock) -> None:
        wf, healed = failing(adapters, clock=clock, pause_retry=PauseRetry(HOUR))
        with wf:
            run_id = wf.trigger("a")
            wait_for_state(wf, run_id, RunState.PAUSED)
            healed.append(True)
            clock.advance(HOUR / 2)
            assert wf.get(run_id).run_state is RunState.PAUSED
            clock.advance(HOUR)
            wait_for_status(wf, run_id, Status.PAID)

    @pytest.mark.parametrize("everyone", [False, True])
    def test_what_a_person_paused_stays_unless_told(
        self, adapters: Adapters, clock: VirtualClock, everyone: bool
    ) -> None:
        wf, healed = failing(adapters, clock=clock, pause_retry=PauseRetry(HOUR, everyone=everyone))
        healed.append(True)
        run_id = wf.trigger("a")
        wf.pause(run_id, by="ann")
        with wf:
            clock.advance(3 * HOUR)
            clock.settle()
            assert wf.get(run_id).run_state is (RunState.COMPLETED if everyone else RunState.PAUSED)


class TestDelete:
    def test_everything_of_the_users_goes(self, adapters: Adapters, clock: VirtualClock) -> None:
        wf, _ = failing(adapters, clock=clock)
        with wf:
            run_id = wf.trigger("a", initial_value=Order(77))
            wait_for_state(wf, run_id, RunState.PAUSED)
            assert "the bank is away" in wf.get(run_id).error
            wf.cancel(run_id)
            wf.delete_data(run_id, by="ann", reason="asked for it")
            wait_for_state(wf, run_id, RunState.DATA_DELETED)
        record = adapters.record_store.lookup([run_id])[0]
        assert record is not None
        assert (record.object, record.error) == (b"", "")
        assert [row.run_state for row in wf.history(run_id)][-2:] == [
            RunState.DATA_DELETION_REQUESTED,
            RunState.DATA_DELETED,
        ]

    def test_a_custom_delete_keeps_what_it_wants(self, adapters: Adapters, clock: VirtualClock) -> None:
        def keep_amount(run: RunView[Order, Status]) -> Order:
            return Order(run.object.amount)

        wf = order_builder().build(adapters, clock=clock, custom_delete=keep_amount)
        with wf:
            run_id = wf.trigger("a", initial_value=Order(7))
            wait_for_status(wf, run_id, Status.DELIVERED)
            wf.delete_data(run_id)
            assert wait_for_state(wf, run_id, RunState.DATA_DELETED).object == Order(7, [])

    def test_the_items_of_the_run_go_before_the_event_is_acknowledged(
        self, clock: VirtualClock, metrics: RecordingMetrics
    ) -> None:
        faults = Faulty(workflow.memory(clock=clock))
        wf = order_builder().build(faults.adapters, clock=clock, metrics=metrics)
        with wf:
            run_id = wf.trigger("a")
            wait_for_status(wf, run_id, Status.DELIVERED)
            faults.fail("timeout_store.purge", times=2)
            wf.delete_data(run_id)
            wait_for_state(wf, run_id, RunState.DATA_DELETED)
            clock.advance(timedelta(minutes=1))
            eventually(lambda: faults.calls("timeout_store.purge") >= 3)
        faults.adapters.close()


class TestHooks:
    def test_each_hook_sees_each_change(self, adapters: Adapters, clock: VirtualClock) -> None:
        builder = order_builder()
        seen: list[tuple[str, str]] = []

        @builder.on_complete(name="first")
        def first(run: RunView[Order, Status]) -> None:
            seen.append(("first", run.foreign_id))

        @builder.on_complete(name="second")
        def second(run: RunView[Order, Status]) -> None:
            seen.append(("second", run.foreign_id))

        @builder.on_pause()
        def paused(run: RunView[Order, Status]) -> None:
            seen.append(("paused", run.foreign_id))

        @builder.on_cancel()
        def cancelled(run: RunView[Order, Status]) -> None:
            seen.append(("cancelled", run.foreign_id))

        wf = builder.build(adapters, clock=clock)
        with wf:
            wf.trigger("done")
            held = wf.trigger("held", initial_value=Order(5000))
            wait_for_state(wf, held, RunState.PAUSED)
            wf.cancel(held)
            eventually(lambda: len(seen) == 4)
        assert sorted(seen) == [("cancelled", "held"), ("first", "done"), ("paused", "held"), ("second", "done")]

    def test_a_hook_sees_what_happened_before_the_first_run(self, adapters: Adapters, clock: VirtualClock) -> None:
        builder = order_builder()
        seen: list[str] = []
        builder.on_cancel(name="late")(lambda run: seen.append(run.foreign_id))
        wf = builder.build(adapters, clock=clock)
        wf.cancel(wf.trigger("early"))
        with wf:
            eventually(lambda: seen == ["early"])
