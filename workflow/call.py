"""Calling the user's functions: what is in hand, what they answer, and when to give up on one.

The engine never trusts a function: it may raise anything, answer anything, or never return. Here its exception becomes
a `Fault`, its answer an effect (or none, for `skip`), and its name is known while it runs, so that `stop` can tell what
it waits for and an operator's cancel reaches the function's token.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from enum import IntEnum
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

from .cancel import CancelToken
from .clock import Runtime
from .environment import Environment, Fault
from .errors import Cancelled as CancelledWait
from .errors import Closed, Unavailable, UndeclaredAnswer
from .record import Record
from .run import Outcome, Run
from .transition import Cancelled, Effect, Entered, Paused, Repeated

T = TypeVar("T")

INFRASTRUCTURE = (Unavailable, Closed, CancelledWait, SystemExit)
"""What is no fault of a user's function, where it may come from an adapter that is called beside it."""


class Call(NamedTuple):
    """A function that is at work."""

    label: str
    run_id: str
    token: CancelToken


class Held:
    """One call that is listed as in hand, for the length of a `with` block, which gives its token."""

    __slots__ = ("_call", "_calls")

    def __init__(self, calls: dict[int, Call], call: Call) -> None:
        self._calls = calls
        self._call = call

    def __enter__(self) -> CancelToken:
        self._calls[id(self._call)] = self._call
        return self._call.token

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._calls[id(self._call)]
        self._call.token.detach()


class InHand:
    """The functions that are at work now. Thread-safe: each operation on the dict is atomic."""

    def __init__(self) -> None:
        self._calls: dict[int, Call] = {}

    def hold(self, label: str, run_id: str, parent: CancelToken | None = None) -> Held:
        """List a call of a function, and make the token for it, in a `with` block."""
        token = CancelToken() if parent is None else CancelToken.child_of(parent)
        return Held(self._calls, Call(label, run_id, token))

    def labels(self) -> list[str]:
        """What is at work, one readable name each."""
        return [f"{call.label} of run {call.run_id}" for call in list(self._calls.values())]

    def cancel(self, run_id: str, reason: str) -> None:
        """Cancel the tokens of this run's functions."""
        for call in list(self._calls.values()):
            if call.run_id == run_id:
                call.token.cancel(reason)


def make_run(
    environment: Environment[Any, Any], record: Record, value: Any, token: CancelToken, step: str
) -> Run[Any, Any]:
    """The record as a user's function gets it."""
    return Run(
        object=value,
        workflow_name=record.workflow_name,
        foreign_id=record.foreign_id,
        run_id=record.run_id,
        status=environment.status(record.status),
        version=record.version,
        status_entered=record.status_entered,
        entered_at=record.entered_at,
        created_at=record.created_at,
        turn=record.turn,
        attempt=record.attempt,
        cancelled=token,
        meta=record.meta,
        step=step,
    )


def effect_of(
    environment: Environment[Any, Any], answer: object, run: Run[Any, Any], carry: object, destinations: Set[int]
) -> tuple[Effect | None, str]:
    """What a function's answer does to its run, and the reason it gave; no effect for `skip`.

    Raises `UndeclaredAnswer` for an answer that the definition does not allow, `CodecError` for an object that the
    codec cannot carry.
    """
    if isinstance(answer, IntEnum) and int(answer) in destinations:
        return Entered(int(answer), environment.encode(run.object, carry)), ""
    if isinstance(answer, Outcome):
        return _effect_of_outcome(environment, answer, run, carry), answer.reason
    raise UndeclaredAnswer(_complaint(environment, answer, run, destinations))


def _effect_of_outcome(
    environment: Environment[Any, Any], outcome: Outcome, run: Run[Any, Any], carry: object
) -> Effect | None:
    if outcome.what == "skip":
        return None
    saved = environment.encode(run.object, carry)
    if outcome.what == "repeat":
        return Repeated(saved, outcome.delay)
    return Paused(saved) if outcome.what == "pause" else Cancelled(saved)


def _complaint(environment: Environment[Any, Any], answer: object, run: Run[Any, Any], destinations: Set[int]) -> str:
    declared = ", ".join(environment.graph.name(status) for status in sorted(destinations))
    told = f"the status {answer.name}" if isinstance(answer, IntEnum) else f"a {type(answer).__name__}"
    return f"run {run.run_id}: the function answered with {told}; declared are {declared}, and the outcomes of the run"


class Attempt(Generic[T]):
    """One call of a function: its answer or its fault."""

    __slots__ = ("answer", "ended", "fault")

    def __init__(self) -> None:
        self.answer: T | None = None
        self.fault: Fault | None = None
        self.ended = False

    def make(self, function: Callable[[], T]) -> None:
        """Call it. Whatever it raises is its fault, but `SystemExit`: the process is to end, which is a crash."""
        try:
            self.answer = function()
        except SystemExit:
            raise
        except BaseException as error:
            self.fault = Fault.of(error)
        self.ended = True


def attempt(function: Callable[[], T]) -> Attempt[T]:
    """Call the function on this thread."""
    made: Attempt[T] = Attempt()
    made.make(function)
    return made


def attempt_within(
    function: Callable[[], T], seconds: float, runtime: Runtime, token: CancelToken, label: str
) -> Attempt[T]:
    """Call the function on a thread of its own, and give it up after `seconds`: its token fires, its thread is left."""
    made: Attempt[T] = Attempt()
    finished = runtime.clock.signal()
    deadline = runtime.clock.monotonic() + seconds

    def work() -> None:
        try:
            made.make(function)
        finally:
            finished.notify()

    task = runtime.spawn(label, work)
    while not made.ended:
        left = deadline - runtime.clock.monotonic()
        if left <= 0:
            reason = f"{label} did not return within {seconds:g} s"
            token.cancel(reason)
            given_up: Attempt[T] = Attempt()
            given_up.fault = Fault("FunctionTimeout", label, f"FunctionTimeout: {reason}; it may still be at work")
            return given_up
        finished.wait(timeout=left)
        if task.join(0) and not made.ended:
            raise SystemExit(f"{label} ended its thread")
    task.join()
    return made
