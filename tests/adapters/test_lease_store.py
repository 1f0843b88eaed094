"""What every lease store does: it compares and sets rows, counts beats, and expires nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.adapters.build import race
from tests.adapters.conftest import Backend
from workflow.adapters.memory.lease_store import MemoryLeaseStore
from workflow.adapters.sqlite.database import Database
from workflow.adapters.sqlite.lease_store import SqliteLeaseStore
from workflow.adapters.sqlite.watcher import Watcher
from workflow.clock import SYSTEM, SystemClock
from workflow.errors import Closed
from workflow.protocols import LeaseRow, LeaseStore


@pytest.fixture
def opened(backend: Backend) -> Iterator[Callable[[], LeaseStore]]:
    """Opens one more handle on the storage."""
    databases: list[Database] = []

    def one_more() -> LeaseStore:
        if backend.name == "memory":
            return MemoryLeaseStore(backend.storage)
        database = Database(backend.folder / "leases.db", "OFF", SYSTEM)
        databases.append(database)
        return SqliteLeaseStore(database, Watcher(database), patience=30.0)

    yield one_more
    for database in databases:
        database.close()


@pytest.fixture
def store(opened: Callable[[], LeaseStore]) -> LeaseStore:
    return opened()


def row(store: LeaseStore, role: str = "role") -> LeaseRow | None:
    """The role as an onlooker reads it."""
    return store.beat("onlooker", []).leases.get(role)


def test_a_beat_counts_up_and_says_what_is_wanted(store: LeaseStore) -> None:
    assert store.beat("a", ["y", "x"]).members["a"].beat == 1
    table = store.beat("a", ["z"])
    assert table.members["a"].beat == 2
    assert table.members["a"].wants == {"z"}
    assert set(table.members) == {"a"}
    assert table.leases == {}


def test_a_role_that_was_never_held_is_granted_once(store: LeaseStore) -> None:
    store.beat("a", [])
    assert store.acquire("role", "a", None) == 1
    assert store.acquire("role", "a", None) is None
    assert row(store) == LeaseRow(1, "a", 1)
    store.beat("a", [])
    assert row(store) == LeaseRow(1, "a", 2)


def test_a_role_is_granted_only_as_it_was_seen(store: LeaseStore) -> None:
    """Epoch, holder and the holder's beat have to be the same; then even a holder loses it."""
    for member in ("a", "b"):
        store.beat(member, [])
    store.acquire("role", "a", None)
    seen = row(store)
    assert seen is not None
    for other in (
        None,
        LeaseRow(seen.epoch + 1, "a", seen.beat),
        LeaseRow(seen.epoch, "b", seen.beat),
        LeaseRow(seen.epoch, "", 0),
        LeaseRow(seen.epoch, "a", seen.beat + 1),
    ):
        assert store.acquire("role", "b", other) is None
    store.beat("a", [])
    assert store.acquire("role", "b", seen) is None, "the holder has beaten since"
    assert store.acquire("role", "b", row(store)) == 2
    assert row(store) == LeaseRow(2, "b", 1)


def test_a_release_frees_its_own_grant_alone(store: LeaseStore) -> None:
    """RL-3"""
    store.beat("a", [])
    store.acquire("role", "a", None)
    for member, epoch in (("b", 1), ("a", 0), ("a", 2)):
        store.release("role", member, epoch)
    store.release("other", "a", 1)
    assert row(store) == LeaseRow(1, "a", 1)
    store.release("role", "a", 1)
    freed = row(store)
    assert freed == LeaseRow(1, "", 0)
    assert store.acquire("role", "a", freed) == 2
    store.release("role", "a", 1)
    assert row(store) == LeaseRow(2, "a", 1)


def test_whoever_leaves_frees_its_roles(store: LeaseStore) -> None:
    for member in ("a", "b"):
        store.beat(member, [])
        store.acquire(f"of {member}", member, None)
    store.leave("a")
    store.leave("a")
    store.leave("unknown")
    table = store.beat("b", [])
    assert set(table.members) == {"b"}
    assert table.leases == {"of a": LeaseRow(1, "", 0), "of b": LeaseRow(1, "b", 2)}


def test_a_member_is_removed_only_as_it_was_seen(store: LeaseStore) -> None:
    store.beat("a", [])
    store.acquire("role", "a", None)
    store.beat("a", [])
    store.leave("a", 1)
    assert row(store) == LeaseRow(1, "a", 2)
    store.leave("a", 2)
    assert row(store) == LeaseRow(1, "", 0)


def test_epochs_outlive_members(store: LeaseStore) -> None:
    """RL-2"""
    for epoch in range(1, 5):
        store.beat("a", [])
        assert store.acquire("role", "a", row(store)) == epoch
        store.leave("a")


def test_of_racing_takers_one_wins(opened: Callable[[], LeaseStore]) -> None:
    """RL-1"""
    stores = [opened() for _ in range(2)]
    members = [f"m{i}" for i in range(6)]
    for member in members:
        stores[0].beat(member, [])
    for epoch in range(1, 6):
        seen = row(stores[0])
        got = race([partial(stores[i % 2].acquire, "role", member, seen) for i, member in enumerate(members)])
        assert sorted(got, key=str) == [epoch, None, None, None, None, None]


def test_nothing_aliases(store: LeaseStore) -> None:
    """GN-6"""
    before = store.beat("a", ["x"])
    store.acquire("role", "a", None)
    store.beat("a", [])
    assert before.leases == {}
    assert before.members["a"].beat == 1


def test_it_tells_of_what_others_may_act_on(opened: Callable[[], LeaseStore]) -> None:
    """Of a freed role and of other wishes; not of a beat, or beats would call forth beats."""
    store, other = opened(), opened()
    store.beat("a", [])
    store.acquire("role", "a", None)
    signal = SystemClock().signal()
    leave = other.subscribe_leases(signal)
    signal.wait(timeout=0)
    for _ in range(3):
        store.beat("a", [])
    other.beat("b", [])
    assert not signal.wait(timeout=0.1)
    store.beat("a", ["x"])
    assert signal.wait(timeout=5)
    store.beat("a", ["x"])
    store.release("role", "a", 2)
    assert not signal.wait(timeout=0.1)
    store.release("role", "a", 1)
    assert signal.wait(timeout=5)
    store.leave("a")
    assert signal.wait(timeout=5)
    leave()


def test_after_close_calls_raise_closed(store: LeaseStore) -> None:
    """GN-2"""
    store.close()
    store.close()
    with pytest.raises(Closed):
        store.beat("a", [])
    with pytest.raises(Closed):
        store.acquire("role", "a", None)
