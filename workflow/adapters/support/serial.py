"""The data of the contract as JSON, for stores that keep documents and for payloads that carry an event.

The round trip is exact: instants to the microsecond, bytes as base64, enums by value. A field that a newer version
wrote and this one does not know is ignored, a missing one gets the dataclass's default; whatever else is wrong is a
`CodecError`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeVar

from ...errors import CodecError
from ...event import ConnectorEvent, Event, NewTimeout, OutboxEvent, Timeout, TimeoutState
from ...record import Record, Transition
from ...run_state import RunState

T = TypeVar("T")


def to_dict(value: Any) -> dict[str, object]:
    """A value of one of the dataclasses above as a dict that `json` can write."""
    return {field.name: _FORMS[str(field.type)].write(getattr(value, field.name)) for field in fields(value)}


def from_dict(kind: type[T], data: Mapping[str, object]) -> T:
    """The value of type `kind` that `to_dict` made `data` of."""
    given: dict[str, object] = {}
    for field in fields(kind):  # type: ignore[arg-type]  # `kind` is a dataclass, which no type variable can say
        if field.name in data:
            try:
                given[field.name] = _FORMS[str(field.type)].read(data[field.name])
            except (TypeError, ValueError, AttributeError) as error:
                raise CodecError(f"{kind.__name__}.{field.name}", str(error)) from error
    try:
        return kind(**given)
    except TypeError as error:  # a field without a default is missing
        raise CodecError(kind.__name__, str(error)) from error


@dataclass(frozen=True)
class _Form:
    """How values of one type are written, and read."""

    write: Callable[[Any], object]
    read: Callable[[Any], object]


def _plain(kind: type[Any]) -> _Form:
    """Values that JSON has as well."""

    def read(value: object) -> object:
        if type(value) is not kind:
            raise TypeError(f"{kind.__name__} is wanted, not {type(value).__name__}")
        return value

    return _Form(kind, read)


def _bytes_to_text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes_from_text(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _instant_or_none(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


def _mapping(value: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType({str(name): str(text) for name, text in value.items()})


_FORMS: Mapping[str, _Form] = {  # by the annotation of the field
    "str": _plain(str),
    "int": _plain(int),
    "bool": _plain(bool),
    "bytes": _Form(_bytes_to_text, _bytes_from_text),
    "datetime": _Form(datetime.isoformat, datetime.fromisoformat),
    "datetime | None": _Form(lambda value: value and value.isoformat(), _instant_or_none),
    "RunState": _Form(int, RunState),
    "TimeoutState": _Form(lambda value: value.value, TimeoutState),
    "Mapping[str, str]": _Form(dict, _mapping),
    "Event": _Form(to_dict, lambda value: from_dict(Event, value)),
}


def _to_json(value: Any) -> str:
    """The value as one line of ASCII."""
    return json.dumps(to_dict(value), separators=(",", ":"))


def _from_json(kind: type[T]) -> Callable[[str | bytes], T]:
    """What reads a value of this type."""

    def read(text: str | bytes) -> T:
        try:
            data: Any = json.loads(text)
        except ValueError as error:
            raise CodecError(kind.__name__, str(error)) from error
        if not isinstance(data, dict):
            raise CodecError(kind.__name__, f"an object is wanted, not {type(data).__name__}")
        return from_dict(kind, data)  # pyright: ignore[reportUnknownArgumentType]  # checked field by field

    return read


record_to_json, record_from_json = _to_json, _from_json(Record)
transition_to_json, transition_from_json = _to_json, _from_json(Transition)
event_to_json, event_from_json = _to_json, _from_json(Event)
outbox_event_to_json, outbox_event_from_json = _to_json, _from_json(OutboxEvent)
timeout_to_json, timeout_from_json = _to_json, _from_json(Timeout)
new_timeout_to_json, new_timeout_from_json = _to_json, _from_json(NewTimeout)
connector_event_to_json, connector_event_from_json = _to_json, _from_json(ConnectorEvent)
