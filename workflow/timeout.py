"""Timers: a function of a status that is called when a run has been there for some time.

Two processes serve them. The *inserter* reads the status's topic and, at the event of an entry, creates one item in the
timeout store for each declared timer. The *poller* takes the items that are due and calls the timer's own function.

A timer belongs to one entry into the status (`Record.status_entered`): its key names run, entry and timer, so that
creating it again makes nothing, and an item whose entry is over is cancelled when it comes due. Its effect is stored
under the cause (run, entry, timer), so it happens once. A run that is paused keeps its timers: they are put off,
uncounted, and the resume makes them due.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from .call import InHand, attempt, effect_of, make_run
from .clock import Signal
from .commit import Committer
from .consume import Duty
from .control import RUN_PAUSED
from .environment import Environment, Fault, check_instant
from .errors import AlreadyApplied, InvalidInput, Refusal, Rejected, StaleRecord
from .event import Change, NewTimeout, Shard, Timeout, TimeoutState, composite
from .items import SUSPECT, claim, postpone
from .options import PAUSED_TIMER_RETRY, Settled
from .poll import subscribe_to
from .protocols import Delivery, Unsubscribe
from .record import Record
from .run import Run
from .run_state import RunState
from .transition import Author, Effect, advance

KIND = "timeout"
After = timedelta | Callable[[Run[Any, Any], datetime], datetime | None]


class Timer(NamedTuple):
    """A timer as the definition has it."""

    status: int
    name: str
    after: After
    """How long after the entry, or a function (run, now) that tells the instant; None: this entry gets no timer."""
    function: Callable[[Run[Any, Any], datetime], Any]
    destinations: Set[int]
    options: Settled


def cause_of(run_id: str, entry: int, name: str) -> str:
    """What a timer's effect is stored under."""
    return composite("timer", run_id, entry, name)


class TimerInserter:
    """What the inserter does at each event of the status: create the entry's timers."""

    def __init__(
        self,
        environment: Environment[Any, Any],
        timers: Sequence[Timer],
        in_hand: InHand,
        park: Callable[[Delivery, Fault], None],
    ) -> None:
        self._environment = environment
        self._timers = timers
        self._status = timers[0].status
        self._in_hand = in_hand
        self._park = park

    def alone(self, delivery: Delivery, record: Record) -> bool:
        return False

    def handle(self, delivery: Delivery, record: Record, duty: Duty) -> Change | None:
        if not self._current(record, delivery.event.version):
            self._environment.skipped("entry-over", "timeout-inserter")
            return None
        computed = any(not isinstance(timer.after, timedelta) for timer in self._timers)
        fault = SUSPECT if delivery.redelivered and computed else self.insert(record, duty)
        if fault is not None:
            self._park(delivery, fault)
        return None

    def refused(self, record: Record, refusal: Refusal) -> Change | None:
        return None

    def _current(self, record: Record, version: int) -> bool:
        """Whether the run is still in the entry that this event is of."""
        return record.run_state.active and record.status == self._status and record.status_entered <= version

    def insert(self, record: Record, duty: Duty) -> Fault | None:
        """Create the timers of the record's entry, any number of times makes one of each; or tell what failed."""
        made = attempt(partial(self._plan, record, duty))
        if made.answer:
            self._environment.adapters.timeout_store.create(made.answer)
        return made.fault

    def _plan(self, record: Record, duty: Duty) -> list[NewTimeout]:
        planned: list[NewTimeout] = []
        for timer in self._timers:
            due_at = self._due_at(timer, record, duty)
            if due_at is not None:
                planned.append(self._item(timer, record, due_at))
        return planned

    def _item(self, timer: Timer, record: Record, due_at: datetime) -> NewTimeout:
        return NewTimeout(
            workflow_name=record.workflow_name,
            kind=KIND,
            key=composite(record.run_id, record.status_entered, timer.name),
            name=timer.name,
            run_id=record.run_id,
            status=record.status,
            status_entered=record.status_entered,
            due_at=due_at,
            created_at=self._environment.now(),
            region=record.region,
        )

    def _due_at(self, timer: Timer, record: Record, duty: Duty) -> datetime | None:
        if isinstance(timer.after, timedelta):
            return record.entered_at + timer.after
        value, _ = self._environment.decode(record)
        with self._in_hand.hold(f"after of {timer.name}", record.run_id, duty.work) as token:
            run = make_run(self._environment, record, value, token, f"timer:{timer.name}")
            due_at = timer.after(run, self._environment.now())
        if due_at is None:
            return None
        if not isinstance(due_at, datetime):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a checker
            raise InvalidInput(f"timer {timer.name}: `after` answered with a {type(due_at).__name__}, not a datetime")
        return check_instant(f"timer {timer.name}", due_at)


