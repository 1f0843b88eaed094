"""The user's object as bytes: `JsonCodec` is strict, exact, and safe while old and new code run side by side.

*What it carries*: dataclasses and named tuples as objects; `list tuple set frozenset dict` (keys as text, sets sorted);
`str int float bool None`; enums by value if all are ints or texts, else by name; `datetime date time` in ISO format (an
aware one keeps its offset, not its zone's name); `timedelta` in microseconds; `Decimal` and `UUID` as text; `bytes` as
base64; `Literal`, unions, `NewType`, `Annotated`; `Any` for plain JSON. A float is never NaN or infinite. Dataclasses
that share a union are told apart by a tag, `"$type": "Card"`, its other members by the class of their JSON.

*How it works*: each type is compiled once into a `_Plan` of two tables: by the class of a value, the function that
makes plain JSON of it; by the class of the JSON, the way back. What has no entry does not fit: a bool is no int, a
subclass is not its base. The happy path keeps no path; as a `_Problem` unwinds, each level puts its step in front:
`order.items[2].price`. Neither path nor text has the user's data in it: the entries of a dict are only counted.

*Unknown fields*, written by newer code, survive: `decode` hands them out as a carry, `encode` writes them back. They
belong to the object that had them, wherever it is now; if it is gone, to the object of its class that stands in its
place, such as its `dataclasses.replace`. One that is removed takes them along. A place in a list is an index, so if
objects are copied *and* moved in one go, they get each other's. A field dropped from a class is an unknown field, too.

*Upcasters* turn older documents into today's. A class with n of them writes `"$version": n`; a document of version k
goes through the last n - k before it is read. One above n is read as it is and keeps its version when written: its
newer fields are still in it, as unknown ones, and newer code must not make them again out of the older ones.

*Other codecs* have the same three methods. For pydantic models they are `value.model_dump_json().encode()` and
`kind.model_validate_json(data), None`, for msgpack alike; and one that encrypts goes around any other:

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
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import repeat
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from .errors import CodecError

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]  # of the fields of one version, to those of the next


class JsonCodec:
    """Values of any supported type as compact JSON. `upcasters` are those of each class, oldest first. Thread-safe."""

    def __init__(self, *, upcasters: Mapping[type, Sequence[Upcaster]] | None = None) -> None:
        self._upcasters = dict(upcasters or {})
        self._plans: dict[Any, _Plan] = {}

    def check(self, kind: Any) -> Sequence[str]:
        """Why values of this type cannot be carried: a line for each problem, none if they can."""
        return tuple(f"{path}: {text}" for path, text in _Compiler(kind, self._upcasters).problems)

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
        trace: _Trace = []
        try:
            if not data:
                raise _Problem("no data is stored, or it was deleted")
            tree = _read(str(data, "utf-8"))
            value = plan.decode[tree.__class__](tree, trace)
            return value, _Carry(tree, trace) if any(unknown for _, _, unknown in trace) else None
        except (_Problem, ValueError, RecursionError) as error:
            raise _codec_error(kind, error) from None

    def _plan(self, kind: Any) -> _Plan:
        if kind in self._plans:
            return self._plans[kind]
        compiler = _Compiler(kind, self._upcasters)
        if compiler.problems:
            raise CodecError(*compiler.problems[0])
        return self._plans.setdefault(kind, compiler.whole)  # if two threads have compiled it, either will do


_write = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False).encode
_read = json.JSONDecoder().decode


class _Problem(Exception):
    """Something does not fit its type. Each level that it passes puts its step in front of the path."""

    path = ""


def _codec_error(kind: Any, error: Exception) -> CodecError:
    base = get_origin(kind) or kind
    root = base.__name__.lower() if isinstance(base, type) and base not in (Any, UnionType) else "value"
    if isinstance(error, _Problem):
        return CodecError(root + error.path, str(error))
    if isinstance(error, RecursionError):
        return CodecError(root, "is nested too deeply, or holds itself")
    return CodecError(root, "is not JSON in UTF-8, or has a number of too many digits")


_Path = tuple[str | None, ...]
_Trace = list[tuple[Any, Any, Mapping[str, Any]]]  # of each record met: the JSON object, the value, the unknown fields


class _Carry:
    """The records of one decoded document, where they stood, and their unknown fields."""

    def __init__(self, tree: Any, trace: _Trace) -> None:
        paths: dict[int, _Path] = {}
        _walk(tree, lambda node, path: paths.setdefault(id(node), path))
        origins = [(value, paths[id(node)], unknown) for node, value, unknown in trace]
        self._by_id = {id(origin[0]): origin for origin in origins}  # which holds the value, so the id stays its own
        self._by_path = {origin[1]: origin for origin in origins}

    def restore(self, tree: Any, trace: _Trace) -> None:
        """Write the unknown fields into the tree of a later value."""
        values = {id(node): value for node, value, _ in trace}
        living = {id(value) for value in values.values()}

        def settle(node: Any, path: _Path) -> _Path:
            value = values.get(id(node))
            original, home, unknown = self._by_id.get(id(value)) or self._by_path.get(path) or (None, path, {})
            if original is not value and id(original) in living:
                return (None,)  # nowhere: the original has moved, and took along all that stood below
            if type(original) is not type(value):
                return path
            for name, item in unknown.items():
                if name not in node or name == "$version":  # a version that was carried is above ours
                    node[name] = item
            return home

        _walk(tree, settle)


def _walk(tree: Any, visit: Callable[[Any, _Path], _Path]) -> None:
    """Visit each node with its path of keys and indices, which continues the one that its parent's visit returned."""
    stack: list[tuple[Any, _Path]] = [(tree, ())]
    while stack:
        node, path = stack.pop()
        path = visit(node, path)
        steps = node.items() if node.__class__ is dict else enumerate(node) if node.__class__ is list else ()
        stack.extend((child, (*path, str(step))) for step, child in steps)


