"""Group commit: outcomes of all threads go to the store together, each accepted or refused alone.

A durable commit costs about as much for a hundred changes as for one. So nobody stores a change directly: it goes into
the committer's queue, and whoever finds no commit under way *leads* one for everything that is queued.

    submit ──► queue ──► lead: take what is queued ─► RecordStore.store ─► tickets ─► signals of those who wait
                 ▲                                        │ Unavailable: again, the same changes (their write
    commit ──────┘ (submits, leads or waits)              └ ids make that harmless), then the tickets say so

A thread that has to wait anyway leads itself, which saves it two hand-overs between threads. Changes that were
submitted by a thread that goes on to something slow are led by the committer's own thread, which `wake` calls.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence

from .cancel import CancelToken
from .clock import Runtime, Signal, Task
from .errors import BrokenAdapter, Cancelled, Forked, Refusal, Unavailable, WorkflowError
from .event import Change
from .options import COMMIT_LIMIT, COMMIT_TRIES, INFRASTRUCTURE_RETRY
from .protocols import WARNING, Logger, RecordStore


class Ticket:
    """One submitted change, and what became of it."""

    __slots__ = ("change", "done", "failure", "refusal", "signal")

    def __init__(self, change: Change, signal: Signal) -> None:
        self.change = change
        self.signal = signal
        self.done = False
        self.refusal: Refusal | None = None
        self.failure: WorkflowError | None = None

    def result(self) -> Refusal | None:
        """None if the change was accepted, else why not. Raises `Unavailable` if that is unknown."""
        if self.failure is not None:
            raise self.failure
        return self.refusal


class Committer:
    """Stores changes for all threads of a workflow. Thread-safe."""

    def __init__(self, store: RecordStore, runtime: Runtime, logger: Logger) -> None:
        self._store = store
        self._runtime = runtime
        self._logger = logger
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._queue: deque[Ticket] = deque()
        self._leading = False
        self._news = runtime.clock.signal()
        self._stop = CancelToken()
        self._task: Task | None = None

    def start(self, name: str) -> None:
        """Start the thread that leads for those who do not wait."""
        self._stop = CancelToken()
        self._task = self._runtime.spawn(name, self._run)

    def stop(self, timeout: float | None = None) -> None:
        """Store what is queued and end the thread. Changes may still be committed by those who wait for them."""
        self._stop.cancel("stopped")
        if self._task is not None:
            self._task.join(timeout)
        while self._lead():
            pass

    def submit(self, change: Change, signal: Signal) -> Ticket:
        """Queue a change. `signal` is notified when its ticket is done; `wake` or `wait` sees to that."""
        if self.forked:
            raise Forked("this workflow was built before a fork: in the child open new adapters, and build it on those")
        ticket = Ticket(change, signal)
        with self._lock:
            self._queue.append(ticket)
        return ticket

    @property
    def forked(self) -> bool:
        """Whether this is a forked child: whoever led or held the lock at the fork does not exist here."""
        return os.getpid() != self._process

    def wake(self) -> None:
        """Have what is queued stored while this thread does something else."""
        self._news.notify()

    def wait(self, tickets: Sequence[Ticket]) -> None:
        """Return when all these are done; they must share one signal, which only this thread waits on."""
        for ticket in tickets:
            while not ticket.done:
                if not self._lead():
                    ticket.signal.wait()

    def commit(self, changes: Sequence[Change]) -> list[Refusal | None]:
        """Store these and wait for it: what `RecordStore.store` answers. Raises `Unavailable` after several tries."""
        signal = self._runtime.clock.signal()
        tickets = [self.submit(change, signal) for change in changes]
        self.wait(tickets)
        return [ticket.result() for ticket in tickets]

    def _run(self) -> None:
        while not self._stop.cancelled:
            while self._lead():
                pass
            try:
                self._news.wait(self._stop)
            except Cancelled:
                return

    def _lead(self) -> bool:
        """Store one batch of what is queued. False if there was nothing, or if somebody else is at it."""
        with self._lock:
            if self._leading or not self._queue:
                return False
            self._leading = True
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), COMMIT_LIMIT))]
        try:
            self._settle(batch)
        finally:
            with self._lock:
                self._leading = False
                follower = self._queue[0].signal if self._queue else None
        for signal in {id(ticket.signal): ticket.signal for ticket in batch}.values():
            signal.notify()
        if follower is not None:
            # What came meanwhile needs a leader: its first owner, if that waits, or our own thread.
            follower.notify()
            self._news.notify()
        return True

    def _settle(self, batch: list[Ticket]) -> None:
        """Store a batch; if the store cannot take it as a whole, change by change, so that none spoils another."""
        try:
            self._store_batch(batch)
        except WorkflowError as error:
            down = isinstance(error, Unavailable) and not isinstance(error, BrokenAdapter)
            for ticket in batch:
                if down or len(batch) == 1:
                    self._fail(ticket, error)
                else:
                    self._settle([ticket])

    def _fail(self, ticket: Ticket, error: WorkflowError) -> None:
        ticket.failure = error
        ticket.done = True

    def _store_batch(self, batch: list[Ticket]) -> None:
        refusals = self._try_store([ticket.change for ticket in batch])
        for ticket, refusal in zip(batch, refusals, strict=True):
            ticket.refusal = refusal
            ticket.done = True

    def _try_store(self, changes: list[Change]) -> list[Refusal | None]:
        """Call the store, again while it is unavailable: it recognises changes that it has by their write ids."""
        attempt = 1
        while True:
            try:
                return self._store.store(changes)
            except Unavailable as error:
                self._logger.log(WARNING, "commit failed", attempt=attempt, error=type(error).__name__)
                if attempt >= COMMIT_TRIES:
                    raise
            except WorkflowError:
                raise
            except Exception as error:
                raise BrokenAdapter(f"the record store broke its contract: {type(error).__name__}: {error}") from error
            delay = INFRASTRUCTURE_RETRY.delay(attempt, self._runtime.random)
            self._runtime.clock.signal().wait(timeout=delay.total_seconds())
            attempt += 1
