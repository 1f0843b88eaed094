"""The contract between the engine and everything outside the process, on one page.

Two levels. The *ports* are what the engine sees: `RecordStore`, `EventStreamer`, `TimeoutStore`, `RoleScheduler`,
`Connector`. Under two of them the core brings the machinery (`adapters.support`), so that most backends implement only
a small *store*: an `EventLog` under `LogStreamer`, a `LeaseStore` under `LeaseScheduler`.

Rules for all of them:

- Every method may be called from many threads; one thread at a time calls one receiver's `recv`.
- Blocking calls take a `CancelToken` and raise `Cancelled`. After `close` calls raise `Closed`, in a forked child
`Forked`.
- Data are the frozen dataclasses of `record` and `event`. Seconds are floats, instants aware and in UTC, ids str,
  payloads bytes. `limit < 1` is an `InvalidInput` (a ValueError). The given `now` is used, never the wall clock.
- Failures: `Rejected` would also fail on an empty, healthy backend. `Unavailable` means that the outcome is unknown
  and that the same call may be made again. No failure looks like "empty" or like success.
- Capabilities are a declared set, since wrappers hide types: `notify(adapter)` and its kin look there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Any, NamedTuple, Protocol, cast

from .cancel import CancelToken
from .clock import Signal
from .data import Data
from .errors import Refusal
from .event import WHOLE, Change, ConnectorEvent, Event, NewTimeout, OutboxEvent, Shard, Timeout, TimeoutState
from .record import Order, Page, Record, RecordFilter, Transition
from .run_state import RunState

Unsubscribe = Callable[[], None]
ANY_RECORD = RecordFilter()


class Adapter(Protocol):
    """What every adapter has."""

    @property
    def capabilities(self) -> frozenset[str]:
        """The declared extras: a declared one works, an undeclared one is absent, each has a fallback."""
        ...

    def close(self) -> None:
        """Let go of threads, files and connections. May be called twice, from any thread; unblocks waiters."""
        ...


# --- records -------------------------------------------------------------------------------------------------------


class RecordStore(Adapter, Protocol):
    """Runs, their history, their events for later, and the causes that took effect."""

    def store(self, changes: Sequence[Change]) -> list[Refusal | None]:
        """Accept or refuse each change on its own: record, history row and event are stored, all or none.

        The answer has one entry for each change: None if it was accepted, else the first that applies of:

        1. this version's history row has this `write_id`: accepted already, so None;
        2. the transition's cause is known in this workflow: `AlreadyApplied`;
        3. the version is not the current one + 1: `StaleRecord`;
        4. another run of (workflow, foreign id) is active: `RunInProgress`;
        5. `Rejected`.

        `workflow_name`, `foreign_id` and `created_at` are fixed by version 1. An event is for later if
        `available_at > updated_at`. A record stored as DATA_DELETED empties the headers of the run's outbox rows.
        """
        ...

    def lookup(self, run_ids: Sequence[str]) -> list[Record | None]:
        """The current version of each run, None for an unknown one, in the order asked."""
        ...

    def latest(self, workflow_name: str, foreign_id: str) -> Record | None:
        """The run of this foreign id that was created last (not the one written last)."""
        ...

    def applied(self, workflow_name: str, cause: str) -> str | None:
        """The run on which this cause took effect. A trigger's key is the cause of version 1."""
        ...

    def history(self, run_id: str, *, after_version: int = 0, limit: int = 1000) -> list[Transition]:
        """The run's rows of history after that version, oldest first."""
        ...

    def list(
        self,
        workflow_name: str,
        *,
        after: str = "",
        limit: int = 25,
        order: Order = Order.ASCENDING,
        where: RecordFilter = ANY_RECORD,
    ) -> Page[Record]:
        """A page of at most `limit` records, by creation, perhaps empty; the last page has `next == ""`.

        Raises `InvalidCursor` for a cursor that is not one of this store's.
        """
        ...

    def list_outbox_events(
        self, workflow_name: str, limit: int, now: datetime, *, region: str = ""
    ) -> Sequence[OutboxEvent]:
        """Events due at `now`, by (available_at, id). Region "" means all."""
        ...

    def outbox_of(self, run_id: str) -> Sequence[OutboxEvent]:
        """The run's events that wait, due or not."""
        ...

    def delete_outbox_events(self, ids: Sequence[str]) -> None:
        """Delete these; an unknown id is no error."""
        ...

    def postpone_outbox_event(self, event_id: str, until: datetime, attempt: int, error_type: str) -> None:
        """Make this one due at `until` instead, with these values."""
        ...

    def delete_runs(self, run_ids: Sequence[str]) -> Sequence[str]:
        """Delete these runs with their history and causes, but no active one and none with outbox rows.

        Returns the ids of those it deleted.
        """
        ...


