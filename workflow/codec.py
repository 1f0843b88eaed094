"""The user's object as bytes: `JsonCodec` is strict, exact, and safe while old and new code run side by side.

*What it carries*: dataclasses and named tuples, as objects; `list tuple set frozenset dict` (keys as text, sets sorted);
`str int float bool None`; enums, by value if all values are ints or texts, else by name; `datetime date time` in ISO
format (an aware one keeps its offset, not its zone's name); `timedelta` as whole microseconds; `Decimal` and `UUID` as
text, `bytes` as base64; `Literal`, unions, `NewType`, `Annotated`; `Any` for plain JSON. A float is never NaN or infinite.
Dataclasses that share a union are told apart by a tag, `"$type": "Card"`, its other members by the class of their JSON.

*How it works*: each type is compiled once into a `_Plan` of two tables. One has, by the class of a value, the function
that turns it into plain JSON; the other, by the class of the JSON, the one that turns it back. A class without an entry
does not fit: a bool is no int, a subclass is not its base. The happy path keeps no path; as a `_Problem` unwinds, each
level puts its step in front: `order.items[2].price`. Neither path nor text has the user's data in it, so the entries of
a dict are counted, not named: `order.prices.values()[2]`.

*Unknown fields*, written by newer code, survive: `decode` hands them out as a carry, and `encode` writes them back. They
belong to the object that had them, wherever it is now; if it is gone, to the object of its class that stands in its
place, such as its `dataclasses.replace`. One that is removed takes them along. A place in a list is an index, so if
objects are copied *and* moved in one go, they get each other's. A field dropped from a class is an unknown field, too.

*Upcasters* turn older documents into today's. A class with n of them writes `"$version": n`; a document of version k < n
goes through the last n - k before it is read. One above n is read as it is and keeps its version when written: its
newer fields are still in it, as unknown ones, and newer code must not make them again out of the older ones.

*Other codecs* have the same three methods, such as one for pydantic (where extra="allow" keeps unknown fields, so that
the carry is None; msgpack libraries look alike), or one that encrypts what another writes:

    class PydanticCodec:
        def check(self, kind): return [] if issubclass(kind, BaseModel) else [f"{kind} is no model"]
        def encode(self, kind, value, carry=None): return value.model_dump_json().encode()
        def decode(self, kind, data): return kind.model_validate_json(data), None

    class EncryptedCodec:
        def __init__(self, inner, box): self.inner, self.box, self.check = inner, box, inner.check
        def encode(self, kind, value, carry=None): return self.box.encrypt(self.inner.encode(kind, value, carry))
        def decode(self, kind, data): return self.inner.decode(kind, self.box.decrypt(data))
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from itertools import repeat
from operator import attrgetter
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from .errors import CodecError

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns the fields of a document of one version into those of the next. It may change its argument."""


class JsonCodec:
    """Writes values of any supported type as compact JSON and reads them back. One instance serves all threads.

    `upcasters` has, for a class, the functions that lead from each version of its documents to the next, oldest first.
    """

    def __init__(self, *, upcasters: Mapping[type, Sequence[Upcaster]] | None = None) -> None:
        self._upcasters = dict(upcasters or {})
        self._plans: dict[Any, _Plan] = {}
        self._compiling = threading.Lock()

    def check(self, kind: Any) -> Sequence[str]:
        """Why values of this type cannot be carried: a line for each problem, none if they can."""
        compiler = _Compiler(self._upcasters)
        compiler.plan(kind, _name(kind))
        return tuple(f"{path}: {text}" for path, text in compiler.problems)

    def encode(self, kind: Any, value: Any, carry: object = None) -> bytes:
        """The value as bytes, along with the unknown fields that `decode` found in the document it came from."""
        plan = self._plan(kind)
        trace: _Trace = []
        try:
            tree = plan.encode[value.__class__](value, trace)
            if isinstance(carry, _Carry):
                carry.restore(tree, trace)
            return _write(tree).encode()
        except (_Problem, ValueError, RecursionError) as error:
            raise _codec_error(kind, error) from None

    def decode(self, kind: Any, data: bytes) -> tuple[Any, object]:
        """The value, and the carry that `encode` needs to write back unknown fields: None if there are none."""
        plan = self._plan(kind)
        if not data:
            raise CodecError(_root(kind), "no data is stored, or it was deleted")
        trace: _Trace = []
        try:
            tree = _read(str(data, "utf-8"))
            value = plan.decode[tree.__class__](tree, trace)
            return value, _Carry(tree, trace) if any(unknown for _, _, unknown in trace) else None
        except (_Problem, ValueError, RecursionError) as error:
            raise _codec_error(kind, error) from None

    def _plan(self, kind: Any) -> _Plan:
        try:
            return self._plans[kind]
        except (KeyError, TypeError):  # not compiled yet; or not hashable, and so no type
            compiler = _Compiler(self._upcasters)
        with self._compiling:
            plan = compiler.plan(kind, _name(kind))
            if compiler.problems:
                raise CodecError(*compiler.problems[0])
            return self._plans.setdefault(kind, plan)


