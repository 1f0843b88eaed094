"""What must hold for any value and any document: nothing is lost, nothing but `CodecError` is raised."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, Literal
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workflow.codec import JsonCodec
from workflow.errors import CodecError


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Leaf:
    text: str
    number: int = 0


@dataclass(frozen=True)
class Mark:
    at: date | None = None


@dataclass
class Tree:
    name: str
    color: Color
    at: datetime
    price: Decimal
    ratio: float
    left: Tree | None = None
    trees: list[Tree] = field(default_factory=lambda: list[Tree]())
    leaves: dict[int, Leaf] = field(default_factory=lambda: dict[int, Leaf]())
    marks: list[Leaf | Mark] = field(default_factory=lambda: list[Leaf | Mark]())
    tags: frozenset[str] = frozenset()
    pair: tuple[time, timedelta] = (time(), timedelta())
    levels: dict[Level, bytes] = field(default_factory=lambda: dict[Level, bytes]())
    choice: Literal["a", 1, None] | bool | float = None
    more: Any = None
    key: UUID = field(default_factory=lambda: UUID(int=0))


@dataclass
class NewLeaf:
    """What newer code makes of a leaf, and of what holds leaves."""

    text: str
    number: int
    extra: Any


@dataclass
class NewBox:
    leaf: NewLeaf
    leaves: list[NewLeaf]
    named: dict[str, NewLeaf]
    title: Any


@dataclass
class Box:
    leaf: Leaf
    leaves: list[Leaf]
    named: dict[str, Leaf]


CODEC = JsonCodec(upcasters={Mark: [lambda fields: {"at": fields.get("when"), **fields}]})

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
# Whole seconds, because Python itself reads an offset of less than one as UTC.
zones = st.none() | st.integers(-86399, 86399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
leaves = st.builds(Leaf, text, st.integers())
marks = st.builds(Mark, st.none() | st.dates())
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


def trees(left: st.SearchStrategy[Tree | None], inner: st.SearchStrategy[list[Tree]]) -> st.SearchStrategy[Tree]:
    return st.builds(
        Tree,
        name=text,
        color=st.sampled_from(Color),
        at=st.datetimes(timezones=zones),
        price=st.decimals(allow_nan=False),
        ratio=numbers | st.integers(-(2**53), 2**53),
        left=left,
        trees=inner,
        leaves=st.dictionaries(st.integers(), leaves, max_size=3),
        marks=st.lists(leaves | marks, max_size=3),
        tags=st.frozensets(text, max_size=4),
        pair=st.tuples(st.times(), st.timedeltas()),
        levels=st.dictionaries(st.sampled_from(Level), st.binary(max_size=5)),
        choice=st.sampled_from(["a", 1, None, True, False]) | numbers,
        more=plain,
        key=st.uuids(),
    )


twigs = trees(st.none(), st.just([]))
some_trees = trees(st.none() | twigs, st.lists(twigs, max_size=2))


@unhurried
@given(some_trees)
def test_what_is_written_is_read(tree: Tree) -> None:
    data = CODEC.encode(Tree, tree)
    read, carry = CODEC.decode(Tree, data)
    assert read == tree
    assert type(read.choice) is type(tree.choice)
    assert carry is None
    assert CODEC.encode(Tree, read) == data, "equal values are equal bytes"


@unhurried
@given(plain)
def test_any_is_plain_json(value: Any) -> None:
    assert CODEC.decode(Any, CODEC.encode(Any, value)) == (value, None)


new_leaves = st.builds(NewLeaf, text, st.integers(0, 2), plain)
new_boxes = st.builds(
    NewBox, new_leaves, st.lists(new_leaves, max_size=5), st.dictionaries(text, new_leaves, max_size=3), plain
)


@unhurried
@given(new_boxes, st.randoms(use_true_random=False))
def test_older_code_keeps_what_it_does_not_know(new: NewBox, random: Any) -> None:
    box, carry = CODEC.decode(Box, CODEC.encode(NewBox, new))
    assert CODEC.decode(NewBox, CODEC.encode(Box, box, carry))[0] == new, "as it was"

    places = list(range(len(box.leaves)))
    random.shuffle(places)
    kept = places[: random.randint(0, len(places))]
    later = Box(box.leaf, [box.leaves[place] for place in kept], dict(reversed(box.named.items())))
    expected = replace(new, leaves=[new.leaves[place] for place in kept])
    assert CODEC.decode(NewBox, CODEC.encode(Box, later, carry))[0] == expected, "moved and removed"

    later = replace(
        box,
        leaf=replace(box.leaf, number=9),
        leaves=[replace(leaf, number=9) if random.random() < 0.5 else leaf for leaf in box.leaves],
    )
    read, _ = CODEC.decode(NewBox, CODEC.encode(Box, later, carry))
    assert [leaf.extra for leaf in read.leaves] == [leaf.extra for leaf in new.leaves], "replaced in place"
    assert (read.title, read.leaf.extra, read.leaf.number) == (new.title, new.leaf.extra, 9)


def places_of(node: Any) -> list[tuple[Any, Any]]:
    """Each JSON object or array below, with each of its keys or indices."""
    steps: list[Any] = []
    if node.__class__ is dict:
        steps.extend(node)
    elif node.__class__ is list:
        steps.extend(range(len(node)))
    return [(node, step) for step in steps] + [place for step in steps for place in places_of(node[step])]


ODD: list[Any] = ["\ud800", float("nan"), float("inf"), 10**400, "Z", {"$type": []}, {"$version": 5}, {"": {}}]


@settings(unhurried, max_examples=200)
@given(some_trees, st.data())
def test_a_damaged_document_is_read_or_refused(tree: Tree, data: st.DataObject) -> None:
    document = json.loads(CODEC.encode(Tree, tree))
    odd: st.SearchStrategy[Any] = st.sampled_from(ODD)
    for _ in range(data.draw(st.integers(1, 3))):
        holder, step = data.draw(st.sampled_from(places_of(document)))
        if data.draw(st.booleans()):
            holder[step] = data.draw(plain | odd)
        elif holder.__class__ is dict:
            holder[data.draw(text | st.sampled_from(["$type", "$version"]))] = holder.pop(step)
        else:
            del holder[step:]
        if not places_of(document):
            break
    try:
        value, carry = CODEC.decode(Tree, json.dumps(document).encode())
    except CodecError:
        return
    again = CODEC.encode(Tree, value, carry)
    assert CODEC.decode(Tree, again)[0] == value, "what was read can be written"


@unhurried
@given(st.binary(max_size=30) | st.text(max_size=30).map(lambda some: some.encode(errors="ignore")))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for kind in (Tree, Any, dict[Level, Mark], Leaf | Mark | None, set[tuple[int, ...]]):
        with suppress(CodecError):
            CODEC.decode(kind, data)


anything = st.one_of(
    plain, some_trees, leaves, st.text(), st.floats(), st.complex_numbers(), st.sets(st.integers()), st.binary()
)


@unhurried
@given(anything)
def test_any_value_is_written_or_refused(value: Any) -> None:
    for kind in (Tree, Any, str, dict[str, Any], list[float], Leaf | Mark, dict[int, float] | list[str] | None):
        try:
            data = CODEC.encode(kind, value)
        except CodecError:
            continue
        assert CODEC.decode(kind, data)[0] == value
