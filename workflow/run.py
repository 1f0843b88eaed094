"""What a user's function is given, and what it may answer.

A step, callback or timer function gets a `Run`: the object, where the run stands, and a token that says when to give
up. It answers with a status to enter, or with an `Outcome`, a value that the engine applies afterwards: nothing happens
while the function runs. Hooks and queries get a `RunView`, which cannot change anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from functools import cached_property
from typing import Generic, Literal, TypeVar

from .cancel import CancelToken
from .data import Data
from .errors import InvalidInput
from .event import composite
from .record import NO_META, Record
from .run_state import RunState

O = TypeVar("O")  # noqa: E741 - the object's type, as in the docs
S = TypeVar("S", bound=IntEnum)


@dataclass(frozen=True, eq=False, repr=False)
class Outcome(Data):
    """What a function may answer instead of a status. Made by the methods of `Run`, which say what each does."""

    what: Literal["skip", "repeat", "pause", "cancel"]
    delay: timedelta = timedelta(0)
    reason: str = ""


@dataclass
class Run(Generic[O, S]):
    """One run, in the hands of one function. `object` may be changed or replaced; the rest is for reading.

    It belongs to the thread that runs the function.
    """

    object: O
    workflow_name: str
    foreign_id: str
    run_id: str
    status: S
    version: int
    status_entered: int
    entered_at: datetime
    created_at: datetime
    turn: int = 0
    attempt: int = 0
    """How many tries of this turn failed before this one."""
    cancelled: CancelToken = field(default_factory=CancelToken)
    """Fires on stop, lost role, an operator's cancel, and the step's own time-out."""
    meta: Mapping[str, str] = field(default_factory=lambda: NO_META)
    step: str = "step"
    """Which of the status's functions this is, as the idempotency key needs it."""

    @property
    def idempotency_key(self) -> str:
        """What to hand to the outside world: the same for every try of this turn of this step, and for no other."""
        return composite(self.run_id, self.status_entered, self.turn, self.step)

    @property
    def traceparent(self) -> str:
        """The trace context of whoever triggered the run, empty if there was none."""
        return self.meta.get("traceparent", "")

    def skip(self) -> Outcome:
        """Do nothing with this event, and do not save the object."""
        return Outcome("skip")

    def repeat(self, delay: timedelta | float = 0.0) -> Outcome:
        """Save the object and run this step again after `delay` (a timedelta, or seconds)."""
        span = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
        if span < timedelta(0):
            raise InvalidInput(f"run {self.run_id}: a repeat cannot lie in the past ({span})")
        return Outcome("repeat", delay=span)

    def pause(self, reason: str = "") -> Outcome:
        """Save the object and pause the run; `reason` goes into its history."""
        return Outcome("pause", reason=reason)

    def cancel(self, reason: str = "") -> Outcome:
        """Save the object and cancel the run; `reason` goes into its history."""
        return Outcome("cancel", reason=reason)


@dataclass(frozen=True)
class RunView(Generic[O, S]):
    """A run as it was when somebody looked."""

    status: S
    record: Record = field(repr=False)
    decode: Callable[[Record], O] = field(repr=False, compare=False)

    @cached_property
    def object(self) -> O:
        """The run's object, None where the data was deleted. Raises `CodecError` if it cannot be read."""
        return self.decode(self.record)

    @property
    def workflow_name(self) -> str:
        return self.record.workflow_name

    @property
    def foreign_id(self) -> str:
        return self.record.foreign_id

    @property
    def run_id(self) -> str:
        return self.record.run_id

    @property
    def version(self) -> int:
        return self.record.version

    @property
    def run_state(self) -> RunState:
        return self.record.run_state

    @property
    def attempt(self) -> int:
        return self.record.attempt

    @property
    def error(self) -> str:
        """The last error's text, empty if the last try went well."""
        return self.record.error

    @property
    def created_at(self) -> datetime:
        return self.record.created_at

    @property
    def updated_at(self) -> datetime:
        return self.record.updated_at

    @property
    def available_at(self) -> datetime:
        return self.record.available_at
