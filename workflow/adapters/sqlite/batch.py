"""The write path: many changes in one transaction, each accepted or refused alone.

    draft    check each change and make its rows, before the lock is taken; what cannot be stored is found here
    load     what the file knows of all of them, in a few queries: runs, causes, active runs, heads of topics
    decide   one after the other, as if each were alone: a change sees the accepted ones before it
    write    one `executemany` for each table

A run that changes twice in one batch is written once, with its last version; its history and events are written each.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import Refusal, Rejected
from ...event import Change, hash_of
from ...run_state import ACTIVE, RunState
from ..support.refusal import Known, Verdict, judge
from .database import Database, bump, select_in
from .rows import (
    UNSTORABLE,
    Row,
    check_blob,
    check_run_state,
    check_texts,
    event_row,
    integers,
    micros,
    record_rare,
    rejected,
    transition_rare,
)
from .watcher import OUTBOX, RUN, Watcher

INSERT_RUN = """INSERT INTO run (version, status, status_entered, turn, attempt, entered_at, updated_at, available_at,
    suspect, by, rare, object, run_state, id, run_id, workflow, foreign_id, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
# Two updates, since the second one moves the run in two indexes, even if it stays in its run state.
UPDATE_RUN = """UPDATE run SET version = ?, status = ?, status_entered = ?, turn = ?, attempt = ?, entered_at = ?,
    updated_at = ?, available_at = ?, suspect = ?, by = ?, rare = ?, object = ? WHERE id = ?"""
MOVE_RUN = UPDATE_RUN.replace("object = ?", "object = ?, run_state = ?")
INSERT_HISTORY = """INSERT INTO history (run, version, write_id, status, run_state, at, attempt, instance, cause, rare)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
INSERT_EVENT = """INSERT INTO event (topic, position, hash, key, status, run_state, version, created_at, headers)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
INSERT_OUTBOX = """INSERT INTO outbox (workflow, topic, key, status, run_state, version, created_at, headers,
    available_at, attempt, error_type, region) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '', ?)"""
SET_HEAD = "INSERT INTO topic VALUES (?, ?, 0) ON CONFLICT (id) DO UPDATE SET head = excluded.head"
ADD_TALLY = """INSERT INTO tally VALUES (?, ?, ?, ?)
    ON CONFLICT (workflow, status, run_state) DO UPDATE SET runs = runs + excluded.runs"""


@dataclass
class Draft:
    """A change and its rows. `problem` says why it can never be stored, if it cannot; then there are none."""

    change: Change
    problem: Rejected | None = None
    findable: bool = True
    """Whether the file may know its keys, so that another refusal comes first."""
    workflow: int = 0
    topic: int = 0
    state: tuple[int, int] = (0, 0)
    """Status and run state."""
    record_row: Row = ()
    history_row: Row = ()
    event_row: Row = ()
    for_later: bool = False
    created_at: int = 0
    available_at: int = 0


@dataclass
class KnownRun:
    """A run as the file and the batch so far have it."""

    id: int
    workflow: int
    foreign_id: str
    version: int
    run_state: int
    status: int
    created_at: int = 0
    """Of a new run."""
    stored_state: int = 0
    """The run state in the file, 0 if the run is new."""
    latest: Draft | None = None
    """What to write of it."""


def draft(change: Change, database: Database) -> Draft:
    """Check a change and make its rows."""
    record, transition = change.record, change.transition
    made = Draft(change)
    try:
        texts = (
            record.workflow_name, record.foreign_id, record.run_id, record.error, record.by, record.region,
            transition.write_id, transition.cause, transition.by, transition.reason, transition.error_type,
            transition.error_place, transition.instance,
        )  # fmt: skip
        check_texts(texts)
        check_blob(record.object)
        check_run_state(record.run_state)
        check_run_state(transition.run_state)
        version, status, entered, turn, attempt, run_state, then_status, then_state, then_attempt = integers(
            record.version, record.status, record.status_entered, record.turn, record.attempt, record.run_state,
            transition.status, transition.run_state, transition.attempt,
        )  # fmt: skip
        updated_at, made.available_at = micros(record.updated_at), micros(record.available_at)
        made.created_at = micros(record.created_at)
        made.state = (status, run_state)
        made.for_later = made.available_at > updated_at
        made.record_row = (
            version, status, entered, turn, attempt, micros(record.entered_at), updated_at, made.available_at,
            int(record.suspect), record.by or None, record_rare(record), record.object,
        )  # fmt: skip
        made.event_row = event_row(change.event)
        made.workflow = database.number_of(record.workflow_name)
        made.topic = database.number_of(change.event.topic)
        made.history_row = (
            version, transition.write_id, then_status, then_state, micros(transition.at), then_attempt,
            database.number_of(transition.instance), transition.cause or None, transition_rare(transition),
        )  # fmt: skip
    except UNSTORABLE as error:
        made.problem = rejected(f"version {record.version} of run {record.run_id!r}", error)
        made.findable = _findable(change)
        made.workflow = database.find(record.workflow_name) if made.findable else 0
    return made


def _findable(change: Change) -> bool:
    record, transition = change.record, change.transition
    try:
        check_texts((record.workflow_name, record.foreign_id, record.run_id, transition.cause, transition.write_id))
        check_run_state(record.run_state)
        integers(record.version)
    except UNSTORABLE:
        return False
    return True


class Batch:
    """One transaction's changes: loads, decides, writes. Made anew for each call of `store`."""

    def __init__(self, connection: sqlite3.Connection, drafts: Sequence[Draft]) -> None:
        self._connection = connection
        self._drafts = drafts
        self._runs: dict[str, KnownRun] = {}
        self._applied: dict[tuple[int, str], str | None] = {}  # (workflow, cause) to the run, None if there is none
        self._active: dict[tuple[int, str], str | None] = {}  # (workflow, foreign id) to the run, None too
        self._written: dict[tuple[int, int], str] = {}  # (run, version) to the write id, of this batch
        self._published: frozenset[int] = frozenset()
        self._heads: dict[int, int] = {}
        self._last_run = 0
        self._history: list[Row] = []
        self._causes: list[tuple[int, str, int]] = []
        self._events: list[Row] = []
        self._outbox: list[Row] = []
        self._blanked: set[str] = set()
        self._tally: defaultdict[tuple[int, int, int], int] = defaultdict(int)
        self._topics: dict[int, tuple[int, set[int]]] = {}  # topic to its head before, and its new entries' hashes
        self._outboxes: dict[int, int] = {}

    def run(self) -> list[Refusal | None]:
        """Store what is accepted. The answers of `RecordStore.store`."""
        self._load()
        answers = [self._decide(one) for one in self._drafts]
        if self._history:
            self._write()
        return answers

    def tell(self, watcher: Watcher) -> None:
        """After the commit: wake those who wait for what was written."""
        for topic, (before, hashes) in self._topics.items():
            watcher.tell_topic(topic, before, self._heads[topic], hashes)
        for run_id, run in self._runs.items():
            if run.latest is not None:
                watcher.tell(RUN, run_id, run.version)
        for workflow, number in self._outboxes.items():
            watcher.tell(OUTBOX, workflow, number)

    # --- load ------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        findable = [one for one in self._drafts if one.findable]
        self._load_runs({one.change.record.run_id for one in findable})
        workflows = {run.workflow for run in self._runs.values()}
        foreign_ids: defaultdict[int, set[str]] = defaultdict(set)
        causes: defaultdict[int, set[str]] = defaultdict(set)
        for one in findable:
            record, cause = one.change.record, one.change.transition.cause
            run = self._runs.get(record.run_id)
            workflow, foreign_id = (run.workflow, run.foreign_id) if run else (one.workflow, record.foreign_id)
            workflows.add(workflow)
            if record.run_state in ACTIVE and (workflow, foreign_id) not in self._active:
                foreign_ids[workflow].add(foreign_id)
            if cause:
                causes[workflow].add(cause)
        for workflow, wanted in foreign_ids.items():
            self._load_active(workflow, wanted)
        for workflow, wanted in causes.items():
            self._load_causes(workflow, wanted)
        rows = select_in(self._connection, "SELECT id FROM workflow WHERE published AND id", workflows)
        self._published = frozenset(row[0] for row in rows)
        if self._published:
            topics = {one.topic for one in findable}
            self._heads = dict(select_in(self._connection, "SELECT id, head FROM topic WHERE id", topics))

    def _load_runs(self, run_ids: set[str]) -> None:
        query = "SELECT run_id, id, workflow, foreign_id, version, run_state, status FROM run WHERE run_id"
        for run_id, *values in select_in(self._connection, query, run_ids):
            run = self._runs[run_id] = KnownRun(*values)
            run.stored_state = run.run_state
            if run.run_state in ACTIVE:
                self._active[run.workflow, run.foreign_id] = run_id
        if len(self._runs) < len(run_ids):
            row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'run'").fetchone()
            self._last_run = row[0] if row else 0

    def _load_active(self, workflow: int, foreign_ids: set[str]) -> None:
        query = "SELECT foreign_id, run_id FROM run WHERE workflow = ? AND run_state <= 2 AND foreign_id"
        self._active.update(dict.fromkeys((workflow, foreign_id) for foreign_id in foreign_ids))
        for foreign_id, run_id in select_in(self._connection, query, foreign_ids, workflow):
            self._active[workflow, foreign_id] = run_id

    def _load_causes(self, workflow: int, causes: set[str]) -> None:
        query = (
            "SELECT cause.cause, run.run_id FROM cause JOIN run ON run.id = cause.run "
            "WHERE cause.workflow = ? AND cause.cause"
        )
        self._applied.update(dict.fromkeys((workflow, cause) for cause in causes))
        for cause, run_id in select_in(self._connection, query, causes, workflow):
            self._applied[workflow, cause] = run_id

    # --- decide ----------------------------------------------------------------------------------------------------

    def _decide(self, one: Draft) -> Refusal | None:
        if one.problem is not None and not one.findable:
            return one.problem
        run = self._runs.get(one.change.record.run_id)
        verdict = judge(one.change, self._known(one, run))
        if verdict is Verdict.DONE:
            return None
        if isinstance(verdict, Refusal):
            return verdict
        if one.problem is not None:
            return one.problem
        self._accept(one, run)
        return None

    def _known(self, one: Draft, run: KnownRun | None) -> Known:
        record, cause = one.change.record, one.change.transition.cause
        if run is None:
            workflow, foreign_id, current, write_id = one.workflow, record.foreign_id, 0, None
        else:
            workflow, foreign_id, current = run.workflow, run.foreign_id, run.version
            write_id = self._write_id(run.id, record.version) if record.version <= current else None
        applied = self._applied_to(workflow, cause) if cause else None
        active = self._active_run(workflow, foreign_id) if record.run_state in ACTIVE else None
        return Known(current, write_id, applied, active)

    # What was not loaded before is loaded now: where changes of one run name different workflows or foreign ids, of
    # which those of version 1 count.

    def _applied_to(self, workflow: int, cause: str) -> str | None:
        if (workflow, cause) not in self._applied:
            self._load_causes(workflow, {cause})
        return self._applied[workflow, cause]

    def _active_run(self, workflow: int, foreign_id: str) -> str | None:
        if (workflow, foreign_id) not in self._active:
            self._load_active(workflow, {foreign_id})
        return self._active[workflow, foreign_id]

    def _write_id(self, run: int, version: int) -> str | None:
        written = self._written.get((run, version))
        if written is not None:
            return written
        query = "SELECT write_id FROM history WHERE run = ? AND version = ?"
        row = self._connection.execute(query, (run, version)).fetchone()
        return row[0] if row else None

    def _accept(self, one: Draft, run: KnownRun | None) -> None:
        record, (status, run_state) = one.change.record, one.state
        if run is None:
            self._last_run += 1
            run = KnownRun(self._last_run, one.workflow, record.foreign_id, 0, run_state, status, one.created_at)
            self._runs[record.run_id] = run
        else:
            self._tally[run.workflow, run.status, run.run_state] -= 1
        self._tally[run.workflow, status, run_state] += 1
        if run_state in ACTIVE:
            self._active[run.workflow, run.foreign_id] = record.run_id
        elif self._active.get((run.workflow, run.foreign_id)) == record.run_id:
            self._active[run.workflow, run.foreign_id] = None
        run.version, run.status, run.run_state, run.latest = one.record_row[0], status, run_state, one
        transition = one.change.transition
        if transition.cause:
            self._applied[run.workflow, transition.cause] = record.run_id
            self._causes.append((run.workflow, transition.cause, run.id))
        self._written[run.id, run.version] = transition.write_id
        self._history.append((run.id, *one.history_row))
        self._publish(one, run)

    def _publish(self, one: Draft, run: KnownRun) -> None:
        """The event goes into the log, or into the outbox if it is for later or for another system."""
        if one.for_later or run.workflow not in self._published:
            self._outbox.append(
                (run.workflow, one.topic, *one.event_row, one.available_at, one.change.record.region)
            )  # fmt: skip
            self._outboxes[run.workflow] = 0
        else:
            key_hash = hash_of(one.event_row[0])
            head = self._heads.get(one.topic, 0)
            self._topics.setdefault(one.topic, (head, set()))[1].add(key_hash)
            self._heads[one.topic] = head + 1
            self._events.append((one.topic, head + 1, key_hash, *one.event_row))
        if run.run_state == RunState.DATA_DELETED:
            run_id = one.change.record.run_id
            self._blanked.add(run_id)
            self._outbox = [_without_headers(row) if row[2] == run_id else row for row in self._outbox]

    # --- write -----------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        many = self._connection.executemany
        self._write_runs()
        many(INSERT_HISTORY, self._history)
        if self._causes:
            many("INSERT INTO cause VALUES (?, ?, ?)", self._causes)
        if self._blanked:
            many("UPDATE outbox SET headers = NULL WHERE key = ?", [(run_id,) for run_id in self._blanked])
        if self._events:
            many(INSERT_EVENT, self._events)
            many(SET_HEAD, [(topic, self._heads[topic]) for topic in self._topics])
        if self._outbox:
            many(INSERT_OUTBOX, self._outbox)
            for workflow in self._outboxes:
                self._outboxes[workflow] = bump(self._connection, OUTBOX, workflow)
        many(ADD_TALLY, [(*key, number) for key, number in self._tally.items() if number])

    def _write_runs(self) -> None:
        new: list[Row] = []
        moved: list[Row] = []
        same: list[Row] = []
        for run_id, run in self._runs.items():
            one = run.latest
            if one is None:
                continue
            if run.stored_state == 0:
                new.append(
                    (*one.record_row, run.run_state, run.id, run_id, run.workflow, run.foreign_id, run.created_at)
                )  # fmt: skip
            elif run.run_state != run.stored_state:
                moved.append((*one.record_row, run.run_state, run.id))
            else:
                same.append((*one.record_row, run.id))
        # First those that end: a foreign id that becomes free in this batch may be taken in it.
        moved.sort(key=lambda row: row[-2] in ACTIVE)
        for statement, rows in ((MOVE_RUN, moved), (UPDATE_RUN, same), (INSERT_RUN, new)):
            if rows:
                self._connection.executemany(statement, rows)


def _without_headers(row: Row) -> Row:
    return (*row[:7], None, *row[8:])
