"""Reading a topic: events become calls of a handler, and are acknowledged when all that they led to is stored.

A reader serves one role. It takes a batch of events, loads their records in one look-up, hands each to its handler, and
waits for the changes that came of it; then it acknowledges, in the order of delivery. So an event is never acknowledged
before its effect, and a crash in between only repeats the delivery, which the handlers' guards see.

    recv ─► lookup ─► handler.handle ─► Change | None ─► committer ─► handler.refused ─► ack

An event whose record is missing or older than itself came from a store that lags: it is read again with backoff while
the others go on. A run that stays missing was deleted.

A batch has a budget of time. Its size starts at one event and doubles while batches stay well below the budget, so that
a slow function has little handed out at a time: what was handed out and not finished is a suspect to the next receiver.
For the same reason a reader that is to stop finishes its batch, but only within the budget.

Events that may kill the process (`handler.alone`) come last in their batch, one by one, with nothing else in hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, NamedTuple, Protocol

from .cancel import CancelToken
from .commit import Committer, Ticket
from .environment import Environment
from .errors import Cancelled, Refusal, Unavailable
from .event import Change, Shard
from .options import BATCH_BUDGET, INFRASTRUCTURE_RETRY, MISSING_RUN_BOUND, RETRIES_IN_PLACE
from .protocols import DEBUG, WARNING, Delivery, EventReceiver
from .record import Record


class Duty(NamedTuple):
    """A role that is held: what its work has to heed."""

    idle: CancelToken
    """Ends waits: on stop, when the role is lost, when another wants it. No further function is started then."""
    work: CancelToken
    """Ends functions: on stop, and when the role is lost."""
    lost: CancelToken
    """The role has gone: whatever is begun now, another does too."""
    progress: Callable[[], None]
    """To be called when something was done, so that failures of adapters are counted in a row."""


class Handler(Protocol):
    """What a process does with one event."""

    def alone(self, delivery: Delivery, record: Record) -> bool:
        """Whether this event must be handled with nothing else in hand."""
        ...

    def handle(self, delivery: Delivery, record: Record, duty: Duty) -> Change | None:
        """Do what the event asks for, or nothing. A change is committed by the reader."""
        ...

    def refused(self, record: Record, refusal: Refusal) -> Change | None:
        """The store refused the handler's change: what to store instead, if anything."""
        ...


class Work:
    """One delivery of a batch, and how far it came."""

    __slots__ = ("acked", "change", "delivery", "done", "record", "ticket")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.record: Record | None = None
        self.change: Change | None = None
        self.ticket: Ticket | None = None
        self.done = False
        self.acked = False

    @property
    def late(self) -> bool:
        """Whether the store does not have yet what the event tells of."""
        return self.record is None or self.record.version < self.delivery.event.version


