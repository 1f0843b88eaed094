"""Runs, their history, their causes and their outbox, in one file.

`store` is in `batch`; here is the rest. Listings go by `id`, the order of creation, which no change alters: so a page
after another one meets each run that stays exactly once. The index (workflow, run state) has each run state's runs in
that order; a listing of several merges them. A filter that no index helps with looks at `WINDOW` runs at most, and then
ends the page, however few it found.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from ...clock import Signal
from ...errors import InvalidCursor, InvalidInput, Refusal
from ...event import Change, OutboxEvent
from ...protocols import ANY_RECORD, Definition, EventStreamer, Unsubscribe
from ...record import Order, Page, Record, RecordFilter, Transition
from ...run_state import RunState
from ..support.guard import Guard
from ..support.log_streamer import LogStreamer
from .batch import ADD_TALLY, Batch, draft
from .database import Database, bump, placeholders, select_in
from .event_log import SqliteEventLog
from .rows import (
    HISTORY_COLUMNS,
    RECORD_COLUMNS,
    UNSTORABLE,
    Row,
    bound,
    check_limit,
    check_texts,
    event_from,
    id_of,
    instant,
    integers,
    micros,
    numbers_of,
    record_from,
    rejected,
    transition_from,
)
from .watcher import OUTBOX, RUN, Watcher

WINDOW = 1000
OUTBOX_COLUMNS = "id, topic, available_at, attempt, error_type, key, status, run_state, version, created_at, headers"
CURSOR = "run-"


class SqliteRecordStore:
    """A `RecordStore`."""

    capabilities = frozenset({"direct-publish", "notify", "counts", "definitions"})

    def __init__(self, database: Database, watcher: Watcher) -> None:
        self._database = database
        self._watcher = watcher
        self._guard = Guard(f"the record store of {database.path}")

    def close(self) -> None:
        self._guard.close()

    def store(self, changes: Sequence[Change]) -> list[Refusal | None]:
        self._guard.check()
        if not changes:
            return []
        drafts = [draft(change, self._database) for change in changes]
        with self._database.write() as connection:
            batch = Batch(connection, drafts)
            answers = batch.run()
        batch.tell(self._watcher)
        return answers

    # --- runs ------------------------------------------------------------------------------------------------------

    def lookup(self, run_ids: Sequence[str]) -> list[Record | None]:
        self._guard.check()
        with self._database.read() as connection:
            query = f"SELECT {RECORD_COLUMNS} FROM run WHERE run_id"
            rows = select_in(connection, query, dict.fromkeys(run_ids))
        found = {record.run_id: record for record in self._records(rows)}
        return [found.get(run_id) for run_id in run_ids]

    def latest(self, workflow_name: str, foreign_id: str) -> Record | None:
        self._guard.check()
        workflow = self._database.find(workflow_name)
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT {RECORD_COLUMNS} FROM run INDEXED BY run_by_foreign_id "
                "WHERE workflow = ? AND foreign_id = ? ORDER BY id DESC LIMIT 1",
                (workflow, foreign_id),
            ).fetchall()
        return next(iter(self._records(rows)), None)

    def applied(self, workflow_name: str, cause: str) -> str | None:
        self._guard.check()
        workflow = self._database.find(workflow_name)
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT run.run_id FROM cause JOIN run ON run.id = cause.run "
                "WHERE cause.workflow = ? AND cause.cause = ?",
                (workflow, cause),
            ).fetchone()
        return row[0] if row else None

    def history(self, run_id: str, *, after_version: int = 0, limit: int = 1000) -> list[Transition]:
        self._guard.check()
        check_limit(limit)
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT {HISTORY_COLUMNS} FROM history "
                "WHERE run = (SELECT id FROM run WHERE run_id = ?) AND version > ? ORDER BY version LIMIT ?",
                (run_id, after_version, limit),
            ).fetchall()
        return [transition_from(row, run_id, self._database.name_of(row[6])) for row in rows]

    def list(
        self,
        workflow_name: str,
        *,
        after: str = "",
        limit: int = 25,
        order: Order = Order.ASCENDING,
        where: RecordFilter = ANY_RECORD,
    ) -> Page[Record]:
        self._guard.check()
        check_limit(limit)
        listing = _Listing(self._database.find(workflow_name), _position(after), order, where)
        if listing.is_empty:
            return Page(())
        with self._database.read() as connection:
            edge = None
            if listing.needs_window:
                edge = connection.execute(*listing.edge()).fetchone()
            rows = connection.execute(*listing.page(edge[0] if edge else None, limit + 1)).fetchall()
        last = rows[limit - 1][0] if len(rows) > limit else edge[0] if edge else None
        records = self._records([row[1:] for row in rows[:limit]])
        return Page(tuple(records), "" if last is None else f"{CURSOR}{id_of(last)}")

    def _records(self, rows: Iterable[Row]) -> Sequence[Record]:
        database = self._database
        return [record_from(row, database.name_of(row[0])) for row in rows]

    def delete_runs(self, run_ids: Sequence[str]) -> Sequence[str]:
        self._guard.check()
        with self._database.write() as connection:
            rows = select_in(
                connection,
                "SELECT run_id, id, workflow, status, run_state FROM run "
                "WHERE run_state > 2 AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.key = run.run_id) AND run_id",
                dict.fromkeys(run_ids),
            )
            ids = [(row[1],) for row in rows]
            connection.executemany(
                "DELETE FROM cause WHERE (workflow, cause) IN (SELECT run.workflow, history.cause FROM history "
                "JOIN run ON run.id = history.run WHERE history.run = ? AND history.cause IS NOT NULL)",
                ids,
            )
            connection.executemany("DELETE FROM history WHERE run = ?", ids)
            connection.executemany("DELETE FROM run WHERE id = ?", ids)
            connection.executemany(ADD_TALLY, [(workflow, status, state, -1) for _, _, workflow, status, state in rows])
        deleted = {row[0] for row in rows}
        for run_id in deleted:
            self._watcher.tell(RUN, run_id, 0)
        return [run_id for run_id in dict.fromkeys(run_ids) if run_id in deleted]

    # --- outbox ----------------------------------------------------------------------------------------------------

    def list_outbox_events(
        self, workflow_name: str, limit: int, now: datetime, *, region: str = ""
    ) -> Sequence[OutboxEvent]:
        self._guard.check()
        check_limit(limit)
        workflow = self._database.find(workflow_name)
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT {OUTBOX_COLUMNS} FROM outbox INDEXED BY outbox_due "
                "WHERE workflow = ? AND available_at <= ? AND (? = '' OR region = ?) ORDER BY available_at, id LIMIT ?",
                (workflow, bound(now), region, region, limit),
            ).fetchall()
        return [self._outbox_event(row) for row in rows]

    def outbox_of(self, run_id: str) -> Sequence[OutboxEvent]:
        self._guard.check()
        with self._database.read() as connection:
            query = f"SELECT {OUTBOX_COLUMNS} FROM outbox WHERE key = ? ORDER BY available_at, id"
            rows = connection.execute(query, (run_id,)).fetchall()
        return [self._outbox_event(row) for row in rows]

    def _outbox_event(self, row: Row) -> OutboxEvent:
        number, topic, available_at, attempt, error_type, *event = row
        told = event_from(tuple(event), self._database.name_of(topic), "")
        return OutboxEvent(id_of(number), told, instant(available_at), attempt, error_type)

    def delete_outbox_events(self, ids: Sequence[str]) -> None:
        self._guard.check()
        with self._database.write() as connection:
            connection.executemany("DELETE FROM outbox WHERE id = ?", [(number,) for number in numbers_of(ids)])

    def postpone_outbox_event(self, event_id: str, until: datetime, attempt: int, error_type: str) -> None:
        self._guard.check()
        number = next(iter(numbers_of([event_id])), 0)
        try:
            check_texts((error_type,))
            values = (micros(until), *integers(attempt), error_type)
        except UNSTORABLE as error:
            raise rejected(f"the new time of outbox event {event_id}", error) from error
        with self._database.write() as connection:
            row = connection.execute("SELECT workflow FROM outbox WHERE id = ?", (number,)).fetchone()
            if row is None:
                return
            connection.execute(
                "UPDATE outbox SET available_at = ?, attempt = ?, error_type = ? WHERE id = ?", (*values, number)
            )
            change = bump(connection, OUTBOX, row[0])
        self._watcher.tell(OUTBOX, row[0], change)

    # --- capabilities ----------------------------------------------------------------------------------------------

    def bind(self, workflow_name: str, streamer: EventStreamer) -> bool:
        """Kept in the file: every handle, in every process, follows the last answer."""
        self._guard.check()
        ours = isinstance(streamer, LogStreamer) and self._is_log_of_ours(streamer.log)
        workflow = self._database.number_of(workflow_name)
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO workflow VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET published = excluded.published",
                (workflow, int(ours)),
            )
        return ours

    def _is_log_of_ours(self, log: object) -> bool:
        return isinstance(log, SqliteEventLog) and log.file_id == self._database.file_id

    def subscribe(self, kind: str, name: str, signal: Signal) -> Unsubscribe:
        self._guard.check()
        if kind == RUN:
            return self._watcher.subscribe(RUN, name, signal)
        if kind == OUTBOX:
            return self._watcher.subscribe(OUTBOX, self._database.number_of(name), signal)
        raise InvalidInput(f"a record store tells of {RUN} and {OUTBOX}, not of {kind!r}")

    def counts(self, workflow_name: str) -> Mapping[tuple[int, RunState], int]:
        self._guard.check()
        workflow = self._database.find(workflow_name)
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT status, run_state, runs FROM tally WHERE workflow = ? AND runs > 0", (workflow,)
            ).fetchall()
        return {(status, RunState(run_state)): runs for status, run_state, runs in rows}

    def announce(self, definition: Definition) -> None:
        self._guard.check()
        content = {
            "start": definition.start,
            "edges": {str(status): list(targets) for status, targets in definition.edges.items()},
            "names": {str(status): name for status, name in definition.names.items()},
            "processed": list(definition.processed),
        }
        workflow = self._database.number_of(definition.workflow_name)
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO definition VALUES (?, ?, ?, ?) ON CONFLICT (workflow, fingerprint) "
                "DO UPDATE SET last_seen = excluded.last_seen, content = excluded.content",
                (workflow, definition.fingerprint, micros(definition.last_seen), json.dumps(content)),
            )

    def definitions(self) -> Sequence[Definition]:
        self._guard.check()
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT name.text, fingerprint, last_seen, content FROM definition "
                "JOIN name ON name.id = definition.workflow ORDER BY name.text, last_seen, fingerprint"
            ).fetchall()
        return [_definition(*row) for row in rows]


def _definition(workflow_name: str, fingerprint: str, last_seen: int, content: str) -> Definition:
    told = json.loads(content)
    return Definition(
        workflow_name=workflow_name,
        fingerprint=fingerprint,
        start=told["start"],
        edges={int(status): tuple(targets) for status, targets in told["edges"].items()},
        names={int(status): name for status, name in told["names"].items()},
        last_seen=instant(last_seen),
        processed=tuple(told["processed"]),
    )


def _position(cursor: str) -> int | None:
    if not cursor:
        return None
    number = numbers_of([cursor.removeprefix(CURSOR)]) if cursor.startswith(CURSOR) else []
    if not number:
        raise InvalidCursor(f"{cursor!r} is no cursor of a listing of runs: start again without one")
    return number[0]


class _Listing:
    """The queries of one page. Each is a statement and its parameters."""

    def __init__(self, workflow: int, after: int | None, order: Order, where: RecordFilter) -> None:
        self._ascending = order is Order.ASCENDING
        self._after = after
        self._sources = list(_sources(workflow, where))
        self._filters = list(_filters(where))
        self.is_empty = not self._sources
        self.needs_window = bool(self._filters)

    def edge(self) -> tuple[str, Row]:
        """The last run that the page looks at."""
        ids, values = self._ids(None, filtered=False)
        return f"{ids} LIMIT 1 OFFSET ?", (*values, WINDOW - 1)

    def page(self, edge: int | None, limit: int) -> tuple[str, Row]:
        ids, values = self._ids(edge, filtered=True)
        statement = f"SELECT id, {RECORD_COLUMNS} FROM run WHERE id IN ({ids} LIMIT ?) ORDER BY id {self._direction}"
        return statement, (*values, limit)

    @property
    def _direction(self) -> str:
        return "ASC" if self._ascending else "DESC"

    def _ids(self, edge: int | None, *, filtered: bool) -> tuple[str, Row]:
        """The ids in their order: one ordered search of an index for each source, which SQLite merges."""
        after, until = (">", "<=") if self._ascending else ("<", ">=")
        conditions: list[tuple[str, Row]] = []
        if self._after is not None:
            conditions.append((f"id {after} ?", (self._after,)))
        if edge is not None:
            conditions.append((f"id {until} ?", (edge,)))
        if filtered:
            conditions += self._filters
        selects: list[str] = []
        values: list[object] = []
        for source, given in self._sources:
            selects.append(" AND ".join([f"SELECT id FROM run {source}", *(text for text, _ in conditions)]))
            values += [*given, *(value for _, some in conditions for value in some)]
        return f"{' UNION ALL '.join(selects)} ORDER BY id {self._direction}", tuple(values)


def _sources(workflow: int, where: RecordFilter) -> Iterable[tuple[str, Row]]:
    """Where to look, narrowest first: one run, one foreign id, or each run state."""
    if where.run_id is not None or where.foreign_id is not None:
        if where.run_id is None:
            yield "INDEXED BY run_by_foreign_id WHERE workflow = ? AND foreign_id = ?", (workflow, where.foreign_id)
        else:
            yield "WHERE run_id = ? AND workflow = ?", (where.run_id, workflow)
        return
    for state in sorted(where.run_states if where.run_states is not None else RunState):
        yield "INDEXED BY run_by_state WHERE workflow = ? AND run_state = ?", (workflow, int(state))


def _filters(where: RecordFilter) -> Iterable[tuple[str, Row]]:
    """What each run that is looked at must meet besides."""
    if where.run_id is not None or where.foreign_id is not None:
        if where.run_states is not None:
            yield f"run_state IN ({placeholders(len(where.run_states))})", tuple(map(int, where.run_states))
        if where.run_id is not None and where.foreign_id is not None:
            yield "foreign_id = ?", (where.foreign_id,)
    if where.statuses is not None:
        yield f"status IN ({placeholders(len(where.statuses))})", tuple(map(int, where.statuses))
    if where.by is not None:
        yield "coalesce(by, '') = ?", (where.by,)
    if where.updated_before is not None:
        yield "updated_at < ?", (bound(where.updated_before),)
    if where.available_before is not None:
        yield "available_at < ?", (bound(where.available_before),)
