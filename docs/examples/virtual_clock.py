"""A test of a workflow that waits for two days, done in a moment: the clock is virtual, all else is the real engine.

    python docs/examples/virtual_clock.py

In a project of your own, `test_…` functions like these stand in its tests; pytest needs nothing more.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import Literal

if not __package__:  # started as a script, from a checkout: `workflow` is two folders up
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import workflow
from workflow.testing import VirtualClock, run_for, wait_for_state


class Invoice(IntEnum):
    SENT = 1
    REMINDED = 2
    PAID = 3
    OVERDUE = 4


@dataclass
class Bill:
    amount: int = 0
    reminders: int = 0


Running = workflow.Run[Bill, Invoice]
b = workflow.Builder("invoices", Bill, Invoice)


@b.timeout(Invoice.SENT, after=timedelta(days=1))
def remind(run: Running, now: datetime) -> Literal[Invoice.REMINDED]:
    run.object.reminders += 1
    return Invoice.REMINDED


@b.timeout(Invoice.REMINDED, after=timedelta(days=1))
def give_up(run: Running, now: datetime) -> Literal[Invoice.OVERDUE]:
    return Invoice.OVERDUE


@b.callback(Invoice.SENT)
@b.callback(Invoice.REMINDED)
def paid(run: Running, payload: bytes) -> Literal[Invoice.PAID]:
    return Invoice.PAID


def test_one_function_alone() -> None:
    run = run_for(Bill(amount=7), Invoice.SENT)
    assert remind(run, run.entered_at) is Invoice.REMINDED
    assert run.object.reminders == 1


def test_two_days() -> None:
    clock = VirtualClock()
    wf = b.build(workflow.memory(clock=clock), clock=clock)
    with wf:
        late, good = wf.trigger("late"), wf.trigger("good")
        clock.advance(timedelta(hours=25))
        assert wf.get(good).status is Invoice.REMINDED
        assert wf.callback("good", Invoice.REMINDED, b"from the bank")
        clock.advance(timedelta(hours=25))
        assert wait_for_state(wf, late, workflow.RunState.COMPLETED).status is Invoice.OVERDUE
        assert wait_for_state(wf, good, workflow.RunState.COMPLETED).status is Invoice.PAID
        lasted = wf.get(late).updated_at - wf.get(late).created_at
    assert timedelta(days=2) <= lasted < timedelta(days=2, minutes=1)


if __name__ == "__main__":
    test_one_function_alone()
    test_two_days()
    print("two days passed")
