"""Everything in one SQLite file: records, events, due items and leases, for the processes of one machine.

  schema         what is in the file, and how an older file becomes a newer one
  database       connections, transactions, failures
  forks          what happens to open files when the process forks
  watcher        who waits for what, and how they hear of it, from other processes too
  rows           between the data of the contract and rows of the file
  batch          the write path: many changes in one transaction
  record_store, event_log, timeout_store, lease_store

The event of a change goes into the log in the change's own transaction, so no relay runs. Several handles and processes
may open the same file, on a local disk; a network file system does not keep SQLite's promises.
"""

from __future__ import annotations

import os

from ...clock import Clock, Runtime, runtime_with
from ...protocols import Adapters
from ..support.lease_scheduler import LeaseScheduler
from ..support.log_streamer import LogStreamer
from .database import Database
from .event_log import SqliteEventLog
from .lease_store import SqliteLeaseStore
from .record_store import SqliteRecordStore
from .timeout_store import SqliteTimeoutStore
from .watcher import Watcher

__all__ = ["sqlite"]


def sqlite(
    path: str | os.PathLike[str],
    *,
    synchronous: str = "FULL",
    clock: Clock | None = None,
    runtime: Runtime | None = None,
    lease_time: float = 5.0,
) -> Adapters:
    """Open the file, made now if there is none, and return its adapters. Closing them closes it.

    `synchronous` is SQLite's: FULL survives a loss of power; NORMAL may lose the last changes then, never at a kill,
    and is faster. `lease_time` is how long, in seconds, a process that died may keep its roles.
    """
    machine = runtime if runtime is not None else runtime_with(clock)
    database = Database(path, synchronous, machine)
    watcher = Watcher(database)
    leases = SqliteLeaseStore(database, watcher, patience=lease_time / 5)
    return Adapters(
        record_store=SqliteRecordStore(database, watcher),
        event_streamer=LogStreamer(SqliteEventLog(database, watcher), machine),
        timeout_store=SqliteTimeoutStore(database, watcher),
        role_scheduler=LeaseScheduler(leases, machine, lease_time=lease_time),
        on_close=database.close,
    )
