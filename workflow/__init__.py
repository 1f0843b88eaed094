"""A durable, event-driven state-machine engine on the standard library alone.

A *workflow* is a typed state machine, a *run* one execution of it, stored as one *record*. Each accepted change of a
record writes, in the same transaction, one *event*, which moves the next step, and one row of *history*.

The package reads like a book, in this order; a module imports only from those before it:

  vocabulary  errors, cancel, clock, graph, run_state, record, event, codec, run
  contracts   protocols, options, environment
  data path   transition (THE write path), commit, trigger, call, consume, poll, outbox, step
  joins       control, items, callback, timeout, parked, connector, cron, schedule, hook, delete, pause_retry,
              await_status, reconcile, retention
  assembly    process (the runner), definition, roster, diagram, engine (class Workflow), builder
  around      console, adapters/{support,memory,sqlite}, environ, files, testing, cli

Start with `Builder`, and the five lines of the README.
"""

from .adapters.memory import memory
from .adapters.sqlite import sqlite
from .builder import Builder
from .cancel import CancelToken
from .clock import Clock, Runtime
from .codec import JsonCodec
from .connector import Api
from .cron import Cron
from .engine import Workflow
from .environ import adapters_from_env
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
