"""What can be stored: the same as in a database, and as values of its own.

A store that keeps live objects hides what a real one would refuse. So what comes in is checked, and whatever the
caller could still change is copied. The rest, frozen dataclasses of strings, numbers, instants and bytes, is kept as
it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from operator import index
from types import MappingProxyType

from ...clock import UTC
from ...errors import InvalidInput, Rejected
from ...event import NO_HEADERS, Change, Event, NewTimeout
from ...record import NO_META, Record, Transition, evolve
from ...run_state import RunState

FIRST_YEAR, LAST_YEAR = 1970, 2199
LARGEST = 2**63 - 1
NO_OFFSET = timedelta(0)


class Unstorable(ValueError):
    """No healthy store could keep this value."""


def check_texts(texts: Iterable[str]) -> None:
    """Raise `Unstorable` for what is no text, has a NUL, or half a character (a lone surrogate)."""
    try:
        joined = "".join(texts)
        if not joined.isascii():
            joined.encode("utf-8")
    except (TypeError, UnicodeEncodeError) as error:
        raise Unstorable(str(error)) from error
    if "\0" in joined:
        raise Unstorable("a text with a NUL character")


def check_instants(*instants: datetime) -> None:
    """Raise `Unstorable` for what is no instant in UTC between 1970 and 2200."""
    for at in instants:
        if not isinstance(at, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers may be untyped
            raise Unstorable(f"{type(at).__name__} is no instant")
        if at.tzinfo is not UTC and at.utcoffset() != NO_OFFSET:
            raise Unstorable(f"{at} is not in UTC")
        if not FIRST_YEAR <= at.year <= LAST_YEAR:
            raise Unstorable(f"{at} is not between {FIRST_YEAR} and {LAST_YEAR + 1}")


def check_integers(*numbers: int) -> None:
    """Raise `Unstorable` for what is no integer of 64 bits."""
    try:
        plain = tuple(map(index, numbers))
    except TypeError as error:
        raise Unstorable(str(error)) from error
    if max(plain) > LARGEST or min(plain) < -LARGEST:
        raise Unstorable("a number of more than 64 bits")


def check_bytes(data: bytes) -> None:
    """Raise `Unstorable` for anything but bytes: a bytearray could still change."""
    if type(data) is not bytes:
        raise Unstorable(f"{type(data).__name__} is not bytes")


def own_mapping(mapping: Mapping[str, str]) -> Mapping[str, str]:
    """A copy that nobody can change."""
    if not mapping:
        return NO_META
    check_texts(mapping)
    check_texts(mapping.values())
    return MappingProxyType(dict(mapping))


def own_change(change: Change) -> Change:
    """The change, checked, and independent of the caller. Raises `Unstorable`."""
    record, event = own_record(change.record), own_event(change.event)
    check_transition(change.transition)
    if record is change.record and event is change.event:
        return change
    return Change(record, change.transition, event)


def own_record(record: Record) -> Record:
    check_texts(
        (record.workflow_name, record.foreign_id, record.run_id, record.error, record.by, record.region)
    )  # fmt: skip
    check_integers(record.version, record.status, record.status_entered, record.turn, record.attempt)
    check_instants(record.entered_at, record.created_at, record.updated_at, record.available_at)
    check_bytes(record.object)
    _check_run_state(record.run_state)
    if record.meta is NO_META:
        return record
    return evolve(record, meta=own_mapping(record.meta))


def check_transition(transition: Transition) -> None:
    check_texts(
        (
            transition.run_id, transition.write_id, transition.cause, transition.by, transition.reason,
            transition.error_type, transition.error_place, transition.instance,
        )
    )  # fmt: skip
    check_integers(transition.version, transition.status, transition.attempt)
    check_instants(transition.at)
    _check_run_state(transition.run_state)


def own_event(event: Event) -> Event:
    check_texts((event.topic, event.key))
    check_integers(event.status, event.version)
    check_instants(event.created_at)
    _check_run_state(event.run_state)
    if event.headers is NO_HEADERS:
        return event
    return with_changes(event, headers=own_mapping(event.headers))


def with_changes(event: Event, **changes: object) -> Event:
    """The event with these fields changed: `record.evolve` for events."""
    new = object.__new__(Event)
    new.__dict__.update(event.__dict__, **changes)
    return new


def check_new_timeout(timeout: NewTimeout) -> None:
    check_texts(
        (
            timeout.workflow_name, timeout.kind, timeout.key, timeout.name, timeout.run_id, timeout.error_type,
            timeout.region,
        )
    )  # fmt: skip
    check_integers(timeout.status, timeout.status_entered)
    check_instants(timeout.created_at)
    if timeout.due_at is not None:
        check_instants(timeout.due_at)
    check_bytes(timeout.payload)


def _check_run_state(run_state: RunState) -> None:
    if type(run_state) is not RunState:
        raise Unstorable(f"{run_state!r} is no run state")


def rejected(what: str, error: Unstorable) -> Rejected:
    """The refusal of something unstorable."""
    return Rejected(f"{what} can never be stored: {error}")


def check_limit(limit: int) -> None:
    """Raise `InvalidInput` below 1."""
    if limit < 1:
        raise InvalidInput(f"limit={limit}: at least 1 is wanted")
