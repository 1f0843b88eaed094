"""What `JsonCodec` writes, reads, refuses, and keeps for newer code."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field, make_dataclass, replace
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, NewType, Optional, Union, cast
from uuid import UUID

import pytest

from workflow.codec import JsonCodec
from workflow.errors import CodecError

SECRET = "ada@example.com"


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Shape(Enum):
    POINT = (0, 0)
    LINE = (0, 1)


class Right(Flag):
    READ = 1
    WRITE = 2


class Lenient(Enum):
    KNOWN = "known"
    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> Lenient:
        return cls.OTHER


UserId = NewType("UserId", int)


@dataclass
class Item:
    name: str
    price: Decimal = Decimal(0)


@dataclass
class Order:
    id: str
    items: list[Item] = field(default_factory=list[Item])
    note: str | None = None


@dataclass(frozen=True)
class Address:
    city: str


@dataclass(frozen=True)
class Customer:
    name: str
    home: Address | None = None


@dataclass(frozen=True)
class Point:
    __slots__ = ("x", "y")
    x: int
    y: int


@dataclass
class Base:
    a: int
    kind: ClassVar[str] = "base"


@dataclass
class Derived(Base):
    b: int = 2


@dataclass
class Node:
    value: int
    left: Node | None = None
    children: list[Node] = field(default_factory=lambda: list[Node]())


@dataclass
class Card:
    number: str


@dataclass
class Cash:
    amount: int = 0


@dataclass
class Payment:
    by: Card | Cash | None = None
    others: list[Card | Cash] = field(default_factory=lambda: list[Card | Cash]())


@dataclass
class Total:
    parts: list[int]
    total: int = field(init=False)
    at: int = field(default=7, init=False)

    def __post_init__(self) -> None:
        self.total = sum(self.parts)


@dataclass(frozen=True)
class Sealed:
    a: int
    double: int = field(init=False, default=0)


@dataclass
class Unset:
    later: int = field(init=False)


@dataclass(kw_only=True)
class Keywords:
    a: int = 1
    b: int


@dataclass
class Positive:
    amount: int

    def __post_init__(self) -> None:
        if self.amount < 0:
            raise ValueError(f"{self.amount} is negative")


class Pair(NamedTuple):
    left: int
    right: str = "r"


@dataclass
class WithInitVar:
    a: int
    b: InitVar[int]


@dataclass
class Broken:
    price: complex
    by_name: dict[complex, int]
    deep: list[dict[str, set[bytearray]]]


UTC_PLUS = timezone(timedelta(hours=5, minutes=30, seconds=1))


def codec() -> JsonCodec:
    return JsonCodec()


def fields_of(data: bytes) -> Any:
    return json.loads(data)


def round_trip(kind: Any, value: Any) -> Any:
    read, carry = codec().decode(kind, codec().encode(kind, value))
    assert carry is None
    return read


# --- what it carries -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "written"),
    [
        (str, "Zoë \n\U0001f600", '"Zoë \\n\U0001f600"'),
        (int, 2**70, str(2**70)),
        (float, 0.1, "0.1"),
        (bool, True, "true"),
        (None, None, "null"),
        (type(None), None, "null"),
        (datetime, datetime.fromisoformat("2024-02-29T01:02:03.000004"), '"2024-02-29T01:02:03.000004"'),
        (datetime, datetime(1, 1, 1, tzinfo=UTC_PLUS), '"0001-01-01T00:00:00+05:30:01"'),
        (date, date(2024, 2, 29), '"2024-02-29"'),
        (time, time(1, 2, 3, 4, tzinfo=timezone.utc), '"01:02:03.000004+00:00"'),
        (timedelta, timedelta(days=-1, microseconds=1), "-86399999999"),
        (timedelta, timedelta.max, None),
        (timedelta, timedelta.min, None),
        (Decimal, Decimal("1.10"), '"1.10"'),
        (Decimal, Decimal("-0E-30"), '"-0E-30"'),
        (UUID, UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (bytes, b"", '""'),
        (bytes, b"\x00\xff", '"AP8="'),
        (Color, Color.RED, '"red"'),
        (Level, Level.HIGH, "2"),
        (Shape, Shape.LINE, '"LINE"'),
        (Right, Right.READ | Right.WRITE, "3"),
        (Point, Point(1, 2), '{"x":1,"y":2}'),
        (Derived, Derived(1), '{"a":1,"b":2}'),
        (Pair, Pair(1), '{"left":1,"right":"r"}'),
        (Keywords, Keywords(b=2), '{"a":1,"b":2}'),
        (Node, Node(1, Node(2), [Node(3)]), None),
        (list[int], [1, 2], "[1,2]"),
        (list, [1, {"a": None}], None),
        (dict, {"a": [1]}, None),
        (tuple[int, str], (1, "a"), '[1,"a"]'),
        (tuple[int, ...], (1, 2, 3), "[1,2,3]"),
        (tuple[()], (), "[]"),
        (tuple, (1, "a"), None),
        (set[int], {3, 1, 2}, "[1,2,3]"),
        (frozenset[str], frozenset("ab"), '["a","b"]'),
        (dict[str, int], {"a": 1}, '{"a":1}'),
        (dict[int, int], {-1: 1, 0: 2}, '{"-1":1,"0":2}'),
        (dict[Level, int], {Level.HIGH: 1}, '{"2":1}'),
        (dict[Color, int], {Color.RED: 1}, '{"red":1}'),
        (dict[Shape, int], {Shape.LINE: 1}, '{"LINE":1}'),
        (dict[UUID, int], {UUID(int=1): 1}, None),
        (dict[date, int], {date(2024, 1, 1): 1}, '{"2024-01-01":1}'),
        (dict[timedelta, int], {timedelta(1): 1}, None),
        (dict[UserId, int], {UserId(5): 1}, '{"5":1}'),
        (dict[Literal["a", "b"], int], {"a": 1}, '{"a":1}'),
        (Literal["a", 1, True, None, Color.BLUE, b"x"], True, "true"),
        (Literal["a", 1, Color.BLUE], Color.BLUE, '"blue"'),
        (Literal["a", 1, True], 1, "1"),
        (UserId, 5, "5"),
        (Annotated[int, "some"], 5, "5"),
        (list[Annotated[Final[int], "some"]], [5], "[5]"),  # type: ignore[valid-type] # no use of Final, but harmless
        (Optional[Optional[int]], None, "null"),  # noqa: UP045 -- the older way to write it
        (int | str | None, "a", '"a"'),
        (int | float, 1, "1"),
        (int | float, 1.0, "1.0"),
        (Union[bool, int, list[int], datetime], True, "true"),  # noqa: UP007 -- the older way to write it
        (Level | float, Level.LOW, "1"),
        (Any, {"a": [1, 2.5, None, True, {"b": "c"}]}, '{"a":[1,2.5,null,true,{"b":"c"}]}'),
        (Any | None, None, "null"),
        (Customer | None, Customer("ada"), '{"name":"ada","home":null}'),
        (Card | Cash, Cash(3), '{"$type":"Cash","amount":3}'),
        (Payment, Payment(Card("1"), [Cash(), Card("2")]), None),
    ],
)
def test_it_round_trips(kind: Any, value: Any, written: str | None) -> None:
    assert codec().check(kind) == ()
    data = codec().encode(kind, value)
    if written is not None:
        assert data.decode() == written
    read = round_trip(kind, value)
    assert read == value
    assert type(read) is type(value)


def test_json_is_compact_and_in_the_order_of_the_fields() -> None:
    order = Order("ä", [Item("b", Decimal("1.50"))])
    assert codec().encode(Order, order).decode() == '{"id":"ä","items":[{"name":"b","price":"1.50"}],"note":null}'


def test_an_int_does_for_a_float_and_becomes_one() -> None:
    assert codec().encode(float, 3) == b"3.0"
    value, _ = codec().decode(float, b"3")
    assert type(value) is float
    for number in (2**53 + 1, -(10**400)):
        with pytest.raises(CodecError, match="no float holds exactly"):
            codec().encode(float, number)


def test_times_of_other_writers_may_end_in_z() -> None:
    assert codec().decode(datetime, b'"2024-01-01T00:00:00Z"')[0] == datetime(2024, 1, 1, tzinfo=timezone.utc)
    assert codec().decode(time, b'"10:00:00Z"')[0] == time(10, tzinfo=timezone.utc)


def test_an_enum_may_have_its_own_rule_for_unknown_values() -> None:
    assert codec().decode(Lenient, b'"new"') == (Lenient.OTHER, None)


def test_equal_sets_are_equal_bytes() -> None:
    one, other = {"a", "b", "c", "d"}, {"d", "c", "b", "a"}
    assert codec().encode(set[str], one) == codec().encode(set[str], other) == b'["a","b","c","d"]'


def test_missing_fields_take_their_defaults() -> None:
    assert codec().decode(Order, b'{"id":"a"}') == (Order("a"), None)
    first, second = (codec().decode(Order, b'{"id":"a"}')[0] for _ in range(2))
    assert first.items is not second.items


def test_a_field_that_is_no_argument_is_written_and_set_again() -> None:
    total = Total([1, 2])
    total.total, total.at = 50, 8
    read = round_trip(Total, total)
    assert (read.total, read.at) == (50, 8)
    read, _ = codec().decode(Total, b'{"parts":[1,2]}')
    assert (read.total, read.at) == (3, 7)
    assert codec().decode(Sealed, b'{"a":1,"double":5}')[0].double == 5


def test_a_class_made_at_run_time() -> None:
    made = make_dataclass("Made", [("a", int), ("b", list[int])], frozen=True, slots=True)
    assert round_trip(made, made(1, [2])) == made(1, [2])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 leaves the text inside the brackets as it is")
def test_a_text_inside_an_annotation_is_resolved() -> None:
    made = make_dataclass("Made", [("items", list["Item"])], namespace={"__module__": __name__})
    assert codec().check(made) == ()


# --- what it refuses -------------------------------------------------------------------------------------------------


class Sub(Order):
    pass


class Text(str):
    pass


def held() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def nested(depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("kind", "value", "path", "problem"),
    [
        (int, True, "int", "expected int, got bool"),
        (float, True, "float", "expected float or int, got bool"),
        (int, 1.0, "int", "expected int, got float"),
        (str, Text("a"), "str", "expected str, got Text"),
        (bool, 1, "bool", "expected bool, got int"),
        (int, Level.LOW, "int", "expected int, got Level"),
        (Level, 1, "level", "expected Level, got int"),
        (date, datetime(2024, 1, 1, tzinfo=timezone.utc), "date", "expected date, got datetime"),
        (bytes, bytearray(b"a"), "bytes", "expected bytes, got bytearray"),
        (Order, Sub("a"), "order", "expected Order, got Sub"),
        (Order, Order("a", [Item("a"), Item(SECRET, 1)]), "order.items[1].price", "expected Decimal, got int"),  # type: ignore[arg-type] # it is what is tested
        (list[int], (1,), "list", "expected list, got tuple"),
        (tuple[int, int], (1,), "tuple", "expected 2 items, got 1"),
        (tuple[int, int], (1, "a"), "tuple[1]", "expected int, got str"),
        (set[int], {"a"}, "set[0]", "expected int, got str"),
        (dict[str, int], {SECRET: "a"}, "dict.values()[0]", "expected int, got str"),
        (dict[str, list[int]], {"a": [1], "b": [1, None]}, "dict.values()[1][1]", "expected int, got NoneType"),
        (dict[int, int], {1: 1, SECRET: 1}, "dict.keys()[1]", "expected int, got str"),
        (int | str, 1.5, "value", "expected int or str, got float"),
        (Optional[int], "a", "value", "expected int or NoneType, got str"),  # noqa: UP045 -- the older way to write it
        (Card | Cash, Sub("a"), "value", "expected Card or Cash, got Sub"),
        (Literal["a", 1], "b", "value", "this str makes no literal: KeyError"),
        (Literal["a", 1], True, "value", "expected str or int, got bool"),
        (Any, (1,), "value", "got tuple"),
        (Any, {1: 1}, "value.keys()[0]", "expected str, got int"),
        (Any, [[{"a": {1}}]], "value[0][0].values()[0]", "got set"),
        (float, float("nan"), "float", "NaN"),
        (list[float], [1.0, float("inf")], "list[1]", "NaN, infinity"),
        (dict[str, Any], {"a": -float("inf")}, "dict.values()[0]", "NaN, infinity"),
        (Item, Item("\ud800"), "item.name", "half of a surrogate pair"),
        (dict[str, int], {"\udfff": 1}, "dict.keys()[0]", "half of a surrogate pair"),
        (Any, ["ok", "\udc00"], "value[1]", "half of a surrogate pair"),
        (Any, held(), "value", "nested too deeply, or holds itself"),
        (Unset, Unset(), "unset.later", "expected int, got ellipsis"),
    ],
)
def test_it_refuses_to_write(kind: Any, value: Any, path: str, problem: str) -> None:
    with pytest.raises(CodecError) as caught:
        codec().encode(kind, value)
    assert caught.value.path == path
    assert problem in caught.value.problem
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "data", "path", "problem"),
    [
        (int, b"", "int", "no data"),
        (Order, b"", "order", "no data"),
        (Order, b'{"id":', "order", "not JSON"),
        (Order, b"\xff\xfe", "order", "not JSON in UTF-8"),
        (int, b"1 2", "int", "not JSON"),
        (int, b"true", "int", "expected int, got bool"),
        (int, b"1.0", "int", "expected int, got float"),
        (float, b"NaN", "float", "NaN"),
        (float, b"1e999", "float", "NaN, infinity"),
        (float, b"1" + b"0" * 400, "float", "no float holds"),
        (Any, b'{"a":[-Infinity]}', "value.values()[0][0]", "NaN, infinity"),
        (Any, b'["\\ud800"]', "value[0]", "half of a surrogate pair"),
        (Any, b"[" * 100_000, "value", "nested too deeply"),
        (Order, b"[]", "order", "expected dict, got list"),
        (Order, b"{}", "order.id", "missing"),
        (Order, b'{"id":"a","items":[{"name":"b"},{}]}', "order.items[1].name", "missing"),
        (Order, b'{"id":"a","items":[{"name":1}]}', "order.items[0].name", "expected str, got int"),
        (Item, b'{"name":"a","price":"ada@example.com"}', "item.price", "this str makes no Decimal"),
        (Order, b'{"$type":"Card","id":"a"}', "order", "its $type is not Order"),
        (Card | Cash, b'{"amount":1}', "value", "its $type is none of Card, Cash"),
        (Card | Cash, b'{"$type":["Cash"]}', "value", "its $type is none of Card, Cash"),
        (Payment, b'{"others":[{"$type":"Cash"},{"$type":"Coin"}]}', "payment.others[1]", "none of Card, Cash"),
        (Positive, b'{"amount":-5}', "positive", "this dict makes no Positive: ValueError"),
        (datetime, b'"ada@example.com"', "datetime", "this str makes no datetime"),
        (timedelta, b"1" + b"0" * 30, "timedelta", "this int makes no timedelta"),
        (UUID, b'"x"', "uuid", "this str makes no UUID"),
        (bytes, b'"?"', "bytes", "this str makes no bytes"),
        (Color, b'"ada@example.com"', "color", "this str makes no Color"),
        (Level, b"true", "level", "expected int, got bool"),
        (Level, b"9", "level", "this int makes no Level"),
        (Shape, b'"CUBE"', "shape", "this str makes no Shape"),
        (Right, b'"READ"', "right", "expected int, got str"),
        (tuple[int, int], b"[1,2,3]", "tuple", "expected 2 items, got 3"),
        (dict[int, int], b'{"ada@example.com":1}', "dict.keys()[0]", "this str makes no int"),
        (dict[date, int], b'{"x":1}', "dict.keys()[0]", "this str makes no date"),
        (Literal[1, "a"], b"true", "value", "expected int or str, got bool"),
        (Literal[1, "a"], b"2", "value", "this int makes no literal"),
        (set[tuple[list[int], ...]], b"[[[1]]]", "set", "this list makes no set: TypeError"),
        (set[Address], b'[{"city":"a","z":1},{"city":"a","z":2}]', "set", "equal, so one would be lost"),
        (dict[int, int], b'{"1":1,"01":2}', "dict", "equal, so one would be lost"),
    ],
)
def test_it_refuses_to_read(kind: Any, data: bytes, path: str, problem: str) -> None:
    with pytest.raises(CodecError) as caught:
        codec().decode(kind, data)
    assert caught.value.path == path
    assert problem in caught.value.problem
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_number_has_only_so_many_digits() -> None:
    with pytest.raises(CodecError, match="too many digits"):
        codec().encode(int, 10**5000)
    with pytest.raises(CodecError, match="too many digits"):
        codec().decode(int, b"9" * 5000)


def test_a_deep_value_is_no_crash() -> None:
    with pytest.raises(CodecError, match="nested too deeply"):
        codec().encode(Any, nested(100_000))


# --- check -----------------------------------------------------------------------------------------------------------


def test_check_lists_every_problem_with_its_path() -> None:
    assert codec().check(Order) == ()
    assert codec().check(Broken) == (
        "Broken.price: complex is not supported",
        "Broken.by_name.keys()[]: complex is not supported",
        "Broken.deep[].values()[][]: bytearray is not supported",
    )
    with pytest.raises(CodecError, match="complex is not supported"):
        codec().encode(Broken, None)
    with pytest.raises(CodecError, match="complex is not supported"):
        codec().decode(Broken, b"{}")


def test_check_names_an_init_var() -> None:
    problems = codec().check(WithInitVar)
    assert problems[0] == "WithInitVar.b: is an argument of the class but no field of it, as an InitVar is"


def test_check_hints_at_what_an_annotation_cannot_see() -> None:
    @dataclass
    class Local:
        value: int

    @dataclass
    class Holder:
        local: Local

    assert codec().check(Local) == ()
    problem = "Holder: cannot resolve its annotations: define Local at the top level of a module"
    assert codec().check(Holder) == (problem,)


@pytest.mark.parametrize(
    "kind",
    [
        str | UUID,
        int | Level,
        int | timedelta,
        Color | Literal["x"],
        list[int] | set[int],
        Order | dict[str, int],
        Card | Cash | dict[str, int],
        list[int] | Any,
    ],
)
def test_check_finds_unions_that_json_cannot_tell_apart(kind: Any) -> None:
    problems = codec().check(kind)
    assert len(problems) == 1
    assert "is ambiguous" in problems[0]


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (dict[float, int], "float cannot be the key of a dict"),
        (dict[bool, int], "bool cannot be the key of a dict"),
        (dict[int | str, int], "cannot be the key of a dict"),
        (Literal["red", Color.RED], "two of the literals look the same in JSON"),
        (Union[Card, make_dataclass("Card", [])], "two classes of the union have the same name"),  # noqa: UP007 -- the older way to write it
        (Sequence[int], "collections.abc.Sequence[int] is not supported"),
        (Callable[[], int], "is not supported"),
        (object, "object is not supported"),
        ("Order", "'Order' is not supported"),
    ],
)
def test_check_has_a_readable_line_for(kind: Any, problem: str) -> None:
    problems = codec().check(kind)
    assert len(problems) == 1
    assert problem in problems[0]
    with pytest.raises(CodecError):
        codec().encode(kind, None)


# --- unknown fields --------------------------------------------------------------------------------------------------

NEWER = (
    b'{"id":"a","items":[{"name":"x","price":"1","tax":{"rate":1}},{"name":"x","price":"1","tax":{"rate":2}}],'
    b'"note":null,"vip":true}'
)


def test_unknown_fields_survive() -> None:
    order, carry = codec().decode(Order, NEWER)
    assert order == Order("a", [Item("x", Decimal(1))] * 2)
    assert fields_of(codec().encode(Order, order, carry)) == fields_of(NEWER)
    assert codec().encode(Order, order, carry) == NEWER, "in their order, so that nothing changes"
    assert b"vip" not in codec().encode(Order, order)


def changed(change: Callable[[Order], Order | None], data: bytes = NEWER) -> Any:
    order, carry = codec().decode(Order, data)
    return fields_of(codec().encode(Order, change(order) or order, carry))


def taxes(fields: Any) -> list[Any]:
    return [item.get("tax", {}).get("rate") for item in fields["items"]]


def test_equal_objects_keep_their_own_when_they_are_reordered() -> None:
    assert taxes(changed(lambda order: order.items.reverse())) == [2, 1]


def test_a_removed_object_takes_its_own_along() -> None:
    def remove(order: Order) -> None:
        del order.items[0]

    assert taxes(changed(remove)) == [2]


def test_a_new_object_has_none() -> None:
    def add(order: Order) -> None:
        order.items.insert(0, Item("new"))
        order.items.append(Item("new"))

    assert taxes(changed(add)) == [None, 1, 2, None]


def test_a_replaced_object_inherits_by_its_place() -> None:
    def change(order: Order) -> Order:
        return replace(order, id="b", items=[replace(order.items[0], name="y"), order.items[1]])

    fields = changed(change)
    assert (fields["id"], fields["vip"], taxes(fields)) == ("b", True, [1, 2])


def test_a_replaced_object_does_not_take_the_place_of_one_that_moved() -> None:
    def change(order: Order) -> Order:
        return replace(order, items=[Item("new"), order.items[0]])

    assert taxes(changed(change)) == [None, 1]


def test_an_object_that_is_there_twice_has_them_twice() -> None:
    assert taxes(changed(lambda order: order.items.append(order.items[0]))) == [1, 2, 1]


def test_a_place_moves_along_with_the_object_that_it_is_in() -> None:
    data = (
        b'[{"name":"a","home":{"city":"x","zip":1},"age":1},{"name":"b","home":{"city":"y","zip":2},"age":2}]'  # frozen
    )
    nodes = (
        b'[{"value":1,"left":{"value":11,"new":"L1"},"new":"1"},{"value":2,"left":{"value":22,"new":"L2"},"new":"2"}]'
    )
    customers, carry = codec().decode(list[Customer], data)
    swapped = [customers[1], customers[0]]
    assert fields_of(codec().encode(list[Customer], swapped, carry)) == fields_of(data)[::-1]

    (first, second), carry = codec().decode(list[Node], nodes)
    assert second.left is not None
    second.left = replace(second.left, value=23)
    assert first.left is not None
    first.left = replace(first.left, value=12)
    one, two, three = fields_of(codec().encode(list[Node], [Node(0, Node(0)), second, first], carry))
    assert (two["new"], two["left"]["new"], three["new"], three["left"]["new"]) == ("2", "L2", "1", "L1")
    assert "new" not in one
    assert "new" not in one["left"]


def test_another_class_in_the_same_place_inherits_nothing() -> None:
    data = b'{"by":{"$type":"Card","number":"1","new":1},"others":[]}'
    payment, carry = codec().decode(Payment, data)
    payment.by = Cash(1)
    assert fields_of(codec().encode(Payment, payment, carry))["by"] == {"$type": "Cash", "amount": 1}
    payment.by = Card("2")
    assert fields_of(codec().encode(Payment, payment, carry))["by"] == {"$type": "Card", "number": "2", "new": 1}


def test_the_originals_stay_alive_with_the_carry() -> None:
    order, carry = codec().decode(Order, NEWER)
    order.items.clear()
    order.items.extend(Item("new") for _ in range(1000))  # which would get the ids of the old ones
    assert taxes(fields_of(codec().encode(Order, order, carry)))[2:] == [None] * 998


def test_unknown_fields_survive_in_dicts_tuples_sets_and_slots() -> None:
    kind = dict[int, tuple[frozenset[Address], Point, Pair]]
    data = b'{"1":[[{"city":"a","z":1},{"city":"b","z":2}],{"x":1,"y":2,"z":3},{"left":1,"right":"","z":4}]}'
    value, carry = codec().decode(kind, data)
    assert value == {1: (frozenset({Address("a"), Address("b")}), Point(1, 2), Pair(1, ""))}
    assert codec().encode(kind, value, carry) == data
    (addresses, _, pair) = value[1]
    later = {2: (frozenset[Address](), Point(0, 0), pair), 1: (addresses, replace(value[1][1], x=9), Pair(0))}
    assert fields_of(codec().encode(kind, later, carry)) == {
        "2": [[], {"x": 0, "y": 0}, {"left": 1, "right": "", "z": 4}],
        "1": [fields_of(data)["1"][0], {"x": 9, "y": 2, "z": 3}, {"left": 0, "right": "r"}],
    }


def test_a_known_field_wins() -> None:
    total, carry = codec().decode(Total, b'{"parts":[1],"total":1,"at":7,"new":0}')
    total.at = 9
    assert codec().encode(Total, total, carry) == b'{"parts":[1],"total":1,"at":9,"new":0}'


def test_a_tag_that_newer_code_wrote_is_kept() -> None:
    data = b'{"number":"1","$type":"Card"}'
    card, carry = codec().decode(Card, data)
    assert codec().encode(Card, card, carry) == data


def test_unknown_nulls_are_kept_and_unknown_fields_have_to_be_json() -> None:
    data = b'{"city":"a","z":null}'
    value, carry = codec().decode(Address, data)
    assert codec().encode(Address, value, carry) == data
    for bad in (b"NaN", b'"\\ud800"'):
        with pytest.raises(CodecError):
            codec().decode(Address, b'{"city":"a","z":' + bad + b"}")


def test_the_carry_can_be_used_again() -> None:
    order, carry = codec().decode(Order, NEWER)
    assert codec().encode(Order, order, carry) == codec().encode(Order, order, carry) == NEWER


# --- upcasters -------------------------------------------------------------------------------------------------------


@dataclass
class Person:
    first: str
    last: str = ""
    friends: list[Person] = field(default_factory=lambda: list[Person]())


def split_name(fields: dict[str, Any]) -> dict[str, Any]:
    first, _, last = fields.pop("name").partition(" ")
    return {"first": first, "surname": last, **fields}


def rename_surname(fields: dict[str, Any]) -> dict[str, Any]:
    fields["last"] = fields.pop("surname")
    return fields


PEOPLE = JsonCodec(upcasters={Person: [split_name, rename_surname]})


def test_a_version_is_written_and_read() -> None:
    ada = Person("Ada", "L")
    assert PEOPLE.encode(Person, ada) == b'{"$version":2,"first":"Ada","last":"L","friends":[]}'
    assert PEOPLE.decode(Person, PEOPLE.encode(Person, ada)) == (ada, None)


@pytest.mark.parametrize(
    "data",
    [b'{"name":"Ada L"}', b'{"$version":0,"name":"Ada L"}', b'{"$version":1,"first":"Ada","surname":"L"}'],
)
def test_older_documents_are_upcast(data: bytes) -> None:
    assert PEOPLE.decode(Person, data) == (Person("Ada", "L"), None)


def test_upcast_documents_keep_unknown_fields_by_their_places() -> None:
    data = b'{"name":"Ada L","vip":1,"friends":[{"$version":1,"first":"B","surname":"","vip":2}]}'
    ada, carry = PEOPLE.decode(Person, data)
    ada = replace(ada, friends=[replace(ada.friends[0], first="C")])
    assert fields_of(PEOPLE.encode(Person, ada, carry)) == {
        "$version": 2,
        "first": "Ada",
        "last": "L",
        "vip": 1,
        "friends": [{"$version": 2, "first": "C", "last": "", "friends": [], "vip": 2}],
    }


def test_a_newer_document_keeps_its_version_and_fields() -> None:
    data = b'{"$version":3,"first":"Ada","last":"L","friends":[],"full":"Ada L"}'
    ada, carry = PEOPLE.decode(Person, data)
    assert ada == Person("Ada", "L")
    assert fields_of(PEOPLE.encode(Person, replace(ada, first="Eve"), carry)) == {**fields_of(data), "first": "Eve"}
    assert fields_of(PEOPLE.encode(Person, ada))["$version"] == 2
    older = JsonCodec()
    ada, carry = older.decode(Person, data)
    assert fields_of(older.encode(Person, ada, carry)) == fields_of(data), "also where there are no upcasters at all"


def test_upcasters_of_a_tagged_class() -> None:
    def rename(fields: dict[str, Any]) -> dict[str, Any]:
        assert list(fields) == ["no"], "tag and version are none of its business"
        return {"number": fields["no"]}

    people = JsonCodec(upcasters={Card: [rename]})
    value, carry = people.decode(Card | Cash, b'{"$type":"Card","$version":0,"no":"1"}')
    assert (value, carry) == (Card("1"), None)
    assert people.encode(Card | Cash, value) == b'{"$type":"Card","$version":1,"number":"1"}'


@pytest.mark.parametrize("version", [b"-1", b'"1"', b"true", b"null", b"1.0"])
def test_a_version_that_is_none(version: bytes) -> None:
    with pytest.raises(CodecError, match=r"person: its \$version is no version"):
        PEOPLE.decode(Person, b'{"$version":' + version + b',"first":"Ada"}')


def test_an_upcaster_that_fails() -> None:
    with pytest.raises(CodecError, match=r"^list\[0\]: this dict makes no newer Person: KeyError$"):
        PEOPLE.decode(list[Person], b'[{"title":"ada@example.com"}]')
    nothing: dict[str, Any] = cast(Any, None)
    broken = JsonCodec(upcasters={Person: [lambda _: nothing]})
    with pytest.raises(CodecError):
        broken.decode(Person, b"{}")


# --- its use ---------------------------------------------------------------------------------------------------------


def test_threads_may_share_it_from_the_start() -> None:
    shared, start = JsonCodec(), threading.Barrier(8)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            start.wait()
            for _ in range(50):
                node = Node(1, Node(2), [Node(3)])
                assert shared.decode(Node, shared.encode(Node, node)) == (node, None)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_type_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from workflow import codec as module

    shared = JsonCodec()
    data = shared.encode(Order, Order("a"))
    monkeypatch.setattr(module, "get_type_hints", None)
    assert shared.decode(Order, data) == (Order("a"), None)


def test_a_codec_around_another() -> None:
    class Reversing:
        def __init__(self, inner: JsonCodec) -> None:
            self.inner, self.check = inner, inner.check

        def encode(self, kind: Any, value: Any, carry: object = None) -> bytes:
            return self.inner.encode(kind, value, carry)[::-1]

        def decode(self, kind: Any, data: bytes) -> tuple[Any, object]:
            return self.inner.decode(kind, data[::-1])

    around = Reversing(codec())
    value, carry = around.decode(Order, NEWER[::-1])
    assert around.encode(Order, value, carry) == NEWER[::-1]
