"""A forked child: it cannot use what it inherited, it can open the file anew, and the parent's file stays whole."""

from __future__ import annotations

import gc
import os
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.adapters.sqlite_support import DEADLINE, WORKFLOW, bound, change, log_of
from workflow.adapters.sqlite import forks, sqlite
from workflow.adapters.sqlite.database import Database
from workflow.clock import SYSTEM, Signal, SystemClock
from workflow.errors import Forked
from workflow.event import WHOLE

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    # The engine has threads, so a fork is what Python warns of; that it is survived is what is tested.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def in_child(program: Callable[[], None]) -> int:
    """Fork, and run the program in the child. Returns the child's id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        program()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def succeeded(child: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_was_opened_before_a_fork_raises_in_the_child(tmp_path: Path) -> None:
    adapters, database = bound(tmp_path / "a.db"), Database(tmp_path / "a.db")
    adapters.record_store.store([change("before")])

    def child() -> None:
        for call in (
            lambda: adapters.record_store.lookup(["before"]),
            lambda: adapters.record_store.store([change("child")]),
            lambda: log_of(adapters).read("t", WHOLE, 0, 1),
            lambda: adapters.timeout_store.of_run("before"),
            lambda: log_of(adapters).subscribe_topic("t", WHOLE, SYSTEM.clock.signal()),
        ):
            with pytest.raises(Forked, match="open a new one in the child"):
                call()
        with pytest.raises(Forked, match="open a new one in the child"):
            database.find("orders")
        adapters.close()
        gc.collect()

    assert succeeded(in_child(child))
    assert adapters.record_store.store([change("after")]) == [None]
    adapters.close()
    database.close()
    again = sqlite(tmp_path / "a.db")
    assert [record.run_id for record in again.record_store.list(WORKFLOW).items] == ["before", "after"]
    again.close()


def test_the_child_may_open_the_file_anew_and_outlive_its_parents_handle(tmp_path: Path) -> None:
    """If the child kept its parent's connections, SQLite would believe that it holds their locks; it does not."""
    adapters = bound(tmp_path / "a.db")
    adapters.record_store.store([change("before")])
    ready, closed = os.pipe(), os.pipe()

    def child() -> None:
        mine = bound(tmp_path / "a.db")
        mine.record_store.store([change("child-1")])
        os.write(ready[1], b"x")
        os.read(closed[0], 1)
        mine.record_store.store([change("child-2")])
        mine.close()

    pid = in_child(child)
    os.read(ready[0], 1)
    adapters.close()
    third = bound(tmp_path / "a.db")
    third.record_store.store([change("third")])
    os.write(closed[1], b"x")
    assert succeeded(pid)
    runs = [record.run_id for record in third.record_store.list(WORKFLOW).items]
    assert runs == ["before", "child-1", "third", "child-2"]
    third.close()
    for descriptor in (*ready, *closed):
        os.close(descriptor)


def test_forks_in_the_middle_of_work(tmp_path: Path) -> None:
    adapters = bound(tmp_path / "busy.db")
    stop = threading.Event()
    stored = [0] * 3

    def work(number: int) -> None:
        while not stop.is_set():
            name = f"{number}-{stored[number]}"
            assert adapters.record_store.store([change(name)]) == [None]
            assert adapters.record_store.lookup([name]) != [None]
            stored[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()

    def child(number: int) -> None:
        mine = bound(tmp_path / "busy.db")
        assert mine.record_store.store([change(f"child-{number}")]) == [None]
        mine.close()

    children = [in_child(partial(child, number)) for number in range(15)]
    ended = [succeeded(pid) for pid in children]
    stop.set()
    for thread in threads:
        thread.join()
    assert all(ended)
    assert len(adapters.record_store.list(WORKFLOW, limit=100_000).items) == sum(stored) + len(children)
    adapters.close()


def test_a_fork_that_meets_a_connection_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the child can neither close it nor open the file; it is told so, and the parent goes on."""
    monkeypatch.setattr(forks, "QUIET", 0.05)
    path = tmp_path / "held.db"
    waiting = threading.Event()

    class NoticingClock(SystemClock):
        def signal(self) -> Signal:  # what a writer asks for when it finds the lock taken
            waiting.set()
            return super().signal()

    one, two = bound(path), sqlite(path, clock=NoticingClock())
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    writing = threading.Thread(target=two.record_store.store, args=([change("waits")],))
    waiting.clear()
    writing.start()
    assert waiting.wait(DEADLINE)

    def child() -> None:
        with pytest.raises(Forked, match="in use when this process was forked"):
            sqlite(path)

    assert succeeded(in_child(child))
    holder.execute("COMMIT")
    holder.close()
    writing.join()
    assert two.record_store.lookup(["waits"]) != [None]
    one.close()
    two.close()