_Convert = Callable[[Any, _Trace], Any]
_Field = tuple[str, "_Plan", bool, bool]  # name, plan, is it required, is it set late as the class takes no argument


class _Table(dict[type, _Convert]):
    """By the class of what is to be converted, the function for it."""

    def __missing__(self, kind: type) -> _Convert:
        raise _Problem(f"expected {self}, got {kind.__name__}")

    def __str__(self) -> str:
        return " or ".join(kind.__name__ for kind in self)


class _Plan:
    """How values of one type are written, by their class, and how they are read, by the class of their JSON."""

    def __init__(self, encode: Mapping[type, _Convert], decode: Mapping[type, _Convert]) -> None:
        self.encode, self.decode = _Table(encode), _Table(decode)


def _guard(name: str, convert: Callable[[Any], Any]) -> _Convert:
    """A conversion that may raise anything. The text of that error would tell the value, so it goes no further."""

    def guarded(value: Any, _: _Trace) -> Any:
        try:
            return convert(value)
        except Exception as error:
            raise _Problem(f"this {type(value).__name__} makes no {name}: {type(error).__name__}") from None

    return guarded


def _leaf(kind: type, form: type, write: Callable[[Any], Any], read: Callable[[Any], Any]) -> _Plan:
    return _Plan({kind: _guard(form.__name__, write)}, {form: _guard(kind.__name__, read)})


def _same(value: Any, _: _Trace) -> Any:
    return value


def _text(value: Any, _: _Trace) -> Any:
    if not value.isascii() and value.encode(errors="ignore").decode() != value:
        raise _Problem("is not Unicode: it has half of a surrogate pair")
    return value


def _float(value: Any, _: _Trace) -> float:
    if (value.__class__ is int and abs(value) > 2**53) or not math.isfinite(value):
        raise _Problem("NaN, infinity, and an int that no float holds exactly, have no JSON form")
    return float(value)


