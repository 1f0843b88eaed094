"""A record store in memory: the handle on the runs of a storage.

    store     check and copy each change, outside the lock
              then, under it, one after the other: what is known of it, `judge`, write
              then, the lock let go: tell those who wait for what was written

A list of changes is not a transaction of its own: each is accepted or refused as if it were alone, and sees those
before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice

from ...clock import Signal
from ...errors import InvalidCursor, InvalidInput, Refusal
from ...event import NO_HEADERS, Change, OutboxEvent
from ...protocols import ANY_RECORD, Definition, EventStreamer, Unsubscribe
from ...record import Order, Page, Record, RecordFilter, Transition, evolve
from ...run_state import ACTIVE, RunState
from ..support.guard import Guard
from ..support.log_streamer import LogStreamer
from ..support.refusal import Known, Verdict, judge
from .event_log import MemoryEventLog
from .storable import (
    Unstorable,
    check_instants,
    check_integers,
    check_limit,
    check_texts,
    own_change,
    rejected,
    with_changes,
)
from .storage import MemoryStorage, OutboxRow, Run, WorkflowRuns

WINDOW = 1000
"""How many runs a listing looks at before it ends the page, however few it found."""
CURSOR = "run-"


@dataclass
class News:
    """What a call of `store` wrote, for those who wait for it."""

    topics: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Topic to the keys of its new entries."""
    runs: list[str] = field(default_factory=list[str])
    outboxes: set[str] = field(default_factory=set[str])


