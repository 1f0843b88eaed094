"""A durable, event-driven state-machine engine on the standard library alone.

A *workflow* is a typed state machine, a *run* one execution of it, stored as one *record*. Each accepted change of a
record writes, in the same transaction, one *event*, which moves the next step, and one row of *history*.

The package reads like a book, in this order; a module imports only from those before it:

  vocabulary  data, errors, cancel, clock, graph, run_state, record, event, codec, run
  contracts   protocols, options, environment
  data path   transition (THE write path), commit, trigger, call, consume, poll, outbox, step
  joins       control, items, callback, timeout, parked, connector, cron, schedule, hook, delete, pause_retry,
              await_status, reconcile, retention
  assembly    process (the runner), definition, roster, diagram, engine (class Workflow), builder
  around      console, adapters/{support,memory,sqlite}, environ, files, testing, cli

Start with `Builder`, and the five lines of the README.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from .builder import Builder
from .cancel import CancelToken
from .clock import Clock, Runtime
from .codec import JsonCodec
from .connector import Api
from .engine import Workflow
from .errors import (
    AlreadyApplied,
    AwaitTimeout,
    Cancelled,
    Closed,
    CodecError,
    DefinitionError,
    IllegalRunState,
    InvalidCursor,
    InvalidInput,
    MissingExtra,
    Rejected,
    RunInProgress,
    RunNotFound,
    RunPaused,
    StaleRecord,
    StatusUnreachable,
    StopTimeout,
    StoreVersionError,
    Unavailable,
    WorkflowError,
)
from .event import ConnectorEvent, Shard, Timeout
from .options import Breaker, PauseRetry, Retry
from .process import ProcessState
from .protocols import Adapters
from .record import Order, Page, Record, Transition
from .run import Outcome, Run, RunView
from .run_state import RunState
from .trigger import Trigger
from .version import __version__

if _TYPE_CHECKING:
    from .adapters.memory import memory
    from .adapters.sqlite import sqlite
    from .cron import Cron
    from .environ import adapters_from_env

_LATE = {
    "Cron": ".cron",
    "adapters_from_env": ".environ",
    "memory": ".adapters.memory",
    "sqlite": ".adapters.sqlite",
}


def __getattr__(name: str) -> object:
    """Load what not everybody needs when it is asked for: who uses one set of adapters does not pay for the others."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(_import_module(_LATE[name], __name__), name)
    globals()[name] = found
    return found


__all__ = [
    "Adapters",
    "AlreadyApplied",
    "Api",
    "AwaitTimeout",
    "Breaker",
    "Builder",
    "CancelToken",
    "Cancelled",
    "Clock",
    "Closed",
    "CodecError",
    "ConnectorEvent",
    "Cron",
    "DefinitionError",
    "IllegalRunState",
    "InvalidCursor",
    "InvalidInput",
    "JsonCodec",
    "MissingExtra",
    "Order",
    "Outcome",
    "Page",
    "PauseRetry",
    "ProcessState",
    "Record",
    "Rejected",
    "Retry",
    "Run",
    "RunInProgress",
    "RunNotFound",
    "RunPaused",
    "RunState",
    "RunView",
    "Runtime",
    "Shard",
    "StaleRecord",
    "StatusUnreachable",
    "StopTimeout",
    "StoreVersionError",
    "Timeout",
    "Transition",
    "Trigger",
    "Unavailable",
    "Workflow",
    "WorkflowError",
    "__version__",
    "adapters_from_env",
    "memory",
    "sqlite",
]
