"""Several handles and processes on one file: one winner each time, and news that travel."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.adapters.sqlite_support import (
    DEADLINE,
    WORKFLOW,
    bind,
    bound,
    change,
    end,
    events_in,
    line_of,
    log_of,
    send,
    start,
)
from workflow.adapters.memory import memory
from workflow.adapters.sqlite import sqlite
from workflow.clock import SYSTEM
from workflow.errors import RunInProgress
from workflow.event import WHOLE, NewTimeout, Shard, hash_of
from workflow.protocols import Adapters, Notify, direct_publish, notify


def notifying(adapter: object) -> Notify:
    found = notify(adapter)  # type: ignore[arg-type]  # any of the adapters
    assert found is not None
    return found


def test_of_racing_processes_one_wins_each_version(tmp_path: Path) -> None:
    path = tmp_path / "race.db"
    adapters = bound(path)
    runs, versions = 20, 15
    children = [start("racing", path, name, runs, versions) for name in ("a", "b", "c", "d")]
    for child in children:
        assert line_of(child) == "ready"
    for child in children:
        send(child, "go")
    won = Counter(tuple(win) for child in children for win in end(child))
    assert set(won.values()) == {1}
    for index in range(runs):
        history = adapters.record_store.history(f"run-{index}")
        assert [row.version for row in history] == list(range(1, len(history) + 1))
        assert sum(1 for run_id, _ in won if run_id == f"run-{index}") == len(history)
    assert len(events_in(adapters, f"{WORKFLOW}-1")) == len(won)
    adapters.close()


def test_one_active_run_of_a_foreign_id_across_handles_and_threads(tmp_path: Path) -> None:
    handles = [bound(tmp_path / "active.db") for _ in range(4)]
    foreign_ids = [f"customer-{index}" for index in range(5)]

    def trigger(number: int) -> list[bool]:
        store = handles[number % 4].record_store
        answers = [
            store.store([change(f"{number}-{foreign_id}-{attempt}", foreign_id=foreign_id)])[0]
            for foreign_id in foreign_ids
            for attempt in range(5)
        ]
        assert all(answer is None or isinstance(answer, RunInProgress) for answer in answers)
        return [answer is None for answer in answers]

    with ThreadPoolExecutor(16) as pool:
        accepted = sum(sum(wins) for wins in pool.map(trigger, range(16)))
    assert accepted == len(foreign_ids)
    active = [record.foreign_id for record in handles[0].record_store.list(WORKFLOW, limit=100).items]
    assert sorted(active) == foreign_ids
    for handle in handles:
        handle.close()


def test_news_of_another_process_arrive(tmp_path: Path) -> None:
    path = tmp_path / "news.db"
    adapters = bound(path)
    child = start("storing_when_told", path)
    assert line_of(child) == "ready"
    topic = SYSTEM.clock.signal()
    unsubscribe = log_of(adapters).subscribe_topic(f"{WORKFLOW}-1", WHOLE, topic)
    delays: list[float] = []
    for number in range(20):
        run = SYSTEM.clock.signal()
        stop = notifying(adapters.record_store).subscribe("run", f"run-{number}", run)
        send(child, f"run-{number}")
        assert run.wait(timeout=DEADLINE)
        heard = time.monotonic()
        assert topic.wait(timeout=DEADLINE)
        stop()
        delays.append(heard - float(line_of(child)))
    unsubscribe()
    child.communicate(timeout=DEADLINE)
    assert sorted(delays)[10] < 0.2, delays  # the watcher looks every 15 ms; the rest is for a busy machine
    adapters.close()


def test_news_of_this_handle_reach_whom_they_concern_at_once(tmp_path: Path) -> None:
    adapters = bound(tmp_path / "own.db")
    names = ("here", "there")
    runs = {name: SYSTEM.clock.signal() for name in names}
    topics = {name: SYSTEM.clock.signal() for name in (f"{WORKFLOW}-1", f"{WORKFLOW}-2")}
    for name in names:
        notifying(adapters.record_store).subscribe("run", name, runs[name])
    for topic, signal in topics.items():
        log_of(adapters).subscribe_topic(topic, WHOLE, signal)
    adapters.record_store.store([change("here")])
    assert runs["here"].wait(timeout=0)
    assert topics[f"{WORKFLOW}-1"].wait(timeout=0)
    assert not runs["there"].wait(timeout=0)
    assert not topics[f"{WORKFLOW}-2"].wait(timeout=0)
    # What was told at once is not told again by the watcher, which sees the same commit.
    assert not runs["here"].wait(timeout=0.1)
    adapters.close()


@pytest.mark.parametrize("local", [True, False])
def test_only_the_shard_concerned_is_woken(tmp_path: Path, local: bool) -> None:
    adapters, other = bound(tmp_path / "shards.db"), bound(tmp_path / "shards.db")
    run_id = next(f"run-{n}" for n in range(100) if hash_of(f"run-{n}") % 3 == 1)
    signals = [SYSTEM.clock.signal() for _ in range(3)]
    for index, signal in enumerate(signals, 1):
        log_of(adapters).subscribe_topic(f"{WORKFLOW}-1", Shard(index, 3), signal)
    (adapters if local else other).record_store.store([change(run_id)])
    assert signals[1].wait(timeout=DEADLINE)
    assert not signals[0].wait(timeout=0.1)
    assert not signals[2].wait(timeout=0)
    adapters.close()
    other.close()


def test_an_entry_of_another_handle_is_not_lost_behind_one_of_ours(tmp_path: Path) -> None:
    """Ours is told at once; the other's, of another shard and right before it, must be told all the same."""
    adapters, other = bound(tmp_path / "both.db"), bound(tmp_path / "both.db")
    by_shard = {hash_of(f"run-{n}") % 2: f"run-{n}" for n in range(100)}
    for _ in range(20):
        signal = SYSTEM.clock.signal()
        stop = log_of(adapters).subscribe_topic(f"{WORKFLOW}-1", Shard(1, 2), signal)
        for handle, shard in ((other, 0), (adapters, 1)):
            current = handle.record_store.lookup([by_shard[shard]])[0]
            handle.record_store.store([change(by_shard[shard], current.version + 1 if current else 1)])
        assert signal.wait(timeout=DEADLINE)
        stop()
    adapters.close()
    other.close()


