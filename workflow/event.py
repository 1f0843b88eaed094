"""What happens: now (`Event`), later (`OutboxEvent`, `Timeout`), and outside (`ConnectorEvent`).

An event says that a run has a new version; it carries no data of the user's, since the record has it. Its topic is the
workflow and status that it concerns, its key the run. What has to happen later has two homes: an event that is due
later waits in the record store's outbox; everything else (timers, buffered callbacks, parked failures, schedules) is a
`Timeout` in the timeout store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from zlib import crc32

from .data import Data
from .errors import InvalidInput
from .record import Record, Transition
from .run_state import RunState

NO_HEADERS: Mapping[str, str] = MappingProxyType({})

HEADERS = ("traceparent", "tracestate")
"""Every header that an event may carry. They come from the record's `meta`."""


def status_topic(workflow_name: str, status: int) -> str:
    """The topic of running runs in a status."""
    return f"{workflow_name}-{status}"


def run_state_topic(workflow_name: str) -> str:
    """The topic of runs in any run state but RUNNING."""
    return f"{workflow_name}-run-state"


def hash_of(key: str) -> int:
    """The stable hash that shards are made by: the same in every process, on every machine."""
    return crc32(key.encode("utf-8"))


@dataclass(frozen=True, eq=False, repr=False)
class Shard(Data):
    """One of `total` disjoint parts of all keys, counted from 1."""

    index: int = 1
    total: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.total:
            raise InvalidInput(f"shard {self.index} of {self.total}: the index goes from 1 to the total")

    def owns(self, key: str) -> bool:
        """Whether `key` belongs to this shard."""
        return self.total == 1 or hash_of(key) % self.total == self.index - 1


WHOLE = Shard(1, 1)


@dataclass(frozen=True, eq=False, repr=False)
class Event(Data):
    """A run has a new version."""

    topic: str
    key: str
    """The run's id."""
    status: int
    run_state: RunState
    version: int
    created_at: datetime
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    id: str = ""
    """Given by the streamer, unique in the topic; empty before. A duplicate has its own."""


@dataclass(frozen=True, eq=False, repr=False)
class Change(Data):
    """One step of one run: the new version, its row of history, its event. Made by `transition` alone."""

    record: Record
    transition: Transition
    event: Event


@dataclass(frozen=True, eq=False, repr=False)
class OutboxEvent(Data):
    """An event that waits to be sent: until it is due, or because the streamer is another system."""

    id: str
    event: Event
    available_at: datetime
    attempt: int = 0
    """How many times sending it failed."""
    error_type: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class ConnectorEvent(Data):
    """Something that happened outside, as a connector delivers it."""

    id: str
    """Unique within the connector: what makes its effects happen once."""
    key: str
    """Events of one key keep their order."""
    payload: bytes
    created_at: datetime
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)


class TimeoutState(Enum):
    """Where a due item stands."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, eq=False, repr=False)
class NewTimeout(Data):
    """What is to be due later. (workflow_name, kind, key) names it: creating it twice makes one."""

    workflow_name: str
    kind: str
    """One of `timeout`, `callback`, `parked`, `schedule`."""
    key: str
    due_at: datetime | None
    """When it is due; None holds it until somebody reschedules it."""
    created_at: datetime
    name: str = ""
    """The timer's, hook's or connector's name."""
    run_id: str = ""
    status: int = 0
    status_entered: int = 0
    payload: bytes = b""
    error_type: str = ""
    region: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Timeout(Data):
    """A due item as the store has it."""

    id: str
    workflow_name: str
    kind: str
    key: str
    due_at: datetime | None
    created_at: datetime
    name: str = ""
    run_id: str = ""
    status: int = 0
    status_entered: int = 0
    payload: bytes = b""
    attempt: int = 0
    error_type: str = ""
    state: TimeoutState = TimeoutState.PENDING
    region: str = ""

    @property
    def shard_key(self) -> str:
        """What the item's shard is decided by: its run, or its own key if it has none."""
        return self.run_id or self.key


def composite(*parts: object) -> str:
    """One string of several parts, from which no other parts could have been made: each part is escaped."""
    return "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in parts)