_write = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False).encode
_read = json.JSONDecoder().decode


class _Problem(Exception):
    """Something does not fit its type. Each level that it passes puts its step in front of the path."""

    def __init__(self, text: str, path: str = "") -> None:
        self.text = text
        self.path = path


def _codec_error(kind: Any, error: Exception) -> CodecError:
    if isinstance(error, _Problem):
        return CodecError(_root(kind) + error.path, error.text)
    if isinstance(error, RecursionError):
        return CodecError(_root(kind), "is nested too deeply, or holds itself")
    return CodecError(_root(kind), "is not JSON in UTF-8, or has a number of too many digits")


# --- unknown fields ------------------------------------------------------------------------------------------------

_Path = tuple[Any, ...]
_Trace = list[tuple[Any, Any, Mapping[str, Any]]]
"""The records that one call has met: the JSON object of each, its value, its unknown fields."""

_NOWHERE = object()


class _Origin(NamedTuple):
    """A record as it was decoded. Holding on to its value keeps the id from being given to another."""

    value: Any
    path: _Path
    unknown: Mapping[str, Any]


class _Carry:
    """The records of one decoded document, where they stood, and their unknown fields."""

    def __init__(self, tree: Any, trace: _Trace) -> None:
        paths: dict[int, _Path] = {}
        _walk(tree, lambda node, path: paths.setdefault(id(node), path))
        origins = [_Origin(value, paths[id(node)], unknown) for node, value, unknown in trace]
        self._by_id = {id(origin.value): origin for origin in origins}
        self._by_path = {origin.path: origin for origin in origins}

    def restore(self, tree: Any, trace: _Trace) -> None:
        """Write the unknown fields into the tree of a later value."""
        values = {id(node): value for node, value, _ in trace}
        living = {id(value) for value in values.values()}

        def settle(node: Any, path: _Path) -> _Path:
            value = values.get(id(node))
            origin = self._by_id.get(id(value)) or self._by_path.get(path)
            if value is None or origin is None:
                return path
            if origin.value is not value:
                if id(origin.value) in living:
                    return (_NOWHERE,)  # its place was another's, who moved and took along all that stood below
                if type(origin.value) is not type(value):
                    return path
            for name, item in origin.unknown.items():
                if name not in node or name == "$version":  # a version that was carried is above ours
                    node[name] = item
            return origin.path

        _walk(tree, settle)


def _walk(tree: Any, visit: Callable[[Any, _Path], _Path]) -> None:
    """Visit each node with its path of keys and indices, which continues the one that its parent's visit returned."""
    stack: list[tuple[Any, _Path]] = [(tree, ())]
    while stack:
        node, path = stack.pop()
        path = visit(node, path)
        steps = node.items() if node.__class__ is dict else enumerate(node) if node.__class__ is list else ()
        stack.extend((child, (*path, step)) for step, child in steps)


# --- plans ---------------------------------------------------------------------------------------------------------

_Convert = Callable[[Any, _Trace], Any]


class _Table(dict[type, _Convert]):
    """By the class of what is to be converted, the function for it."""

    def __missing__(self, kind: type) -> _Convert:
        raise _Problem(f"expected {' or '.join(known.__name__ for known in self)}, got {kind.__name__}")


class _Plan:
    """How values of one type are written, by their class, and how they are read, by the class of their JSON."""

    def __init__(self, encode: Mapping[type, _Convert], decode: Mapping[type, _Convert]) -> None:
        self.encode = _Table(encode)
        self.decode = _Table(decode)


def _same(value: Any, _: _Trace) -> Any:
    return value


def _text(value: str, _: _Trace) -> str:
    try:
        if not value.isascii():
            value.encode()
    except UnicodeEncodeError:
        raise _Problem("is not Unicode: it has half of a surrogate pair") from None
    return value


def _float(value: float, _: _Trace) -> float:
    if value.__class__ is int and abs(value) > 2**53:
        raise _Problem("is an int too large to be a float")
    if not math.isfinite(value):
        raise _Problem("NaN and infinity have no JSON form")
    return float(value)


