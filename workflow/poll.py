"""Looking after what is due: the poller waits for the next due item, the sweeper goes over all records now and then.

Neither polls blindly. A poller asks its store once for what is due; if there is nothing, it asks for the next item that
will be, and sleeps until that instant, or until the store tells of a change. Only a store that cannot notify is looked
at every `poll_interval`. A sweeper is for what no event announces, and may be slow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any, Generic, Protocol, TypeVar

from .clock import Clock, Signal
from .consume import Duty
from .environment import Environment
from .options import IDLE_LIMIT, POLL_INTERVAL, SWEEP_INTERVAL
from .protocols import Unsubscribe, notify
from .record import Record, RecordFilter

FAR = datetime(2199, 12, 31, tzinfo=timezone.utc)
"""Later than anything is due: a listing with this `now` and limit 1 tells the next due time."""
SWEEP_PAGE = 100
STUCK_PAUSE = 0.2
"""Seconds to wait before items are tried again that handling did not get rid of."""

I = TypeVar("I")  # noqa: E741 - an item


class Source(Protocol[I]):
    """Where a poller finds what is due."""

    def due(self, now: datetime, limit: int) -> Sequence[I]:
        """Items due at `now`, the earliest first."""
        ...

    def due_at(self, item: I) -> datetime:
        """When this one is due."""
        ...

    def name_of(self, item: I) -> str:
        """What tells it from others."""
        ...

    def subscribe(self, signal: Signal) -> Unsubscribe | None:
        """Have `signal` notified when something new may be due; None if the store cannot."""
        ...

    def handle(self, items: Sequence[I], duty: Duty) -> None:
        """Deal with due items, so that they are due no more: end them, or put them off."""
        ...


class Poller(Generic[I]):
    """Serves one role over a source. `serve` runs on one thread."""

    def __init__(self, clock: Clock, source: Source[I], batch: int, poll_interval: float | None) -> None:
        self._clock = clock
        self._source = source
        self._batch = batch
        self._poll_interval = poll_interval

    def serve(self, duty: Duty) -> None:
        """Handle what comes due until `duty.idle` fires, which raises `Cancelled`."""
        signal = self._clock.signal()
        unsubscribe = self._source.subscribe(signal)
        try:
            handled: list[str] = []
            while True:
                handled = self._turn(handled, signal, unsubscribe is not None, duty)
        finally:
            if unsubscribe is not None:
                unsubscribe()

    def _turn(self, handled: list[str], signal: Signal, told: bool, duty: Duty) -> list[str]:
        """Handle what is due, or sleep until something is. Returns the names of what was handled."""
        duty.idle.raise_if_cancelled()
        items = self._source.due(self._clock.now(), self._batch)
        if not items:
            signal.wait(duty.idle, self._sleep(told))
            return []
        names = [self._source.name_of(item) for item in items]
        if names == handled:
            signal.wait(duty.idle, STUCK_PAUSE)
        self._source.handle(items, duty)
        duty.progress()
        return names

    def _sleep(self, told: bool) -> float:
        """Seconds until the next look."""
        longest = IDLE_LIMIT if told else POLL_INTERVAL
        if self._poll_interval is not None:
            longest = min(longest, self._poll_interval)
        following = self._source.due(FAR, 1)
        if not following:
            return longest
        left = (self._source.due_at(following[0]) - self._clock.now()).total_seconds()
        return max(0.0, min(left, longest))


class Sweeper:
    """Serves one role that goes over records. `serve` runs on one thread."""

    def __init__(
        self,
        environment: Environment[Any, Any],
        where: Callable[[datetime], RecordFilter],
        handle: Callable[[Record, Duty], None],
        interval: float = SWEEP_INTERVAL,
        after: Callable[[datetime, Duty], None] | None = None,
    ) -> None:
        """`where` tells which records, given the time of the sweep; `after` is called once all of them were handled."""
        self._environment = environment
        self._where = where
        self._handle = handle
        self._interval = interval
        self._after = after

    def serve(self, duty: Duty) -> None:
        """Sweep every `interval` seconds until `duty.idle` fires, which raises `Cancelled`."""
        clock = self._environment.clock
        while True:
            now = clock.now()
            self._sweep(now, duty)
            if self._after is not None:
                self._after(now, duty)
            duty.progress()
            clock.signal().wait(duty.idle, self._interval)

    def _sweep(self, now: datetime, duty: Duty) -> None:
        store, name, where = self._environment.adapters.record_store, self._environment.workflow_name, self._where(now)
        cursor = ""
        while True:
            page = store.list(name, after=cursor, limit=SWEEP_PAGE, where=where)
            for record in page.items:
                duty.idle.raise_if_cancelled()
                self._handle(record, duty)
            cursor = page.next
            if not cursor:
                return


def subscribe_to(adapter: Any, kind: str, name: str, signal: Signal) -> Unsubscribe | None:
    """Subscribe `signal`, if the adapter can notify."""
    notifier = notify(adapter)
    return notifier.subscribe(kind, name, signal) if notifier else None
