"""A run whose step ends its process: it alone is paused, whoever was handed out beside it."""

from __future__ import annotations

from typing import Literal

from tests.engine.orders import Order, Status
from workflow import Adapters, Builder, Retry, Run, RunState, Trigger
from workflow.testing import wait_for_state

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
