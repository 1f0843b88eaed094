"""A forked child that goes on with its parent's workflow is told so at once, and changes nothing."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.orders import Order, Status, order_builder
from tests.processes.support import DEADLINE
from workflow import Adapters, Closed, Trigger, Workflow, memory, sqlite
from workflow.cancel import CancelToken
from workflow.errors import Forked
from workflow.testing import wait_for_status

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    # The engine has threads, so a fork is what Python warns of; that it is survived is what is tested.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

FORKS = 10


@pytest.fixture(params=["memory", "sqlite"])
def adapters(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Adapters]:
    made = memory() if request.param == "memory" else sqlite(tmp_path / "store.db")
    try:
        yield made
    finally:
        made.close()


def in_child(program: Callable[[], None]) -> int:
    """Fork, and run the program in the child, which may not take long. Returns the child's id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, chain=True)  # show where it hangs, then end it
        signal.alarm(int(DEADLINE / 2))
        program()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def succeeded(child: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def use_all_of_it(wf: Workflow[Order, Status], run_id: str) -> None:
    """In the child: everything that reaches the adapters says that it cannot be used here."""
    calls: dict[str, Callable[[], object]] = {
        "trigger": lambda: wf.trigger("from-the-child"),
        "trigger_many": lambda: wf.trigger_many([Trigger("from-the-child")]),
        "await_status": lambda: wf.await_status("order-0", run_id, Status.DELIVERED, timeout=10),
        "get": lambda: wf.get(run_id),
        "latest": lambda: wf.latest("order-0"),
        "list": lambda: wf.list(),
        "history": lambda: wf.history(run_id),
        "items": lambda: wf.items(),
        "cancel": lambda: wf.cancel(run_id),
        "schedule": lambda: wf.schedule("order-0", "* * * * *"),
        "run": lambda: wf.run(),
        "await_role": lambda: wf.adapters.role_scheduler.await_role("role", CancelToken()),
        "new_receiver": lambda: wf.adapters.event_streamer.new_receiver("topic", "name"),
        "create": lambda: wf.adapters.timeout_store.create([]),
    }
    for name, call in calls.items():
        with pytest.raises(Closed) as raised:
            call()
        assert isinstance(raised.value, Forked), name
    wf.adapters.close()


def test_a_child_of_a_quiet_process(adapters: Adapters) -> None:
    wf = order_builder().build(adapters)
    run_id = wf.trigger("order-0")
    assert succeeded(in_child(lambda: use_all_of_it(wf, run_id)))
    assert [run.run_id for run in wf.list().items] == [run_id]
    with wf:
        wf.await_status("order-0", run_id, Status.DELIVERED, timeout=DEADLINE)


def test_children_of_a_process_at_work(adapters: Adapters) -> None:
    """A fork catches threads in the middle of anything; the child has their locks, and no thread to release them."""
    idle, busy = order_builder("idle").build(adapters), order_builder("busy").build(adapters)
    run_id = idle.trigger("order-0")
    run_ids: list[str] = []
    with busy:
        for fork in range(FORKS):
            requests: list[Trigger[Order, Status]] = [Trigger(f"{fork}-{number}", Order(1)) for number in range(50)]
            run_ids += [answer for answer in busy.trigger_many(requests) if isinstance(answer, str)]
            child = in_child(lambda: use_both(idle, busy, run_id))
            assert succeeded(child), f"fork {fork}"
        for busy_id in run_ids:
            wait_for_status(busy, busy_id, Status.DELIVERED, timeout=DEADLINE)
            assert [row.version for row in busy.history(busy_id)] == [1, 2, 3]
    assert len(run_ids) == 50 * FORKS


def use_both(idle: Workflow[Order, Status], busy: Workflow[Order, Status], run_id: str) -> None:
    with pytest.raises(Forked):
        busy.trigger("from-the-child")
    busy.stop()
    use_all_of_it(idle, run_id)