class TimerSource:
    """A poller's source: the timers of one status that are due, in one shard. Made anew when the role is taken."""

    def __init__(
        self,
        environment: Environment[Any, Any],
        committer: Committer,
        in_hand: InHand,
        timers: Sequence[Timer],
        shard: Shard,
    ) -> None:
        self._environment = environment
        self._committer = committer
        self._in_hand = in_hand
        self._timers = {timer.name: timer for timer in timers}
        self._status = timers[0].status
        self._shard = shard
        self._signal = environment.clock.signal()
        self._begun = environment.now()

    def due(self, now: datetime, limit: int) -> Sequence[Timeout]:
        environment = self._environment
        return environment.adapters.timeout_store.list_valid(
            environment.workflow_name, KIND, self._status, now, limit, shard=self._shard, region=environment.region
        )

    def due_at(self, item: Timeout) -> datetime:
        return item.due_at or item.created_at

    def name_of(self, item: Timeout) -> str:
        return item.id

    def subscribe(self, signal: Signal) -> Unsubscribe | None:
        environment = self._environment
        return subscribe_to(environment.adapters.timeout_store, "timeout", environment.workflow_name, signal)

    def handle(self, items: Sequence[Timeout], duty: Duty) -> None:
        """Call the functions of due timers; those that may have ended a process one by one, after the others."""
        suspects = [item for item in items if self._is_suspect(item)]
        self._handle([item for item in items if item not in suspects], duty)
        for item in suspects:
            self._handle([item], duty)

    def _is_suspect(self, item: Timeout) -> bool:
        """Whether it may have been at work when a process ended: it was due before this one took the role."""
        return item.error_type == SUSPECT.type or self.due_at(item) <= self._begun

    def _handle(self, items: Sequence[Timeout], duty: Duty) -> None:
        """Call one function after the other; what they answer is committed together."""
        records = self._environment.adapters.record_store.lookup([item.run_id for item in items])
        submitted: list[tuple[Timeout, Any]] = []
        over: list[str] = []
        done: list[str] = []
        try:
            for item, record in zip(items, records, strict=True):
                duty.idle.raise_if_cancelled()
                if record is None or self._over(item, record):
                    over.append(item.id)
                elif record.run_state is RunState.PAUSED:
                    self._put_off(item, record)
                else:
                    self._committer.wake()
                    self._fire(item, record, duty, submitted, done)
        finally:
            self._settle(submitted, done)
            store = self._environment.adapters.timeout_store
            if done:
                store.finish(done, TimeoutState.COMPLETED)
            if over:
                self._environment.skipped("entry-over", "timeout-consumer")
                store.finish(over, TimeoutState.CANCELLED)

    def _over(self, item: Timeout, record: Record) -> bool:
        return record.run_state.finished or record.status_entered != item.status_entered

    def _put_off(self, item: Timeout, record: Record) -> None:
        """Look again after as long as the run has been paused, so at doubling times."""
        store, now = self._environment.adapters.timeout_store, self._environment.now()
        paused_for = (now - record.updated_at).total_seconds()
        delay = min(max(PAUSED_TIMER_RETRY.initial, paused_for), PAUSED_TIMER_RETRY.maximum)
        store.reschedule(item.id, now + timedelta(seconds=delay), item.attempt, RUN_PAUSED)
        again = self._environment.adapters.record_store.lookup([item.run_id])[0]
        if again is not None and again.run_state is not RunState.PAUSED:
            store.reschedule(item.id, now, item.attempt, "")  # the resume was quicker, and has not seen the mark

    def _fire(
        self, item: Timeout, record: Record, duty: Duty, submitted: list[tuple[Timeout, Any]], done: list[str]
    ) -> None:
        """Call the timer's function and submit what it answers."""
        timer = self._timers.get(item.name)
        if timer is None:
            fault = Fault("UnknownTimer", item.name, "no live definition has a timer of this name")
            self._environment.adapters.timeout_store.reschedule(item.id, None, item.attempt, fault.type)
            return
        if self._is_suspect(item) and not claim(self._environment, item, timer.options.retry):
            return
        made = attempt(partial(self._call, timer, item, record, duty))
        if made.fault is not None:
            postpone(self._environment, item, made.fault, timer.options.retry)
            return
        effect, reason = made.answer or (None, "")
        if effect is None:
            self._environment.skipped("by-the-timer", "timeout-consumer")
            done.append(item.id)
            return
        author = Author(cause=cause_of(record.run_id, item.status_entered, item.name), reason=reason)
        change = advance(self._environment, record, effect, author)
        submitted.append((item, self._committer.submit(change, self._signal)))

    def _call(self, timer: Timer, item: Timeout, record: Record, duty: Duty) -> tuple[Effect | None, str]:
        value, carry = self._environment.decode(record)
        with self._in_hand.hold(f"timer {timer.name}", record.run_id, duty.work) as token:
            run = make_run(self._environment, record, value, token, f"timer:{timer.name}")
            answer = timer.function(run, self._environment.now())
        return effect_of(self._environment, answer, run, carry, timer.destinations)

    def _settle(self, submitted: Sequence[tuple[Timeout, Any]], done: list[str]) -> None:
        """Wait for the store. A timer that lost a race stays due, and is looked at again on the newer version."""
        self._committer.wait([ticket for _, ticket in submitted])
        for item, ticket in submitted:
            refusal = ticket.result()
            if refusal is None or isinstance(refusal, AlreadyApplied):
                done.append(item.id)
            elif isinstance(refusal, Rejected):
                postpone(self._environment, item, Fault.of(refusal), self._timers[item.name].options.retry)
            elif not isinstance(refusal, StaleRecord):
                raise refusal