class Reader:
    """Serves one shard of a topic. Made anew for each role; `serve` runs on one thread."""

    def __init__(
        self,
        environment: Environment[Any, Any],
        committer: Committer,
        handler: Handler,
        *,
        topic: str,
        name: str,
        shard: Shard,
        batch: int,
        poll_interval: float | None,
    ) -> None:
        self._environment = environment
        self._committer = committer
        self._handler = handler
        self._topic = topic
        self._name = name
        self._shard = shard
        self._batch = batch
        self._poll_interval = poll_interval
        self._signal = environment.clock.signal()
        self._limit = 1
        self._budget_ends = 0.0

    def open(self) -> EventReceiver:
        """Open the receiver of this role: from then on the streamer keeps events for it."""
        streamer = self._environment.adapters.event_streamer
        return streamer.new_receiver(self._topic, self._name, shard=self._shard, poll_interval=self._poll_interval)

    def serve(self, duty: Duty) -> None:
        """Read until `duty.idle` fires, which raises `Cancelled`. What is in hand then is stored and acknowledged."""
        receiver = self.open()
        try:
            while True:
                deliveries = receiver.recv(duty.idle, limit=self._limit)
                if deliveries:
                    self._budgeted(deliveries, duty)
                    duty.progress()
        finally:
            receiver.close()

    def _budgeted(self, deliveries: Sequence[Delivery], duty: Duty) -> None:
        """Work on a batch, and choose the size of the next one by the time that this one took."""
        begun = self._environment.clock.monotonic()
        self._budget_ends = begun + BATCH_BUDGET
        self._persist([Work(delivery) for delivery in deliveries], duty)
        took = self._environment.clock.monotonic() - begun
        if took > BATCH_BUDGET:
            self._limit = max(1, self._limit // 2)
        elif took < BATCH_BUDGET / 2 and len(deliveries) == self._limit:
            self._limit = min(self._batch, self._limit * 2)

    def _persist(self, batch: Sequence[Work], duty: Duty) -> None:
        """Work on a batch, again when an adapter fails: to open the receiver anew would make suspects of all of it."""
        failures = 0
        while True:
            try:
                return self._work(batch, duty)
            except Unavailable as error:
                failures += 1
                if failures > RETRIES_IN_PLACE:
                    raise
                told = {"process": self._name, "failures": failures, "error": type(error).__name__}
                self._environment.logger.log(WARNING, "batch failed, it is tried again", **told)
                delay = INFRASTRUCTURE_RETRY.delay(failures, self._environment.runtime.random)
                self._environment.clock.signal().wait(duty.idle, delay.total_seconds())

    def _may_begin(self, duty: Duty) -> None:
        """Raise `Cancelled` if no further function may be started in this batch."""
        if duty.idle.cancelled and (duty.lost.cancelled or self._environment.clock.monotonic() >= self._budget_ends):
            raise Cancelled(duty.idle.reason)

    def _work(self, batch: Sequence[Work], duty: Duty) -> None:
        """Handle what is not done of the batch, until all of it is."""
        attempt = 0
        while late := [work for work in batch if not work.done]:
            if attempt:
                delay = INFRASTRUCTURE_RETRY.delay(attempt, self._environment.runtime.random)
                self._environment.clock.signal().wait(duty.idle, delay.total_seconds())
            attempt += 1
            self._round(batch, late, duty)

    def _round(self, batch: Sequence[Work], tried: Sequence[Work], duty: Duty) -> None:
        """Handle those of `tried` that can be; acknowledge what is done from the start of the batch."""
        records = self._environment.adapters.record_store.lookup([work.delivery.event.key for work in tried])
        for work, record in zip(tried, records, strict=True):
            work.record = record
            if record is None:
                work.done = self._deleted(work.delivery)
        ready = [work for work in tried if not work.late]
        together = [work for work in ready if work.record and not self._handler.alone(work.delivery, work.record)]
        try:
            self._handle(together, duty)
            self._acknowledge(batch)
            for work in ready:
                if not work.done:
                    self._handle([work], duty)
        finally:
            self._acknowledge(batch)

    def _handle(self, works: Sequence[Work], duty: Duty) -> None:
        """Call the handler for each, while the store takes what came of the ones before; then wait for the store."""
        in_flight: set[tuple[str, int]] = set()
        submitted: list[Work] = []
        try:
            for work in works:
                self._may_begin(duty)
                event = work.delivery.event
                if submitted:
                    self._committer.wake()  # the next function may be slow: what is queued does not wait for it
                if (event.key, event.version) in in_flight:
                    self._environment.skipped("in-flight", self._name)
                    work.done = True
                    continue
                in_flight.add((event.key, event.version))
                if work.change is None and work.record is not None:
                    work.change = self._handler.handle(work.delivery, work.record, duty)
                self._submit(work, submitted)
        finally:
            self._settle(submitted)

    def _submit(self, work: Work, submitted: list[Work]) -> None:
        """Hand in what the function led to. If the store fails, it is handed in again, not asked for again."""
        if work.change is None:
            work.done = True
        else:
            work.ticket = self._committer.submit(work.change, self._signal)
            submitted.append(work)

    def _settle(self, submitted: list[Work]) -> None:
        """Wait until the changes are stored; what a handler stores instead of a refused one is waited for too."""
        while submitted:
            self._committer.wait([work.ticket for work in submitted if work.ticket])
            again: list[Work] = []
            for work in submitted:
                refusal = work.ticket.result() if work.ticket else None
                work.change = self._handler.refused(work.record, refusal) if refusal and work.record else None
                self._submit(work, again)
            submitted = again

    def _acknowledge(self, batch: Sequence[Work]) -> None:
        """Acknowledge what is done from the start of the batch without a gap."""
        done = list(takewhile(lambda work: work.done, batch))
        if done and not done[-1].acked:
            done[-1].delivery.ack()
            done[-1].acked = True

    def _deleted(self, delivery: Delivery) -> bool:
        """Whether a run that the store does not have is deleted, rather than not visible yet."""
        age = (self._environment.now() - delivery.event.created_at).total_seconds()
        if age < MISSING_RUN_BOUND:
            return False
        self._environment.skipped("run-deleted", self._name)
        self._environment.logger.log(DEBUG, "event of a deleted run", run_id=delivery.event.key)
        return True
