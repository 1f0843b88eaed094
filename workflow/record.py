"""The record of a run, the history of its changes, and what a listing of records is asked with.

A run is one record. Each accepted change makes a new version of it, and each version leaves one row of history, the
`Transition`. The record carries the user's object and the text of the last error; the history carries neither, so
that it can be kept when personal data has to go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from .data import Data
from .run_state import RunState

T = TypeVar("T")

NO_META: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, eq=False, repr=False)
class Record(Data):
    """One version of one run. Instants are aware and in UTC."""

    workflow_name: str
    foreign_id: str
    run_id: str
    version: int
    """1 at the trigger, then one more with each accepted change."""
    run_state: RunState
    status: int
    status_entered: int
    """The version at which the current status was entered: what timers and callbacks are bound to."""
    entered_at: datetime
    turn: int
    """How many times the step was repeated within this entry."""
    object: bytes
    created_at: datetime
    updated_at: datetime
    available_at: datetime
    """When the event of this version is due: later than `updated_at` for a delay, a repeat, a backoff."""
    attempt: int = 0
    """Failed or suspect tries of this turn."""
    error: str = ""
    """The last error's text. It may hold personal data: it lives here alone."""
    suspect: bool = False
    """The last try may have killed its process: the next one runs alone."""
    by: str = ""
    """Who made this version: empty for the engine itself."""
    region: str = ""
    meta: Mapping[str, str] = field(default_factory=lambda: NO_META)
    """What travels with the run beside its object, as the trace context does. Never user data."""


@dataclass(frozen=True, eq=False, repr=False)
class Transition(Data):
    """One row of history: what happened to a run, when, and why. No object data, no free text of an exception."""

    run_id: str
    version: int
    write_id: str
    """Names the try to write this version, so that the same call made again is recognised."""
    status: int
    run_state: RunState
    at: datetime
    cause: str = ""
    """What from outside had this effect, unique in its workflow; empty for the engine's own steps."""
    by: str = ""
    reason: str = ""
    error_type: str = ""
    error_place: str = ""
    attempt: int = 0
    instance: str = ""


class Order(Enum):
    """The order of a listing, by creation."""

    ASCENDING = "ascending"
    DESCENDING = "descending"


@dataclass(frozen=True, eq=False, repr=False)
class RecordFilter(Data):
    """Which records a listing is to have. All given conditions must hold; None asks for nothing."""

    statuses: frozenset[int] | None = None
    run_states: frozenset[RunState] | None = None
    foreign_id: str | None = None
    run_id: str | None = None
    by: str | None = None
    updated_before: datetime | None = None
    """Only records with `updated_at` strictly earlier."""
    available_before: datetime | None = None

    def matches(self, record: Record) -> bool:
        """Whether `record` is one of them: the meaning of the filter, which every store must agree with."""
        return (
            (self.statuses is None or record.status in self.statuses)
            and (self.run_states is None or record.run_state in self.run_states)
            and (self.foreign_id is None or record.foreign_id == self.foreign_id)
            and (self.run_id is None or record.run_id == self.run_id)
            and (self.by is None or record.by == self.by)
            and (self.updated_before is None or record.updated_at < self.updated_before)
            and (self.available_before is None or record.available_at < self.available_before)
        )


@dataclass(frozen=True, eq=False, repr=False)
class Page(Data, Generic[T]):
    """One page of a listing. `next` is the cursor of the page after it, empty at the end."""

    items: tuple[T, ...]
    next: str = ""


def evolve(record: Record, **changes: Any) -> Record:
    """The record with these fields changed: `dataclasses.replace`, several times cheaper, for the hot path.

    It skips `__init__`, which does nothing for a record but assign.
    """
    new = object.__new__(Record)
    new.__dict__.update(record.__dict__, **changes)
    return new
