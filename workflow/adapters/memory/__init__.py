"""The set of adapters that lives in the process: for tests, for trying things out, for work that may be lost with it.

Its modules, in the order in which they are read:

  ordered, listeners   orders and signals
  storable             what can be stored, and how it is made independent of the caller
  topic, storage       the data
  event_log, record_store, timeout_store, lease_store    the handles on it
  connector            a source of events that a test or the same process feeds
"""

from __future__ import annotations

from ...clock import Clock, Runtime, runtime_with
from ...protocols import Adapters
from ..support.lease_scheduler import LeaseScheduler
from ..support.log_streamer import LogStreamer
from .connector import MemoryConnector
from .event_log import MemoryEventLog
from .lease_store import MemoryLeaseStore
from .record_store import MemoryRecordStore
from .storage import MemoryStorage
from .timeout_store import MemoryTimeoutStore

__all__ = ["MemoryConnector", "MemoryStorage", "memory"]


def memory(
    *,
    clock: Clock | None = None,
    runtime: Runtime | None = None,
    lease_time: float = 5.0,
    storage: MemoryStorage | None = None,
) -> Adapters:
    """A set over `storage`, a new one by default. Sets over the same storage are like instances over one database."""
    shared = storage if storage is not None else MemoryStorage()
    machine = runtime if runtime is not None else runtime_with(clock)
    return Adapters(
        record_store=MemoryRecordStore(shared),
        event_streamer=LogStreamer(MemoryEventLog(shared, machine.clock), machine),
        timeout_store=MemoryTimeoutStore(shared),
        role_scheduler=LeaseScheduler(MemoryLeaseStore(shared), machine, lease_time=lease_time),
    )
