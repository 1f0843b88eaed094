"""Due items, in one file.

An item is found by its key (it is made once, whatever became of it), by what is due of one kind and status, and by its
run. The indexes that the engine polls are partial: held items are not in the one of what is due, ended ones in neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ...clock import Signal
from ...errors import InvalidCursor, InvalidInput
from ...event import WHOLE, NewTimeout, Shard, Timeout, TimeoutState, hash_of
from ...protocols import Unsubscribe
from ...record import Page
from ..support.guard import Guard
from .database import Database, bump
from .rows import (
    UNSTORABLE,
    Row,
    bound,
    check_blob,
    check_limit,
    check_texts,
    id_of,
    instant,
    integers,
    micros,
    numbers_of,
    rejected,
)
from .watcher import TIMEOUT, Watcher

STATES = {TimeoutState.PENDING: 0, TimeoutState.COMPLETED: 1, TimeoutState.CANCELLED: 2}
STATE_OF = {number: state for state, number in STATES.items()}

COLUMNS = (
    "id, workflow, kind, key, due_at, created_at, name, run_id, status, status_entered, payload, attempt, error_type, "
    "state, region"
)
INSERT = """INSERT INTO timeout (workflow, kind, key, due_at, created_at, name, run_id, status, status_entered, payload,
    error_type, region, hash, attempt, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)
    ON CONFLICT (workflow, kind, key) DO NOTHING"""
DUE = f"""SELECT {COLUMNS} FROM timeout INDEXED BY timeout_due
    WHERE workflow = ? AND kind = ? AND status = ? AND state = 0 AND due_at IS NOT NULL AND due_at <= ?
    AND (? = 1 OR hash % ? = ?) AND (? = '' OR region = ?) ORDER BY due_at, id LIMIT ?"""
CURSOR = "due-"


class SqliteTimeoutStore:
    """A `TimeoutStore`."""

    capabilities = frozenset({"notify"})

    def __init__(self, database: Database, watcher: Watcher) -> None:
        self._database = database
        self._watcher = watcher
        self._guard = Guard(f"the timeout store of {database.path}")

    def close(self) -> None:
        self._guard.close()

    def create(self, timeouts: Sequence[NewTimeout]) -> None:
        self._guard.check()
        rows = [self._row(timeout) for timeout in timeouts]
        if not rows:
            return
        with self._database.write() as connection:
            created = {row[0] for row in rows if connection.execute(INSERT, row).rowcount > 0}
            changes = {workflow: bump(connection, TIMEOUT, workflow) for workflow in created}
        self._tell(changes)

    def _row(self, timeout: NewTimeout) -> Row:
        try:
            texts = (timeout.workflow_name, timeout.kind, timeout.key, timeout.name, timeout.run_id)
            check_texts((*texts, timeout.error_type, timeout.region))
            check_blob(timeout.payload)
            status, entered = integers(timeout.status, timeout.status_entered)
            due_at = None if timeout.due_at is None else micros(timeout.due_at)
            created_at = micros(timeout.created_at)
        except UNSTORABLE as error:
            raise rejected(f"the {timeout.kind!r} item {timeout.key!r}", error) from error
        return (
            self._database.number_of(timeout.workflow_name), self._database.number_of(timeout.kind), timeout.key,
            due_at, created_at, timeout.name, timeout.run_id, status, entered, timeout.payload, timeout.error_type,
            timeout.region, hash_of(timeout.run_id or timeout.key),
        )  # fmt: skip

    def finish(self, ids: Sequence[str], state: TimeoutState) -> None:
        self._guard.check()
        if state is TimeoutState.PENDING:
            raise InvalidInput("an item ends as COMPLETED or CANCELLED, not as PENDING")
        with self._database.write() as connection:
            connection.executemany(
                "UPDATE timeout SET state = ? WHERE id = ? AND state = 0",
                [(STATES[state], number) for number in numbers_of(ids)],
            )

    def reschedule(self, timeout_id: str, due_at: datetime | None, attempt: int, error_type: str) -> None:
        self._guard.check()
        number = next(iter(numbers_of([timeout_id])), 0)
        try:
            check_texts((error_type,))
            values = (None if due_at is None else micros(due_at), *integers(attempt), error_type)
        except UNSTORABLE as error:
            raise rejected(f"the new time of item {timeout_id}", error) from error
        with self._database.write() as connection:
            query = "SELECT workflow FROM timeout WHERE id = ? AND state = 0"
            row = connection.execute(query, (number,)).fetchone()
            if row is None:
                return
            connection.execute(
                "UPDATE timeout SET due_at = ?, attempt = ?, error_type = ? WHERE id = ?", (*values, number)
            )
            changes = {row[0]: bump(connection, TIMEOUT, row[0])}
        self._tell(changes)

    def _tell(self, changes: dict[int, int]) -> None:
        for workflow, number in changes.items():
            self._watcher.tell(TIMEOUT, workflow, number)

    # --- queries ---------------------------------------------------------------------------------------------------

    def list_valid(
        self,
        workflow_name: str,
        kind: str,
        status: int,
        now: datetime,
        limit: int,
        *,
        shard: Shard = WHOLE,
        region: str = "",
    ) -> Sequence[Timeout]:
        self._guard.check()
        check_limit(limit)
        find = self._database.find
        which = (find(workflow_name), find(kind), int(status), bound(now))
        with self._database.read() as connection:
            rows = connection.execute(
                DUE, (*which, shard.total, shard.total, shard.index - 1, region, region, limit)
            ).fetchall()
        return self._timeouts(rows)

    def of_run(self, run_id: str) -> Sequence[Timeout]:
        self._guard.check()
        with self._database.read() as connection:
            query = f"SELECT {COLUMNS} FROM timeout WHERE run_id = ? AND state = 0 ORDER BY id"
            rows = connection.execute(query, (run_id,)).fetchall()
        return self._timeouts(rows)

    def list(self, workflow_name: str, *, after: str = "", limit: int = 25) -> Page[Timeout]:
        self._guard.check()
        check_limit(limit)
        position = 0
        if after:
            numbers = numbers_of([after.removeprefix(CURSOR)]) if after.startswith(CURSOR) else []
            if not numbers:
                raise InvalidCursor(f"{after!r} is no cursor of a listing of due items: start again without one")
            position = numbers[0]
        workflow = self._database.find(workflow_name)
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT {COLUMNS} FROM timeout INDEXED BY timeout_pending "
                "WHERE workflow = ? AND state = 0 AND id > ? ORDER BY id LIMIT ?",
                (workflow, position, limit + 1),
            ).fetchall()
        more = f"{CURSOR}{id_of(rows[limit - 1][0])}" if len(rows) > limit else ""
        return Page(tuple(self._timeouts(rows[:limit])), more)

    def _timeouts(self, rows: Sequence[Row]) -> Sequence[Timeout]:
        return [self._timeout(row) for row in rows]

    def _timeout(self, row: Row) -> Timeout:
        number, workflow, kind, key, due_at, created_at, *others, state, region = row
        name, run_id, status, entered, payload, attempt, error_type = others
        return Timeout(
            id_of(number), self._database.name_of(workflow), self._database.name_of(kind), key,
            None if due_at is None else instant(due_at), instant(created_at), name, run_id, status, entered, payload,
            attempt, error_type, STATE_OF[state], region,
        )  # fmt: skip

    def subscribe(self, kind: str, name: str, signal: Signal) -> Unsubscribe:
        self._guard.check()
        if kind != TIMEOUT:
            raise InvalidInput(f"a timeout store tells of {TIMEOUT}, not of {kind!r}")
        return self._watcher.subscribe(TIMEOUT, self._database.number_of(name), signal)

    # --- the end of items ------------------------------------------------------------------------------------------

    def purge(self, run_ids: Sequence[str]) -> None:
        self._guard.check()
        with self._database.write() as connection:
            connection.executemany("DELETE FROM timeout WHERE run_id = ?", [(run_id,) for run_id in run_ids])

    def purge_finished(self, before: datetime, limit: int) -> int:
        self._guard.check()
        check_limit(limit)
        with self._database.write() as connection:
            deleted = connection.execute(
                "DELETE FROM timeout WHERE id IN (SELECT id FROM timeout INDEXED BY timeout_ended "
                "WHERE state <> 0 AND created_at < ? ORDER BY created_at, id LIMIT ?)",
                (bound(before), limit),
            ).rowcount
        return deleted
