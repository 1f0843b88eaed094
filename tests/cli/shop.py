"""The workflow that the tests of the command line serve, in this process and in others."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import Literal

from workflow import Adapters, Builder, Outcome, Retry, Run, Workflow


class Status(IntEnum):
    NEW = 1
    PAID = 2
    SENT = 3
    DONE = 4


@dataclass
class Order:
    amount: int = 1
    gate: str = ""
    """A file that `pay` waits for. It tells that it waits by making the file with `.waits` behind its name."""
    ask: bool = False
    """Pause the first time."""


shop = Builder("shop", Order, Status)


@shop.step(Status.NEW, parallel_count=2, retry=Retry(initial=0.01, jitter=False, max_attempts=2))
def pay(run: Run[Order, Status]) -> Literal[Status.PAID, Status.SENT] | Outcome:
    order = run.object
    if order.ask:
        order.ask = False
        return run.pause("somebody has to look")
    if order.gate:
        Path(f"{order.gate}.waits").touch()
        while not Path(order.gate).exists():
            threading.Event().wait(0.005)
    if order.amount < 0:
        raise ValueError("a negative amount")
    return Status.SENT if order.amount == 0 else Status.PAID


@shop.step(Status.PAID, parallel_count=2)
def send(run: Run[Order, Status]) -> Literal[Status.DONE]:
    return Status.DONE


@shop.callback(Status.SENT)
def arrived(run: Run[Order, Status], payload: bytes) -> Literal[Status.DONE]:
    return Status.DONE


@shop.timeout(Status.SENT, after=timedelta(days=2))
def lost(run: Run[Order, Status], now: object) -> Literal[Status.DONE]:
    return Status.DONE


def keeping(adapters: Adapters) -> Workflow[Order, Status]:
    """For `MODULE:WORKFLOW` as a callable."""
    return shop.build(adapters, retention=timedelta(days=1))


def no_workflow(adapters: Adapters) -> int:
    return 3


number = 3