class MemoryRecordStore:
    """A `RecordStore`."""

    capabilities = frozenset({"direct-publish", "notify", "counts", "definitions"})

    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage
        self._runs = storage.runs
        self._guard = Guard("the record store in memory")

    def close(self) -> None:
        self._guard.close()

    # --- the write path --------------------------------------------------------------------------------------------

    def store(self, changes: Sequence[Change]) -> list[Refusal | None]:
        self._guard.check()
        checked = [_checked(change) for change in changes]
        news = News()
        with self._runs.lock:
            answers = [self._store(change, problem, news) for change, problem in checked]
        self._tell(news)
        return answers

    def _store(self, change: Change, problem: Refusal | None, news: News) -> Refusal | None:
        if problem is not None and not _is_findable(change):
            return problem
        run = self._runs.runs.get(change.record.run_id)
        if run is not None:
            change = _with_fixed(change, run.record)
        workflow = self._runs.workflows[change.record.workflow_name]
        verdict = judge(change, _known(change, run, workflow))
        if verdict is Verdict.DONE:
            return None
        if isinstance(verdict, Refusal):
            return verdict
        if problem is not None:
            return problem
        self._write(change, run, workflow, news)
        return None

    def _write(self, change: Change, run: Run | None, workflow: WorkflowRuns, news: News) -> None:
        record, transition = change.record, change.transition
        if run is None:
            run = self._runs.runs[record.run_id] = Run(self._runs.next_run(), record)
            workflow.by_creation.add(run.number, run)
            workflow.by_foreign_id[record.foreign_id][run.number] = run
        else:
            _count(workflow, run.record, -1)
            run.record = record
        _count(workflow, record, 1)
        run.history.append(transition)
        if record.run_state in ACTIVE:
            workflow.active[record.foreign_id] = record.run_id
        elif workflow.active.get(record.foreign_id) == record.run_id:
            del workflow.active[record.foreign_id]
        if transition.cause:
            workflow.applied[transition.cause] = record.run_id
        self._publish(change, run, workflow, news)
        news.runs.append(record.run_id)
        if record.run_state is RunState.DATA_DELETED:
            self._blank_outbox(run)

    def _publish(self, change: Change, run: Run, workflow: WorkflowRuns, news: News) -> None:
        """The event goes into the log, or into the outbox if it is for later or for another system."""
        record, event = change.record, change.event
        if workflow.published and record.available_at <= record.updated_at:
            self._runs.topic(event.topic).append(event)
            news.topics.setdefault(event.topic, []).append(event.key)
            return
        row_id = f"{self._runs.next_outbox_row():012d}"
        waiting = OutboxEvent(row_id, event, record.available_at)
        self._runs.outbox[row_id] = OutboxRow(waiting, record.workflow_name, record.run_id, record.region)
        workflow.outbox.add(record.available_at, row_id)
        run.outbox.add(row_id)
        news.outboxes.add(record.workflow_name)

    def _blank_outbox(self, run: Run) -> None:
        for row_id in run.outbox:
            row = self._runs.outbox[row_id]
            blank = replace(row.waiting, event=with_changes(row.waiting.event, headers=NO_HEADERS))
            self._runs.outbox[row_id] = replace(row, waiting=blank)

    def _tell(self, news: News) -> None:
        for topic, keys in news.topics.items():
            self._runs.topic_listeners.tell(topic, keys)
        for run_id in news.runs:
            self._runs.listeners.tell(("run", run_id))
        for workflow_name in news.outboxes:
            self._runs.listeners.tell(("outbox", workflow_name))

    # --- runs ------------------------------------------------------------------------------------------------------

    def lookup(self, run_ids: Sequence[str]) -> list[Record | None]:
        self._guard.check()
        with self._runs.lock:
            found = [self._runs.runs.get(run_id) for run_id in run_ids]
            return [run.record if run is not None else None for run in found]

    def latest(self, workflow_name: str, foreign_id: str) -> Record | None:
        self._guard.check()
        with self._runs.lock:
            runs = self._workflow(workflow_name).by_foreign_id.get(foreign_id)
            return next(reversed(runs.values())).record if runs else None

    def applied(self, workflow_name: str, cause: str) -> str | None:
        self._guard.check()
        with self._runs.lock:
            return self._workflow(workflow_name).applied.get(cause)

    def history(self, run_id: str, *, after_version: int = 0, limit: int = 1000) -> list[Transition]:
        self._guard.check()
        check_limit(limit)
        start = max(0, after_version)
        with self._runs.lock:
            run = self._runs.runs.get(run_id)
            return run.history[start : start + limit] if run is not None else []

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
        start = _number(after)
        items: list[Record] = []
        last = 0
        with self._runs.lock:
            workflow = self._workflow(workflow_name)
            runs = self._candidates(workflow, start, where, backwards=order is Order.DESCENDING)
            for looked, (number, run) in enumerate(runs):
                matches = where.matches(run.record)
                if looked == WINDOW or (matches and len(items) == limit):
                    return Page(tuple(items), f"{CURSOR}{last}")
                if matches:
                    items.append(run.record)
                last = number
        return Page(tuple(items))

    def _candidates(
        self, workflow: WorkflowRuns, after: int | None, where: RecordFilter, *, backwards: bool
    ) -> Iterator[tuple[int, Run]]:
        """The runs among which those asked for are, in the order of the listing."""
        if where.run_id is not None:
            run = self._runs.runs.get(where.run_id)
            few = [run] if run is not None and workflow.by_creation.has(run.number) else []
        elif where.foreign_id is not None:
            few = list(workflow.by_foreign_id.get(where.foreign_id, {}).values())
        else:
            yield from workflow.by_creation.walk(after, backwards=backwards)
            return
        for run in reversed(few) if backwards else few:
            if after is None or (run.number < after if backwards else run.number > after):
                yield run.number, run

    def delete_runs(self, run_ids: Sequence[str]) -> Sequence[str]:
        self._guard.check()
        deleted: list[str] = []
        with self._runs.lock:
            for run_id in run_ids:
                run = self._runs.runs.get(run_id)
                if run is not None and run.record.run_state not in ACTIVE and not run.outbox:
                    self._delete(run)
                    deleted.append(run_id)
        for run_id in deleted:
            self._runs.listeners.tell(("run", run_id))
        return deleted

    def _delete(self, run: Run) -> None:
        record = run.record
        workflow = self._runs.workflows[record.workflow_name]
        del self._runs.runs[record.run_id]
        workflow.by_creation.remove(run.number)
        namesakes = workflow.by_foreign_id[record.foreign_id]
        del namesakes[run.number]
        if not namesakes:
            del workflow.by_foreign_id[record.foreign_id]
        for transition in run.history:
            workflow.applied.pop(transition.cause, None)
        _count(workflow, record, -1)

    def _workflow(self, workflow_name: str) -> WorkflowRuns:
        """The workflow's runs; for reading, so that a question about an unknown one leaves nothing behind."""
        workflow = self._runs.workflows.get(workflow_name)
        return workflow if workflow is not None else WorkflowRuns()

    # --- outbox ----------------------------------------------------------------------------------------------------

    def list_outbox_events(
        self, workflow_name: str, limit: int, now: datetime, *, region: str = ""
    ) -> Sequence[OutboxEvent]:
        self._guard.check()
        check_limit(limit)
        with self._runs.lock:
            rows = (self._runs.outbox[row_id] for row_id in self._workflow(workflow_name).outbox.until(now))
            return [row.waiting for row in islice((row for row in rows if region in ("", row.region)), limit)]

    def outbox_of(self, run_id: str) -> Sequence[OutboxEvent]:
        self._guard.check()
        with self._runs.lock:
            run = self._runs.runs.get(run_id)
            waiting = [self._runs.outbox[row_id].waiting for row_id in run.outbox] if run is not None else []
        return sorted(waiting, key=lambda one: (one.available_at, one.id))

    def delete_outbox_events(self, ids: Sequence[str]) -> None:
        self._guard.check()
        with self._runs.lock:
            for row_id in ids:
                row = self._runs.outbox.pop(row_id, None)
                if row is not None:
                    self._runs.workflows[row.workflow_name].outbox.remove(row.waiting.available_at, row_id)
                    self._runs.runs[row.run_id].outbox.discard(row_id)

    def postpone_outbox_event(self, event_id: str, until: datetime, attempt: int, error_type: str) -> None:
        self._guard.check()
        try:
            check_instants(until)
            check_integers(attempt)
            check_texts((error_type,))
        except Unstorable as error:
            raise rejected(f"outbox event {event_id!r}", error) from error
        with self._runs.lock:
            row = self._runs.outbox.get(event_id)
            if row is None:
                return
            agenda = self._runs.workflows[row.workflow_name].outbox
            agenda.remove(row.waiting.available_at, event_id)
            agenda.add(until, event_id)
            waiting = replace(row.waiting, available_at=until, attempt=attempt, error_type=error_type)
            self._runs.outbox[event_id] = replace(row, waiting=waiting)
        self._runs.listeners.tell(("outbox", row.workflow_name))

    # --- capabilities ----------------------------------------------------------------------------------------------

    def bind(self, workflow_name: str, streamer: EventStreamer) -> bool:
        """`direct-publish`: every handle on this storage follows the last answer."""
        self._guard.check()
        log = streamer.log if isinstance(streamer, LogStreamer) else None
        ours = isinstance(log, MemoryEventLog) and log.storage is self._storage
        with self._runs.lock:
            self._runs.workflows[workflow_name].published = ours
        return ours

    def subscribe(self, kind: str, name: str, signal: Signal) -> Unsubscribe:
        """`notify`."""
        self._guard.check()
        if kind not in ("run", "outbox"):
            raise InvalidInput(f"a record store tells of runs and outboxes, not of {kind!r}")
        return self._runs.listeners.subscribe((kind, name), signal)

    def counts(self, workflow_name: str) -> Mapping[tuple[int, RunState], int]:
        """`counts`."""
        self._guard.check()
        with self._runs.lock:
            return dict(self._workflow(workflow_name).counts)

    def announce(self, definition: Definition) -> None:
        """`definitions`."""
        self._guard.check()
        own = replace(
            definition,
            edges={status: tuple(targets) for status, targets in definition.edges.items()},
            names=dict(definition.names),
            processed=tuple(definition.processed),
        )
        with self._runs.lock:
            self._runs.definitions[own.workflow_name, own.fingerprint] = own

    def definitions(self) -> Sequence[Definition]:
        """`definitions`: by workflow, the one seen last at the end."""
        self._guard.check()
        with self._runs.lock:
            known = sorted(self._runs.definitions.values(), key=lambda one: (one.workflow_name, one.last_seen))
        return [replace(one, edges=dict(one.edges), names=dict(one.names)) for one in known]


