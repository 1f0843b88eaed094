"""An event log in memory: the handle on the topics of a storage."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ...clock import Clock, Signal
from ...event import Event, Shard
from ...protocols import Cursor, LogEntry, ReceiverInfo, Unsubscribe
from ..support.guard import Guard
from .storable import Unstorable, check_limit, check_texts, own_event, rejected
from .storage import MemoryStorage


class MemoryEventLog:
    """An `EventLog`."""

    capabilities = frozenset({"notify", "lag"})

    def __init__(self, storage: MemoryStorage, clock: Clock) -> None:
        self.storage = storage
        self._runs = storage.runs
        self._clock = clock
        self._guard = Guard("the event log in memory")

    def close(self) -> None:
        self._guard.close()

    def append(self, topic: str, events: Sequence[Event]) -> None:
        self._guard.check()
        try:
            check_texts((topic,))
            owned = [own_event(event) for event in events]
        except Unstorable as error:
            raise rejected(f"an event of topic {topic!r}", error) from error
        with self._runs.lock:
            log = self._runs.topic(topic)
            for event in owned:
                log.append(event)
        self._runs.topic_listeners.tell(topic, [event.key for event in owned])

    def read(self, topic: str, shard: Shard, after: int, limit: int) -> tuple[Sequence[LogEntry], int]:
        self._guard.check()
        check_limit(limit)
        with self._runs.lock:
            log = self._runs.topics.get(topic)
            return log.read(shard, after, limit) if log is not None else ([], after)

    def open_cursor(self, topic: str, name: str, shard: Shard) -> Cursor:
        self._guard.check()
        now = self._clock.now()
        with self._runs.lock:
            return self._runs.topic(topic).open_cursor(name, shard, self._runs.next_generation(), now)

    def save_cursor(self, cursor: Cursor, acked: int, handed_out: int) -> None:
        self._guard.check()
        with self._runs.lock:
            log = self._runs.topics.get(cursor.topic)
            if log is not None:
                log.save_cursor(cursor, acked, handed_out)

    def cursors(self) -> Sequence[ReceiverInfo]:
        self._guard.check()
        with self._runs.lock:
            return [
                ReceiverInfo(topic.name, name, layout.last_opened)
                for topic in self._runs.topics.values()
                for name, layout in topic.layouts.items()
            ]

    def forget(self, topic: str, name: str) -> None:
        self._guard.check()
        with self._runs.lock:
            log = self._runs.topics.get(topic)
            if log is not None:
                log.forget(name)

    # --- capabilities ----------------------------------------------------------------------------------------------

    def subscribe_topic(self, topic: str, shard: Shard, signal: Signal) -> Unsubscribe:
        self._guard.check()
        return self._runs.topic_listeners.subscribe(topic, shard, signal)

    def pending(self, topic: str, name: str) -> tuple[int, datetime | None]:
        """`lag`: how many events the name has not acknowledged, and since when the oldest is there."""
        self._guard.check()
        with self._runs.lock:
            log = self._runs.topics.get(topic)
            return log.pending(name) if log is not None else (0, None)