def _guard(name: str, convert: Callable[[Any], Any]) -> _Convert:
    """A conversion that may raise anything. The text of that error would tell the value, so it goes no further."""

    def guarded(value: Any, _: _Trace) -> Any:
        try:
            return convert(value)
        except Exception as error:
            raise _Problem(f"this {type(value).__name__} makes no {name}: {type(error).__name__}") from None

    return guarded


def _via(kind: type, form: type, write: Callable[[Any], Any], read: Callable[[Any], Any]) -> _Plan:
    return _Plan({kind: _guard(form.__name__, write)}, {form: _guard(kind.__name__, read)})


_LEAVES: Mapping[Any, _Plan] = {
    **{kind: _Plan({kind: _same}, {kind: _same}) for kind in (int, bool, NoneType)},
    str: _Plan({str: _text}, {str: _text}),
    float: _Plan({float: _float, int: _float}, {float: _float, int: _float}),
    # Python 3.10 does not read the Z of UTC
    datetime: _via(datetime, str, datetime.isoformat, lambda text: datetime.fromisoformat(text.replace("Z", "+00:00"))),
    time: _via(time, str, time.isoformat, lambda text: time.fromisoformat(text.replace("Z", "+00:00"))),
    date: _via(date, str, date.isoformat, date.fromisoformat),
    timedelta: _via(timedelta, int, lambda span: span // timedelta.resolution, lambda n: n * timedelta.resolution),
    Decimal: _via(Decimal, str, str, Decimal),
    UUID: _via(UUID, str, str, UUID),
    bytes: _via(bytes, str, lambda data: b64encode(data).decode(), lambda text: b64decode(text, validate=True)),
}


def _array(items: Iterable[_Table], make: Callable[[Any], Any], length: int | None = None, step: str = "") -> _Convert:
    """Converts one by one, each with its own table, and makes the whole of the results."""

    def convert(values: Any, trace: _Trace) -> Any:
        if length is not None and len(values) != length:
            raise _Problem(f"expected {length} items, got {len(values)}")
        done: list[Any] = []
        try:
            for item, value in zip(items, values):
                done.append(item[value.__class__](value, trace))
        except _Problem as problem:
            problem.path = f"{step}[{len(done)}]{problem.path}"
            raise
        return make(done)

    return convert


def _mapping(keys: _Table, values: _Table) -> _Convert:
    each_key = _array(repeat(keys), list, step=".keys()")
    each_value = _array(repeat(values), list, step=".values()")

    def convert(entries: Any, trace: _Trace) -> Any:
        done = dict(zip(each_key(entries, trace), each_value(entries.values(), trace)))
        if len(done) != len(entries):
            raise _Problem("two keys are equal, so one would be lost")
        return done

    return convert


def _distinct(kind: type, elements: list[Any]) -> Any:
    made = _guard(kind.__name__, kind)(elements, [])
    if len(made) != len(elements):
        raise _Problem("two elements are equal, so one would be lost")
    return made


class _Record:
    """A dataclass or named tuple as a JSON object. Its fields are added later, as they may refer to the class."""

    def __init__(self, kind: type, upcasters: Sequence[Upcaster], tagged: bool, anything: _Table) -> None:
        self.name = kind.__name__
        self.fields: list[tuple[str, _Plan, bool]] = []  # name, plan, required
        self.late: list[str] = []  # the fields that the class takes no argument for: set on the finished object
        self.head: dict[str, Any] = {"$type": self.name} if tagged else {}
        if upcasters:
            self.head["$version"] = len(upcasters)
        self._make = _guard(self.name, lambda values: kind(**values))
        self._upcasters = [_guard(f"next version of {self.name}", lambda raw, up=up: dict(up(raw))) for up in upcasters]
        self._anything = _mapping(_LEAVES[str].decode, anything)

    def encode(self, value: Any, trace: _Trace) -> Any:
        raw = self.head.copy()
        name = ""
        try:
            for name, plan, _ in self.fields:
                item = getattr(value, name)
                raw[name] = plan.encode[item.__class__](item, trace)
        except _Problem as problem:
            problem.path = f".{name}{problem.path}"
            raise
        except AttributeError:
            raise _Problem("is not set", f".{name}") from None
        trace.append((raw, value, {}))
        return raw

    def decode(self, raw: Any, trace: _Trace) -> Any:
        if raw.get("$type", self.name) != self.name:
            raise _Problem(f"its $type is not {self.name}")
        newer = self._upcast(raw, trace) if self._upcasters else {}
        values: dict[str, Any] = {}
        name = ""
        try:
            for name, plan, required in self.fields:
                if name in raw:
                    item = raw[name]
                    values[name] = plan.decode[item.__class__](item, trace)
                elif required:
                    raise _Problem("is missing and has no default")
        except _Problem as problem:
            problem.path = f".{name}{problem.path}"
            raise
        unknown: Mapping[str, Any] = {}
        if len(raw) > len(values):
            rest = {name: item for name, item in raw.items() if name not in values and name not in self.head}
            unknown = {**self._anything(rest, trace), **newer}
        late = [(name, values.pop(name)) for name in self.late if name in values]
        value = self._make(values, trace)
        for name, item in late:
            object.__setattr__(value, name, item)  # it may be frozen
        trace.append((raw, value, unknown))
        return value

    def _upcast(self, raw: dict[str, Any], trace: _Trace) -> dict[str, Any]:
        """Make today's document of an older one, in place. Returns the version to keep if it is a newer one."""
        version = raw.get("$version", 0)
        if version.__class__ is not int or version < 0:
            raise _Problem("its $version is no version")
        if version > len(self._upcasters):
            return {"$version": version}
        fields = {name: item for name, item in raw.items() if name not in self.head}
        for upcaster in self._upcasters[version:]:
            fields = upcaster(fields, trace)
        raw.clear()
        raw.update(fields)
        return {}


# --- compiling -----------------------------------------------------------------------------------------------------


class _Compiler:
    """Makes the plan of a type and all its parts. Keeps every problem, with the path to its place."""

    def __init__(self, upcasters: Mapping[type, Sequence[Upcaster]]) -> None:
        self.problems: list[tuple[str, str]] = []
        self._upcasters = upcasters
        self._plans: dict[tuple[Any, bool], _Plan] = {}

    def plan(self, kind: Any, path: str, tagged: bool = False) -> _Plan:
        """The plan of a type. One that is in the making, such as a tree's node for its children, is filled later."""
        kind = _unwrap(kind)
        try:
            known = self._plans.get((kind, tagged))
        except TypeError:
            return self._refuse(path, f"an instance of {type(kind).__name__} is no type")
        if known is not None:
            return known
        plan = self._plans[kind, tagged] = _Plan({}, {})
        if _is_record(kind):
            self._record(plan, kind, path, tagged)
        else:
            made = self._make(kind, path)
            plan.encode.update(made.encode)
            plan.decode.update(made.decode)
        return plan

    def _make(self, kind: Any, path: str) -> _Plan:
        origin, parts = get_origin(kind) or kind, get_args(kind)
        if kind in _LEAVES:
            return _LEAVES[kind]
        if kind is Any:
            return self._union([NoneType, bool, int, float, str, list[Any], dict[str, Any]], path)
        if origin in (Union, UnionType):
            return self._union([_unwrap(part) for part in parts], path)
        if origin is Literal:
            return self._literal(parts, path)
        if origin is dict:
            return self._dict(*(parts or (str, Any)), path)
        if origin is tuple and kind is not tuple and parts[1:] != (...,):
            items = [self.plan(part, f"{path}[{index}]") for index, part in enumerate(parts)]
            encode = _array([item.encode for item in items], list, len(items))
            return _Plan({tuple: encode}, {list: _array([item.decode for item in items], tuple, len(items))})
        if origin in (list, tuple, set, frozenset):
            item = self.plan(parts[0] if parts else Any, f"{path}[]")
            ordered = origin in (list, tuple)  # a set is sorted, so that equal ones are equal bytes
            write, read = (list, origin) if ordered else (partial(sorted, key=repr), partial(_distinct, origin))
            return _Plan({origin: _array(repeat(item.encode), write)}, {list: _array(repeat(item.decode), read)})
        if isinstance(origin, type) and issubclass(origin, Enum):
            return self._enum(origin)
        return self._refuse(path, f"{_name(kind)} is not supported")

    def _enum(self, kind: type[Enum]) -> _Plan:
        forms = {member.value.__class__ for member in kind.__members__.values()}
        if not forms <= {int, str}:
            return _via(kind, str, attrgetter("_name_"), kind.__getitem__)
        decode = _guard(kind.__name__, kind)  # the class itself knows combined flags, and what `_missing_` accepts
        return _Plan({kind: _guard("value", attrgetter("_value_"))}, dict.fromkeys(forms, decode))

    def _literal(self, values: Sequence[Any], path: str) -> _Plan:
        plans = [(value, self.plan(value.__class__, path)) for value in values]
        written = {(value.__class__, value): plan.encode[value.__class__](value, []) for value, plan in plans}
        read = {(form.__class__, form): value for (_, value), form in written.items()}
        if len(read) < len(written):
            return self._refuse(path, "two of the literals are the same in JSON")
        encode = _guard("literal", lambda value: written[value.__class__, value])  # with its class, because 1 == True
        decode = _guard("literal", lambda form: read[form.__class__, form])
        return _Plan({kind: encode for kind, _ in written}, {kind: decode for kind, _ in read})

    def _dict(self, key_kind: Any, item_kind: Any, path: str) -> _Plan:
        key, item = self.plan(key_kind, f"{path}.keys()[]"), self.plan(item_kind, f"{path}.values()[]")
        encode, decode = key.encode, key.decode
        if set(decode) == {int}:  # the keys of a JSON object are texts, so a number is written as its digits
            digits = _guard("int", int)
            encode = _Table(dict.fromkeys(encode, lambda value, trace: str(key.encode[value.__class__](value, trace))))
            decode = _Table({str: lambda text, trace: key.decode[int](digits(text, trace), trace)})
        elif set(decode) - {str}:
            self._refuse(path, f"{_name(key_kind)} cannot be the key of a dict")
        return _Plan({dict: _mapping(encode, item.encode)}, {dict: _mapping(decode, item.decode)})

    def _union(self, kinds: Sequence[Any], path: str) -> _Plan:
        records = [kind for kind in kinds if _is_record(kind)]
        tagged = records if len(records) > 1 else []
        plans = {kind: self.plan(kind, path) for kind in kinds if kind not in tagged}
        if tagged:
            plans["the tagged classes"] = self._tagged(tagged, path)
        whole = _Plan({}, {})
        for kind in sorted(plans, key=lambda kind: kind is not float):  # first, so that an int is rather another's
            for form, decode in plans[kind].decode.items():
                if whole.decode.get(form, _float) not in (_float, decode):
                    self._refuse(path, f"{_name(kind)} and another member of the union look the same in JSON")
            whole.encode.update(plans[kind].encode)
            whole.decode.update(plans[kind].decode)
        return whole

    def _tagged(self, kinds: Sequence[type], path: str) -> _Plan:
        plans = {kind.__name__: self.plan(kind, path, tagged=True) for kind in kinds}
        if len(plans) < len(kinds):
            return self._refuse(path, "two classes of a union have the same name, and so the same tag")

        def decode(raw: Any, trace: _Trace) -> Any:
            tag = raw.get("$type")
            if tag.__class__ is str and tag in plans:
                return plans[tag].decode[dict](raw, trace)
            raise _Problem(f"its $type is none of {', '.join(plans)}")

        return _Plan({kind: plans[kind.__name__].encode[kind] for kind in kinds}, {dict: decode})

    def _record(self, plan: _Plan, kind: Any, path: str, tagged: bool) -> None:
        record = _Record(kind, self._upcasters.get(kind, ()), tagged, self.plan(Any, path).decode)
        plan.encode[kind], plan.decode[dict] = record.encode, record.decode
        names = getattr(kind, "_fields", None) or [field.name for field in dataclasses.fields(kind)]
        arguments = dict(inspect.signature(kind).parameters)
        for name in arguments.keys() - set(names):
            self._refuse(f"{path}.{name}", "is an argument of the class but no field of it, like an InitVar")
        try:
            hints = get_type_hints(kind)
        except Exception as error:
            missing = getattr(error, "name", None) or type(error).__name__
            self._refuse(path, f"cannot resolve its annotations ({missing}): define what they name at module level")
            return
        for name in names:
            argument = arguments.get(name)
            required = argument is not None and argument.default is inspect.Parameter.empty
            record.fields.append((name, self.plan(hints.get(name, Any), f"{path}.{name}"), required))
            if argument is None:
                record.late.append(name)

    def _refuse(self, path: str, problem: str) -> _Plan:
        self.problems.append((path, problem))
        return _Plan({}, {})


def _unwrap(kind: Any) -> Any:
    """What a NewType, Annotated, Final or `type` alias stands for."""
    if get_origin(kind) in (Annotated, Final):
        return _unwrap(get_args(kind)[0])
    named = getattr(kind, "__supertype__", None) or getattr(kind, "__value__", None)
    return _unwrap(named) if named else NoneType if kind is None else kind


def _is_record(kind: Any) -> bool:
    if not isinstance(kind, type) or get_origin(kind) is not None:
        return False
    return dataclasses.is_dataclass(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields"))


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else str(kind)


def _root(kind: Any) -> str:
    base = get_origin(kind) or kind
    return base.__name__.lower() if isinstance(base, type) and base is not UnionType else "value"
