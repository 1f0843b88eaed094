"""A run's history in words.

A history row has what the run was after a change; what happened is the difference to the row before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from ..record import Transition
from ..run_state import RunState
from .terminal import clean


class Kind(Enum):
    """What sort of thing happened."""

    STARTED = "started"
    ENTERED = "entered"
    """Another status."""
    COMPLETED = "completed"
    FAILED = "failed"
    """One attempt; another one follows."""
    STAYED = "stayed"
    """In its status, with a new version: a repeat, or a timer that only did something."""
    HASTENED = "hastened"
    PAUSED = "paused"
    RESUMED = "resumed"
    CANCELLED = "cancelled"
    ERASED = "erased"


@dataclass(frozen=True)
class Happening:
    """One row of history, and what it tells."""

    kind: Kind
    text: str
    row: Transition


def state_name(state: RunState) -> str:
    """The run state as people write it, as in `data-deleted`."""
    return state.name.lower().replace("_", "-")


def story(rows: Iterable[Transition], name: Callable[[int], str]) -> Iterator[Happening]:
    """What happened, oldest first. `name` gives a status's name."""
    before: Transition | None = None
    for row in rows:
        kind = kind_of(before, row)
        yield Happening(kind, _told(kind, row, name), row)
        before = row


def kind_of(before: Transition | None, row: Transition) -> Kind:
    """What happened between two rows that follow each other."""
    if before is None:
        return Kind.STARTED
    if row.run_state is not before.run_state:
        return _BY_STATE[row.run_state]
    if row.run_state is not RunState.RUNNING:
        return Kind.STAYED
    if row.status != before.status:
        return Kind.ENTERED
    if row.error_type or row.attempt > before.attempt:
        return Kind.FAILED
    return Kind.HASTENED if row.by and not row.cause else Kind.STAYED


_BY_STATE = {
    RunState.RUNNING: Kind.RESUMED,
    RunState.PAUSED: Kind.PAUSED,
    RunState.COMPLETED: Kind.COMPLETED,
    RunState.CANCELLED: Kind.CANCELLED,
    RunState.DATA_DELETION_REQUESTED: Kind.ERASED,
    RunState.DATA_DELETED: Kind.ERASED,
}


def _told(kind: Kind, row: Transition, name: Callable[[int], str]) -> str:
    status = name(row.status)
    what = {
        Kind.STARTED: f"started in {status}",
        Kind.ENTERED: f"→ {status}",
        Kind.COMPLETED: f"→ {status}, completed",
        Kind.FAILED: f"attempt {row.attempt} {_failure(row)}",
        Kind.STAYED: f"stays in {status}",
        Kind.HASTENED: "tried again at once",
        Kind.PAUSED: "paused",
        Kind.RESUMED: "resumed",
        Kind.CANCELLED: "cancelled",
        Kind.ERASED: "its data was deleted" if row.run_state is RunState.DATA_DELETED else "its data is to be deleted",
    }[kind]
    via, by, why = _via(row), f" by {row.by}" if row.by else "", f": {row.reason}" if row.reason else ""
    return clean(f"{what} ({via}{by}){why}" if via else f"{what}{by}{why}")


def _failure(row: Transition) -> str:
    if not row.error_type:
        return "may have ended its process"
    return f"failed: {row.error_type}" + (f" at {row.error_place}" if row.error_place else "")


def _via(row: Transition) -> str:
    """How it came from outside, as far as the cause tells: it begins with a kind, a timer's ends with its name."""
    kind, _, rest = row.cause.partition("/")
    if kind == "timer":
        return f"timer {rest.rpartition('/')[2]}"
    if kind == "connector":
        return f"connector {rest.partition('/')[0]}"
    return "callback" if kind == "callback" else ""
