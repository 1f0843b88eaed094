"""The step process: the function of a status is called for each run that enters it, and its answer moves the run.

The *version guard* decides whether an event still means anything: it must be of the record's current version, and the
run must be running in this status. What an older event asked for was done by somebody already.

    event, record ─► guard ─► breaker open? wait
                       │  ─► redelivered, or suspect? store the suspicion (attempt + 1, due after its backoff) first
                       └──► decode ─► function ─► answer ─► effect ─► change
                                 any failure ─► attempt + 1, backoff; after max_attempts PAUSED, with the reason

A function that ends its process would do so again at every redelivery. So the try at a redelivered event is counted
before it is made, in a version that is marked as suspect: if the process ends again, that version's event comes after
its backoff, and finds the try counted. Whatever the function answers or raises takes the mark away.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Set
from functools import partial
from typing import Any, NamedTuple

from .call import Attempt, InHand, attempt, attempt_within, effect_of, make_run
from .cancel import CancelToken
from .clock import Clock, Signal
from .commit import Committer
from .consume import Duty
from .environment import Environment, Fault
from .errors import Refusal, Rejected, WorkflowError
from .event import Change
from .options import Breaker, Settled
from .protocols import WARNING, Delivery
from .record import Record
from .run import Run
from .run_state import RunState
from .transition import Author, Cleared, Effect, Failed, Paused, Suspected, advance, tries


class Step(NamedTuple):
    """A step as the definition has it."""

    status: int
    function: Callable[[Run[Any, Any]], Any]
    destinations: Set[int]
    options: Settled

    @property
    def label(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)


class CircuitBreaker:
    """Stops a step whose different runs all fail. One for each step and instance, shared by its shards.

    closed ──(the last `failures` different runs all failed)──► open ──(`cool_down` over)──► one run is let through as a
    probe: if it goes well the breaker closes, else (or if nothing is heard of it) the next probe goes one `cool_down`
    later. Source: M. Nygard, "Release It!", 2007.
    """

    def __init__(self, policy: Breaker, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        self._failing: set[str] = set()
        self._opened: float | None = None
        self._waiting: set[Signal] = set()

    @property
    def open(self) -> bool:
        """Whether runs are held back."""
        return self._opened is not None

    def enter(self, idle: CancelToken) -> None:
        """Return when a run may be tried. Raises `Cancelled` with `idle`."""
        if self._opened is None:
            return
        signal = self._clock.signal()
        with self._lock:
            self._waiting.add(signal)
        try:
            while (left := self._admit()) > 0:
                signal.wait(idle, left)
        finally:
            with self._lock:
                self._waiting.discard(signal)

    def _admit(self) -> float:
        """0 if the caller may go on, else how many seconds to wait. Letting a probe through begins a new cool-down."""
        with self._lock:
            if self._opened is None:
                return 0.0
            now = self._clock.monotonic()
            left = self._opened + self._policy.cool_down - now
            if left <= 0:
                self._opened = now
            return max(left, 0.0)

    def succeeded(self) -> None:
        """A run went well: the breaker closes."""
        if self._opened is None and not self._failing:
            return
        with self._lock:
            self._failing.clear()
            self._opened = None
            waiting = list(self._waiting)
        for signal in waiting:
            signal.notify()

    def failed(self, run_id: str) -> bool:
        """A run failed. True if that counts against the run; while the breaker is open, it does not."""
        with self._lock:
            was_open = self._opened is not None
            self._failing.add(run_id)
            if was_open or len(self._failing) >= self._policy.failures:
                self._opened = self._clock.monotonic()
        return not was_open


class StepHandler:
    """What a step's readers do with an event. Shared by the shards of one step; thread-safe."""

    def __init__(
        self,
        environment: Environment[Any, Any],
        committer: Committer,
        step: Step,
        in_hand: InHand,
        breaker: CircuitBreaker,
    ) -> None:
        self._environment = environment
        self._committer = committer
        self._step = step
        self._in_hand = in_hand
        self._breaker = breaker

    def alone(self, delivery: Delivery, record: Record) -> bool:
        """What may have ended its process runs with nothing else in hand."""
        return record.version == delivery.event.version and (delivery.redelivered or record.suspect)

    def handle(self, delivery: Delivery, record: Record, duty: Duty) -> Change | None:
        if record.version > delivery.event.version:
            self._environment.skipped("older-event", "consumer")
            return None
        if record.run_state is not RunState.RUNNING or record.status != self._step.status:
            self._environment.skipped("elsewhere", "consumer")
            return None
        self._breaker.enter(duty.idle)
        if not self.alone(delivery, record):
            return self._run(record, duty)
        suspect = self._suspect(record)
        return None if suspect is None else self._run(suspect, duty)

    def refused(self, record: Record, refusal: Refusal) -> Change | None:
        """Another writer won: nothing to do. What can never be stored is a failure of the step."""
        current = self._environment.adapters.record_store.lookup([record.run_id])[0]
        if isinstance(refusal, Rejected) and current is not None and current.run_state is RunState.RUNNING:
            return self._failure(current, Fault.of(refusal), counted=True)
        self._environment.skipped("lost-race", "consumer")
        return None

    def _suspect(self, record: Record) -> Record | None:
        """Count the try that is about to be made. The version to make it on; None if there is none left to make."""
        environment, retry = self._environment, self._step.options.retry
        if record.attempt >= retry.max_attempts:
            reason = f"{self._step.label} may have ended its process {record.attempt} times"
            change = advance(environment, record, Paused(), Author(reason=reason))
        else:
            delay = retry.delay(record.attempt + 1, environment.runtime.random)
            change = advance(environment, record, Suspected(delay))
        refusal = self._committer.commit([change])[0]
        if refusal is not None:
            environment.skipped("lost-race", "consumer")
            return None
        return change.record if change.record.suspect else None

    def _run(self, record: Record, duty: Duty) -> Change | None:
        """Call the function for this record."""
        label = self._step.label
        try:
            value, carry = self._environment.decode(record)
        except WorkflowError as error:
            return self._failure(record, Fault.of(error), counted=True)
        with self._in_hand.hold(label, record.run_id, duty.work) as token:
            run = make_run(self._environment, record, value, token, "step")
            made = self._attempt(run, token, record)
        fault, effect, reason = made.fault, None, ""
        if fault is None:
            try:
                effect, reason = effect_of(self._environment, made.answer, run, carry, self._step.destinations)
            except WorkflowError as error:
                fault = Fault.of(error)
        if fault is not None:
            return self._failure(record, fault, counted=self._breaker.failed(record.run_id))
        self._breaker.succeeded()
        return self._answered(record, effect, reason)

    def _attempt(self, run: Run[Any, Any], token: CancelToken, record: Record) -> Attempt[Any]:
        call, label = partial(self._step.function, run), self._step.label
        attributes = {"workflow": record.workflow_name, "run_id": record.run_id, "attempt": record.attempt}
        with self._environment.tracer.span(label, run.traceparent, attributes):
            if self._step.options.timeout is None:
                return attempt(call)
            return attempt_within(call, self._step.options.timeout, self._environment.runtime, token, label)

    def _answered(self, record: Record, effect: Effect | None, reason: str) -> Change | None:
        if effect is None:
            self._environment.skipped("by-the-step", "consumer")
            effect = Cleared() if record.suspect else None
        return None if effect is None else advance(self._environment, record, effect, Author(reason=reason))

    def _failure(self, record: Record, fault: Fault, *, counted: bool) -> Change:
        """Try again later, or pause the run if that was its last attempt."""
        environment, retry, tried = self._environment, self._step.options.retry, tries(record)
        environment.metrics.count("workflow_errors_total", workflow=environment.workflow_name, kind=fault.type)
        environment.logger.log(
            WARNING,
            "step failed",
            workflow=environment.workflow_name,
            run_id=record.run_id,
            step=self._step.label,
            attempt=tried,
            error=fault.type,
            place=fault.place,
        )
        if counted and tried >= retry.max_attempts:
            reason = f"{self._step.label} failed {tried} times, at last with {fault.type}"
            return advance(environment, record, Paused(fault=fault), Author(reason=reason))
        return advance(environment, record, Failed(fault, retry.delay(tried, environment.runtime.random), counted))
