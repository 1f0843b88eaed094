"""Deleting a run's data: the object, its error text, what its events carry, and what is still due for it.

`delete_data` only asks; this process does it, in an order that can be repeated from any point: the store blanks the
record and the run's outbox rows in one transaction, then the run's due items are purged, then the event is
acknowledged. The history stays: it holds no data of the user's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .call import InHand, attempt
from .commit import Committer
from .consume import Duty
from .environment import Environment, Fault
from .errors import Refusal, StaleRecord
from .event import Change, Timeout
from .items import SUSPECT
from .options import Retry
from .parked import Parking, Redo
from .protocols import Delivery
from .record import Record
from .run import RunView
from .run_state import RunState
from .transition import Erased, advance

PROCESS = "delete"
CustomDelete = Callable[[RunView[Any, Any]], Any]
"""Given the run, returns the object to keep in place of the deleted one; None keeps nothing."""


class DeleteHandler:
    """What the delete process does with an event of the run-state topic."""

    def __init__(
        self,
        environment: Environment[Any, Any],
        committer: Committer,
        in_hand: InHand,
        parking: Parking,
        custom: CustomDelete | None,
        retry: Retry,
    ) -> None:
        self._environment = environment
        self._committer = committer
        self._in_hand = in_hand
        self._parking = parking
        self._custom = custom
        parking.register(PROCESS, Redo(self._again, retry))

    def alone(self, delivery: Delivery, record: Record) -> bool:
        return False

    def handle(self, delivery: Delivery, record: Record, duty: Duty) -> Change | None:
        if delivery.event.run_state is not RunState.DATA_DELETION_REQUESTED:
            return None
        suspect = delivery.redelivered and self._custom is not None
        fault = SUSPECT if suspect else self._delete(record, duty)
        if fault is not None:
            event = delivery.event
            self._parking.park(PROCESS, f"{event.key}:{event.version}", fault, run_id=event.key)
        return None

    def refused(self, record: Record, refusal: Refusal) -> Change | None:
        return None

    def _delete(self, record: Record, duty: Duty) -> Fault | None:
        """Blank the record, then purge what is due for it."""
        if record.run_state is RunState.DATA_DELETION_REQUESTED:
            with self._in_hand.hold(PROCESS, record.run_id, duty.work):
                made = attempt(partial(self._remains, record))
            if made.answer is None:
                return made.fault
            refusal = self._committer.commit([advance(self._environment, record, Erased(made.answer))])[0]
            if refusal is not None and not isinstance(refusal, StaleRecord):
                raise refusal
        self._environment.adapters.timeout_store.purge([record.run_id])
        return None

    def _remains(self, record: Record) -> bytes:
        """What stays in the object's place."""
        if self._custom is None:
            return b""
        kept = self._custom(self._environment.view(record))
        return b"" if kept is None else self._environment.encode(kept)

    def _again(self, item: Timeout, duty: Duty) -> Fault | None:
        record = self._environment.adapters.record_store.lookup([item.run_id])[0]
        if record is None:
            return None
        return self._delete(record, duty)
