"""Adapters whose chosen calls fail, lag, or hang until the test lets them go on.

    faults = Faulty(memory(clock=clock), clock=clock)
    wf = builder.build(faults.adapters, clock=clock)

    faults.fail("record_store.store", times=3)                          # Unavailable, three times, nothing was done
    faults.fail("record_store.store", after_effect=True)                # done, and then the answer was lost
    faults.delay("event_streamer.*", 0.5)                               # every call of it takes half a second longer
    with faults.hold("sender.send") as held: ...                        # calls wait until the block ends

A call is named by its part and method. Parts are `record_store`, `event_streamer`, `timeout_store`, `role_scheduler`,
the `sender` and `receiver` that a streamer makes (`sender.send`, `receiver.recv`, `receiver.ack`), and whatever
`around` is told. Names are patterns: `timeout_store.*`. All else goes through unchanged, capabilities included.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, TypeVar, cast

from ..cancel import CancelToken
from ..clock import Clock, Signal, SystemClock
from ..errors import Unavailable
from ..protocols import Adapters

A = TypeVar("A")

PARTS = {"new_sender": "sender", "new_receiver": "receiver"}
"""What these methods return is a part of its own."""


class Hold:
    """Calls that wait until `release`; as a `with` block, until its end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[Signal] = []
        self._released = False

    @property
    def waiting(self) -> int:
        """How many calls are held now."""
        return len(self._waiting)

    def release(self) -> None:
        """Let the calls go on; later ones are not held."""
        with self._lock:
            self._released = True
            waiting = list(self._waiting)
        for signal in waiting:
            signal.notify()

    def wait(self, cancel: CancelToken | None) -> None:
        """Hold the calling thread. Raises `Cancelled` with the call's own token."""
        signal = self._clock.signal()
        with self._lock:
            self._waiting.append(signal)
        try:
            while not self._released:
                signal.wait(cancel)
        finally:
            with self._lock:
                self._waiting.remove(signal)

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@dataclass
class _Rule:
    """What happens to the calls that a pattern names."""

    pattern: str
    left: int | None
    """To how many calls more; None: to all."""
    when: Callable[[Sequence[Any]], object] | None
    error: BaseException | Callable[[], BaseException] | None = None
    after_effect: bool = False
    seconds: float = 0.0
    hold: Hold | None = None

    def matches(self, call: str, arguments: Sequence[Any]) -> bool:
        if self.left == 0 or not fnmatchcase(call, self.pattern):
            return False
        return self.when is None or bool(self.when(arguments))

    def use(self) -> None:
        if self.left is not None:
            self.left -= 1

    def raise_error(self) -> None:
        if self.error is not None:
            raise self.error() if callable(self.error) else self.error.with_traceback(None)