# --- events --------------------------------------------------------------------------------------------------------


class Delivery(Protocol):
    """One event, handed out by a receiver."""

    @property
    def event(self) -> Event: ...

    @property
    def redelivered(self) -> bool:
        """True if an earlier receiver may have handed it out; False for all that was sent after this one opened."""
        ...

    def ack(self) -> None:
        """Acknowledge all that this receiver has handed out, up to this one. From any thread; never rewinds."""
        ...


class EventSender(Protocol):
    """Puts events into one topic."""

    def send(self, events: Sequence[Event]) -> None:
        """Returns when they are durable. Events of one key keep their order."""
        ...

    def close(self) -> None: ...


class EventReceiver(Protocol):
    """Hands out one shard of one topic, from where its name was acknowledged."""

    def recv(self, cancel: CancelToken, *, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        """What is there, up to `limit`; waits for the first one, and returns [] after `timeout` seconds (0 polls)."""
        ...

    def close(self) -> None:
        """Acknowledges nothing: what was handed out and not acknowledged comes again to the next receiver."""
        ...


class ReceiverInfo(NamedTuple):
    """A receiver that the streamer knows and keeps events for."""

    topic: str
    name: str
    last_opened: datetime


class EventStreamer(Adapter, Protocol):
    """Topics of events, each kept until every known receiver has acknowledged it."""

    def new_sender(self, topic: str) -> EventSender: ...

    def new_receiver(
        self, topic: str, name: str, *, shard: Shard = WHOLE, poll_interval: float | None = None
    ) -> EventReceiver:
        """Open the receiver of this name. Its progress is stored before this returns.

        A new name starts at the oldest event kept. The first receiver of a new layout (total of shards) takes over at
        the least progress of the layout before, and retires that. `poll_interval` (seconds) only lowers the bound with
        which a streamer without notifications looks for news.
        """
        ...

    def receivers(self) -> Sequence[ReceiverInfo]: ...

    def forget_receiver(self, topic: str, name: str) -> None:
        """Drop this name's progress, and so its claim on events."""
        ...


# --- what is due later ---------------------------------------------------------------------------------------------


class TimeoutStore(Adapter, Protocol):
    """Timers, buffered callbacks, parked failures and schedules, until they are due."""

    def create(self, timeouts: Sequence[NewTimeout]) -> None:
        """Create those whose (workflow_name, kind, key) is new; a known one is left as it is, ended or not."""
        ...

    def finish(self, ids: Sequence[str], state: TimeoutState) -> None:
        """End these as COMPLETED or CANCELLED. The first end wins; an unknown id is no error."""
        ...

    def reschedule(self, timeout_id: str, due_at: datetime | None, attempt: int, error_type: str) -> None:
        """Make a pending one due at `due_at` (None holds it). Unknown or ended: nothing happens."""
        ...

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
        """Pending items with `due_at <= now`, by (due_at, id); a shard owns an item by its `shard_key`."""
        ...

    def of_run(self, run_id: str) -> Sequence[Timeout]:
        """The run's pending items, held ones too, by id."""
        ...

    def list(self, workflow_name: str, *, after: str = "", limit: int = 25) -> Page[Timeout]:
        """A page of the workflow's pending items, held ones too, by id."""
        ...

    def purge(self, run_ids: Sequence[str]) -> None:
        """Delete all items of these runs, ended or not."""
        ...

    def purge_finished(self, before: datetime, limit: int) -> int:
        """Delete at most `limit` items that ended and were created before `before`; how many it were."""
        ...


# --- roles ---------------------------------------------------------------------------------------------------------


class Lease(Protocol):
    """A granted role. Leaving its `with` block releases it."""

    @property
    def epoch(self) -> int:
        """Rises with every grant of the role, across restarts."""
        ...

    @property
    def lost(self) -> CancelToken:
        """Fires when the role may have gone to another: stop at once."""
        ...

    @property
    def wanted(self) -> CancelToken:
        """Fires when another should have it: finish what is in hand, then release."""
        ...

    def release(self) -> None: ...

    def __enter__(self) -> Lease: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class RoleScheduler(Adapter, Protocol):
    """Gives each role to one instance at a time."""

    def await_role(self, role: str, cancel: CancelToken) -> Lease:
        """Wait until the role is ours. Raises `Cancelled` and leaves no claim behind when `cancel` fires."""
        ...


# --- connectors ----------------------------------------------------------------------------------------------------


class ConnectorDelivery(Protocol):
    """One event from outside, handed out by a connector."""

    @property
    def event(self) -> ConnectorEvent: ...

    @property
    def redelivered(self) -> bool: ...

    def ack(self) -> None:
        """As `Delivery.ack`."""
        ...


class ConnectorReceiver(Protocol):
    """As `EventReceiver`, for events from outside."""

    def recv(
        self, cancel: CancelToken, *, limit: int = 1, timeout: float | None = None
    ) -> Sequence[ConnectorDelivery]: ...

    def close(self) -> None: ...


class Connector(Protocol):
    """A source of events outside."""

    def open(self, name: str, shard: Shard) -> ConnectorReceiver:
        """The receiver of this name and shard, from where it was acknowledged."""
        ...


# --- the stores under LogStreamer and LeaseScheduler ---------------------------------------------------------------


class Cursor(NamedTuple):
    """The progress of one shard of one receiver's name, in one layout of that name."""

    topic: str
    name: str
    shard: Shard
    generation: int
    """Counts the layouts of this name: progress of a retired generation is ignored."""
    acked: int
    """The position up to which all is acknowledged."""
    handed_out: int
    """The position up to which something may have been handed out."""
    head: int
    """The last position of the topic when the cursor was opened."""


class LogEntry(NamedTuple):
    """An event at its position. Positions rise within a topic, from 1, perhaps with gaps."""

    position: int
    event: Event


class EventLog(Adapter, Protocol):
    """An append-only log per topic, with cursors: all that `LogStreamer` needs."""

    def append(self, topic: str, events: Sequence[Event]) -> None:
        """Returns when they are durable. Gives each its position and its id."""
        ...

    def read(self, topic: str, shard: Shard, after: int, limit: int) -> tuple[Sequence[LogEntry], int]:
        """At most `limit` entries of the shard after that position, and the position up to which all was looked at.

        No entry may become visible later at or below a position that was returned.
        """
        ...

    def open_cursor(self, topic: str, name: str, shard: Shard) -> Cursor:
        """Find or make the cursor. Another total than that of the name's layout makes a new layout: all its shards
        start at the least progress of the old one, which is retired."""
        ...

    def save_cursor(self, cursor: Cursor, acked: int, handed_out: int) -> None:
        """Store progress. `acked` never goes back; a cursor of a retired generation changes nothing. May be less
        durable than `append` against loss of power, not against a kill."""
        ...

    def cursors(self) -> Sequence[ReceiverInfo]: ...

    def forget(self, topic: str, name: str) -> None: ...

    def subscribe_topic(self, topic: str, shard: Shard, signal: Signal) -> Unsubscribe:
        """Notify `signal` when an entry of the shard is appended, if the log can."""
        ...


class LeaseRow(NamedTuple):
    """A role as the store has it."""

    epoch: int
    holder: str
    """The member that holds it; empty if it is free."""
    beat: int
    """The holder's beat when this was read."""


class MemberRow(NamedTuple):
    """A member as the store has it: one instance's scheduler."""

    beat: int
    wants: frozenset[str]
    """The roles that it waits for."""


class LeaseTable(NamedTuple):
    """All of it, read at one moment."""

    members: Mapping[str, MemberRow]
    leases: Mapping[str, LeaseRow]


class LeaseStore(Adapter, Protocol):
    """Who holds which role, and who beats: all that `LeaseScheduler` needs. Compares no clocks."""

    def beat(self, member: str, wants: Sequence[str]) -> LeaseTable:
        """Count the member's beat up, store what it waits for, and read the table, in one transaction."""
        ...

    def acquire(self, role: str, member: str, seen: LeaseRow | None) -> int | None:
        """Give the role to `member` with a new, higher epoch if its row is still as `seen` (None: never held).

        If `seen` has a holder, the holder's beat must still be `seen.beat` too. Returns the epoch, or None.
        """
        ...

    def release(self, role: str, member: str, epoch: int) -> None:
        """Free the role if this grant still holds it. The epoch is kept."""
        ...

    def leave(self, member: str, beat: int | None = None) -> None:
        """Forget the member and free its roles; with `beat`, only if that is still its beat."""
        ...

    def subscribe_leases(self, signal: Signal) -> Unsubscribe:
        """Notify `signal` when a role is freed or a member's wants change, if the store can."""
        ...


# --- the set -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Adapters(Data):
    """The adapters of a workflow. Sets can be mixed: `postgres.adapters(dsn).replace(event_streamer=...)`."""

    record_store: RecordStore
    event_streamer: EventStreamer
    timeout_store: TimeoutStore
    role_scheduler: RoleScheduler
    on_close: Callable[[], None] = lambda: None
    """Closes what the set shares, as a connection; whoever opened it says so here."""

    def replace(self, **parts: Any) -> Adapters:
        """The same set with these parts in place of its own."""
        return replace(self, **parts)

    def close(self) -> None:
        """Close every part, then what they share. May be called twice."""
        for part in (self.role_scheduler, self.event_streamer, self.timeout_store, self.record_store):
            part.close()
        self.on_close()


# --- capabilities --------------------------------------------------------------------------------------------------


class DirectPublish(Protocol):
    """`direct-publish`: the record store writes its streamer's log in its own transaction."""

    def bind(self, workflow_name: str, streamer: EventStreamer) -> bool:
        """Publish this workflow's events there from now on, if it is this store's own log. Kept in the store."""
        ...


class Notify(Protocol):
    """`notify`: the adapter tells of changes. Kinds: `topic`, `run`, `outbox`, `timeout`."""

    def subscribe(self, kind: str, name: str, signal: Signal) -> Unsubscribe:
        """Notify `signal` on each change of (kind, name): a topic, a run id, a workflow, a workflow."""
        ...


class Lag(Protocol):
    """`lag`: the streamer counts what a receiver has before it."""

    def pending(self, topic: str, name: str) -> tuple[int, datetime | None]:
        """How many events are not acknowledged, and since when the oldest of them is there."""
        ...


class Holders(Protocol):
    """`holders`: the scheduler tells who holds what."""

    def holders(self) -> Mapping[str, str]:
        """Role to the instance that holds it; free roles are left out."""
        ...


class Counts(Protocol):
    """`counts`: the record store counts runs cheaply, however many there are."""

    def counts(self, workflow_name: str) -> Mapping[tuple[int, RunState], int]: ...


@dataclass(frozen=True, eq=False, repr=False)
class Definition(Data):
    """A workflow as tools see it that do not have its code."""

    workflow_name: str
    fingerprint: str
    """Changes with the graph."""
    start: int
    edges: Mapping[int, Sequence[int]]
    names: Mapping[int, str]
    last_seen: datetime
    processed: Sequence[int] = ()
    """The statuses that a process reads: runs in any other wait for a callback or a timer."""


class Definitions(Protocol):
    """`definitions`: the record store keeps the definitions of the workflows that use it."""

    def announce(self, definition: Definition) -> None: ...

    def definitions(self) -> Sequence[Definition]:
        """The last announced one of each workflow and fingerprint."""
        ...


PARTITIONED = "partitioned"
"""The capability that has no methods: a streamer that orders by key only and shards by its partitions."""


def direct_publish(adapter: Adapter) -> DirectPublish | None:
    """`adapter` as one that has this capability, None if it does not declare it. The same for those below."""
    return cast("DirectPublish", adapter) if "direct-publish" in adapter.capabilities else None


def notify(adapter: Adapter) -> Notify | None:
    return cast("Notify", adapter) if "notify" in adapter.capabilities else None


def lag(adapter: Adapter) -> Lag | None:
    return cast("Lag", adapter) if "lag" in adapter.capabilities else None


def holders(adapter: Adapter) -> Holders | None:
    return cast("Holders", adapter) if "holders" in adapter.capabilities else None


def counts(adapter: Adapter) -> Counts | None:
    return cast("Counts", adapter) if "counts" in adapter.capabilities else None


def definitions(adapter: Adapter) -> Definitions | None:
    return cast("Definitions", adapter) if "definitions" in adapter.capabilities else None


# --- what else plugs in, with silent defaults ----------------------------------------------------------------------


class Codec(Protocol):
    """Turns the user's object into bytes and back."""

    def check(self, kind: Any) -> Sequence[str]:
        """What is wrong with this type, one readable line each; empty if it can be carried."""
        ...

    def encode(self, kind: Any, value: Any, carry: object = None) -> bytes:
        """`value` as bytes. `carry` is what `decode` gave for the object that this one came from."""
        ...

    def decode(self, kind: Any, data: bytes) -> tuple[Any, object]:
        """The value, and whatever `encode` needs to write back what this code does not know."""
        ...


DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
"""The levels of log lines: those of the standard `logging`, which is imported by the logger that uses it."""


class Logger(Protocol):
    """Takes the engine's log lines. Fields are ids, names and numbers, never the user's object."""

    def log(self, level: int, message: str, **fields: object) -> None: ...


def _standard_logger() -> Any:
    import logging  # late: it costs milliseconds, and another logger may be given

    logger = logging.getLogger("workflow")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


class StandardLogger:
    """The default: the standard `logging`, logger `workflow`, silent until the application sets up a handler."""

    def __init__(self) -> None:
        self._logger = _standard_logger()

    def log(self, level: int, message: str, **fields: object) -> None:
        if self._logger.isEnabledFor(level):
            told = " ".join(f"{name}={value}" for name, value in fields.items())
            self._logger.log(level, "%s %s", message, told, extra={"workflow_fields": fields})


class Metrics(Protocol):
    """Takes the engine's figures. Labels are names and statuses, never ids."""

    def count(self, name: str, value: float = 1, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, **labels: str) -> None: ...

    def observe(self, name: str, value: float, **labels: str) -> None: ...


class NoMetrics:
    """The default: nothing is kept."""

    def count(self, name: str, value: float = 1, **labels: str) -> None:
        return

    def gauge(self, name: str, value: float, **labels: str) -> None:
        return

    def observe(self, name: str, value: float, **labels: str) -> None:
        return


class Tracer(Protocol):
    """Takes the spans of the user's functions."""

    def span(self, name: str, parent: str, attributes: Mapping[str, object]) -> Any:
        """A context manager around the work; `parent` is a W3C traceparent, or empty."""
        ...


class NoTracer:
    """The default: no spans."""

    _NOTHING = nullcontext()

    def span(self, name: str, parent: str, attributes: Mapping[str, object]) -> Any:
        return self._NOTHING
