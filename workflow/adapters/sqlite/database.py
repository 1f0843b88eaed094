"""One file: its connections, its transactions, its failures.

    read()   one of a pool of readers, the last one used first, since its cache is warm
    write()  the writer, in a transaction: committed at the end of the block, rolled back if it raises

In WAL mode readers and the writer do not block each other, and only `BEGIN IMMEDIATE` can meet the lock of another
writer. Within the process a lock makes writers queue; against other processes `write` tries again with a growing pause,
through the clock, for as long as `PATIENCE`. So nobody sees "database is locked" in use. A transaction that has begun
runs no code of the user's, and never waits.

`durable=False` commits without waiting for the disk: it survives the death of the process, and may be undone, with all
that followed it, by a loss of power. Acknowledgements and heartbeats are written so. The next durable commit makes them
durable too. Both kinds go through one connection, since two would empty each other's page caches.

Numbers of names (`number_of`) are given in a transaction of their own, before the one that uses them. So what the cache
has is always in the file, whatever is rolled back.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from typing import Any

from ...clock import SYSTEM, Runtime
from ...errors import Closed, InvalidInput, Rejected, StoreVersionError, Unavailable, WorkflowError
from ..support.guard import Guard
from . import forks
from .schema import VERSION, found_version, migrate

PATIENCE = 60.0
"""Seconds that a writer waits for the lock of another process, unless it says otherwise."""
FIRST_PAUSE, LONGEST_PAUSE = 0.0002, 0.01
IDLE_READERS = 8
"""Readers kept open while nobody uses them."""
PAGES_OF_LOG = 4000
"""The write-ahead log is copied into the file whenever it has grown by this many pages."""
CHUNK = 200
"""Parameters of one `IN (...)`: below the least limit that SQLite was ever compiled with."""

SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")
UNBINDABLE = (UnicodeEncodeError, OverflowError, sqlite3.DataError, sqlite3.InterfaceError)


def placeholders(count: int) -> str:
    """`?,?,?`"""
    return ",".join("?" * count)


def select_in(
    connection: sqlite3.Connection, before: str, values: Iterable[Any], *given: Any, after: str = ""
) -> list[Any]:
    """All rows of `before IN (values) after`; `given` are the parameters of `before`.

    The last chunk is filled up with repetitions, so that few statements are ever compiled.
    """
    wanted = list(values)
    rows: list[Any] = []
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        size = next(size for size in (1, 10, 50, CHUNK) if size >= len(chunk))
        chunk += chunk[-1:] * (size - len(chunk))
        rows += connection.execute(f"{before} IN ({placeholders(size)}) {after}", (*given, *chunk)).fetchall()
    return rows


def bump(connection: sqlite3.Connection, kind: str, name: int) -> int:
    """Count up the change counter of (kind, name), by which other processes notice. Returns its new value."""
    connection.execute(
        "INSERT INTO change VALUES (?, ?, 1) ON CONFLICT (kind, name) DO UPDATE SET number = number + 1", (kind, name)
    )
    query = "SELECT number FROM change WHERE kind = ? AND name = ?"
    number: int = connection.execute(query, (kind, name)).fetchone()[0]
    return number


class Database:
    """One open file, shared by the adapters of a set. Thread-safe."""

    def __init__(self, path: str | os.PathLike[str], synchronous: str = "FULL", runtime: Runtime = SYSTEM) -> None:
        self.path = _checked_path(path)
        if synchronous not in SYNCHRONOUS:
            raise InvalidInput(f"synchronous={synchronous!r}: one of {', '.join(SYNCHRONOUS)} is wanted")
        if sqlite3.sqlite_version_info < (3, 24):
            raise Unavailable(f"SQLite 3.24 or newer is needed, this Python has {sqlite3.sqlite_version}")
        self.runtime = runtime
        self._synchronous = synchronous
        self._guard = Guard(f"the store {self.path}")
        self._gate = threading.Condition(threading.Lock())
        self._lent = 0  # connections in use; guarded by the gate, as are the next two
        self._paused = False  # for a fork: nobody gets a connection
        self._idle: list[sqlite3.Connection] = []
        self._writing = threading.Lock()
        self._writer: sqlite3.Connection | None = None  # guarded by `_writing`, as is the next one
        self._level = ""
        self._watching: sqlite3.Connection | None = None
        self._numbers: dict[str, int] = {}  # names and their numbers, which never change
        self._names: dict[int, str] = {}
        self._on_close: list[Callable[[], None]] = []
        forks.check_inherited(self.path)
        self._prepare()
        status = os.stat(self.path)
        self.file_id = (status.st_dev, status.st_ino)
        forks.watch(self)

    # --- transactions ----------------------------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Generator[sqlite3.Connection, None, None]:
        """A connection to read with. Fetch all rows of a statement before the next one."""
        connection = self._borrow()
        try:
            yield connection
        except (sqlite3.Error, *UNBINDABLE) as error:
            raise self._translated(error) from error
        finally:
            self._give_back(connection)

    @contextmanager
    def watching(self) -> Generator[sqlite3.Connection, None, None]:
        """The connection of the watcher's thread: `PRAGMA data_version` compares with what this connection saw last."""
        self._enter()
        try:
            if self._watching is None:
                self._watching = self._open()
            yield self._watching
        except sqlite3.Error as error:
            raise self._translated(error) from error
        finally:
            self._leave()

    @contextmanager
    def write(self, *, durable: bool = True, patience: float = PATIENCE) -> Generator[sqlite3.Connection, None, None]:
        """A connection with a transaction that holds the write lock. An empty transaction costs no disk access."""
        self._enter()
        try:
            with self._writing:
                connection = self._begin(self._synchronous if durable else "NORMAL", patience)
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    self._roll_back(connection)
                    raise
        except (sqlite3.Error, *UNBINDABLE) as error:
            raise self._translated(error) from error
        finally:
            self._leave()

    def _begin(self, level: str, patience: float) -> sqlite3.Connection:
        # The level is given in a script, since a statement that Python has cached would not set it a second time:
        # SQLite executes this pragma when it compiles it.
        if self._writer is None:
            self._writer, self._level = self._open(), ""
            self._writer.execute("PRAGMA busy_timeout = 0")  # `_patiently` waits, in finer steps than SQLite does
        if self._synchronous == "OFF":
            level = "OFF"
        if level != self._level:
            self._writer.executescript(f"PRAGMA synchronous = {level}")
            self._level = level
        self._patiently(self._writer, "BEGIN IMMEDIATE", patience)
        return self._writer

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        """Undo the transaction. SQLite has done so itself after some failures; a connection that cannot is given up."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._writer = None
            connection.close()

    def _patiently(self, connection: sqlite3.Connection, statement: str, patience: float = PATIENCE) -> Sequence[Any]:
        """Execute what may find the file locked by another process, until it does not, for at most `patience`."""
        clock = self.runtime.clock
        pause, end = FIRST_PAUSE, clock.monotonic() + patience
        while True:
            try:
                return connection.execute(statement).fetchall()
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or clock.monotonic() >= end:
                    raise
            self._guard.check()
            clock.signal().wait(timeout=pause * (0.5 + self.runtime.random()))
            pause = min(2 * pause, LONGEST_PAUSE)

    # --- names -----------------------------------------------------------------------------------------------------

    def number_of(self, name: str) -> int:
        """The name's number, given now if it is new. Not to be called within a transaction."""
        known = self._numbers.get(name)
        return self.find(name) or self._give_number(name) if known is None else known

    def find(self, name: str) -> int:
        """The name's number, 0 if it has none. Not to be called within a transaction."""
        known = self._numbers.get(name)
        if known is not None:
            return known
        with self.read() as connection:
            row = connection.execute("SELECT id FROM name WHERE text = ?", (name,)).fetchone()
        if row is None:
            return 0
        self._numbers[name] = row[0]
        return int(row[0])

    def _give_number(self, name: str) -> int:
        with self.write(durable=False) as connection:
            connection.execute("INSERT INTO name (text) VALUES (?) ON CONFLICT (text) DO NOTHING", (name,))
            number: int = connection.execute("SELECT id FROM name WHERE text = ?", (name,)).fetchone()[0]
        self._numbers[name] = number
        return number

    def name_of(self, number: int) -> str:
        """The name that has this number. Not to be called within a transaction."""
        name = self._names.get(number)
        if name is None:
            with self.read() as connection:
                name = str(connection.execute("SELECT text FROM name WHERE id = ?", (number,)).fetchone()[0])
            self._names[number] = name
        return name

    # --- connections -----------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        # The timeout is for the rare moments at which even a reader waits: the recovery after a crash, a last close.
        connection = sqlite3.connect(
            self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA wal_autocheckpoint = {PAGES_OF_LOG:d}")
        return connection

    def _prepare(self) -> None:
        """Look whether the file is ours before anything is written, then make it ready for use."""
        try:
            with closing(self._open()) as connection:
                connection.execute("BEGIN")  # one look: another process may be making the file
                version = found_version(connection, self.path)
                connection.execute("COMMIT")
                connection.execute("PRAGMA busy_timeout = 0")  # `_patiently` waits: for the next pragma SQLite does not
                ((mode,),) = self._patiently(connection, "PRAGMA journal_mode")
                if mode != "wal":
                    ((mode,),) = self._patiently(connection, "PRAGMA journal_mode = WAL")
                if mode != "wal":
                    raise Unavailable(f"{self.path}: this file system has no write-ahead log: use a local disk")
                if version < VERSION:
                    self._patiently(connection, "BEGIN IMMEDIATE")
                    migrate(connection, self.path)
                    connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _enter(self) -> None:
        with self._gate:
            while self._paused:
                self._gate.wait()
            self._guard.check()
            self._lent += 1

    def _leave(self) -> None:
        with self._gate:
            self._lent -= 1
            if self._lent == 0:
                self._gate.notify_all()

    def _borrow(self) -> sqlite3.Connection:
        self._enter()
        try:
            return self._idle.pop()
        except IndexError:
            pass  # all are in use: this makes one more
        try:
            return self._open()
        except sqlite3.Error as error:
            self._leave()
            raise self._translated(error) from error

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if self._guard.closed or len(self._idle) >= IDLE_READERS:
            connection.close()
        else:
            self._idle.append(connection)
        self._leave()

    # --- the end ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise `Closed` or `Forked` if this file may not be used."""
        self._guard.check()

    @property
    def closed(self) -> bool:
        return self._guard.closed

    def on_close(self, function: Callable[[], None]) -> None:
        """Call this first when the file is closed."""
        self._on_close.append(function)

    def close(self) -> None:
        """Wait for what is in hand, and close every connection. In a forked child there is nothing to do."""
        if not self._guard.close() or self._guard.forked:
            return
        forks.forget(self)
        for function in self._on_close:
            function()
        with self._gate:
            self._gate.wait_for(lambda: self._lent == 0)
            self.close_connections()

    def close_connections(self) -> None:
        for connection in self.connections():
            connection.close()
        self._idle.clear()
        self._writer = self._watching = None

    def connections(self) -> Sequence[sqlite3.Connection]:
        """All that are at rest."""
        return [c for c in (*self._idle, self._watching, self._writer) if c is not None]

    def pause(self, timeout: float) -> bool:
        """Before a fork: let nobody begin anything. True if nothing is in hand any more."""
        self._gate.acquire()
        self._paused = True
        return self._gate.wait_for(lambda: self._lent == 0, timeout)

    def resume(self) -> None:
        """After a fork, in the parent and in the child."""
        self._paused = False
        self._gate.notify_all()
        self._gate.release()

    # --- failures --------------------------------------------------------------------------------------------------

    def _translated(self, error: Exception) -> WorkflowError:
        """What an error of SQLite's means to whoever called, and what to do about it."""
        text = str(error)
        told = text.lower()
        if isinstance(error, UNBINDABLE) or "too big" in told or "binding" in told:
            return Rejected(f"{self.path}: a value can never be stored: {text}")
        if isinstance(error, sqlite3.ProgrammingError) and "closed" in told:
            return Closed(f"the store {self.path} was closed")
        if "not a database" in told:
            return StoreVersionError(
                f"{self.path} is no SQLite database, or its first page is damaged: give the store a file of its own, "
                "or restore a backup; nothing was changed"
            )
        for sign, advice in _ADVICE:
            if sign in told:
                return Unavailable(f"{self.path}: {advice} ({text})")
        return Unavailable(f"{self.path}: {text}")


_ADVICE = (
    ("is full", "the disk is full, or a limit on the file's size is reached: make room, then go on"),
    ("locked", "another process holds the lock all the time: look for one that was stopped in a transaction"),
    ("busy", "another process holds the lock all the time: look for one that was stopped in a transaction"),
    ("readonly", "the file cannot be written: give this user the right to write it and its directory"),
    ("unable to open", "cannot be opened: does its directory exist, and may this user read and write it?"),
    ("malformed", "the file is damaged: stop the programs that use it, and restore a backup or run sqlite3's .recover"),
    ("disk i/o", "the disk fails: look at the system's log; what was acknowledged is kept if the file can be read"),
)


def _is_busy(error: sqlite3.Error) -> bool:
    return "locked" in str(error) or "busy" in str(error)


def _checked_path(path: str | os.PathLike[str]) -> str:
    name = os.fspath(path)
    if name in ("", ":memory:"):
        raise InvalidInput(f"{name!r} is no file: for a store in memory use memory()")
    return os.path.abspath(name)
