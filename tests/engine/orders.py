"""The workflow that most engine tests use: an order that is paid and delivered."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from workflow import Builder, Outcome, Run


class Status(IntEnum):
    CREATED = 1
    PAID = 2
    DELIVERED = 3
    REJECTED = 4


@dataclass
class Order:
    amount: int = 0
    log: list[str] = field(default_factory=list)


LIMIT = 1000


def order_builder(name: str = "order-processing") -> Builder[Order, Status]:
    """CREATED is paid or rejected, PAID is delivered; an amount over the limit pauses the run."""
    builder = Builder(name, Order, Status)

    @builder.step(Status.CREATED)
    def pay(run: Run[Order, Status]) -> Literal[Status.PAID, Status.REJECTED] | Outcome:
        if run.object.amount > LIMIT:
            return run.pause("over the limit")
        run.object.log.append("pay")
        return Status.REJECTED if run.object.amount < 0 else Status.PAID

    @builder.step(Status.PAID)
    def deliver(run: Run[Order, Status]) -> Literal[Status.DELIVERED]:
        run.object.log.append("deliver")
        return Status.DELIVERED

    return builder
