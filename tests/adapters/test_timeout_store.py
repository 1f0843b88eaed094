"""What every timeout store does. The names in the docstrings are those of the rules in the conformance kit."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import asdict, replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from tests.adapters.build import FAR, WORKFLOW, at, race, timeout
from tests.adapters.conftest import Backend
from workflow.clock import SystemClock
from workflow.errors import Closed, InvalidCursor, InvalidInput, Rejected
from workflow.event import NewTimeout, Shard, Timeout, TimeoutState
from workflow.protocols import Adapters, TimeoutStore, notify

DONE, CANCELLED = TimeoutState.COMPLETED, TimeoutState.CANCELLED


@pytest.fixture
def store(handle: Adapters) -> TimeoutStore:
    return handle.timeout_store


def valid(store: TimeoutStore, seconds: float | None = None, limit: int = 100, **asked: Any) -> list[str]:
    given: dict[str, Any] = {"workflow_name": WORKFLOW, "kind": "timeout", "status": 1, **asked}
    now = FAR if seconds is None else at(seconds)
    return [item.key for item in store.list_valid(now=now, limit=limit, **given)]


def all_of(store: TimeoutStore, limit: int = 3) -> list[Timeout]:
    found: list[Timeout] = []
    cursor = ""
    while True:
        page = store.list(WORKFLOW, after=cursor, limit=limit)
        assert len(page.items) <= limit
        found += page.items
        cursor = page.next
        if not cursor:
            return found


def ids(store: TimeoutStore) -> dict[str, str]:
    return {item.key: item.id for item in all_of(store)}


def test_all_fields_come_back(store: TimeoutStore) -> None:
    """TS-5, GN-4, GN-5, GN-7"""
    new = NewTimeout(
        WORKFLOW, "callback", "key 😀/'", at(1) + timedelta(microseconds=1), at(0), "name", "run", 3, 4,
        bytes(range(256)), "ValueError", "eu",
    )  # fmt: skip
    plain = timeout("plain", run_id="")
    store.create([new, plain])
    one, two = all_of(store)
    expected = {**asdict(new), "attempt": 0, "state": TimeoutState.PENDING}
    assert {name: value for name, value in asdict(one).items() if name != "id"} == expected
    assert {name: value for name, value in asdict(two).items() if name != "id"} == {
        **asdict(plain), "attempt": 0, "state": TimeoutState.PENDING
    }  # fmt: skip
    assert one.id != two.id
    assert list(store.list_valid(WORKFLOW, "callback", 3, FAR, 1)) == [one]


def test_creating_is_idempotent(store: TimeoutStore) -> None:
    """TS-1"""
    store.create([timeout("a", at(1)), timeout("a", at(2)), timeout("b")])
    store.create([timeout("a", at(3)), timeout("a", kind="callback"), timeout("a", workflow_name="other")])
    assert [(item.key, item.kind, item.due_at) for item in all_of(store)] == [
        ("a", "timeout", at(1)), ("b", "timeout", at(0)), ("a", "callback", at(0))
    ]  # fmt: skip
    store.finish([item.id for item in all_of(store)], DONE)
    store.create([timeout("a"), timeout("b")])
    assert all_of(store) == []


def test_racing_creations_make_one(backend: Backend) -> None:
    """TS-1"""
    stores = [backend.open().timeout_store for _ in range(2)]
    new = [timeout(f"key-{j}") for j in range(10)]
    race([partial(stores[i % 2].create, new) for i in range(10)])
    assert sorted(item.key for item in all_of(stores[0])) == sorted(f"key-{j}" for j in range(10))


def test_keys_are_never_joined_ambiguously(store: TimeoutStore) -> None:
    """GN-4"""
    store.create(
        [
            timeout("c", workflow_name="a-b", kind="x"),
            timeout("b-c", workflow_name="a", kind="x"),
            timeout("x-c", workflow_name="a", kind="b"),
            timeout("c", workflow_name="a", kind="b-x"),
        ]
    )
    assert len(store.list("a").items) == 3
    assert len(store.list("a-b").items) == 1


def test_valid_ones_are_those_asked_for_earliest_first(store: TimeoutStore) -> None:
    """TS-2"""
    store.create(
        [
            timeout("late", at(5)), timeout("tie 1", at(3)), timeout("early", at(1)), timeout("tie 2", at(3)),
            timeout("held", None), timeout("kind", kind="callback"), timeout("status", status=2),
            timeout("workflow", workflow_name="other"),
        ]
    )  # fmt: skip
    assert valid(store) == ["early", "tie 1", "tie 2", "late"]
    assert valid(store, limit=2) == ["early", "tie 1"]
    assert valid(store, 0.999999) == []
    assert valid(store, 1) == ["early"]
    assert valid(store, 4) == ["early", "tie 1", "tie 2"]
    assert valid(store, kind="callback") == ["kind"]
    assert valid(store, status=2) == ["status"]
    assert valid(store, status=3) == []
    assert valid(store, workflow_name="other") == ["workflow"]


def test_many_ties_go_by_id(store: TimeoutStore) -> None:
    names = [f"k{i}" for i in range(25)]
    for name in names:
        store.create([timeout(name)])
    assert valid(store) == names
    assert [item.key for item in all_of(store)] == names


@pytest.mark.parametrize("total", [1, 2, 5])
def test_shards_are_disjoint_and_complete(store: TimeoutStore, total: int) -> None:
    """TS-2, TS-6"""
    store.create([timeout(f"k{i}", at(i), run_id=f"run-{i}" if i % 2 else "") for i in range(60)])
    shards = [Shard(i + 1, total) for i in range(total)]
    parts = [store.list_valid(WORKFLOW, "timeout", 1, FAR, 100, shard=shard) for shard in shards]
    assert Counter(item.key for part in parts for item in part) == Counter(f"k{i}" for i in range(60))
    for shard, part in zip(shards, parts, strict=True):
        assert all(shard.owns(item.shard_key) for item in part)
        assert list(store.list_valid(WORKFLOW, "timeout", 1, FAR, 4, shard=shard)) == list(part[:4])


def test_regions_filter(store: TimeoutStore) -> None:
    """TS-2"""
    store.create([timeout(f"k{i}", at(i), region=["", "eu", "us"][i % 3]) for i in range(9)])
    assert valid(store, region="eu") == ["k1", "k4", "k7"]
    assert valid(store, region="us", limit=1) == ["k2"]
    assert len(valid(store, region="")) == 9


def test_finishing_is_exact_and_the_first_end_wins(store: TimeoutStore) -> None:
    """TS-3"""
    store.create([timeout("a"), timeout("b"), timeout("c", None)])
    known = ids(store)
    store.finish([known["a"], known["a"], "unknown", "", "12345678"], CANCELLED)
    assert valid(store) == ["b"]
    assert sorted(ids(store)) == ["b", "c"]
    store.finish([known["a"]], DONE)
    store.finish([known["c"]], DONE)
    assert sorted(ids(store)) == ["b"]
    with pytest.raises(InvalidInput, match="PENDING"):
        store.finish([known["b"]], TimeoutState.PENDING)


def test_rescheduling(store: TimeoutStore) -> None:
    """TS-4"""
    store.create([timeout("a", at(1)), timeout("b", at(2))])
    known = ids(store)
    store.reschedule(known["a"], at(9), 3, "ConnectionError")
    assert valid(store) == ["b", "a"]
    (moved,) = [item for item in all_of(store) if item.key == "a"]
    assert (moved.due_at, moved.attempt, moved.error_type, moved.id) == (at(9), 3, "ConnectionError", known["a"])
    store.reschedule(known["a"], None, 4, "")
    assert valid(store) == ["b"]
    assert [(item.due_at, item.attempt) for item in all_of(store) if item.key == "a"] == [(None, 4)]
    store.reschedule(known["a"], at(0), 0, "")
    assert valid(store) == ["a", "b"]
    store.finish([known["a"]], DONE)
    store.reschedule(known["a"], at(0), 0, "")
    store.reschedule("unknown", at(0), 0, "")
    assert valid(store) == ["b"]


def test_of_run_and_purge_are_exact(store: TimeoutStore) -> None:
    """TS-8"""
    store.create([timeout(f"{run}.{i}", at(-i) if i else None, run_id=run) for run in ("x", "y") for i in range(3)])
    store.create([timeout("x.other", run_id="x", workflow_name="other"), timeout("none", run_id="")])
    known = ids(store)
    assert [item.key for item in store.of_run("x")] == ["x.0", "x.1", "x.2", "x.other"]
    store.finish([known["x.1"]], DONE)
    assert [item.key for item in store.of_run("x")] == ["x.0", "x.2", "x.other"]
    assert store.of_run("missing") == []
    store.purge(["x", "missing"])
    assert store.of_run("x") == []
    assert sorted(ids(store)) == ["none", "y.0", "y.1", "y.2"]
    store.create([timeout("x.1", run_id="x")])  # its key went with it
    assert [item.key for item in store.of_run("x")] == ["x.1"]
    assert ids(store)["x.1"] not in known.values()


def test_purging_the_finished_is_exact(store: TimeoutStore) -> None:
    """TS-8"""
    new = [replace(timeout(f"k{i}"), created_at=at(i)) for i in range(10)]
    store.create(new)
    known = ids(store)
    store.finish([known[f"k{i}"] for i in range(8)], DONE)
    assert store.purge_finished(at(0), 100) == 0
    assert store.purge_finished(at(5), 2) == 2
    assert store.purge_finished(at(5), 100) == 3
    assert store.purge_finished(at(5), 100) == 0
    assert sorted(ids(store)) == ["k8", "k9"]
    store.create(new)
    assert sorted(ids(store)) == ["k0", "k1", "k2", "k3", "k4", "k8", "k9"]


@pytest.mark.parametrize("cursor", ["x", "timeout-", "run-1", "😀"])
def test_a_bad_cursor_is_refused(store: TimeoutStore, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        store.list(WORKFLOW, after=cursor)


def test_paging_meets_each_lasting_item_once(backend: Backend) -> None:
    store, other = backend.open().timeout_store, backend.open().timeout_store
    store.create([timeout(f"k{i}", None if i % 3 else at(i)) for i in range(20)])
    known = ids(store)
    met: list[str] = []
    cursor = ""
    for turn in range(100):
        page = store.list(WORKFLOW, after=cursor, limit=3)
        met += [item.key for item in page.items]
        other.create([timeout(f"new-{turn}")] if turn < 3 else [])
        other.finish([known[f"k{turn}"]] if turn < 5 else [], DONE)
        cursor = page.next
        if not cursor:
            break
    assert len(met) == len(set(met))
    assert set(met) >= {f"k{i}" for i in range(5, 20)}


@pytest.mark.parametrize(
    "bad",
    [
        timeout("a", payload=bytearray(b"x")),
        timeout("half a character: \ud800"),
        timeout("a", at(0).replace(tzinfo=None)),
        timeout("a", at(0).replace(year=1968)),
        timeout("a", status=2**63),
    ],
    ids=["payload", "text", "zone", "year", "number"],
)
def test_what_cannot_be_stored_is_rejected(store: TimeoutStore, bad: NewTimeout) -> None:
    """GN-9"""
    with pytest.raises(Rejected):
        store.create([timeout("fine"), bad])
    assert all_of(store) == []


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_1_is_an_error(store: TimeoutStore, limit: int) -> None:
    """GN-11"""
    for call in (
        lambda: store.list(WORKFLOW, limit=limit),
        lambda: store.list_valid(WORKFLOW, "timeout", 1, FAR, limit),
        lambda: store.purge_finished(FAR, limit),
    ):
        with pytest.raises(InvalidInput, match="limit"):
            call()


def test_it_tells_of_what_may_be_due_sooner(backend: Backend) -> None:
    """CP-1"""
    store = backend.open().timeout_store
    notifier = notify(store)
    assert notifier is not None
    signal, other = SystemClock().signal(), SystemClock().signal()
    leave = notifier.subscribe("timeout", WORKFLOW, signal)
    notifier.subscribe("timeout", "other", other)
    store.create([timeout("a")])
    assert signal.wait(timeout=5)
    store.reschedule(ids(store)["a"], at(-5), 1, "")
    assert signal.wait(timeout=5)
    backend.open().timeout_store.create([timeout("b")])
    assert signal.wait(timeout=5)
    assert not other.wait(timeout=0)
    leave()
    with pytest.raises(InvalidInput, match="nonsense"):
        notifier.subscribe("nonsense", "x", signal)


def test_after_close_calls_raise_closed(backend: Backend) -> None:
    """GN-2"""
    handle = backend.open()
    handle.close()
    with pytest.raises(Closed):
        handle.timeout_store.create([timeout("a")])
    with pytest.raises(Closed):
        handle.timeout_store.list(WORKFLOW)


def test_random_calls_equal_the_model(backend: Backend) -> None:
    """TS-7"""
    dice = random.Random(3)
    stores = [backend.open().timeout_store for _ in range(2)]
    model: dict[str, Timeout] = {}
    ended: set[str] = set()
    for turn in range(300):
        store = dice.choice(stores)
        key = f"key-{dice.randrange(30)}"
        choice = dice.random()
        known = model.get(key)
        if choice < 0.4:
            due = at(dice.randrange(50)) if dice.random() < 0.8 else None
            store.create([timeout(key, due, status=dice.randrange(2))])
            if key not in model:
                (model[key],) = [item for item in all_of(store, 50) if item.key == key]
        elif choice < 0.7 and known is not None:
            due = at(dice.randrange(50)) if dice.random() < 0.8 else None
            store.reschedule(known.id, due, turn, "E")
            if key not in ended:
                model[key] = replace(known, due_at=due, attempt=turn, error_type="E")
        elif choice < 0.8 and known is not None:
            store.finish([known.id], dice.choice([DONE, CANCELLED]))
            ended.add(key)
        elif choice < 0.85:
            store.purge([f"run of {key}"])
            model.pop(key, None)
            ended.discard(key)
        pending = [item for name, item in model.items() if name not in ended]
        assert all_of(store, 7) == sorted(pending, key=lambda item: int(item.id))
        for status in (0, 1):
            due_items = [i for i in pending if i.status == status and i.due_at is not None and i.due_at <= at(25)]
            expected = [i.key for i in sorted(due_items, key=lambda i: (i.due_at, int(i.id)))]
            assert valid(store, 25, status=status) == expected