_LEAVES: dict[Any, _Plan] = {
    **{kind: _Plan({kind: _same}, {kind: _same}) for kind in (int, bool, NoneType)},
    str: _Plan({str: _text}, {str: _text}),
    float: _Plan({float: _float, int: _float}, {float: _float, int: _float}),
    # Python 3.10 does not read the Z of UTC
    datetime: _leaf(datetime, str, datetime.isoformat, lambda x: datetime.fromisoformat(x.replace("Z", "+00:00"))),
    time: _leaf(time, str, time.isoformat, lambda text: time.fromisoformat(text.replace("Z", "+00:00"))),
    date: _leaf(date, str, date.isoformat, date.fromisoformat),
    timedelta: _leaf(timedelta, int, lambda span: span // timedelta.resolution, lambda n: n * timedelta.resolution),
    Decimal: _leaf(Decimal, str, str, Decimal),
    UUID: _leaf(UUID, str, str, UUID),
    bytes: _leaf(bytes, str, lambda data: b64encode(data).decode(), lambda text: b64decode(text, validate=True)),
}


def _array(items: Iterable[_Table], make: _Convert, length: int | None = None, step: str = "") -> _Convert:
    """Converts one by one, each with its own table, and makes the whole of the results."""

    def convert(values: Any, trace: _Trace) -> Any:
        if length is not None and len(values) != length:
            raise _Problem(f"expected {length} items, got {len(values)}")
        done: list[Any] = []
        try:
            for item, value in zip(items, values, strict=False):
                done.append(item[value.__class__](value, trace))
        except _Problem as problem:
            problem.path = f"{step}[{len(done)}]{problem.path}"
            raise
        made = make(done, trace)
        if len(made) == len(done):
            return made
        raise _Problem("two elements or keys are equal, so one would be lost")

    return convert


def _mapping(keys: _Table, values: _Table) -> _Convert:
    each_key = _array(repeat(keys), _guard("dict", dict.fromkeys), step=".keys()")
    each_value = _array(repeat(values), _same, step=".values()")
    return lambda entries, trace: dict(zip(each_key(entries, trace), each_value(entries.values(), trace), strict=True))


_ANY = _Table({kind: _LEAVES[kind].encode[kind] for kind in (str, int, float, bool, NoneType)})
_ANY[list], _ANY[dict] = _array(repeat(_ANY), _same), _mapping(_LEAVES[str].encode, _ANY)
_LEAVES[Any] = _Plan(_ANY, _ANY)


def _record(plan: _Plan, kind: Any, head: dict[str, Any], fields: list[_Field], steps: Sequence[_Convert]) -> None:
    """Fills the plan of a dataclass or named tuple. The fields may come later, since they may refer to the class."""
    make = _guard(kind.__name__, lambda values: kind(**values))

    def encode(value: Any, trace: _Trace) -> Any:
        raw = head.copy()
        name = ""
        try:
            for name, field, _, _ in fields:
                item = getattr(value, name, ...)  # three dots, which fit no type, if it was never set
                raw[name] = field.encode[item.__class__](item, trace)
        except _Problem as problem:
            problem.path = f".{name}{problem.path}"
            raise
        trace.append((raw, value, {}))
        return raw

    def decode(raw: Any, trace: _Trace) -> Any:
        if raw.get("$type", kind.__name__) != kind.__name__:
            raise _Problem(f"its $type is not {kind.__name__}")
        if steps:
            _upcast(raw, steps, trace)
        values: dict[str, Any] = {}
        late: dict[str, Any] = {}
        name = ""
        try:
            for name, field, required, is_late in fields:
                if name in raw:
                    item = raw[name]
                    (late if is_late else values)[name] = field.decode[item.__class__](item, trace)
                elif required:
                    raise _Problem("is missing and has no default")
        except _Problem as problem:
            problem.path = f".{name}{problem.path}"
            raise
        unknown: dict[str, Any] = {}
        if len(raw) > len(values) + len(late):
            rest = {key: raw[key] for key in raw if key not in values | late and (key, raw[key]) not in head.items()}
            unknown = _ANY[dict](rest, trace)
        value = make(values, trace)
        for name, item in late.items():
            object.__setattr__(value, name, item)  # it may be frozen
        trace.append((raw, value, unknown))
        return value

    plan.encode[kind], plan.decode[dict] = encode, decode


def _upcast(raw: dict[str, Any], steps: Sequence[_Convert], trace: _Trace) -> None:
    """Make today's document of an older one, in place, as it is part of a tree."""
    version = raw.get("$version", 0)
    if version.__class__ is not int or version < 0:
        raise _Problem("its $version is no version")
    if version < len(steps):
        fields = {name: raw.pop(name) for name in list(raw) if name[:1] != "$"}
        for step in steps[version:]:
            fields = _guard("dict", dict)(step(fields, trace), trace)
        raw.update({**fields, "$version": len(steps)})


class _Compiler:
    """Makes the plan of a type and all its parts. Keeps every problem, with the path to its place."""

    def __init__(self, kind: Any, upcasters: Mapping[type, Sequence[Upcaster]]) -> None:
        self.problems: list[tuple[str, str]] = []
        self._upcasters = upcasters
        self._plans: dict[tuple[Any, bool], _Plan] = {}
        self.whole = self.plan(kind, _name(kind))

    def plan(self, kind: Any, path: str, tagged: bool = False) -> _Plan:
        """The plan of a type. One that is met again inside itself, as a tree's node is, is filled when all is known."""
        kind = _unwrap(kind)
        if not _is_record(kind):
            return self._make(kind, path)
        if (kind, tagged) not in self._plans:
            self._plans[kind, tagged] = _Plan({}, {})
            self._record(self._plans[kind, tagged], kind, path, tagged)
        return self._plans[kind, tagged]

    def _make(self, kind: Any, path: str) -> _Plan:
        origin, parts = get_origin(kind) or kind, get_args(kind)
        if kind in _LEAVES:
            return _LEAVES[kind]
        if origin in (Union, UnionType):
            return self._union([_unwrap(part) for part in parts], path)
        if origin is Literal:
            return self._literal(parts, path)
        if origin is dict:
            return self._dict(parts[0] if parts else str, parts[1] if parts else Any, path)
        if origin is tuple and kind is not tuple and parts[1:] != (...,):
            items = [self.plan(part, f"{path}[{index}]") for index, part in enumerate(parts)]
            decode = _array([item.decode for item in items], _guard("tuple", tuple), len(items))
            return _Plan({tuple: _array([item.encode for item in items], _same, len(items))}, {list: decode})
        if origin in (list, tuple, set, frozenset):
            item = self.plan(parts[0] if parts else Any, f"{path}[]")
            in_order = _guard("sorted list", lambda forms: sorted(forms, key=repr))  # so equal sets are equal bytes
            encode = _array(repeat(item.encode), _same if origin in (list, tuple) else in_order)
            return _Plan({origin: encode}, {list: _array(repeat(item.decode), _guard(origin.__name__, origin))})
        if isinstance(origin, type) and issubclass(origin, Enum):
            forms = {member.value.__class__ for member in origin.__members__.values()}
            if not forms <= {int, str}:
                return _leaf(origin, str, lambda member: member.name, origin.__getitem__)
            read = _guard(origin.__name__, origin)  # the class itself knows combined flags, and what `_missing_` takes
            return _Plan({origin: _guard("value", lambda member: member.value)}, dict.fromkeys(forms, read))
        return self._refuse(path, f"{_name(kind)} is not supported")

    def _literal(self, values: Sequence[Any], path: str) -> _Plan:
        plans = {value.__class__: self.plan(value.__class__, path) for value in values}
        written = {(of.__class__, of): plans[of.__class__].encode[of.__class__](of, []) for of in values}
        read = {(form.__class__, form): value for (_, value), form in written.items()}
        if len(read) < len(written):
            return self._refuse(path, "two of the literals look the same in JSON")
        encode = _guard("literal", lambda value: written[value.__class__, value])  # with its class, because 1 == True
        decode = _guard("literal", lambda form: read[form.__class__, form])
        return _Plan({kind: encode for kind, _ in written}, {kind: decode for kind, _ in read})

    def _dict(self, key_kind: Any, item_kind: Any, path: str) -> _Plan:
        key, item = self.plan(key_kind, f"{path}.keys()[]"), self.plan(item_kind, f"{path}.values()[]")
        read = key.decode
        if set(read) == {int}:  # JSON writes such a key as its digits
            digits = _guard("int", int)
            read = _Table({str: lambda text, trace: key.decode[int](digits(text, trace), trace)})
        elif set(read) - {str}:
            self._refuse(path, f"{_name(key_kind)} cannot be the key of a dict")
        return _Plan({dict: _mapping(key.encode, item.encode)}, {dict: _mapping(read, item.decode)})

    def _union(self, kinds: Sequence[Any], path: str) -> _Plan:
        records = [kind for kind in kinds if _is_record(kind)]
        tagged = records if len(records) > 1 else []
        others = sorted((kind for kind in kinds if kind not in tagged), key=lambda kind: kind is not float)
        plans = [self.plan(kind, path) for kind in others] + ([self._tagged(tagged, path)] if tagged else [])
        whole = _Plan({}, {})
        for plan in plans:  # float is the first, so that an int is rather another member's, if there is one for it
            if any(whole.decode.get(form, _float) not in (_float, decode) for form, decode in plan.decode.items()):
                self._refuse(path, f"{plan.encode} is ambiguous: in JSON it looks like another member of the union")
            whole.encode.update(plan.encode)
            whole.decode.update(plan.decode)
        return whole

    def _tagged(self, kinds: Sequence[type], path: str) -> _Plan:
        plans = {kind.__name__: self.plan(kind, path, tagged=True) for kind in kinds}
        if len(plans) < len(kinds):
            return self._refuse(path, "two classes of the union have the same name, and so the same tag")

        def decode(raw: Any, trace: _Trace) -> Any:
            if (tag := str(raw.get("$type"))) in plans:
                return plans[tag].decode[dict](raw, trace)
            raise _Problem(f"its $type is none of {', '.join(plans)}")

        return _Plan({kind: plans[kind.__name__].encode[kind] for kind in kinds}, {dict: decode})

    def _record(self, plan: _Plan, kind: Any, path: str, tagged: bool) -> None:
        fields: list[_Field] = []
        steps = [_guard(f"newer {kind.__name__}", upcaster) for upcaster in self._upcasters.get(kind, ())]
        head = ({"$type": kind.__name__} if tagged else {}) | ({"$version": len(steps)} if steps else {})
        _record(plan, kind, head, fields, steps)
        names = getattr(kind, "_fields", None) or [field.name for field in dataclasses.fields(kind)]
        arguments = dict(inspect.signature(kind).parameters)
        for name in arguments.keys() - set(names):
            self._refuse(f"{path}.{name}", "is an argument of the class but no field of it, as an InitVar is")
        try:
            hints = get_type_hints(kind)
        except Exception as error:
            missing = getattr(error, "name", None) or type(error).__name__
            self._refuse(path, f"cannot resolve its annotations: define {missing} at the top level of a module")
            return
        for name in names:
            required = name in arguments and arguments[name].default is inspect.Parameter.empty
            fields.append((name, self.plan(hints.get(name, Any), f"{path}.{name}"), required, name not in arguments))

    def _refuse(self, path: str, problem: str) -> _Plan:
        self.problems.append((path, problem))
        return _Plan({}, {})


def _unwrap(kind: Any) -> Any:
    """What a NewType, Annotated or Final stands for."""
    while hasattr(kind, "__supertype__") or get_origin(kind) in (Annotated, Final):
        kind = kind.__supertype__ if hasattr(kind, "__supertype__") else get_args(kind)[0]
    return NoneType if kind is None else kind


def _is_record(kind: Any) -> bool:
    has_fields = hasattr(kind, "__dataclass_fields__") or hasattr(kind, "_field_defaults")  # the latter: named tuples
    return has_fields and isinstance(kind, type) and get_origin(kind) is None


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else repr(kind)
