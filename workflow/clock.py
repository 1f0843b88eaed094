"""Everything that the engine takes from the machine: time, waiting, threads, ids and chance.

This is the only module of the core that touches the real ones. Whoever needs time or a wait is given a `Clock`;
whoever starts threads or needs ids is given a `Runtime`, of which the clock is a part. So a test can put a virtual
clock in their place, and a simulator can run the whole engine, unmodified, under a scheduler of its own.

All waiting goes through one thing, the signal: an auto-reset flag with one waiter. `notify` raises the flag, `wait`
returns when it is up and lowers it. A flag raised before the wait is not lost, and a wait may return without news:
the waiter looks at the state it waits for, and waits again.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import NamedTuple, Protocol

from .cancel import CancelToken
from .errors import Cancelled

UTC = timezone.utc


class Signal(Protocol):
    """The only waitable: an auto-reset flag. Any thread notifies; one thread at a time waits."""

    def notify(self) -> None:
        """Raise the flag. Cheap, never blocks."""
        ...

    def wait(self, cancel: CancelToken | None = None, timeout: float | None = None) -> bool:
        """Wait for the flag, at most `timeout` seconds (None: for ever), and lower it.

        True if it was up, False at time-out. Raises `Cancelled` once `cancel` is.
        """
        ...


class Clock(Protocol):
    """Time and waiting. Thread-safe."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC. Instances may disagree and it may jump; leases do not use it."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow, with an arbitrary zero."""
        ...

    def signal(self) -> Signal:
        """A new signal, its flag down."""
        ...


class Task(Protocol):
    """A started thread."""

    @property
    def name(self) -> str: ...

    def join(self, timeout: float | None = None) -> bool:
        """Wait for its end, at most `timeout` seconds. True if it has ended."""
        ...


class Runtime(NamedTuple):
    """The seams together: what a workflow, a scheduler or a watcher takes from the machine."""

    clock: Clock
    new_id: Callable[[], str]
    """A new id, unique for ever, rising with time, 32 characters."""
    random: Callable[[], float]
    """A number in [0, 1), for the jitter of backoffs."""
    spawn: Callable[[str, Callable[[], None]], Task]
    """Start a thread of this name that runs this function."""


class _SystemSignal:
    """A lock used the other way round: held means that the flag is down, so that `acquire` is the wait."""

    __slots__ = ("_gate",)

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()

    def notify(self) -> None:
        try:
            self._gate.release()
        except RuntimeError:
            return  # the flag was up already

    def wait(self, cancel: CancelToken | None = None, timeout: float | None = None) -> bool:
        if cancel is None:
            return self._lower(timeout)
        unsubscribe = cancel.subscribe(self.notify)
        try:
            raised = self._lower(timeout)
        finally:
            unsubscribe()
        if cancel.cancelled:
            self.notify()  # the flag may have been meant for a later wait: put it back
            raise Cancelled(cancel.reason)
        return raised

    def _lower(self, timeout: float | None) -> bool:
        if timeout is None:
            return self._gate.acquire()
        if timeout <= 0:
            return self._gate.acquire(blocking=False)
        return self._gate.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def signal(self) -> Signal:
        return _SystemSignal()


class _SystemTask:
    __slots__ = ("_thread",)

    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread

    @property
    def name(self) -> str:
        return self._thread.name

    def join(self, timeout: float | None = None) -> bool:
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()


def _spawn(name: str, function: Callable[[], None]) -> Task:
    # Daemon threads: an interpreter that ends without `stop` is one more kind of crash, which the engine survives.
    thread = threading.Thread(target=function, name=name, daemon=True)
    thread.start()
    return _SystemTask(thread)


def _new_id() -> str:
    """48 bits of milliseconds, then 80 random ones: in an index, new ids stand beside each other."""
    milliseconds = time.time_ns() // 1_000_000
    return f"{milliseconds:012x}{os.urandom(10).hex()}"


def _random() -> float:
    """As `random.random`, whose module costs milliseconds to import; backoffs need no speed."""
    return int.from_bytes(os.urandom(7), "big") / (1 << 56)


SYSTEM = Runtime(clock=SystemClock(), new_id=_new_id, random=_random, spawn=_spawn)
"""The real machine."""


def runtime_with(clock: Clock | None) -> Runtime:
    """The real machine, with another clock if one is given."""
    if clock is None:
        return SYSTEM
    return Runtime(clock=clock, new_id=SYSTEM.new_id, random=SYSTEM.random, spawn=SYSTEM.spawn)


class Numbered:
    """Ids made of a prefix that nobody else has and a rising number: much cheaper than a random id each."""

    __slots__ = ("_next", "prefix")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._next = itertools.count(1).__next__

    def __call__(self) -> str:
        return f"{self.prefix}.{self._next():x}"
