"""What fails in one workflow, or in one instance, is no other's business."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.engine.orders import Order, Status, order_builder
from tests.processes.jobs import path_of
from tests.processes.support import DEADLINE, wait_for
from workflow import Adapters, Builder, Run, Trigger, Workflow, memory, sqlite
from workflow.adapters.memory import MemoryConnector
from workflow.connector import Api
from workflow.event import ConnectorEvent
from workflow.process import ProcessState
from workflow.testing import Faulty, wait_for_status

Open = Callable[[], Adapters]


@pytest.fixture(params=["memory", "sqlite"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens one store any number of times, as several instances would; there is but one handle of one in memory."""
    opened: list[Adapters] = []

    def make() -> Adapters:
        if request.param == "memory":
            opened.append(opened[0] if opened else memory())
        else:
            opened.append(sqlite(tmp_path / "store.db", lease_time=1.0))
        return opened[-1]

    yield make
    for adapters in opened:
        adapters.close()


def running(wf: Workflow[Order, Status]) -> int:
    return list(wf.states().values()).count(ProcessState.RUNNING)


def deliver_some(wf: Workflow[Order, Status], count: int = 20) -> None:
    requests: list[Trigger[Order, Status]] = [Trigger(f"order-{number}", Order(1)) for number in range(count)]
    for run_id in wf.trigger_many(requests):
        assert isinstance(run_id, str)
        wait_for_status(wf, run_id, Status.DELIVERED, timeout=DEADLINE)
        rows = wf.history(run_id)
        assert [row.version for row in rows] == list(range(1, len(rows) + 1))
        assert path_of(rows) == [1, 2, 3]


@pytest.mark.parametrize("failing", ["record_store.*", "record_store.store", "receiver.recv", "event_streamer.*"])
def test_an_instance_whose_store_fails_yields_its_roles_and_another_finishes_the_work(
    tmp_path: Path, failing: str
) -> None:
    faults = Faulty(sqlite(tmp_path / "store.db", lease_time=1.0))
    healthy = sqlite(tmp_path / "store.db", lease_time=1.0)
    builder = order_builder()
    builder.defaults(parallel_count=4)  # so that some of the work stays with the first when the second comes
    ill, well = builder.build(faults.adapters), builder.build(healthy)
    with ill:
        wait_for(lambda: running(ill) == len(ill.states()), "all roles with the first instance")
        faults.fail(failing, times=None)
        with well:
            deliver_some(well)
            faults.heal()
            wait_for(lambda: abs(running(ill) - running(well)) <= 1, "a share for the one that is well again")
    faults.adapters.close()
    healthy.close()


def test_a_stuck_step_holds_no_other_workflow_up(open_store: Open) -> None:
    adapters = open_store()
    builder = Builder("stuck", Order, Status)
    entered, opened = threading.Event(), threading.Event()

    @builder.step(Status.CREATED)
    def hang(run: Run[Order, Status]) -> Literal[Status.PAID]:
        entered.set()
        assert opened.wait(DEADLINE)
        return Status.PAID

    stuck, other = builder.build(adapters), order_builder().build(adapters)
    with other:
        stuck.run()
        run_id = stuck.trigger("a")
        assert entered.wait(DEADLINE)
        deliver_some(other)
        assert stuck.get(run_id).status is Status.CREATED
        opened.set()
        stuck.stop()
    assert stuck.get(run_id).status is Status.PAID


@pytest.mark.parametrize("failing", ["record_store.*", "event_streamer.*", "timeout_store.*", "role_scheduler.*"])
def test_a_failing_adapter_of_one_workflow_holds_no_other_up(open_store: Open, failing: str) -> None:
    adapters = open_store()
    faults = Faulty(adapters)
    ill, well = order_builder("ill").build(faults.adapters), order_builder("well").build(adapters)
    with ill, well:
        wait_for(lambda: running(ill) == len(ill.states()))
        faults.fail(failing, times=None)
        deliver_some(well)
        faults.heal()
        deliver_some(ill)


def test_a_failing_connector_holds_nothing_else_up(open_store: Open) -> None:
    adapters = open_store()
    source = MemoryConnector()
    faults = Faulty(adapters)
    faults.fail("source.*", times=None)
    builder = order_builder()

    @builder.connector("source", faults.around("source", source))
    def take(api: Api[Order, Status], event: ConnectorEvent) -> None:
        api.trigger(event.key, initial_value=Order(1))

    wf = builder.build(adapters)
    with wf:
        source.publish("from-outside", b"")
        wait_for(lambda: faults.calls("source.open") >= 2, "a second try")
        deliver_some(wf)
        assert wf.latest("from-outside") is None
        faults.heal()
        wait_for(lambda: wf.latest("from-outside"), "the connector's event")
    source.close()