@dataclass
class Faulty:
    """A set of adapters that can be made to fail. Thread-safe."""

    wrapped: Adapters
    clock: Clock = field(default_factory=SystemClock)
    """What lags and held calls wait on: the workflow's own clock, if that is virtual."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._calls: Counter[str] = Counter()
        self.adapters = Adapters(
            record_store=self.around("record_store", self.wrapped.record_store),
            event_streamer=self.around("event_streamer", self.wrapped.event_streamer),
            timeout_store=self.around("timeout_store", self.wrapped.timeout_store),
            role_scheduler=self.around("role_scheduler", self.wrapped.role_scheduler),
            on_close=self.wrapped.on_close,
        )
        """The set to build a workflow on."""

    def around(self, part: str, adapter: A) -> A:
        """`adapter`, as a connector, with its calls, and those of what it opens, under these rules as `part.method`."""
        return cast("A", _Proxy(self, part, adapter))

    # --- rules -----------------------------------------------------------------------------------------------------

    def fail(
        self,
        call: str,
        *,
        times: int | None = 1,
        error: BaseException | Callable[[], BaseException] | None = None,
        after_effect: bool = False,
        when: Callable[[Sequence[Any]], object] | None = None,
    ) -> None:
        """Make the next `times` calls (None: all) raise, `Unavailable` unless told otherwise.

        With `after_effect` the call is made first, and its answer lost. `when` is asked, with the sequence of the
        call's arguments, which calls it concerns.
        """
        self._add(_Rule(call, times, when, error=error or _unavailable(call), after_effect=after_effect))

    def delay(
        self,
        call: str,
        seconds: float,
        *,
        times: int | None = None,
        when: Callable[[Sequence[Any]], object] | None = None,
    ) -> None:
        """Make these calls take so many seconds longer, of the clock."""
        self._add(_Rule(call, times, when, seconds=seconds))

    def hold(
        self, call: str, *, times: int | None = None, when: Callable[[Sequence[Any]], object] | None = None
    ) -> Hold:
        """Make these calls wait until they are released."""
        hold = Hold(self.clock)
        self._add(_Rule(call, times, when, hold=hold))
        return hold

    def heal(self) -> None:
        """Drop all rules, and release what is held."""
        with self._lock:
            rules, self._rules = self._rules, []
        for rule in rules:
            if rule.hold is not None:
                rule.hold.release()

    def calls(self, call: str) -> int:
        """How many calls of this name, or pattern, were begun."""
        with self._lock:
            return sum(number for name, number in self._calls.items() if fnmatchcase(name, call))

    def _add(self, rule: _Rule) -> None:
        with self._lock:
            self._rules.append(rule)

    # --- calls -----------------------------------------------------------------------------------------------------

    def call(self, name: str, method: Callable[..., Any], arguments: Sequence[Any], named: dict[str, Any]) -> Any:
        """Make one call, under the rules that it meets: all that hold or delay it, and the first that fails it."""
        given = (*arguments, *named.values())
        rules, failing = self._take(name, given)
        cancel = next((value for value in given if isinstance(value, CancelToken)), None)
        for rule in rules:
            if rule.hold is not None:
                rule.hold.wait(cancel)
            else:
                self.clock.signal().wait(cancel, rule.seconds)
        if failing is not None and not failing.after_effect:
            failing.raise_error()
        answer = method(*arguments, **named)
        if failing is not None:
            failing.raise_error()
        return answer

    def _take(self, name: str, arguments: Sequence[Any]) -> tuple[list[_Rule], _Rule | None]:
        with self._lock:
            self._calls[name] += 1
            met = [rule for rule in self._rules if rule.matches(name, arguments)]
            slowing = [rule for rule in met if rule.error is None]
            failing = next((rule for rule in met if rule.error is not None), None)
            for rule in [*slowing, *([failing] if failing else [])]:
                rule.use()
        return slowing, failing


def _unavailable(call: str) -> Callable[[], BaseException]:
    return lambda: Unavailable(f"{call} was made to fail")


class _Proxy:
    """Stands for an adapter, a sender, a receiver or a delivery, and lets each of its calls pass by the rules."""

    def __init__(self, faults: Faulty, part: str, wrapped: Any) -> None:
        self._faults = faults
        self._part = part
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._wrapped, name)
        if not callable(value):
            return value

        def call(*arguments: Any, **named: Any) -> Any:
            bare = [_bare(argument) for argument in arguments]
            plain = {key: _bare(argument) for key, argument in named.items()}
            return self._cover(name, self._faults.call(f"{self._part}.{name}", value, bare, plain))

        return call

    def _cover(self, name: str, answer: Any) -> Any:
        """What a call returned, with its own calls under the rules where it is a part itself."""
        if name in PARTS or name == "open":
            return _Proxy(self._faults, PARTS.get(name, self._part), answer)
        if name == "recv":
            return [_Proxy(self._faults, self._part, delivery) for delivery in answer]
        return answer

    @property
    def wrapped(self) -> Any:
        return self._wrapped


def _bare(value: Any) -> Any:
    """An argument as the adapter knows it: a store that is bound to its streamer looks for the real one."""
    return value.wrapped if isinstance(value, _Proxy) else value
