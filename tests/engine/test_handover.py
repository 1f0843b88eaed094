"""An instance whose adapters fail gives its roles up, and the longer they fail the less it competes for them."""

from __future__ import annotations

from typing import Any

from tests.engine.orders import Order, Status, order_builder
from workflow import Adapters
from workflow.options import FAILURES_BEFORE_HANDOVER
from workflow.testing import Faulty, eventually, wait_for_status


class Lines:
    """A logger that keeps how often in a row a process had failed."""

    def __init__(self) -> None:
        self.failures: list[int] = []

    def log(self, level: int, message: str, **fields: Any) -> None:
        if message == "process failed" and "-1-consumer-" in str(fields["role"]):
            self.failures.append(fields["failures"])


def test_one_that_gave_a_role_up_gives_it_up_at_the_next_failure_until_it_has_worked(memory: Adapters) -> None:
    faults, lines = Faulty(memory), Lines()
    wf = order_builder().build(faults.adapters, logger=lines)
    with wf:
        faults.fail("event_streamer.new_receiver", times=None)
        faults.fail("record_store.lookup", times=None)
        run_id = wf.trigger("a", initial_value=Order(1))
        enough = FAILURES_BEFORE_HANDOVER + 2
        eventually(lambda: len(lines.failures) >= enough, timeout=60.0)
        assert lines.failures[:enough] == list(range(1, enough + 1)), "each is one more in a row, role or no role"
        faults.heal()
        wait_for_status(wf, run_id, Status.DELIVERED, timeout=60.0)
        faults.fail("record_store.lookup", times=None)
        seen = len(lines.failures)
        wf.trigger("b", initial_value=Order(1))
        eventually(lambda: len(lines.failures) > seen, timeout=60.0)
        assert lines.failures[seen] == 1, "and the work that was done begins the count anew"
        faults.heal()