@pytest.mark.parametrize("local", [True, False])
def test_the_other_kinds_are_told_too(tmp_path: Path, local: bool) -> None:
    adapters, other = sqlite(tmp_path / "kinds.db"), sqlite(tmp_path / "kinds.db")
    source: Adapters = adapters if local else other
    outbox, due = SYSTEM.clock.signal(), SYSTEM.clock.signal()
    notifying(adapters.record_store).subscribe("outbox", WORKFLOW, outbox)
    notifying(adapters.timeout_store).subscribe("timeout", WORKFLOW, due)
    made = change("a")
    source.record_store.store([made])
    assert outbox.wait(timeout=DEADLINE)
    assert not due.wait(timeout=0)
    source.timeout_store.create([NewTimeout(WORKFLOW, "timeout", "k", made.record.updated_at, made.record.created_at)])
    assert due.wait(timeout=DEADLINE)
    assert not outbox.wait(timeout=0.1)
    adapters.close()
    other.close()


def test_the_watcher_lives_while_somebody_is_subscribed(tmp_path: Path) -> None:
    adapters = bound(tmp_path / "idle.db")

    def watchers() -> list[str]:
        return [thread.name for thread in threading.enumerate() if "watcher" in thread.name]

    for _ in range(3):
        stop = notifying(adapters.record_store).subscribe("run", "a", SYSTEM.clock.signal())
        assert len(watchers()) == 1
        stop()
        end_of_thread = time.monotonic() + DEADLINE
        while watchers():
            assert time.monotonic() < end_of_thread
    adapters.close()


def test_an_idle_watcher_costs_little(tmp_path: Path) -> None:
    adapters = bound(tmp_path / "idle.db")
    waiting = SYSTEM.clock.signal()
    stop = notifying(adapters.record_store).subscribe("run", "a", waiting)
    before = time.process_time()
    assert not waiting.wait(timeout=2.0)
    used = (time.process_time() - before) / 2.0
    stop()
    adapters.close()
    assert used < 0.03, f"{used:.1%} of a core"


def test_which_streamer_is_the_stores_own(tmp_path: Path) -> None:
    one, same, other = (sqlite(tmp_path / name) for name in ("one.db", "one.db", "other.db"))
    publishing = direct_publish(one.record_store)
    assert publishing is not None
    assert bind(one)
    assert publishing.bind(WORKFLOW, same.event_streamer)
    elsewhere = memory()
    for foreign in (other.event_streamer, elsewhere.event_streamer):
        assert not publishing.bind(WORKFLOW, foreign)
    one.record_store.store([change("a")])
    assert len(one.record_store.outbox_of("a")) == 1
    assert bind(same)  # kept in the file: the other handle follows
    one.record_store.store([change("b")])
    assert not one.record_store.outbox_of("b")
    for handle in (one, same, other, elsewhere):
        handle.close()
