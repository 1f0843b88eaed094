"""Around the demo's orders: what is ordered, the courier, and the people who look after what stopped.

They do what anybody outside could: they look at the runs, and call `callback`, `resume`, `cancel`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .. import IllegalRunState, RunState, RunView, Trigger, Workflow, WorkflowError
from .. import Order as Direction
from .demo import Order, Status

OPERATOR = "mia"
THINKING = 0.7
"""Seconds that mia takes before she decides."""


@dataclass(frozen=True)
class Part:
    """One order, and what the world does to it."""

    foreign_id: str
    order: Order
    why: str
    """What is to be seen here."""
    confirmed_after: float | None = 0.3
    """Seconds in PACKED after which the courier confirms; None: never."""
    confirmed_early: bool = False
    cancelled_after: float | None = None
    """Seconds in PACKED after which the customer cancels."""


CAST = (
    Part("order-01", Order(40), "all goes well"),
    Part("order-02", Order(25), "all goes well"),
    Part("order-03", Order(99), "all goes well"),
    Part("order-04", Order(310), "all goes well, the courier takes longer", confirmed_after=0.9),
    Part("order-05", Order(60, card="unlucky"), "the bank does not answer, twice"),
    Part(
        "order-06",
        Order(75, card="answer-lost"),
        "the bank charges, but its answer gets lost: asked again, it charges nothing",
    ),
    Part("order-07", Order(1800), "it is over the limit, so somebody has to look"),
    Part("order-08", Order(80, card="blocked"), "the bank never accepts the card"),
    Part("order-09", Order(120), "the courier needs a reminder", confirmed_after=1.6),
    Part("order-10", Order(200), "the courier never confirms", confirmed_after=None),
    Part("order-11", Order(35), "the customer cancels", confirmed_after=None, cancelled_after=0.5),
    Part(
        "order-12",
        Order(55),
        "the confirmation comes before it is packed, and is kept",
        confirmed_after=None,
        confirmed_early=True,
    ),
)


def place_orders(workflow: Workflow[Order, Status]) -> None:
    """Place them all, in one transaction. Raises what any of them met."""
    requests = [Trigger[Order, Status](part.foreign_id, part.order, idempotency_key=part.foreign_id) for part in CAST]
    for answer in workflow.trigger_many(requests):
        if isinstance(answer, WorkflowError):
            raise answer
    for part in CAST:
        if part.confirmed_early:
            _confirm(workflow, part)


def look(workflow: Workflow[Order, Status]) -> list[RunView[Order, Status]]:
    """The runs, in the order of the cast."""
    return list(workflow.list(limit=len(CAST), order=Direction.ASCENDING).items)


def play(workflow: Workflow[Order, Status], runs: list[RunView[Order, Status]], now: datetime) -> None:
    """What the people and the courier do, seeing the runs as they are now."""
    for part, run in zip(CAST, runs, strict=True):
        try:
            _play_one(workflow, part, run, now)
        except IllegalRunState:
            continue  # it moved on meanwhile: they look again


def _play_one(workflow: Workflow[Order, Status], part: Part, run: RunView[Order, Status], now: datetime) -> None:
    if run.run_state is RunState.PAUSED:
        if _seconds(run.updated_at, now) > THINKING:
            _decide(workflow, run)
    elif run.run_state is RunState.RUNNING and run.status is Status.PACKED:
        waited = _seconds(run.record.entered_at, now)
        if part.confirmed_after is not None and waited > part.confirmed_after:
            _confirm(workflow, part)
        if part.cancelled_after is not None and waited > part.cancelled_after:
            workflow.cancel(run.run_id, by="customer", reason="I found it cheaper")


def _decide(workflow: Workflow[Order, Status], run: RunView[Order, Status]) -> None:
    """A run that its step paused is fine by her; one that the engine paused, since it kept failing, she gives up."""
    if run.error:
        workflow.cancel(run.run_id, by=OPERATOR, reason="this card will never work")
    else:
        workflow.resume(run.run_id, by=OPERATOR, reason="a customer we know")


def _confirm(workflow: Workflow[Order, Status], part: Part) -> None:
    """The key makes a confirmation that is sent again do nothing."""
    tracking = f"TRACK-{part.foreign_id}"
    workflow.callback(part.foreign_id, Status.PACKED, tracking.encode(), idempotency_key=tracking, by="courier")


def _seconds(since: datetime, now: datetime) -> float:
    return (now - since).total_seconds()
