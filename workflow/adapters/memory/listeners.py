"""Who waits for what: signals by what they are to be told of, and topics' by shard too, so that only those concerned
wake.

Telling costs a look into a dictionary when nobody waits. Signals are notified after the lock is let go.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable

from ...clock import Signal
from ...event import Shard, hash_of
from ...protocols import Unsubscribe


class Listeners:
    """Signals by key. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._signals: dict[Hashable, dict[object, Signal]] = {}

    def subscribe(self, key: Hashable, signal: Signal) -> Unsubscribe:
        """Notify `signal` at every `tell(key)`."""
        me = object()
        with self._lock:
            self._signals.setdefault(key, {})[me] = signal

        def unsubscribe() -> None:
            with self._lock:
                signals = self._signals.get(key)
                if signals is not None:
                    signals.pop(me, None)
                    if not signals:
                        del self._signals[key]

        return unsubscribe

    def tell(self, key: Hashable) -> None:
        """Notify those who wait for `key`."""
        if key not in self._signals:
            return
        with self._lock:
            signals = list(self._signals.get(key, {}).values())
        for signal in signals:
            signal.notify()


class TopicListeners:
    """Signals by topic and shard. Thread-safe."""

    def __init__(self) -> None:
        self._listeners = Listeners()
        self._lock = threading.Lock()
        self._totals: dict[str, dict[int, int]] = {}  # for each topic: how many wait for a shard of so many

    def subscribe(self, topic: str, shard: Shard, signal: Signal) -> Unsubscribe:
        """Notify `signal` when something of this shard is appended."""
        leave = self._listeners.subscribe((topic, shard.total, shard.index - 1), signal)
        self._count(topic, shard.total, 1)
        gone = False

        def unsubscribe() -> None:
            nonlocal gone
            if not gone:
                gone = True
                leave()
                self._count(topic, shard.total, -1)

        return unsubscribe

    def _count(self, topic: str, total: int, change: int) -> None:
        with self._lock:
            totals = dict(self._totals.get(topic, {}))
            totals[total] = totals.get(total, 0) + change
            self._totals[topic] = {known: count for known, count in totals.items() if count}
            if not self._totals[topic]:
                del self._totals[topic]

    def tell(self, topic: str, keys: Iterable[str]) -> None:
        """Entries with these keys were appended."""
        totals = self._totals.get(topic)
        if not totals:
            return
        for total in totals:
            shards = {0} if total == 1 else {hash_of(key) % total for key in keys}
            for shard in shards:
                self._listeners.tell((topic, total, shard))
