"""A function that ends its process: its run alone is paused, or its item held, whoever was handed out beside it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from tests.engine.orders import Order, Status
from workflow import Adapters, Api, Builder, ConnectorEvent, Retry, Run, RunState, RunView, Trigger, Workflow
from workflow.adapters.memory import MemoryConnector
from workflow.testing import eventually, wait_for_state

AT_ONCE = Retry(initial=0.0, maximum=0.0, jitter=False, max_attempts=3)


def test_innocents_do_not_share_the_attempts_of_the_one_that_they_stand_behind(adapters: Adapters) -> None:
    """Without backoff all suspects come back together, so each time the innocent ones are handed out and not begun."""
    builder = Builder("deadly", Order, Status)

    @builder.step(Status.CREATED, retry=AT_ONCE)
    def pay(run: Run[Order, Status]) -> Literal[Status.PAID]:
        if run.foreign_id == "deadly":
            raise SystemExit
        return Status.PAID

    wf = builder.build(adapters)
    names = [f"innocent-{number}" for number in range(150)]
    names.insert(70, "deadly")  # by then batches have grown: it stands in the midst of one
    run_ids = dict(zip(names, wf.trigger_many([Trigger(name, Order()) for name in names]), strict=True))
    with wf:
        for name, run_id in run_ids.items():
            assert isinstance(run_id, str)
            wait_for_state(wf, run_id, RunState.PAUSED if name == "deadly" else RunState.COMPLETED, timeout=30.0)
            assert max(row.attempt for row in wf.history(run_id)) <= (3 if name == "deadly" else 1)


def deadly(calls: list[str], name: str) -> None:
    """End the process, as far as a thread can."""
    calls.append(name)
    raise SystemExit


def held(wf: Workflow[Order, Status]) -> list[str]:
    """The names of the items that wait for a person."""
    return [item.name for item in wf.items().items if item.due_at is None]


def test_a_timer_that_ends_its_process_is_held(memory: Adapters) -> None:
    calls: list[str] = []
    builder = Builder("timers", Order, Status)

    @builder.timeout(Status.CREATED, after=timedelta(0), retry=AT_ONCE)
    def expire(run: Run[Order, Status], now: datetime) -> Literal[Status.REJECTED]:
        if run.foreign_id == "deadly":
            deadly(calls, "expire")
        return Status.REJECTED

    wf = builder.build(memory)
    wf.trigger_many([Trigger(name) for name in ("a", "deadly", "b")])
    with wf:
        eventually(lambda: held(wf) == ["expire"])
        eventually(lambda: len(wf.list(run_states={RunState.COMPLETED}).items) == 2)
    assert len(calls) <= AT_ONCE.max_attempts + 1, "the first call was no suspect yet"


def test_a_timers_plan_that_ends_its_process_is_held(memory: Adapters) -> None:
    calls: list[str] = []
    builder = Builder("plans", Order, Status)

    def after(run: Run[Order, Status], now: datetime) -> datetime:
        if run.foreign_id == "deadly":
            deadly(calls, "after")
        return now

    @builder.timeout(Status.CREATED, after=after, retry=AT_ONCE)
    def expire(run: Run[Order, Status], now: datetime) -> Literal[Status.REJECTED]:
        return Status.REJECTED

    wf = builder.build(memory)
    wf.trigger_many([Trigger(name) for name in ("a", "deadly", "b")])
    with wf:
        eventually(lambda: held(wf) == ["timeout-inserter.1"])
        eventually(lambda: len(wf.list(run_states={RunState.COMPLETED}).items) == 2)
    assert len(calls) <= AT_ONCE.max_attempts + 1


def test_a_hook_that_ends_its_process_is_held(memory: Adapters) -> None:
    calls: list[str] = []
    builder = Builder("hooks", Order, Status)

    @builder.step(Status.CREATED)
    def pay(run: Run[Order, Status]) -> Literal[Status.PAID]:
        return Status.PAID

    @builder.on_complete(retry=AT_ONCE)
    def thank(run: RunView[Order, Status]) -> None:
        if run.foreign_id == "deadly":
            deadly(calls, "thank")
        calls.append(run.foreign_id)

    wf = builder.build(memory)
    with wf:
        wf.trigger_many([Trigger(name) for name in ("a", "deadly", "b")])
        eventually(lambda: held(wf) == ["hook.thank"])
        eventually(lambda: {"a", "b"} <= set(calls))
    assert calls.count("thank") <= AT_ONCE.max_attempts + 1


def test_a_connector_event_that_ends_its_process_is_held(memory: Adapters) -> None:
    calls: list[str] = []
    builder = Builder("connectors", Order, Status)
    source = MemoryConnector()

    @builder.step(Status.CREATED)
    def pay(run: Run[Order, Status]) -> Literal[Status.PAID]:
        return Status.PAID

    @builder.connector("bank", source, retry=AT_ONCE)
    def take(api: Api[Order, Status], event: ConnectorEvent) -> None:
        if event.key == "deadly":
            deadly(calls, "take")
        api.trigger(event.key)

    for name in ("a", "deadly", "b"):
        source.publish(name, b"")
    wf = builder.build(memory)
    with wf:
        eventually(lambda: held(wf) == ["connector.bank"])
        eventually(lambda: len(wf.list(run_states={RunState.COMPLETED}).items) == 2)
    assert len(calls) <= AT_ONCE.max_attempts + 1


def test_a_kept_callback_that_ends_its_process_is_held(memory: Adapters) -> None:
    calls: list[str] = []
    builder = Builder("callbacks", Order, Status)

    @builder.step(Status.CREATED)
    def pay(run: Run[Order, Status]) -> Literal[Status.PAID]:
        return Status.PAID

    @builder.callback(Status.PAID, buffer=True, retry=AT_ONCE)
    def deliver(run: Run[Order, Status], payload: bytes) -> Literal[Status.DELIVERED]:
        deadly(calls, "deliver")
        return Status.DELIVERED

    wf = builder.build(memory)
    wf.trigger("deadly")
    wf.callback("deadly", Status.PAID, b"")
    with wf:
        eventually(lambda: len(calls) > 1 and len(held(wf)) == 1)
    assert len(calls) <= AT_ONCE.max_attempts + 1
