"""An order process: a first example to read, from the top.

A *run* of this workflow is one order. It is always in one *status*, and each function below belongs to one: it is
called for every order that gets there, and answers with the status that comes next.

    PLACED ──charge──► PAID ──pack──► PACKED ──confirmed, when the courier tells──► DELIVERED
                                        └─────give_up, when nobody tells──────────► REFUNDED

`python -m workflow demo` sends twelve orders through it. The same process can be served for good, on a file of yours:

    python -m workflow run workflow.cli.demo:orders --store sqlite:///orders.db
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Literal

from .. import Builder, Outcome, Retry, Run, RunView

# --- 1. What a run is: where it can be, and what it carries --------------------------------------------------------


class Status(IntEnum):
    PLACED = 1
    PAID = 2
    PACKED = 3
    DELIVERED = 4
    REFUNDED = 5


@dataclass
class Order:
    """Stored as JSON with each change of the run. Any dataclass will do."""

    amount: int = 0
    card: str = "good"
    checked: bool = False
    receipt: str = ""
    reminders: int = 0
    tracking: str = ""


LIMIT = 1000
"""What costs more is looked at by somebody before it is charged."""


# --- 2. Something outside that fails now and then ------------------------------------------------------------------


class BankDown(Exception):
    """The bank does not answer. It may have done what it was asked for, or not: that is the trouble with banks."""


class Bank:
    """Charges cards. What it did once under a key it does not do again: so it can be asked twice without harm."""

    def __init__(self) -> None:
        self.receipts: dict[str, str] = {}
        self.calls = 0
        self._lock = threading.Lock()

    def charge(self, key: str, order: Order, attempt: int) -> str:
        """A receipt, for `order.amount`. Cards that are not "good" are what makes the demo worth watching."""
        time.sleep(0.15)  # as a call over a network
        with self._lock:
            self.calls += 1
            if order.card == "blocked" or (order.card == "unlucky" and attempt < 2):
                raise BankDown("no connection")
            receipt = self.receipts.setdefault(key, f"receipt-{len(self.receipts) + 1}")
        if order.card == "answer-lost" and attempt < 1:
            raise BankDown("charged, but the answer got lost")
        return receipt


bank = Bank()
mails: list[str] = []


# --- 3. The workflow: functions, and the statuses that they belong to ----------------------------------------------

orders = Builder("demo-orders", Order, Status)


@orders.step(Status.PLACED, parallel_count=3, retry=Retry(initial=0.3, maximum=2.0, jitter=False, max_attempts=4))
def charge(run: Run[Order, Status]) -> Literal[Status.PAID] | Outcome:
    """To raise is to say "again, later": the attempt is stored, and comes back after a growing delay, also when the
    process was restarted meanwhile. After the last attempt the run is paused. To return a status is to say "go on".

    A step may run again after a crash, so it hands the outside world a key that is the same each time.
    """
    order = run.object
    if order.amount > LIMIT and not order.checked:
        order.checked = True  # stored together with the pause; whoever resumes the run has looked at it
        return run.pause(f"{order.amount} is over the limit of {LIMIT}: look at it, then resume")
    order.receipt = bank.charge(run.idempotency_key, order, run.attempt)
    return Status.PAID


@orders.step(Status.PAID, parallel_count=3)
def pack(run: Run[Order, Status]) -> Literal[Status.PACKED]:
    """`parallel_count` shards work side by side here, and in other processes that serve the same store."""
    time.sleep(0.2)
    return Status.PACKED


@orders.callback(Status.PACKED, buffer=True)
def confirmed(run: Run[Order, Status], payload: bytes) -> Literal[Status.DELIVERED]:
    """Nothing moves an order out of PACKED but the courier, who calls `callback(...)` from outside.

    With `buffer=True` a confirmation that comes too early is kept until the order gets here.
    """
    run.object.tracking = payload.decode()
    return Status.DELIVERED


@orders.timeout(Status.PACKED, after=timedelta(seconds=1.2))
def remind(run: Run[Order, Status], now: datetime) -> Outcome:
    """A status may have several timers. This one reminds the courier and leaves the order where it is."""
    run.object.reminders += 1
    return run.repeat()


@orders.timeout(Status.PACKED, after=timedelta(seconds=2.4))
def give_up(run: Run[Order, Status], now: datetime) -> Literal[Status.REFUNDED]:
    """Both count from when the order got here. Once it is elsewhere, they do nothing."""
    return Status.REFUNDED


@orders.on_complete()
def thank(run: RunView[Order, Status]) -> None:
    """A hook is told, at least once, of every run that ends so; its failures never hold up the run."""
    mails.append(f"{run.foreign_id}: {'sorry' if run.status is Status.REFUNDED else 'enjoy'}")


@orders.on_cancel()
def apologise(run: RunView[Order, Status]) -> None:
    mails.append(f"{run.foreign_id}: cancelled")
