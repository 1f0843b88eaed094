"""Starting runs: the first version of a record.

A run's id is made before the first try to store it, and a caller's key is the cause of version 1. So a trigger whose
answer was lost is simply made again: with a key it finds the run that it started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic

from .commit import Committer
from .data import Data
from .environment import Environment, check_text
from .errors import AlreadyApplied, CodecError, InvalidInput, Refusal, WorkflowError
from .event import Change, composite
from .record import NO_META
from .run import O, S
from .transition import Author, begin

LONGEST_FOREIGN_ID = 255
LONGEST_KEY = 1024
LONGEST_REASON = 1000
BATCH = 500


@dataclass(frozen=True, eq=False, repr=False)
class Trigger(Data, Generic[O, S]):
    """What to start: an item of `trigger_many`."""

    foreign_id: str
    initial_value: O | None = None
    """The run's object; without one, the object type's own defaults."""
    start_at: S | None = None
    """Another status to start at than the workflow's."""
    idempotency_key: str = ""
    """A key seen before answers with the run that it started, active or finished, and starts nothing."""
    delay: timedelta | float | None = None
    """How long to wait before the first step: a timedelta, or seconds."""
    by: str = ""
    reason: str = ""


def author_of(cause: str, by: str, reason: str) -> Author:
    """The author, if its words can be stored; else raises `InvalidInput`."""
    check_text("by", by, LONGEST_FOREIGN_ID)
    check_text("the reason", reason, LONGEST_REASON)
    return Author(cause=cause, by=by, reason=reason)


def check_key(key: str) -> str:
    """`key`, if it can be an idempotency key; else raises `InvalidInput`."""
    return check_text("the idempotency key", key, LONGEST_KEY)


class Triggers(Generic[O, S]):
    """Starts the runs of one workflow. Thread-safe."""

    def __init__(self, environment: Environment[O, S], committer: Committer) -> None:
        self._environment = environment
        self._committer = committer

    def start(self, request: Trigger[O, S], *, cause: str = "", meta: Mapping[str, str] = NO_META) -> str:
        """Start one run and return its id. `cause` stands for the caller's key where the engine itself triggers.

        Raises `RunInProgress` if the foreign id has an active run, `InvalidInput` or `CodecError` for what cannot be
        stored, `Unavailable` if the store failed and whether the run was started is unknown.
        """
        change = self._plan(request, cause, meta)
        return self._answer(change, self._committer.commit([change])[0])

    def start_many(self, requests: Sequence[Trigger[O, S]]) -> list[str | WorkflowError]:
        """Start many, `BATCH` in one transaction; one answer each: the run's id, or why it was not started."""
        answers: list[str | WorkflowError] = []
        for first in range(0, len(requests), BATCH):
            answers.extend(self._start_batch(requests[first : first + BATCH]))
        return answers

    def _start_batch(self, requests: Sequence[Trigger[O, S]]) -> list[str | WorkflowError]:
        planned: list[Change | WorkflowError] = []
        for request in requests:
            try:
                planned.append(self._plan(request, "", NO_META))
            except WorkflowError as error:
                planned.append(error)
        refusals = iter(self._committer.commit([plan for plan in planned if isinstance(plan, Change)]))
        answers: list[str | WorkflowError] = []
        for plan in planned:
            if isinstance(plan, WorkflowError):
                answers.append(plan)
                continue
            try:
                answers.append(self._answer(plan, next(refusals)))
            except WorkflowError as error:
                answers.append(error)
        return answers

    def _answer(self, change: Change, refusal: Refusal | None) -> str:
        if isinstance(refusal, AlreadyApplied):
            return refusal.run_id
        if refusal is not None:
            raise refusal
        return change.record.run_id

    def _plan(self, request: Trigger[O, S], cause: str, meta: Mapping[str, str]) -> Change:
        environment = self._environment
        foreign_id = check_text("the foreign id", request.foreign_id, LONGEST_FOREIGN_ID, 1)
        if not cause and check_key(request.idempotency_key):
            cause = composite("trigger", request.idempotency_key)
        delay = request.delay if isinstance(request.delay, timedelta) else timedelta(seconds=request.delay or 0)
        if delay < timedelta(0):
            raise InvalidInput(f"trigger of {foreign_id!r}: the delay {delay} is negative")
        return begin(
            environment,
            run_id=environment.runtime.new_id(),
            foreign_id=foreign_id,
            status=self._start_status(request),
            object=environment.encode(self._initial(request)),
            delay=delay,
            meta=meta,
            author=author_of(cause, request.by, request.reason),
        )

    def _start_status(self, request: Trigger[O, S]) -> int:
        graph = self._environment.graph
        if request.start_at is None:
            return graph.start
        status = int(request.start_at)
        if status not in graph.edges or status in graph.terminals:
            known = ", ".join(graph.name(each) for each in graph.statuses if each not in graph.terminals)
            raise InvalidInput(
                f"trigger of {request.foreign_id!r}: a run cannot start at {graph.name(status)}; possible are {known}"
            )
        return status

    def _initial(self, request: Trigger[O, S]) -> O:
        if request.initial_value is not None:
            return request.initial_value
        kind = self._environment.object_type
        try:
            return kind()
        except TypeError as error:
            name = getattr(kind, "__name__", str(kind))
            raise CodecError(name, f"it has no defaults ({error}): give an initial_value") from error
