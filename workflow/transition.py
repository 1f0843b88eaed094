"""THE write path: how a run gets its next version.

Whatever happens to a run, whoever asked for it, is one of the *effects* below. `apply` turns a record and an effect
into the next record; `change` derives the history row and the event from that record and adds nothing of its own. There
is no other place that makes a version, so every rule about runs is a line of this module:

    effect        run state     status_entered  turn   attempt   suspect  available_at
    Entered       by the graph  this version    0      0         no       now
    Repeated      RUNNING       kept            + 1    0         no       now + delay
    Failed        RUNNING       kept            kept   + 1 *     no       now + delay
    Suspected     RUNNING       kept            kept   + 1       yes      now + delay
    Cleared       RUNNING       kept            kept   0         no       now
    Hastened      RUNNING       kept            kept   kept      kept     now
    Paused        PAUSED        kept            kept   kept *    no       now
    Resumed       RUNNING       kept            kept   0         no       now
    Cancelled     CANCELLED     kept            kept   kept      no       now
    Erasing       DATA_DELETION_REQUESTED, the rest kept
    Erased        DATA_DELETED, the object replaced, the error emptied

    * one more than before, unless the version was suspect: its mark has counted the try already.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from .environment import Environment, Fault
from .errors import IllegalRunState
from .event import HEADERS, NO_HEADERS, Change, Event, run_state_topic, status_topic
from .record import Record, Transition, evolve
from .run_state import FOLLOWERS, RunState

NOW = timedelta(0)


class Author(NamedTuple):
    """Who makes a change, and why. The engine's own steps have none of it."""

    cause: str = ""
    by: str = ""
    reason: str = ""


ENGINE = Author()


class Entered(NamedTuple):
    """The run enters `status`. A status that nothing leads out of completes it."""

    status: int
    object: bytes


class Repeated(NamedTuple):
    """The object is saved and the step runs again."""

    object: bytes
    delay: timedelta


class Failed(NamedTuple):
    """A try failed; the next one comes after `delay`. An outage's failures are not `counted` against the run."""

    fault: Fault
    delay: timedelta
    counted: bool = True


class Suspected(NamedTuple):
    """A try may have killed its process; the next one, after `delay`, runs alone."""

    delay: timedelta


class Cleared(NamedTuple):
    """The suspect try came to nothing bad."""


class Hastened(NamedTuple):
    """What was due later is due now."""


class Paused(NamedTuple):
    """The run stops until it is resumed. Without an `object` the stored one stays; a `fault` counts as a try."""

    object: bytes | None = None
    fault: Fault | None = None


class Resumed(NamedTuple):
    """The run goes on where it stopped."""


class Cancelled(NamedTuple):
    """The run ends where it is."""

    object: bytes | None = None


class Erasing(NamedTuple):
    """Somebody asked for the run's data to be deleted."""


class Erased(NamedTuple):
    """The run's data was deleted; `object` is what stays in its place."""

    object: bytes = b""


Effect = Entered | Repeated | Failed | Suspected | Cleared | Hastened | Paused | Resumed | Cancelled | Erasing | Erased
"""Something that happens to a run."""


def tries(record: Record) -> int:
    """The attempts of this turn, counting the one that is under way: a suspect version has counted it already."""
    return record.attempt if record.suspect else record.attempt + 1


def _fields(record: Record, effect: Effect, now: datetime, terminals: frozenset[int]) -> dict[str, Any]:
    """What the effect changes on the record, beside what every change does."""
    if isinstance(effect, Entered):
        ends = effect.status in terminals
        return {
            "run_state": RunState.COMPLETED if ends else RunState.RUNNING,
            "status": effect.status,
            "status_entered": record.version + 1,
            "entered_at": now,
            "turn": 0,
            "attempt": 0,
            "error": "",
            "object": effect.object,
        }
    if isinstance(effect, Repeated):
        return {
            "turn": record.turn + 1,
            "attempt": 0,
            "error": "",
            "object": effect.object,
            "available_at": now + effect.delay,
        }
    if isinstance(effect, Failed):
        attempt = tries(record) if effect.counted else record.attempt
        return {"attempt": attempt, "error": effect.fault.text, "available_at": now + effect.delay}
    if isinstance(effect, Suspected):
        return {"attempt": record.attempt + 1, "suspect": True, "available_at": now + effect.delay}
    if isinstance(effect, Cleared):
        return {"attempt": 0}
    if isinstance(effect, Hastened):
        return {"suspect": record.suspect}
    if isinstance(effect, Resumed):
        return {"attempt": 0, "error": ""}
    if isinstance(effect, Erasing):
        return {"run_state": RunState.DATA_DELETION_REQUESTED}
    if isinstance(effect, Erased):
        return {"run_state": RunState.DATA_DELETED, "object": effect.object, "error": ""}
    return _ending_fields(record, effect)


