"""Who waits for what, and how they hear of it.

A change made through this database object is told at once, by the thread that committed it (`tell`, `tell_topic`).
Changes of other processes, and of other handles in this one, are found by one thread, which lives only while somebody
is subscribed: it asks `PRAGMA data_version`, a look into shared memory, every `SHORTEST` to `LONGEST` seconds; when
that has moved, it reads the numbers of what is subscribed, and tells those whose number has risen.

Every kind has such a number: a topic its head, a run its version, the outbox, the due items and the leases the counters
in `change`. What was told is remembered, so that the thread does not tell it again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ...clock import Signal, Task
from ...errors import WorkflowError
from ...event import WHOLE, Shard
from ...protocols import Unsubscribe
from .database import Database, select_in

SHORTEST, LONGEST, GROWTH = 0.01, 0.05, 1.05
"""Seconds between two looks: few after a change, for where one was there will be more, and slowly more while all is
quiet. Most of what a look costs is to wake up."""
AFTER_FAILURE = 1.0
SAMPLE = 1000
"""New entries of a topic that are looked at to find the shards concerned; with more, all are told."""

TOPIC, RUN, OUTBOX, TIMEOUT, LEASE = "topic", "run", "outbox", "timeout", "lease"
Key = tuple[str, int | str]
"""A kind, and what it is about: a name's number, or a run's id."""


@dataclass
class _Watch:
    """All who wait for one key, and the number that they know of."""

    seen: int = -1
    """-1 until the first subscriber has read it."""
    signals: dict[object, tuple[Shard, Signal]] = field(default_factory=dict)


class Watcher:
    """The subscribers of one database. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._watches: dict[Key, _Watch] = {}  # guarded by the lock, as are the thread and its signal
        self._thread: Task | None = None
        self._wake: Signal | None = None
        database.on_close(self._stop)

    def subscribe(self, kind: str, name: int | str, signal: Signal, shard: Shard = WHOLE) -> Unsubscribe:
        """Notify `signal` of every change after this."""
        self._database.check()
        key, me = (kind, name), object()
        with self._lock:
            watch = self._watches.setdefault(key, _Watch())
            watch.signals[me] = (shard, signal)
            self._start()

        def unsubscribe() -> None:
            with self._lock:
                watch.signals.pop(me, None)
                if not watch.signals and self._watches.get(key) is watch:
                    del self._watches[key]
                if not self._watches and self._wake is not None:
                    self._wake.notify()

        try:
            # Only now: a change after this read is one that the number tells.
            number = self._numbers([key]).get(key, 0)
        except WorkflowError:
            unsubscribe()
            raise
        with self._lock:
            if watch.seen < 0:  # else others wait for it too, who may not have been told of all up to `number`
                watch.seen = number
        return unsubscribe

    # --- changes of our own ----------------------------------------------------------------------------------------

    def tell(self, kind: str, name: int | str, number: int) -> None:
        """Notify those who wait for it: `number` was committed here."""
        if (kind, name) in self._watches:
            self._tell((kind, name), number)

    def tell_topic(self, topic: int, before: int, head: int, hashes: Collection[int]) -> None:
        """Notify those who wait for a shard that the entries after `before` are in: these are their keys' hashes."""
        if (TOPIC, topic) in self._watches:
            self._tell((TOPIC, topic), head, before, hashes)

    def _tell(self, key: Key, number: int, before: int = 0, hashes: Collection[int] | None = None) -> None:
        with self._lock:
            watch = self._watches.get(key)
            if watch is None:
                return
            if watch.seen < before:
                hashes = None  # another process's entries lie in between, of shards that we do not know
            watch.seen = max(watch.seen, number)
            signals = [signal for shard, signal in watch.signals.values() if _concerned(shard, hashes)]
        for signal in signals:
            signal.notify()

    # --- changes of others -----------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None:
            wake = self._wake = self._database.runtime.clock.signal()
            self._thread = self._database.runtime.spawn("workflow-sqlite-watcher", lambda: self._watch(wake))

    def _stop(self) -> None:
        with self._lock:
            thread, wake = self._thread, self._wake
            watches, self._watches = list(self._watches.values()), {}
        if thread is not None and wake is not None:
            wake.notify()
            thread.join()
        for watch in watches:  # whoever waits looks, and finds the store closed
            for _, signal in watch.signals.values():
                signal.notify()

    def _watch(self, wake: Signal) -> None:
        version, pause = 0, SHORTEST
        while self._goes_on():
            try:
                before, version = version, self._look(version)
                pause = SHORTEST if version != before else min(pause * GROWTH, LONGEST)
            except WorkflowError:
                # Whoever waits must not take silence for "nothing new": they look for themselves, and meet the error.
                self._tell_all()
                pause = AFTER_FAILURE
            wake.wait(timeout=pause)

    def _goes_on(self) -> bool:
        with self._lock:
            if self._watches and not self._database.closed:
                return True
            self._thread = None
            return False

    def _look(self, version: int) -> int:
        with self._database.watching() as connection:
            now: int = connection.execute("PRAGMA data_version").fetchone()[0]
        if now == version:
            return version
        with self._lock:
            keys = list(self._watches)
        numbers = self._numbers(keys)
        settled = [self._compare(key, numbers.get(key, 0)) for key in keys]
        return now if all(settled) else 0  # 0 is no version: the next look compares again

    def _compare(self, key: Key, number: int) -> bool:
        """Tell those who wait for it if it is new. False if it cannot be said, for nobody has read it before."""
        with self._lock:
            watch = self._watches.get(key)
            if watch is not None and watch.seen < 0:
                return False
            if watch is None or number == watch.seen or 0 < number < watch.seen:
                return True  # nothing new, or older than what was told already
            before, watch.seen = watch.seen, number
            sharded = any(shard.total > 1 for shard, _ in watch.signals.values())
        hashes = self._hashes(key, before, number) if sharded else None
        with self._lock:
            signals = [signal for shard, signal in watch.signals.values() if _concerned(shard, hashes)]
        for signal in signals:
            signal.notify()
        return True

    def _tell_all(self) -> None:
        with self._lock:
            signals = [signal for watch in self._watches.values() for _, signal in watch.signals.values()]
        for signal in signals:
            signal.notify()

    # --- numbers ---------------------------------------------------------------------------------------------------

    def _numbers(self, keys: Sequence[Key]) -> dict[Key, int]:
        """The current number of each key that has one."""
        topics = [name for kind, name in keys if kind == TOPIC]
        runs = [name for kind, name in keys if kind == RUN]
        with self._database.read() as connection:
            numbers = _read(connection, TOPIC, "SELECT id, head FROM topic WHERE id", topics)
            numbers.update(_read(connection, RUN, "SELECT run_id, version FROM run WHERE run_id", runs))
            if len(topics) + len(runs) < len(keys):
                rows = connection.execute("SELECT kind, name, number FROM change").fetchall()
                numbers.update(((kind, name), number) for kind, name, number in rows)
        return numbers

    def _hashes(self, key: Key, after: int, head: int) -> Collection[int] | None:
        """The hashes of the topic's new entries; None if there are too many to look at."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT hash FROM event WHERE topic = ? AND position > ? AND position <= ? LIMIT ?",
                (key[1], after, head, SAMPLE),
            ).fetchall()
        return None if len(rows) == SAMPLE else {row[0] for row in rows}


def _read(connection: sqlite3.Connection, kind: str, query: str, names: Sequence[int | str]) -> dict[Key, int]:
    return {(kind, name): number for name, number in select_in(connection, query, names)} if names else {}


def _concerned(shard: Shard, hashes: Collection[int] | None) -> bool:
    return hashes is None or shard.total == 1 or any(h % shard.total == shard.index - 1 for h in hashes)
