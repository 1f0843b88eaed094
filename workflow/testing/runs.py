"""A run made by hand, to call one function alone.

    run = run_for(Order(amount=5), Status.CREATED)
    assert pay(run) is Status.PAID

Decorators return their functions unchanged, so nothing else is needed: no workflow, no adapters, no thread.
"""

from __future__ import annotations

from typing import Any

from ..run import O, Run, S
from .clock import START


def run_for(object: O, status: S, **fields: Any) -> Run[O, S]:
    """A run of `object` in `status`, at its first try. `fields` are those of `Run`, as in `attempt=2`.

    Its token is live: `run.cancelled.cancel()` shows the function what a stop looks like.
    """
    given: dict[str, Any] = {
        "workflow_name": "test",
        "foreign_id": "test",
        "run_id": "run-1",
        "version": 1,
        "status_entered": 1,
        "entered_at": START,
        "created_at": START,
        **fields,
    }
    return Run(object=object, status=status, **given)
