"""One topic's log, and the progress of its receivers.

Entries are kept once, in lists by shard: `parts[total][index - 1]` has the entries of that shard, oldest first.
`parts[1]` has all of them; the others are made when a receiver first reads with that many shards, and kept up from
then on. So a shard is read by bisection and a slice, however many other shards there are.

Trimming: what every layout has acknowledged goes, `TRIM` entries or more at a time. A shard whose entries are all
acknowledged is as far as the head: one that owns no entry holds up nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter

from ...event import Event, Shard, hash_of
from ...protocols import Cursor, LogEntry

TRIM = 500

_position = attrgetter("position")


@dataclass
class Layout:
    """How far the shards of one receiver's name are."""

    generation: int
    last_opened: datetime
    acked: list[int]
    handed_out: list[int]

    @property
    def total(self) -> int:
        return len(self.acked)


class Topic:
    """The log of one topic. Its owner locks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.head = 0
        self.layouts: dict[str, Layout] = {}
        self._trimmed = 0
        self._parts: dict[int, list[list[LogEntry]]] = {1: [[]]}
        self._advanced = 0  # how far all receivers together came since somebody looked for what can be trimmed

    def append(self, event: Event) -> None:
        """Give the event its position and its id, which rises as a text too."""
        self.head += 1
        stored = Event(
            self.name, event.key, event.status, event.run_state, event.version, event.created_at, event.headers,
            id=f"{self.head:012d}",
        )  # fmt: skip
        entry = LogEntry(self.head, stored)
        for total, shards in self._parts.items():
            shards[0 if total == 1 else hash_of(event.key) % total].append(entry)

    def read(self, shard: Shard, after: int, limit: int) -> tuple[Sequence[LogEntry], int]:
        """As `EventLog.read`."""
        entries = self._part(shard.total)[shard.index - 1]
        start = bisect_right(entries, after, key=_position)
        found = entries[start : start + limit]
        looked = found[-1].position if len(found) == limit else max(after, self.head)
        return found, looked

    def open_cursor(self, name: str, shard: Shard, generation: int, now: datetime) -> Cursor:
        """As `EventLog.open_cursor`; a layout that has to be made gets this generation."""
        layout = self.layouts.get(name)
        if layout is None:
            layout = self._new_layout(name, shard.total, generation, now, self._trimmed, self._trimmed)
        elif layout.total != shard.total:
            least, mark = self._least(layout), max(layout.handed_out)
            layout = self._new_layout(name, shard.total, generation, now, least, mark)
        layout.last_opened = now
        place = shard.index - 1
        return Cursor(
            self.name, name, shard, layout.generation, layout.acked[place], layout.handed_out[place], self.head
        )

    def _new_layout(self, name: str, total: int, generation: int, now: datetime, acked: int, mark: int) -> Layout:
        layout = self.layouts[name] = Layout(generation, now, [acked] * total, [mark] * total)
        in_use = {1, *(known.total for known in self.layouts.values())}
        self._parts = {total: shards for total, shards in self._parts.items() if total in in_use}
        return layout

    def save_cursor(self, cursor: Cursor, acked: int, handed_out: int) -> None:
        """As `EventLog.save_cursor`."""
        layout = self.layouts.get(cursor.name)
        if layout is None or layout.generation != cursor.generation:
            return
        place = cursor.shard.index - 1
        layout.handed_out[place] = handed_out
        came = acked - layout.acked[place]
        if came > 0:
            layout.acked[place] = acked
            self._advanced += came
            if self._advanced >= TRIM * layout.total:
                self.trim()

    def forget(self, name: str) -> None:
        """As `EventLog.forget`."""
        if self.layouts.pop(name, None) is not None:
            self.trim()

    def trim(self) -> None:
        """Let go of what every known receiver has acknowledged, if it is much."""
        self._advanced = 0
        if not self.layouts:
            return
        least = min(self._least(layout) for layout in self.layouts.values())
        if least - self._trimmed < TRIM:
            return
        self._trimmed = least
        for shards in self._parts.values():
            for entries in shards:
                del entries[: bisect_right(entries, least, key=_position)]

    def pending(self, name: str) -> tuple[int, datetime | None]:
        """How many entries this name has not acknowledged, and since when the oldest of them is there."""
        layout = self.layouts.get(name)
        if layout is None:
            return 0, None
        count = 0
        oldest: LogEntry | None = None
        for entries, acked in zip(self._part(layout.total), layout.acked, strict=True):
            start = bisect_right(entries, acked, key=_position)
            count += len(entries) - start
            if start < len(entries) and (oldest is None or entries[start].position < oldest.position):
                oldest = entries[start]
        return count, oldest.event.created_at if oldest else None

    def _least(self, layout: Layout) -> int:
        """The position up to which all shards of a layout have acknowledged everything."""
        least = self.head
        for entries, acked in zip(self._part(layout.total), layout.acked, strict=True):
            start = bisect_right(entries, acked, key=_position)
            if start < len(entries):
                least = min(least, entries[start].position - 1)
        return least

    def _part(self, total: int) -> list[list[LogEntry]]:
        """The entries by shard."""
        shards = self._parts.get(total)
        if shards is None:
            shards = self._parts[total] = [[] for _ in range(total)]
            for entry in self._parts[1][0]:
                shards[hash_of(entry.event.key) % total].append(entry)
        return shards
