"""The log of each topic, and who has read how far.

A position is the topic's head + 1, given in the transaction that writes the entry. There is one writer at a time, so
positions become visible in their order and without gaps: whoever has read up to one has seen all below it.

A receiver's name has one *layout*: its number of shards. A cursor belongs to a layout, and a new layout is a new row
with a new id, the generation. So what is left of the old one finds no row to update, and changes nothing. A layout is
as far as its first entry that is not acknowledged: a shard that owns no entry holds up nothing.

Trimming. What every layout of a topic has acknowledged is deleted, oldest first, `TRIM` entries at a time, by whoever
saves progress when at least that much can go. So it costs little, never holds the lock for long, and leaves less than
`TRIM` entries behind for each topic.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from ...clock import Signal
from ...event import Event, Shard, hash_of
from ...protocols import Cursor, LogEntry, ReceiverInfo, Unsubscribe
from ..support.guard import Guard
from .batch import INSERT_EVENT, SET_HEAD
from .database import Database
from .rows import UNSTORABLE, check_limit, event_from, event_row, id_of, instant, micros, rejected
from .watcher import TOPIC, Watcher

TRIM = 500

READ = """SELECT position, key, status, run_state, version, created_at, headers FROM event
    WHERE topic = ? AND position > ? ORDER BY position LIMIT ?"""
READ_SHARD = READ.replace("ORDER", "AND hash % ? = ? ORDER")


class SqliteEventLog:
    """An `EventLog`."""

    capabilities = frozenset({"notify", "lag"})

    def __init__(self, database: Database, watcher: Watcher) -> None:
        self._database = database
        self._watcher = watcher
        self._guard = Guard(f"the event log of {database.path}")
        self._trimmed: dict[int, int] = {}  # topic to the position up to which this handle last knew it to be trimmed

    @property
    def file_id(self) -> tuple[int, int]:
        """The same for all handles on one file."""
        return self._database.file_id

    def close(self) -> None:
        self._guard.close()

    def append(self, topic: str, events: Sequence[Event]) -> None:
        self._guard.check()
        if not events:
            return
        try:
            rows = [(hash_of(event.key), *event_row(event)) for event in events]
        except UNSTORABLE as error:
            raise rejected(f"an event of topic {topic!r}", error) from error
        number = self._database.number_of(topic)
        with self._database.write() as connection:
            before = _topic(connection, number)[0]
            head = before + len(rows)
            positioned = [(number, position, *row) for position, row in enumerate(rows, before + 1)]
            connection.executemany(INSERT_EVENT, positioned)
            connection.execute(SET_HEAD, (number, head))
        self._watcher.tell_topic(number, before, head, {row[0] for row in rows})

    def read(self, topic: str, shard: Shard, after: int, limit: int) -> tuple[Sequence[LogEntry], int]:
        self._guard.check()
        check_limit(limit)
        number = self._database.find(topic)
        with self._database.read() as connection:
            if shard.total == 1:
                looked = after
                rows = connection.execute(READ, (number, after, limit)).fetchall()
            else:
                looked = max(after, _topic(connection, number)[0])  # first: what is written from now on lies above it
                values = (number, after, shard.total, shard.index - 1, limit)
                rows = connection.execute(READ_SHARD, values).fetchall()
        entries = [LogEntry(row[0], event_from(row[1:], topic, id_of(row[0]))) for row in rows]
        if entries:
            last = entries[-1].position
            looked = last if len(entries) == limit else max(looked, last)
        return entries, looked

    # --- progress --------------------------------------------------------------------------------------------------

    def open_cursor(self, topic: str, name: str, shard: Shard) -> Cursor:
        self._guard.check()
        topic_number, name_number = self._database.number_of(topic), self._database.number_of(name)
        now = micros(self._database.runtime.clock.now())
        with self._database.write() as connection:
            layout = _open_layout(connection, topic_number, name_number, shard.total, now)
            acked, handed_out = connection.execute(
                "SELECT acked, handed_out FROM cursor WHERE layout = ? AND shard = ?", (layout, shard.index)
            ).fetchone()
            head = _topic(connection, topic_number)[0]
        return Cursor(topic, name, shard, layout, acked, handed_out, head)

    def save_cursor(self, cursor: Cursor, acked: int, handed_out: int) -> None:
        self._guard.check()
        topic = self._database.find(cursor.topic)
        with self._database.write(durable=False) as connection:
            connection.execute(
                "UPDATE cursor SET acked = max(acked, ?), handed_out = ? WHERE layout = ? AND shard = ?",
                (acked, handed_out, cursor.generation, cursor.shard.index),
            )
            if acked - self._trimmed.get(topic, 0) >= TRIM:
                self._trim(connection, topic)

    def cursors(self) -> Sequence[ReceiverInfo]:
        self._guard.check()
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT topic.text, name.text, last_opened FROM layout JOIN name AS topic ON topic.id = layout.topic "
                "JOIN name ON name.id = layout.name ORDER BY layout.id"
            ).fetchall()
        return [ReceiverInfo(topic, name, instant(last_opened)) for topic, name, last_opened in rows]

    def forget(self, topic: str, name: str) -> None:
        self._guard.check()
        topic_number, name_number = self._database.find(topic), self._database.find(name)
        with self._database.write() as connection:
            query = "SELECT id FROM layout WHERE topic = ? AND name = ?"
            row = connection.execute(query, (topic_number, name_number)).fetchone()
            if row is not None:
                _drop_layout(connection, row[0])
                self._trim(connection, topic_number)

    def _trim(self, connection: sqlite3.Connection, topic: int) -> None:
        """Delete the oldest entries that every layout has acknowledged, if they are worth it."""
        layouts = connection.execute("SELECT id, shards FROM layout WHERE topic = ?", (topic,)).fetchall()
        if not layouts:
            return  # no receiver is known: all is kept
        trimmed = _topic(connection, topic)[1]
        least = min(_progress(connection, topic, layout, shards) for layout, shards in layouts)
        if least - trimmed >= TRIM:
            # Twice as much as came: a long backlog, as `forget` may leave, melts away little by little.
            trimmed = min(least, trimmed + 2 * TRIM)
            connection.execute("DELETE FROM event WHERE topic = ? AND position <= ?", (topic, trimmed))
            connection.execute("UPDATE topic SET trimmed = ? WHERE id = ?", (trimmed, topic))
        self._trimmed[topic] = trimmed

    # --- capabilities ----------------------------------------------------------------------------------------------

    def pending(self, topic: str, name: str) -> tuple[int, datetime | None]:
        """Positions have no gaps: only what lies between the slowest and the fastest shard is counted one by one."""
        self._guard.check()
        topic_number, name_number = self._database.find(topic), self._database.find(name)
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT id, shards FROM layout WHERE topic = ? AND name = ?", (topic_number, name_number)
            ).fetchone()
            if row is None:
                return 0, None
            head = _topic(connection, topic_number)[0]
            fastest = connection.execute("SELECT max(acked) FROM cursor WHERE layout = ?", row[:1]).fetchone()[0]
            between = connection.execute(
                f"SELECT count(*) {UNACKED} AND position <= ?", (*_unacked(connection, topic_number, *row), fastest)
            ).fetchone()[0]
            oldest = connection.execute(
                f"SELECT created_at {UNACKED} ORDER BY position LIMIT 1", _unacked(connection, topic_number, *row)
            ).fetchone()
        return between + max(0, head - fastest), instant(oldest[0]) if oldest else None

    def subscribe_topic(self, topic: str, shard: Shard, signal: Signal) -> Unsubscribe:
        self._guard.check()
        return self._watcher.subscribe(TOPIC, self._database.number_of(topic), signal, shard)


def _topic(connection: sqlite3.Connection, topic: int) -> tuple[int, int]:
    """The last position of the topic, and the last one that was trimmed."""
    row = connection.execute("SELECT head, trimmed FROM topic WHERE id = ?", (topic,)).fetchone()
    return (row[0], row[1]) if row else (0, 0)


UNACKED = """FROM event WHERE topic = ? AND position > ? AND position >
    (SELECT acked FROM cursor WHERE layout = ? AND shard = hash % ? + 1)"""


def _unacked(connection: sqlite3.Connection, topic: int, layout: int, shards: int) -> tuple[int, int, int, int]:
    """The parameters of `UNACKED`: what this layout has not acknowledged, looked for from its slowest shard on."""
    slowest = connection.execute("SELECT min(acked) FROM cursor WHERE layout = ?", (layout,)).fetchone()[0]
    return topic, slowest, layout, shards


def _progress(connection: sqlite3.Connection, topic: int, layout: int, shards: int) -> int:
    """The position up to which all shards of a layout have acknowledged everything."""
    values = _unacked(connection, topic, layout, shards)
    row = connection.execute(f"SELECT position {UNACKED} ORDER BY position LIMIT 1", values).fetchone()
    return row[0] - 1 if row else _topic(connection, topic)[0]


def _open_layout(connection: sqlite3.Connection, topic: int, name: int, shards: int, now: int) -> int:
    """The generation of the name's layout, a new one if the number of shards is not that of the last."""
    row = connection.execute("SELECT id, shards FROM layout WHERE topic = ? AND name = ?", (topic, name)).fetchone()
    if row is not None and row[1] == shards:
        connection.execute("UPDATE layout SET last_opened = ? WHERE id = ?", (now, row[0]))
        return int(row[0])
    if row is None:
        acked = handed_out = _topic(connection, topic)[1]
    else:
        acked = _progress(connection, topic, *row)
        query = "SELECT max(handed_out) FROM cursor WHERE layout = ?"
        handed_out = connection.execute(query, row[:1]).fetchone()[0]
        _drop_layout(connection, row[0])
    connection.execute(
        "INSERT INTO layout (topic, name, shards, last_opened) VALUES (?, ?, ?, ?)", (topic, name, shards, now)
    )
    layout: int = connection.execute("SELECT last_insert_rowid()").fetchone()[0]
    connection.executemany(
        "INSERT INTO cursor VALUES (?, ?, ?, ?)", [(layout, shard, acked, handed_out) for shard in range(1, shards + 1)]
    )
    return layout


def _drop_layout(connection: sqlite3.Connection, layout: int) -> None:
    connection.execute("DELETE FROM cursor WHERE layout = ?", (layout,))
    connection.execute("DELETE FROM layout WHERE id = ?", (layout,))
