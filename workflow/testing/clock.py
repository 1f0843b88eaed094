"""A clock that a test sets forward.

Time stands still until somebody calls `advance`. The engine's threads are real: they run whenever they have something
to do, and wait, through the clock's signals, for news or for an instant. So the clock knows who waits, and until when:

    advance ─► wait until every thread waits ─► go to the earliest deadline, wake that one thread ─► again, to the end

Whatever a woken thread sets in motion is over before time moves on: a retry that fails at 10:00 and is due again at
10:05 runs at 10:05 on the way to 11:00. A wake-up is handed over under the clock's lock, so between `notify` and the
moment when the thread goes on, it counts as busy, and no step is taken too early.

The thread that made the clock, the test, may wait as well (in `await_status`, in a commit that the store refuses for a
while). Nobody else could set the clock forward then, so time flies by itself, from deadline to deadline, until it has
what it waits for.

A thread that is busy for real for longer than `patience` (a function that the test holds up) is no longer waited for.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timedelta

from ..cancel import CancelToken
from ..clock import UTC, Signal, SystemClock
from ..errors import Cancelled, InvalidInput

START = datetime(2024, 1, 1, tzinfo=UTC)
"""Where virtual time starts, unless the test says otherwise."""
PATIENCE = 2.0
"""Real seconds that a busy thread is waited for before time goes on without it."""
PACE = 0.01
"""Real seconds between two looks at what does not tell: a thread that ends, a function that works for real."""
GRAINS, MOST_GRAINS = 1000, 3000
"""A thread that does nothing but look again and again is woken about so often in one `advance`, at most so often."""
LONGEST_GRAIN = 59
"""Seconds: looks that come each minute are spread only in jumps that would have more than `MOST_GRAINS` of them."""
HABIT = 8
"""So many fruitless looks in a row make a habit."""
MICROS = 1_000_000

REAL = SystemClock()


class _Sleeper:
    """A thread in a wait."""

    __slots__ = ("awake", "deadline", "gate", "number", "raised", "signal", "thread")

    def __init__(self, thread: threading.Thread, signal: _VirtualSignal, deadline: int | None, number: int) -> None:
        self.thread = thread
        self.signal = signal
        self.deadline = deadline
        self.number = number
        self.gate: Signal = REAL.signal()
        self.raised = False
        """Whether the flag ended the wait, and not its deadline."""
        self.awake = False

    def is_over(self) -> bool:
        return self.awake


class _VirtualSignal:
    """A signal of the virtual clock."""

    __slots__ = ("_clock", "raised", "sleeper")

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.raised = False
        self.sleeper: _Sleeper | None = None

    def notify(self) -> None:
        self._clock.raise_flag(self)

    def wait(self, cancel: CancelToken | None = None, timeout: float | None = None) -> bool:
        if cancel is None:
            return self._clock.sleep(self, timeout)
        unsubscribe = cancel.subscribe(self.notify)
        try:
            raised = self._clock.sleep(self, timeout)
        finally:
            unsubscribe()
        if cancel.cancelled:
            self.notify()  # the flag may have been meant for a later wait: put it back
            raise Cancelled(cancel.reason)
        return raised


class VirtualClock:
    """A `Clock` whose time moves when a test says so. One thread, the one that makes it, sets it forward."""

    def __init__(self, start: datetime = START, *, patience: float = PATIENCE) -> None:
        if start.tzinfo is None:
            raise InvalidInput(f"the clock's start {start} has no time zone")
        self._start = start.astimezone(UTC)
        self._patience = patience
        self._lock = threading.Lock()
        self._micros = 0  # since the start; whole numbers, so that a deadline is met exactly
        self._owner = threading.current_thread()
        self._strangers = set(threading.enumerate())  # alive before the clock: of the engine only if they wait on it
        self._sleepers: dict[threading.Thread, _Sleeper] = {}
        self._given_up: set[threading.Thread] = set()
        self._habits: dict[threading.Thread, int] = {}
        self._numbers = itertools.count()
        self._grain = 0
        self._target = 0
        self._changed: Signal = REAL.signal()

    # --- as a clock ------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        return self._start + timedelta(microseconds=self._micros)

    def monotonic(self) -> float:
        return self._micros / MICROS

    def signal(self) -> Signal:
        return _VirtualSignal(self)

    # --- as a test's instrument ------------------------------------------------------------------------------------

    def advance(self, by: timedelta | float) -> None:
        """Set the clock forward by a timedelta, or seconds. What comes due on the way happens at its own time.

        Returns when all of it has happened. In a long jump, threads that only look again and again do so less often.
        """
        micros = _micros_of(by)
        if micros < 0:
            raise InvalidInput(f"a clock that goes back by {by} helps no test: monotonic time never does")
        with self._jump(micros):
            target = self._micros + micros
            self._rest()
            while self._step(target):
                self._rest()
            with self._lock:
                self._micros = max(self._micros, target)

    def advance_to(self, instant: datetime) -> None:
        """Set the clock forward to this instant."""
        self.advance(instant - self.now())

    def settle(self, timeout: float = 10.0) -> None:
        """Wait, in real time, until no thread has anything to do. Raises `TimeoutError` that names those that have."""
        busy = self._wait_for_rest(timeout)
        if busy:
            names = ", ".join(sorted(thread.name for thread in busy))
            raise TimeoutError(f"after {timeout:g} s there is still something to do, in {names}")

    # --- waiting ---------------------------------------------------------------------------------------------------

    def raise_flag(self, signal: _VirtualSignal) -> None:
        """A signal's `notify`."""
        with self._lock:
            self._habits.pop(threading.current_thread(), None)
            if signal.sleeper is None:
                signal.raised = True
            else:
                self._wake(signal.sleeper, raised=True)

    def sleep(self, signal: _VirtualSignal, timeout: float | None) -> bool:
        """A signal's `wait`: True if the flag ended it, False if time did."""
        thread = threading.current_thread()
        with self._lock:
            if signal.raised:
                signal.raised = False
                self._habits.pop(thread, None)
                return True
            if timeout is not None and timeout <= 0:
                return False
            sleeper = _Sleeper(thread, signal, self._deadline(thread, timeout), next(self._numbers))
            signal.sleeper = self._sleepers[thread] = sleeper
            self._strangers.discard(thread)
            self._given_up.discard(thread)
        self._changed.notify()
        try:
            if thread is self._owner:
                self._fly(sleeper, timeout)
            else:
                sleeper.gate.wait()
        finally:
            with self._lock:
                if not sleeper.awake:  # an exception, such as Ctrl-C
                    self._wake(sleeper, raised=False)
        return sleeper.raised

    def _deadline(self, thread: threading.Thread, timeout: float | None) -> int | None:
        """When a wait that begins now ends. Called with the lock held."""
        if timeout is None:
            return None
        micros = max(1, round(timeout * MICROS))
        habit = self._habits.get(thread, 0)
        self._habits[thread] = habit + 1
        exact = self._micros + micros
        if micros >= self._grain or habit < HABIT:
            return exact
        return max(exact, min(self._micros + self._grain, self._target))

    def _wake(self, sleeper: _Sleeper, *, raised: bool) -> None:
        """End a wait. Called with the lock held: from here on the thread counts as busy."""
        del self._sleepers[sleeper.thread]
        sleeper.signal.sleeper = None
        sleeper.raised = raised
        sleeper.awake = True
        sleeper.gate.notify()
        if raised:
            self._habits.pop(sleeper.thread, None)
        if sleeper.thread is self._owner:
            self._changed.notify()

    # --- moving ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _jump(self, micros: int) -> Generator[None]:
        """While the clock is set forward by so much, looks that became a habit are spread over it."""
        with self._lock:
            before = self._grain, self._target
            self._grain = max(min(micros // GRAINS, LONGEST_GRAIN * MICROS), micros // MOST_GRAINS)
            self._target = self._micros + micros
        try:
            yield
        finally:
            with self._lock:
                self._grain, self._target = before

    def _step(self, limit: int | None) -> bool:
        """Go to the earliest deadline, up to `limit`, and wake the thread that waits for it. False if there is none."""
        with self._lock:
            earliest: _Sleeper | None = None
            for sleeper in self._sleepers.values():
                if sleeper.deadline is not None and (earliest is None or _is_earlier(sleeper, earliest)):
                    earliest = sleeper
            if earliest is None or earliest.deadline is None or (limit is not None and earliest.deadline > limit):
                return False
            self._micros = max(self._micros, earliest.deadline)
            self._wake(earliest, raised=False)
            return True

    def _fly(self, sleeper: _Sleeper, timeout: float | None) -> None:
        """The owner waits: let time move by itself, in real time's pace while something works for real."""
        with self._jump(_micros_of(timeout or 0)):
            while not sleeper.is_over():
                self._rest(sleeper)
                if sleeper.is_over():
                    return
                if self._is_working():
                    sleeper.gate.wait(timeout=PACE)
                    self._drift(round(PACE * MICROS))
                elif not self._step(None):
                    sleeper.gate.wait(timeout=PACE)

    def _drift(self, micros: int) -> None:
        target = self._micros + micros
        while self._step(target):
            pass
        with self._lock:
            self._micros = max(self._micros, target)

    def _rest(self, unless: _Sleeper | None = None) -> None:
        """Wait until every thread waits, or `unless` is awake; give up on those for which patience ends."""
        busy = self._wait_for_rest(self._patience, unless)
        if busy:
            with self._lock:
                self._given_up.update(thread for thread in busy if thread not in self._sleepers)

    def _is_working(self) -> bool:
        """Whether a thread that was given up is still at it."""
        with self._lock:
            self._given_up.intersection_update(threading.enumerate())
            return bool(self._given_up)

    def _wait_for_rest(self, seconds: float, unless: _Sleeper | None = None) -> list[threading.Thread]:
        """The threads that are busy after so many real seconds."""
        end = REAL.monotonic() + seconds
        while busy := self._busy():
            if unless is not None and unless.awake:
                return []
            left = end - REAL.monotonic()
            if left <= 0:
                return busy
            self._changed.wait(timeout=min(left, PACE))
        return []

    def _busy(self) -> list[threading.Thread]:
        me = threading.current_thread()
        with self._lock:
            return [
                thread
                for thread in threading.enumerate()
                if thread not in self._sleepers
                and thread not in self._strangers
                and thread not in self._given_up
                and thread is not me
            ]


def _is_earlier(one: _Sleeper, other: _Sleeper) -> bool:
    if one.deadline is None or other.deadline is None:
        return other.deadline is None
    return (one.deadline, one.number) < (other.deadline, other.number)


def _micros_of(span: timedelta | float) -> int:
    return span // timedelta(microseconds=1) if isinstance(span, timedelta) else round(span * MICROS)
