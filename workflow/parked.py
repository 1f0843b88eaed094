"""Parked failures: what a reader could not do for one event waits here, so that its topic goes on.

A failing hook, connector event, timer insertion or delete becomes a *parked* item of the timeout store, and its event
is acknowledged. The parked process tries it again with backoff; after the last attempt it is held: visible in `items`,
and tried again by `retry`. Later events of the same run overtake it.

The same process looks after buffered callbacks that are due, since their caller may have ended before it could apply
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from . import callback
from .callback import Callbacks
from .clock import Signal
from .consume import Duty
from .environment import Environment, Fault
from .event import NewTimeout, Timeout, TimeoutState, composite
from .items import claim, postpone
from .options import Retry
from .poll import subscribe_to
from .protocols import Unsubscribe

KIND = "parked"


class Redo(NamedTuple):
    """How a parked item of one process is tried again."""

    again: Callable[[Timeout, Duty], Fault | None]
    """Try it; None if it went well, or is not needed any more."""
    retry: Retry


class Parking:
    """Parks failures and tries them again. Thread-safe."""

    def __init__(self, environment: Environment[Any, Any]) -> None:
        self._environment = environment
        self._redo: dict[str, Redo] = {}

    def register(self, name: str, redo: Redo) -> None:
        """Say how items that were parked as `name` are tried again."""
        self._redo[name] = redo

    def park(self, name: str, key: str, fault: Fault, *, run_id: str = "", payload: bytes = b"") -> None:
        """Keep a failure. `key` tells it from others of `name`; parking it twice keeps it once."""
        environment, now = self._environment, self._environment.now()
        retry = self._redo[name].retry
        environment.metrics.count("workflow_errors_total", workflow=environment.workflow_name, kind=fault.type)
        item = NewTimeout(
            workflow_name=environment.workflow_name,
            kind=KIND,
            key=composite(name, key),
            name=name,
            run_id=run_id,
            payload=payload,
            due_at=now + retry.delay(1, environment.runtime.random) if retry.max_attempts > 1 else None,
            created_at=now,
            error_type=fault.type,
            region=environment.region,
        )
        environment.adapters.timeout_store.create([item])

    def again(self, item: Timeout, duty: Duty) -> None:
        """Try a parked item; end it, put it off, or hold it. The attempt is counted first: it may end the process."""
        redo = self._redo.get(item.name)
        store = self._environment.adapters.timeout_store
        if redo is None:
            store.reschedule(item.id, None, item.attempt, "UnknownProcess")
            return
        if not claim(self._environment, item, redo.retry, before=1):
            return
        fault = redo.again(item, duty)
        if fault is None:
            store.finish([item.id], TimeoutState.COMPLETED)
        else:
            postpone(self._environment, item, fault, redo.retry, before=1)


class ParkedSource:
    """A poller's source: parked items, and buffered callbacks that are due."""

    def __init__(
        self, environment: Environment[Any, Any], parking: Parking, callbacks: Callbacks, buffered: Sequence[int]
    ) -> None:
        self._environment = environment
        self._parking = parking
        self._callbacks = callbacks
        self._lists = [(KIND, 0), *((callback.KIND, status) for status in buffered)]

    def due(self, now: datetime, limit: int) -> Sequence[Timeout]:
        store, name, region = (
            self._environment.adapters.timeout_store,
            self._environment.workflow_name,
            self._environment.region,
        )
        found = [
            item
            for kind, status in self._lists
            for item in store.list_valid(name, kind, status, now, limit, region=region)
        ]
        return sorted(found, key=self.due_at)[:limit]

    def due_at(self, item: Timeout) -> datetime:
        return item.due_at or item.created_at

    def name_of(self, item: Timeout) -> str:
        return item.id

    def subscribe(self, signal: Signal) -> Unsubscribe | None:
        environment = self._environment
        return subscribe_to(environment.adapters.timeout_store, "timeout", environment.workflow_name, signal)

    def handle(self, items: Sequence[Timeout], duty: Duty) -> None:
        self._callbacks.due([item for item in items if item.kind == callback.KIND])
        for item in items:
            if item.kind == KIND:
                duty.idle.raise_if_cancelled()
                self._parking.again(item, duty)
