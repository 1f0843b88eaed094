"""The event log on SQLite: layouts, progress, trimming; and the leases."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapters.sqlite_support import DEADLINE, START, bound, log_of
from workflow.adapters.sqlite import event_log, sqlite
from workflow.adapters.sqlite.database import Database
from workflow.adapters.sqlite.event_log import SqliteEventLog
from workflow.adapters.sqlite.lease_store import SqliteLeaseStore
from workflow.adapters.sqlite.watcher import Watcher
from workflow.clock import SYSTEM
from workflow.errors import Rejected, Unavailable
from workflow.event import WHOLE, Event, Shard
from workflow.protocols import Adapters, LeaseRow
from workflow.run_state import RunState

TOPIC = "orders-1"


@pytest.fixture
def adapters(tmp_path: Path) -> Iterator[Adapters]:
    opened = bound(tmp_path / "log.db")
    yield opened
    opened.close()


@pytest.fixture
def log(adapters: Adapters) -> SqliteEventLog:
    return log_of(adapters)


def events(number: int, start: int = 0) -> list[Event]:
    return [Event(TOPIC, f"run-{n % 7}", 1, RunState.RUNNING, n + 1, START) for n in range(start, start + number)]


def kept(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        number: int = connection.execute("SELECT count(*) FROM event").fetchone()[0]
    return number


def test_ids_rise_and_are_not_given_again_after_trimming(log: SqliteEventLog) -> None:
    cursor = log.open_cursor(TOPIC, "consumer", WHOLE)
    log.append(TOPIC, events(2000))
    log.save_cursor(cursor, 2000, 2000)
    for _ in range(3):
        log.save_cursor(cursor, 2000, 2000)
    entries, _ = log.read(TOPIC, WHOLE, 0, 10)
    assert entries == []
    log.append(TOPIC, events(1))
    entries, looked = log.read(TOPIC, WHOLE, 0, 10)
    assert [(entry.position, entry.event.id) for entry in entries] == [(2001, "000000002001")]
    assert looked == 2001


def test_nothing_unacknowledged_is_trimmed(log: SqliteEventLog, tmp_path: Path) -> None:
    fast, slow = (log.open_cursor(TOPIC, name, WHOLE) for name in ("fast", "slow"))
    sharded = [log.open_cursor(TOPIC, "sharded", Shard(index, 2)) for index in (1, 2)]
    log.append(TOPIC, events(3000))
    log.save_cursor(fast, 3000, 3000)
    log.save_cursor(sharded[0], 3000, 3000)
    assert kept(tmp_path / "log.db") == 3000
    log.save_cursor(slow, 1500, 1600)
    assert kept(tmp_path / "log.db") == 3000  # the second shard has acknowledged nothing
    log.save_cursor(sharded[1], 1200, 3000)
    for _ in range(3):
        log.save_cursor(fast, 3000, 3000)
    assert log.read(TOPIC, WHOLE, 0, 1)[0][0].position == 1001
    log.forget(TOPIC, "sharded")
    assert log.read(TOPIC, WHOLE, 0, 1)[0][0].position == 1501
    log.forget(TOPIC, "slow")
    assert log.read(TOPIC, WHOLE, 0, 1)[0][0].position == 2501
    log.forget(TOPIC, "fast")
    assert kept(tmp_path / "log.db") == 500  # no receiver is known: nothing more goes
    assert list(log.cursors()) == []


def test_trimming_costs_each_saver_a_bounded_time(
    log: SqliteEventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "TRIM", 10)
    cursor = log.open_cursor(TOPIC, "consumer", WHOLE)
    log.append(TOPIC, events(100))
    remaining = 100
    for _ in range(5):
        log.save_cursor(cursor, 100, 100)
        assert remaining - kept(tmp_path / "log.db") == 20
        remaining -= 20


def test_a_new_layout_takes_over_at_the_least_progress(log: SqliteEventLog) -> None:
    log.append(TOPIC, events(20))
    old = [log.open_cursor(TOPIC, "consumer", Shard(index, 3)) for index in (1, 2, 3)]
    for cursor, acked in zip(old, (12, 5, 9), strict=True):
        log.save_cursor(cursor, acked, acked + 3)
    new = log.open_cursor(TOPIC, "consumer", Shard(2, 2))
    first = min(
        entry.position
        for cursor, acked in zip(old, (12, 5, 9), strict=True)
        for entry in log.read(TOPIC, cursor.shard, acked, 100)[0]
    )
    assert first > 5
    assert (new.acked, new.handed_out, new.head) == (first - 1, 15, 20)
    assert new.generation > old[0].generation
    log.save_cursor(old[0], 20, 20)  # retired: changes nothing
    log.save_cursor(old[1], 20, 20)
    for shard in (Shard(1, 2), Shard(2, 2)):
        again = log.open_cursor(TOPIC, "consumer", shard)
        assert (again.generation, again.acked) == (new.generation, first - 1)
    back = log.open_cursor(TOPIC, "consumer", Shard(1, 3))
    assert back.generation not in (new.generation, old[0].generation)
    assert back.acked == first - 1


def test_a_forgotten_name_starts_anew_and_its_old_cursor_is_void(log: SqliteEventLog) -> None:
    log.append(TOPIC, events(5))
    cursor = log.open_cursor(TOPIC, "consumer", WHOLE)
    log.save_cursor(cursor, 4, 5)
    log.forget(TOPIC, "consumer")
    again = log.open_cursor(TOPIC, "consumer", WHOLE)
    assert (again.acked, again.handed_out) == (0, 0)
    log.save_cursor(cursor, 5, 5)
    assert log.open_cursor(TOPIC, "consumer", WHOLE).acked == 0


def test_progress_never_rewinds_and_the_mark_may(log: SqliteEventLog) -> None:
    log.append(TOPIC, events(9))
    cursor = log.open_cursor(TOPIC, "consumer", WHOLE)
    log.save_cursor(cursor, 6, 9)
    log.save_cursor(cursor, 3, 6)
    again = log.open_cursor(TOPIC, "consumer", WHOLE)
    assert (again.acked, again.handed_out) == (6, 6)


def test_a_shard_that_owns_nothing_holds_up_nothing(log: SqliteEventLog) -> None:
    mine = [Event(TOPIC, "run-1", 1, RunState.RUNNING, n + 1, START) for n in range(1200)]
    cursors = [log.open_cursor(TOPIC, "consumer", Shard(index, 5)) for index in range(1, 6)]
    log.append(TOPIC, mine)
    owner = next(cursor for cursor in cursors if cursor.shard.owns("run-1"))
    log.save_cursor(owner, 1100, 1100)
    assert log.read(TOPIC, WHOLE, 0, 1)[0][0].position == 1001
    assert log.pending(TOPIC, "consumer") == (100, START)
    assert log.open_cursor(TOPIC, "consumer", WHOLE).acked == 1100


def test_a_shard_is_told_how_far_it_was_looked(log: SqliteEventLog) -> None:
    log.append(TOPIC, events(70))
    seen: list[int] = []
    for index in range(1, 11):
        position = 0
        while True:
            entries, looked = log.read(TOPIC, Shard(index, 10), position, 4)
            assert all(Shard(index, 10).owns(entry.event.key) for entry in entries)
            seen += [entry.position for entry in entries]
            position = looked
            if len(entries) < 4:
                break
        assert position == 70
    assert sorted(seen) == list(range(1, 71))


def test_pending_equals_a_recount(log: SqliteEventLog) -> None:
    assert log.pending(TOPIC, "consumer") == (0, None)
    log.append(TOPIC, events(70))
    assert log.pending(TOPIC, "consumer") == (0, None)  # not known yet
    cursors = [log.open_cursor(TOPIC, "consumer", Shard(index, 3)) for index in (1, 2, 3)]
    progress = (40, 0, 25)
    for cursor, acked in zip(cursors, progress, strict=True):
        log.save_cursor(cursor, acked, acked)
    recount = sum(
        len(log.read(TOPIC, Shard(index, 3), acked, 1000)[0]) for index, acked in zip((1, 2, 3), progress, strict=True)
    )
    assert log.pending(TOPIC, "consumer") == (recount, START)
    for cursor in cursors:
        log.save_cursor(cursor, 70, 70)
    assert log.pending(TOPIC, "consumer") == (0, None)


def test_an_event_that_can_never_be_stored(log: SqliteEventLog) -> None:
    with pytest.raises(Rejected, match="never be stored"):
        log.append(TOPIC, [*events(3), replace(events(1)[0], key="\ud800")])
    assert log.read(TOPIC, WHOLE, 0, 10) == ([], 0)


# --- leases --------------------------------------------------------------------------------------------------------


@pytest.fixture
def leases(tmp_path: Path) -> Iterator[tuple[SqliteLeaseStore, SqliteLeaseStore]]:
    databases = [Database(tmp_path / "leases.db") for _ in range(2)]
    yield SqliteLeaseStore(databases[0], Watcher(databases[0])), SqliteLeaseStore(databases[1], Watcher(databases[1]))
    for database in databases:
        database.close()


def test_a_role_is_granted_on_what_was_seen(leases: tuple[SqliteLeaseStore, SqliteLeaseStore]) -> None:
    store, other = leases
    store.beat("a", ["role"])
    other.beat("b", ["role"])
    assert store.acquire("role", "a", None) == 1
    assert other.acquire("role", "b", None) is None
    table = other.beat("b", ["role"])
    seen = table.leases["role"]
    assert seen == LeaseRow(1, "a", 1)
    store.beat("a", [])
    assert other.acquire("role", "b", seen) is None  # the holder has beaten since
    seen = other.beat("b", ["role"]).leases["role"]
    assert other.acquire("role", "b", seen) == 2
    store.release("role", "a", 1)  # a stale release frees nothing
    assert store.beat("a", []).leases["role"].holder == "b"
    other.release("role", "b", 2)
    assert store.acquire("role", "a", LeaseRow(2, "", 0)) == 3
    store.leave("a", beat=999)
    assert "a" in store.beat("b", []).members
    store.leave("a")
    table = store.beat("b", [])
    assert (table.leases["role"], set(table.members)) == (LeaseRow(3, "", 0), {"b"})


def test_leases_tell_of_freed_roles_and_wants_alone(leases: tuple[SqliteLeaseStore, SqliteLeaseStore]) -> None:
    store, other = leases
    for source in (store, other):
        source.beat("a", [])
        signal = SYSTEM.clock.signal()
        stop = store.subscribe_leases(signal)
        for _ in range(5):
            source.beat("a", [])
        assert not signal.wait(timeout=0.1)
        source.beat("a", ["x"])
        assert signal.wait(timeout=DEADLINE)
        row = store.beat("a", ["x"]).leases.get("x")
        epoch = source.acquire("x", "a", row)
        assert epoch is not None
        assert not signal.wait(timeout=0.1)
        source.release("x", "a", epoch)
        assert signal.wait(timeout=DEADLINE)
        source.leave("a")
        assert signal.wait(timeout=DEADLINE)
        stop()


def test_a_failed_transaction_is_undone(leases: tuple[SqliteLeaseStore, SqliteLeaseStore]) -> None:
    store, other = leases
    store.beat("a", [])
    for bad in ("\ud800", "b\udfff"):
        with pytest.raises(Rejected, match="can never be stored"):
            store.beat(bad, ["role"])
        assert set(other.beat("a", []).members) == {"a"}  # nothing is left, and the lock is free
    assert set(store.beat("b", []).members) == {"a", "b"}


def test_a_beat_does_not_wait_long_for_a_lock(tmp_path: Path) -> None:
    database = Database(tmp_path / "leases.db")
    store = SqliteLeaseStore(database, Watcher(database), patience=0.05)
    store.beat("a", [])
    with closing(sqlite3.connect(tmp_path / "leases.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        before = time.monotonic()
        with pytest.raises(Unavailable, match="holds the lock"):
            store.beat("a", [])
        assert 0.05 <= time.monotonic() - before < 5
        holder.execute("COMMIT")
    assert store.beat("a", []).members["a"].beat == 2
    database.close()


def test_epochs_rise_across_restarts(tmp_path: Path) -> None:
    for round in range(3):
        database = Database(tmp_path / "epochs.db")
        store = SqliteLeaseStore(database, Watcher(database))
        seen = store.beat("a", []).leases.get("role")
        assert store.acquire("role", "a", seen) == round + 1
        store.release("role", "a", round + 1)
        database.close()


def test_adapters_close_in_any_order(tmp_path: Path) -> None:
    adapters = sqlite(tmp_path / "a.db")
    adapters.on_close()
    adapters.close()
