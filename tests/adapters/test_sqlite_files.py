"""What is opened: new files, old ones, those of others, damaged ones; disks that are full or cannot be written."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.sqlite_support import bound, change, end, line_of, send, start
from workflow.adapters.sqlite import schema, sqlite
from workflow.adapters.sqlite.database import Database
from workflow.adapters.sqlite.schema import APPLICATION_ID, VERSION
from workflow.errors import Closed, InvalidInput, StoreVersionError, Unavailable


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [*connection.iterdump(), str(connection.execute("PRAGMA journal_mode").fetchone())]


def make(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_new_file_is_ours_and_of_this_version(tmp_path: Path) -> None:
    sqlite(tmp_path / "new.db").close()
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "again.db"
    adapters = bound(path)
    adapters.record_store.store([change("a")])
    adapters.close()
    before = path.read_bytes()
    sqlite(path).close()
    assert path.read_bytes() == before


def test_an_empty_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    adapters = bound(tmp_path / "empty.db")
    assert adapters.record_store.store([change("a")]) == [None]
    adapters.close()


@pytest.mark.parametrize(
    ("statements", "told"),
    [
        ((f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {VERSION + 1}"), "upgrade this program"),
        (("CREATE TABLE theirs (x)", "INSERT INTO theirs VALUES (1)"), "another program"),
        (("PRAGMA application_id = 7",), "another program"),
        (("PRAGMA user_version = 1",), "another program"),
    ],
)
def test_a_file_that_is_not_for_us_is_refused_and_not_changed(
    tmp_path: Path, statements: tuple[str, ...], told: str
) -> None:
    path = tmp_path / "other.db"
    make(path, *statements)
    before = dump(path)
    with pytest.raises(StoreVersionError, match=told):
        sqlite(path)
    assert dump(path) == before


def test_a_file_that_is_no_database_is_refused_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "letter.db"
    path.write_bytes(b"Dear Sir or Madam, " * 1000)
    before = path.read_bytes()
    with pytest.raises(StoreVersionError, match="no SQLite database"):
        sqlite(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["letter.db"]


def test_a_damaged_page_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "damaged.db"
    adapters = bound(path)
    adapters.record_store.store([change(f"run-{index}") for index in range(1000)])
    adapters.close()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\xff" * (len(data) - len(data) // 2))
    adapters = sqlite(path)
    try:
        with pytest.raises(Unavailable, match="restore a backup"):
            adapters.record_store.lookup([f"run-{index}" for index in range(1000)])
    finally:
        adapters.close()


@pytest.mark.parametrize("path", ["", ":memory:"])
def test_memory_is_no_file(path: str) -> None:
    with pytest.raises(InvalidInput, match=r"use memory\(\)"):
        sqlite(path)


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does its directory exist"):
        sqlite(tmp_path / "nowhere" / "x.db")


def test_an_unknown_level_of_synchronous(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="FULL"):
        sqlite(tmp_path / "x.db", synchronous="SOMETIMES")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("level", "durable", "cheap"), [("FULL", 2, 1), ("NORMAL", 1, 1), ("EXTRA", 3, 1), ("OFF", 0, 0)]
)
def test_each_transaction_is_as_durable_as_it_is_asked_to_be(
    tmp_path: Path, level: str, durable: int, cheap: int
) -> None:
    database = Database(tmp_path / "levels.db", level)
    for number, wanted in enumerate((True, False, True, True, False, True)):
        with database.write(durable=wanted) as connection:
            # The remark makes it another statement: SQLite answers this when it compiles, and Python keeps what it has.
            found = connection.execute(f"PRAGMA synchronous -- {number}").fetchone()[0]
        assert found == (durable if wanted else cheap)
    database.close()


def test_a_failed_migration_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "half.db"
    broken = (("CREATE TABLE one (x)", "CREATE TABLE two (x", "CREATE TABLE three (x)"),)
    monkeypatch.setattr("workflow.adapters.sqlite.schema.MIGRATIONS", broken)
    with pytest.raises(Unavailable, match="incomplete"):
        sqlite(path)
    monkeypatch.undo()
    adapters = bound(path)
    assert adapters.record_store.store([change("a")]) == [None]
    adapters.close()


def test_an_older_file_is_brought_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "older.db"
    adapters = bound(path)
    adapters.record_store.store([change("a")])
    adapters.close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("CREATE TABLE later (x)",)))
    monkeypatch.setattr(schema, "VERSION", VERSION + 1)
    monkeypatch.setattr("workflow.adapters.sqlite.database.VERSION", VERSION + 1)
    for _ in range(2):
        adapters = sqlite(path)
        assert adapters.record_store.lookup(["a"]) != [None]
        adapters.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)
        assert connection.execute("SELECT count(*) FROM later").fetchone() == (0,)


def test_several_processes_open_a_new_file_at_once(tmp_path: Path) -> None:
    children = [start("opening", tmp_path / "shared.db") for _ in range(6)]
    for child in children:
        assert line_of(child) == "ready"
    for child in children:
        send(child, "go")
    assert [end(child) for child in children] == [True] * 6
    adapters = sqlite(tmp_path / "shared.db")
    assert len(adapters.record_store.list("orders").items) == 6
    adapters.close()


# --- disks ---------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_told_and_spoils_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def small(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)
        connection.execute("PRAGMA max_page_count = 100")
        return connection

    path = tmp_path / "full.db"
    sqlite(path).close()
    monkeypatch.setattr(sqlite3, "connect", small)
    adapters = bound(path)
    adapters.record_store.store([change("first")])
    with pytest.raises(Unavailable, match="the disk is full"):
        adapters.record_store.store([change("big", object=bytes(1_000_000)), change("small")])
    assert adapters.record_store.lookup(["first", "big", "small"])[1:] == [None, None]
    assert adapters.record_store.store([change("small")]) == [None]
    adapters.close()


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory that other users may enter, as pytest's are not."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, to become another user")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_file_that_cannot_be_written(open_to_all: Path) -> None:
    path = open_to_all / "locked.db"
    adapters = bound(path)
    adapters.record_store.store([change("a")])
    adapters.close()
    path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    open_to_all.chmod(0o555)
    told = open_to_all.parent / f"{open_to_all.name}.told"
    told.touch()
    told.chmod(0o666)
    child = os.fork()
    if child == 0:  # root may write everything: become somebody else
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            sqlite(path).record_store.store([change("b")])
        except Unavailable as error:
            told.write_text(str(error))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    open_to_all.chmod(0o755)
    text = told.read_text()
    told.unlink()
    assert "may this user read and write it" in text or "the right to write" in text


# --- the end -------------------------------------------------------------------------------------------------------


def open_files() -> set[str]:
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return {os.readlink(link) for link in links if link.is_symlink()}


def test_close_leaves_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    adapters = bound(tmp_path / "a.db")
    adapters.record_store.store([change("a")])
    busy = [threading.Thread(target=adapters.record_store.lookup, args=(["a"],)) for _ in range(20)]
    for thread in busy:
        thread.start()
    for thread in busy:
        thread.join()
    adapters.close()
    adapters.close()
    assert set(threading.enumerate()) == threads
    assert sorted(os.listdir(tmp_path)) == ["a.db"]
    if os.path.isdir("/proc/self/fd"):
        assert not [name for name in open_files() if str(tmp_path) in name]
    for call in (adapters.record_store.lookup, adapters.timeout_store.purge):
        with pytest.raises(Closed, match="closed"):
            call(["a"])


def test_close_waits_for_what_is_in_hand(tmp_path: Path) -> None:
    adapters = bound(tmp_path / "a.db")
    stored: list[object] = []

    def store() -> None:
        number = 0
        while True:
            try:
                stored.extend(adapters.record_store.store([change(f"{threading.get_ident()}-{number}")]))
            except Closed:
                return
            number += 1

    threads = [threading.Thread(target=store) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(stored) < 20:
        assert any(thread.is_alive() for thread in threads)
    adapters.close()
    for thread in threads:
        thread.join()
    again = sqlite(tmp_path / "a.db")
    assert len(again.record_store.list("orders", limit=100_000).items) == len(stored)
    assert set(stored) == {None}
    again.close()
