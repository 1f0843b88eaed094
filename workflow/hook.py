"""Hooks: functions that are called when a run is paused, cancelled or completed.

Each hook is a reader of the workflow's run-state topic under a name of its own, so each sees every change, at least
once, and a slow or failing one delays nothing but itself. It gets the run as it is when it is called, which may be
newer than the change.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from .call import InHand, attempt
from .consume import Duty
from .environment import Environment, Fault
from .errors import Refusal
from .event import Change, Timeout
from .items import SUSPECT
from .options import Settled
from .parked import Parking, Redo
from .protocols import Delivery
from .record import Record
from .run import RunView
from .run_state import RunState


class Hook(NamedTuple):
    """A hook as the definition has it."""

    name: str
    run_state: RunState
    function: Callable[[RunView[Any, Any]], object]
    options: Settled

    @property
    def process(self) -> str:
        """The name of its process and receiver."""
        return f"hook.{self.name}"


class HookHandler:
    """What a hook's reader does with an event of the run-state topic."""

    def __init__(self, environment: Environment[Any, Any], hook: Hook, in_hand: InHand, parking: Parking) -> None:
        self._environment = environment
        self._hook = hook
        self._in_hand = in_hand
        self._parking = parking
        parking.register(hook.process, Redo(self._again, hook.options.retry))

    def alone(self, delivery: Delivery, record: Record) -> bool:
        return False

    def handle(self, delivery: Delivery, record: Record, duty: Duty) -> Change | None:
        event = delivery.event
        if event.run_state is not self._hook.run_state:
            return None
        fault = SUSPECT if delivery.redelivered else self._call(record, duty)
        if fault is not None:
            self._parking.park(self._hook.process, f"{event.key}:{event.version}", fault, run_id=event.key)
        return None

    def refused(self, record: Record, refusal: Refusal) -> Change | None:
        return None

    def _call(self, record: Record, duty: Duty) -> Fault | None:
        """Call the function; None if it went well."""
        if record.run_state is RunState.DATA_DELETED:
            self._environment.skipped("data-deleted", self._hook.process)
            return None
        with self._in_hand.hold(self._hook.process, record.run_id, duty.work):
            return attempt(partial(self._view_and_call, record)).fault

    def _view_and_call(self, record: Record) -> None:
        self._hook.function(self._environment.view(record))

    def _again(self, item: Timeout, duty: Duty) -> Fault | None:
        record = self._environment.adapters.record_store.lookup([item.run_id])[0]
        if record is None:
            self._environment.skipped("run-deleted", self._hook.process)
            return None
        return self._call(record, duty)