def _ending_fields(record: Record, effect: Effect) -> dict[str, Any]:
    """As `_fields`, for the effects after which the run does not move."""
    if isinstance(effect, Paused):
        changed: dict[str, Any] = {"run_state": RunState.PAUSED}
        if effect.fault is not None:
            changed.update(attempt=tries(record), error=effect.fault.text)
    elif isinstance(effect, Cancelled):
        changed = {"run_state": RunState.CANCELLED}
    else:
        raise TypeError(f"{type(effect).__name__} is no effect")
    if effect.object is not None:
        changed["object"] = effect.object
    return changed


def apply(record: Record, effect: Effect, now: datetime, terminals: frozenset[int], by: str = "") -> Record:
    """The next version of `record`. Raises `IllegalRunState` if its run state does not allow the effect."""
    fresh: dict[str, Any] = {"run_state": RunState.RUNNING, "suspect": False, "available_at": now}
    fresh.update(_fields(record, effect, now, terminals))
    state: RunState = fresh["run_state"]
    wakes = record.run_state is RunState.PAUSED and state is RunState.RUNNING
    if state not in FOLLOWERS[record.run_state] or wakes is not isinstance(effect, Resumed):
        raise IllegalRunState(
            f"run {record.run_id} is {record.run_state.name}: {type(effect).__name__.lower()} is not possible now"
        )
    return evolve(record, version=record.version + 1, updated_at=now, by=by, **fresh)


def headers_of(meta: Mapping[str, str]) -> Mapping[str, str]:
    """What of a record's meta travels with its events."""
    if not meta:
        return NO_HEADERS
    return {name: meta[name] for name in HEADERS if name in meta}


def event_of(record: Record) -> Event:
    """The event that says: the run has this version."""
    running = record.run_state is RunState.RUNNING
    name = record.workflow_name
    return Event(
        topic=status_topic(name, record.status) if running else run_state_topic(name),
        key=record.run_id,
        status=record.status,
        run_state=record.run_state,
        version=record.version,
        created_at=record.updated_at,
        headers=headers_of(record.meta),
    )


def change(
    environment: Environment[Any, Any], record: Record, author: Author = ENGINE, fault: Fault | None = None
) -> Change:
    """The record with its history row and its event, ready to be stored."""
    row = Transition(
        run_id=record.run_id,
        version=record.version,
        write_id=environment.new_write_id(),
        status=record.status,
        run_state=record.run_state,
        at=record.updated_at,
        cause=author.cause,
        by=author.by,
        reason=author.reason,
        error_type=fault.type if fault else "",
        error_place=fault.place if fault else "",
        attempt=record.attempt,
        instance=environment.instance,
    )
    return Change(record, row, event_of(record))


def advance(environment: Environment[Any, Any], record: Record, effect: Effect, author: Author = ENGINE) -> Change:
    """The change that `effect` makes to `record`."""
    fault = effect.fault if isinstance(effect, (Failed, Paused)) else None
    after = apply(record, effect, environment.now(), environment.graph.terminals, author.by)
    return change(environment, after, author, fault)


def begin(
    environment: Environment[Any, Any],
    *,
    run_id: str,
    foreign_id: str,
    status: int,
    object: bytes,
    delay: timedelta = NOW,
    meta: Mapping[str, str],
    author: Author = ENGINE,
) -> Change:
    """The change that makes a run's first version."""
    now = environment.now()
    record = Record(
        workflow_name=environment.workflow_name,
        foreign_id=foreign_id,
        run_id=run_id,
        version=1,
        run_state=RunState.RUNNING,
        status=status,
        status_entered=1,
        entered_at=now,
        turn=0,
        object=object,
        created_at=now,
        updated_at=now,
        available_at=now + delay,
        by=author.by,
        region=environment.region,
        meta=meta,
    )
    return change(environment, record, author)
