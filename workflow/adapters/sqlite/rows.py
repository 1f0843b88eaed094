"""Between the data of the contract and rows of the file.

What goes in is checked here, on the way: a value that is not storable makes its own change `Rejected` and never reaches
SQL, so that it cannot spoil the others of its batch. What comes out is made new each time, and aliases nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from operator import index
from types import MappingProxyType
from typing import Any, TypeVar

from ...clock import UTC
from ...errors import InvalidInput, Rejected
from ...event import NO_HEADERS, Event
from ...record import NO_META, Record, Transition
from ...run_state import RunState

Row = tuple[Any, ...]
T = TypeVar("T")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
NO_OFFSET = timedelta(0)
END = (datetime(2200, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
MAX_INTEGER = 2**63 - 1
MAX_BYTES = 500_000_000
"""The largest object or payload: half of what SQLite takes for a whole row, unless it was compiled for less."""

UNSTORABLE = (TypeError, ValueError, OverflowError, AttributeError)
"""What the functions below raise of a value that no healthy store could keep (lone surrogates are a ValueError)."""

RUN_STATES: Mapping[int, RunState] = {int(state): state for state in RunState}


def rejected(what: str, error: Exception) -> Rejected:
    """The refusal of something unstorable."""
    return Rejected(f"{what} can never be stored: {type(error).__name__}: {error}")


def micros(at: datetime) -> int:
    """An instant as a number. Raises ValueError if it is not in UTC, or not between 1970 and 2200."""
    if at.tzinfo is not UTC and at.utcoffset() != NO_OFFSET:
        raise ValueError(f"{at} is not in UTC")
    number = (at - EPOCH) // MICROSECOND
    if not 0 <= number < END:
        raise ValueError(f"{at} is not between 1970 and 2200")
    return number


def instant(number: int) -> datetime:
    """The instant of a number."""
    return EPOCH + MICROSECOND * number


def bound(at: datetime) -> int:
    """An instant to compare with. It is not stored: one before 1970 or after 2200 is as good as any."""
    return (at - EPOCH) // MICROSECOND


def check_texts(texts: Iterable[str]) -> None:
    """Raise TypeError if one is no text, ValueError if one has a NUL or half a character (a lone surrogate)."""
    joined = "".join(texts)
    if "\0" in joined:
        raise ValueError("a text with a NUL character")
    if len(joined) > MAX_BYTES:
        raise ValueError(f"{len(joined)} characters are more than the {MAX_BYTES} that fit")
    joined.encode()


def check_blob(data: object) -> None:
    if not isinstance(data, bytes):
        raise TypeError(f"bytes are wanted, not {type(data).__name__}")
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data)} bytes are more than the {MAX_BYTES} that fit")


def check_run_state(run_state: object) -> None:
    if type(run_state) is not RunState:
        raise TypeError(f"{run_state!r} is no run state")


def integers(*numbers: int) -> tuple[int, ...]:
    """The same as plain integers. Raises TypeError if one is none, OverflowError if one does not fit."""
    plain = tuple(map(index, numbers))
    if max(plain) > MAX_INTEGER or min(plain) < -MAX_INTEGER:
        raise OverflowError("a number of more than 64 bits")
    return plain


def strings_to_json(mapping: Mapping[str, str]) -> str | None:
    """Headers or meta; NULL if there are none."""
    if not mapping:
        return None
    check_texts(mapping)
    check_texts(mapping.values())
    return json.dumps(dict(mapping), ensure_ascii=False)


def rare_to_json(**values: str | Mapping[str, str] | None) -> str | None:
    """The values that are not empty; NULL if all are."""
    present = {name: value for name, value in values.items() if value}
    return json.dumps(present, ensure_ascii=False) if present else None


def check_limit(limit: int) -> None:
    if limit < 1:
        raise InvalidInput(f"limit={limit}: at least 1 is wanted")


def id_of(number: int) -> str:
    """A number as an id: it rises as a text too."""
    return f"{number:012d}"


def numbers_of(ids: Iterable[str]) -> list[int]:
    """Ids as the numbers that they were made of; what was never an id is left out."""
    return [int(text) for text in ids if text.isdecimal() and len(text) < 19 and id_of(int(text)) == text]


def filled(kind: type[T], names: Sequence[str], values: Sequence[object]) -> T:
    """As `kind(*values)`, for a frozen dataclass whose fields have these names.

    The constructor of a frozen dataclass sets each field by a call of its own; for a record of 19 fields that costs
    more than reading it from the file.
    """
    made = object.__new__(kind)
    vars(made).update(zip(names, values, strict=True))
    return made


RECORD_FIELDS = tuple(field.name for field in fields(Record))
EVENT_FIELDS = tuple(field.name for field in fields(Event))


# --- records -------------------------------------------------------------------------------------------------------

RECORD_COLUMNS = (
    "workflow, foreign_id, run_id, version, run_state, status, status_entered, entered_at, turn, object, "
    "created_at, updated_at, available_at, attempt, suspect, by, rare"
)


def record_rare(record: Record) -> str | None:
    meta = record.meta
    if not (meta or record.error or record.region):
        return None
    check_texts(meta)
    check_texts(meta.values())
    return rare_to_json(error=record.error, region=record.region, meta=dict(meta))


def record_from(row: Row, workflow_name: str) -> Record:
    """The record of a row of `RECORD_COLUMNS`."""
    (_, foreign_id, run_id, version, run_state, status, status_entered, entered_at, turn, data,
     created_at, updated_at, available_at, attempt, suspect, by, rare) = row  # fmt: skip
    error, region, meta = "", "", NO_META
    if rare is not None:
        packed: dict[str, Any] = json.loads(rare)
        error, region = packed.get("error", ""), packed.get("region", "")
        if "meta" in packed:
            meta = MappingProxyType(packed["meta"])
    updated = instant(updated_at)
    entered = updated if entered_at == updated_at else instant(entered_at)
    available = updated if available_at == updated_at else instant(available_at)
    return filled(Record, RECORD_FIELDS, (
        workflow_name, foreign_id, run_id, version, RUN_STATES[run_state], status, status_entered, entered,
        turn, data, instant(created_at), updated, available, attempt, error, suspect != 0, by or "", region, meta,
    ))  # fmt: skip


# --- history -------------------------------------------------------------------------------------------------------

HISTORY_COLUMNS = "version, write_id, status, run_state, at, attempt, instance, cause, rare"


def transition_rare(transition: Transition) -> str | None:
    if not (transition.by or transition.reason or transition.error_type or transition.error_place):
        return None
    return rare_to_json(
        by=transition.by,
        reason=transition.reason,
        error_type=transition.error_type,
        error_place=transition.error_place,
    )


def transition_from(row: Row, run_id: str, instance: str) -> Transition:
    """The transition of a row of `HISTORY_COLUMNS`."""
    version, write_id, status, run_state, at, attempt, _, cause, rare = row
    packed: dict[str, str] = json.loads(rare) if rare is not None else {}
    return Transition(
        run_id, version, write_id, status, RUN_STATES[run_state], instant(at), cause or "", packed.get("by", ""),
        packed.get("reason", ""), packed.get("error_type", ""), packed.get("error_place", ""), attempt, instance,
    )  # fmt: skip


# --- events --------------------------------------------------------------------------------------------------------


def event_row(event: Event) -> Row:
    """The columns that an event has wherever it is kept: key, status, run_state, version, created_at, headers."""
    check_texts((event.topic, event.key))
    check_run_state(event.run_state)
    status, run_state, version = integers(event.status, event.run_state, event.version)
    return event.key, status, run_state, version, micros(event.created_at), strings_to_json(event.headers)


def event_from(row: Row, topic: str, event_id: str) -> Event:
    """The event of such columns."""
    key, status, run_state, version, created_at, headers = row
    told = NO_HEADERS if headers is None else MappingProxyType(json.loads(headers))
    values = (topic, key, status, RUN_STATES[run_state], version, instant(created_at), told, event_id)
    return filled(Event, EVENT_FIELDS, values)
