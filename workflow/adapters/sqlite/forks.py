"""What happens to open files when the process forks.

A child has copies of its parent's connections. It may not use them: it would write with its parent's idea of the file.
Nor may it leave them alone and open the file again: SQLite knows the locks of a file once per process, takes the
parent's for its own, and so asks the system for none. When the parent then closes the file, it finds itself alone,
removes the write-ahead log, and all that the child writes from then on is lost.

So a fork waits, for at most `QUIET` seconds, until no connection is in use. A connection at rest can be closed in the
child: it holds no lock that the parent needs (the locks of a file belong to the process that took them), and there is
nothing to roll back. After that the child may open the file anew. The adapters that it inherited raise `Forked`.

If the parent does not come to rest in time (it waits for another process's lock), the child keeps the connections, for
ever untouched, and may not open this file.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Sequence
from typing import Protocol

from ...errors import Forked

QUIET = 5.0


class _Database(Protocol):
    path: str

    def pause(self, timeout: float) -> bool: ...

    def resume(self) -> None: ...

    def connections(self) -> Sequence[sqlite3.Connection]: ...

    def close_connections(self) -> None: ...


_lock = threading.Lock()
_open: weakref.WeakSet[_Database] = weakref.WeakSet()  # guarded by the lock
_paused: list[tuple[_Database, bool]] = []  # during a fork, with the lock held: and whether it came to rest
_inherited: dict[str, list[sqlite3.Connection]] = {}
"""In a child: connections that could not be closed. To be kept, not used."""


def watch(database: _Database) -> None:
    """See to it that this one is at rest when the process forks."""
    with _lock:
        _open.add(database)


def forget(database: _Database) -> None:
    with _lock:
        _open.discard(database)


def check_inherited(path: str) -> None:
    """Raise `Forked` if this process has inherited connections to the file that are in the way."""
    if path in _inherited:
        raise Forked(
            f"{path} was in use when this process was forked, and cannot be opened here: fork before the parent "
            "opens it, or start the child as a new program"
        )


def _before() -> None:
    _lock.acquire()
    _paused.extend((database, database.pause(QUIET)) for database in _open)


def _after_in_parent() -> None:
    for database, _ in _paused:
        database.resume()
    _paused.clear()
    _lock.release()


def _after_in_child() -> None:
    for database, at_rest in _paused:
        if at_rest:
            database.close_connections()
        else:
            _inherited.setdefault(database.path, []).extend(database.connections())
        database.resume()
    _paused.clear()
    _open.clear()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