# --- parts of the write path ---------------------------------------------------------------------------------------


def _checked(change: Change) -> tuple[Change, Refusal | None]:
    """The change as ours, or as it came with what is wrong with it."""
    try:
        return own_change(change), None
    except Unstorable as error:
        return change, rejected(f"version {change.record.version!r} of run {change.record.run_id!r}", error)


def _is_findable(change: Change) -> bool:
    """Whether the store may know the keys of an unstorable change, so that another refusal comes first."""
    record, transition = change.record, change.transition
    try:
        check_texts((record.workflow_name, record.foreign_id, record.run_id, transition.cause, transition.write_id))
        check_integers(record.version)
    except Unstorable:
        return False
    return True


def _with_fixed(change: Change, known: Record) -> Change:
    """The change with what version 1 has fixed."""
    record = change.record
    if (
        record.created_at is known.created_at
        and record.foreign_id == known.foreign_id
        and record.workflow_name == known.workflow_name
    ):
        return change
    fixed = evolve(record, workflow_name=known.workflow_name, foreign_id=known.foreign_id, created_at=known.created_at)
    return Change(fixed, change.transition, change.event)


def _known(change: Change, run: Run | None, workflow: WorkflowRuns) -> Known:
    record, cause = change.record, change.transition.cause
    applied = workflow.applied.get(cause) if cause else None
    active = workflow.active.get(record.foreign_id)
    if run is None:
        return Known(0, None, applied, active)
    place = record.version - 1
    write_id = run.history[place].write_id if 0 <= place < len(run.history) else None
    return Known(run.record.version, write_id, applied, active)


def _count(workflow: WorkflowRuns, record: Record, change: int) -> None:
    key = (record.status, record.run_state)
    count = workflow.counts.get(key, 0) + change
    if count:
        workflow.counts[key] = count
    else:
        del workflow.counts[key]


def _number(cursor: str) -> int | None:
    """The run's number in a cursor, None for none."""
    if not cursor:
        return None
    digits = cursor.removeprefix(CURSOR)
    if not cursor.startswith(CURSOR) or not digits.isascii() or not digits.isdecimal():
        raise InvalidCursor(f"{cursor!r} is no cursor of a listing of runs: start again without one")
    return int(digits)
