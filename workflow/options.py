"""The options of steps and processes, and the one place for their defaults.

A function's options are its own where given, else the workflow's, else `DEFAULTS`, field by field: a default that sets
one field never wipes another. None means "not given".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import NamedTuple

from .data import Data
from .errors import InvalidInput


@dataclass(frozen=True, eq=False, repr=False)
class Retry(Data):
    """Exponential backoff with full jitter and a cap, all in seconds.

    The n-th failed attempt waits a random part of `initial * multiplier ** (n - 1)`, at most `maximum`. The failed
    attempt number `max_attempts` is the last. Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    initial: float = 1.0
    maximum: float = 600.0
    multiplier: float = 2.0
    jitter: bool = True
    max_attempts: int = 10

    def __post_init__(self) -> None:
        if self.initial < 0 or self.maximum < self.initial or self.multiplier < 1 or self.max_attempts < 1:
            raise InvalidInput(f"{self}: 0 <= initial <= maximum, multiplier >= 1 and max_attempts >= 1 must hold")

    def delay(self, attempt: int, random: Callable[[], float]) -> timedelta:
        """How long to wait after the failed attempt number `attempt`, counted from 1."""
        exponent = min(max(attempt, 1) - 1, 64)
        ceiling = min(self.maximum, self.initial * self.multiplier**exponent)
        return timedelta(seconds=ceiling * random() if self.jitter else ceiling)


@dataclass(frozen=True, eq=False, repr=False)
class Breaker(Data):
    """A step whose last `failures` different runs all failed stops for `cool_down` seconds, then tries one run."""

    failures: int = 10
    cool_down: float = 10.0

    def __post_init__(self) -> None:
        if self.failures < 1 or self.cool_down <= 0:
            raise InvalidInput(f"{self}: failures >= 1 and cool_down > 0 must hold")


@dataclass(frozen=True, eq=False, repr=False)
class PauseRetry(Data):
    """Resume the runs that the engine paused, `after` that long. Those that a person paused only with `everyone`."""

    after: timedelta = timedelta(hours=1)
    everyone: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Options(Data):
    """What can be set for one function, or for all functions of a workflow. None: not given."""

    parallel_count: int | None = None
    """Into how many shards, each a role of its own, the function's runs are split."""
    retry: Retry | None = None
    breaker: Breaker | None = None
    timeout: float | None = None
    """Seconds after which a function is given up and its attempt counts as failed."""
    poll_interval: float | None = None
    """Seconds, at most, between two looks for news where the adapter does not notify."""
    batch: int | None = None
    """How many runs are loaded and committed together. 1 is the strict form: one after the other."""

    def __post_init__(self) -> None:
        for name in ("parallel_count", "batch"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise InvalidInput(f"{name}={count}: it is 1 or more")
        for name in ("timeout", "poll_interval"):
            seconds = getattr(self, name)
            if seconds is not None and seconds <= 0:
                raise InvalidInput(f"{name}={seconds}: it is more than 0 seconds")

    def over(self, other: Options) -> Options:
        """These options, and those of `other` where these are not given."""
        chosen = ((own.name, getattr(self, own.name)) for own in fields(self))
        return Options(**{name: getattr(other, name) if value is None else value for name, value in chosen})


class Settled(NamedTuple):
    """Options with nothing left open."""

    parallel_count: int
    retry: Retry
    breaker: Breaker
    timeout: float | None
    poll_interval: float | None
    batch: int


DEFAULTS = Settled(parallel_count=1, retry=Retry(), breaker=Breaker(), timeout=None, poll_interval=None, batch=100)

BATCH_BUDGET = 0.1
"""Seconds that one batch of a reader should take at most; slower functions get smaller batches."""
POLL_INTERVAL = 1.0
"""Seconds between looks at a store that cannot notify."""
IDLE_LIMIT = 60.0
"""Seconds, at most, that a poller sleeps with nothing due: the wall clock may jump meanwhile."""
INFRASTRUCTURE_RETRY = Retry(initial=0.1, maximum=5.0)
"""How a process backs off when an adapter fails."""
RETRIES_IN_PLACE = 2
"""So often a reader tries its batch again when an adapter fails, before it closes its receiver."""
FAILURES_BEFORE_HANDOVER = 2
"""So many failures of its adapters in a row, and an instance gives the role up for another to try."""
COMMIT_TRIES = 4
"""So often a commit is tried before its callers are told that the store is unavailable."""
COMMIT_LIMIT = 500
"""How many changes go into one commit at most."""
MISSING_RUN_BOUND = 5.0
"""Seconds for which a run that an event names may be missing from the store before it counts as deleted."""
PAUSED_TIMER_RETRY = Retry(initial=10.0, maximum=3600.0)
"""How the due timers of a paused run are put off: uncounted, until the resume makes them due."""
OUTBOX_RETRY = Retry(initial=0.5, maximum=60.0)
"""How an event is put off that could not be sent. It is never given up."""
RECONCILE_AFTER = 300.0
"""Seconds without a change after which the event of a running run is emitted again."""
SWEEP_INTERVAL = 30.0
"""Seconds between two sweeps over the records: pause-retry, reconcile, retention."""
STOP_TIMEOUT = 30.0
"""Seconds that `stop` waits for the functions in hand."""


def settle(options: Options) -> Settled:
    """`options`, with the defaults where nothing was given."""
    chosen = ((name, getattr(options, name)) for name in Settled._fields)
    return Settled(**{name: getattr(DEFAULTS, name) if value is None else value for name, value in chosen})
