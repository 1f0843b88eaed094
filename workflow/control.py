"""What an operator does to a run: pause, resume, cancel, delete its data, and have something tried now.

Each is a change like any other, with the operator's name and reason in the history. An action with an idempotency key
takes effect once, however often it is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from .call import InHand
from .commit import Committer
from .environment import Environment
from .errors import AlreadyApplied, IllegalRunState, RunNotFound, StaleRecord
from .event import Timeout, composite
from .protocols import INFO
from .record import Page, Record
from .run_state import RunState
from .transition import Author, Cancelled, Effect, Erasing, Hastened, Paused, Resumed, advance
from .trigger import author_of, check_key

RUN_PAUSED = "RunPaused"
"""The error type of a timer that was put off because its run is paused: the resume makes it due."""


class Control:
    """The operator's actions on the runs of one workflow. Thread-safe."""

    def __init__(self, environment: Environment[Any, Any], committer: Committer, in_hand: InHand) -> None:
        self._environment = environment
        self._committer = committer
        self._in_hand = in_hand

    def load(self, run_id: str) -> Record:
        """The run's record. Raises `RunNotFound` if this workflow has no such run."""
        record = self._environment.adapters.record_store.lookup([run_id])[0]
        if record is None or record.workflow_name != self._environment.workflow_name:
            raise RunNotFound(f"workflow {self._environment.workflow_name!r} has no run {run_id}")
        return record

    def pause(self, run_id: str, *, reason: str, by: str, idempotency_key: str) -> None:
        self.act(run_id, "pause", lambda _: Paused(), self._author(run_id, "pause", reason, by, idempotency_key))

    def resume(self, run_id: str, *, reason: str, by: str, idempotency_key: str) -> None:
        """Have the run go on; what waited for it because it was paused is due now."""
        self.act(run_id, "resume", lambda _: Resumed(), self._author(run_id, "resume", reason, by, idempotency_key))
        self._wake_timers(run_id)

    def cancel(self, run_id: str, *, reason: str, by: str, idempotency_key: str) -> None:
        """End the run; the token of its function that is at work in this process fires."""
        self.act(run_id, "cancel", lambda _: Cancelled(), self._author(run_id, "cancel", reason, by, idempotency_key))
        self._in_hand.cancel(run_id, f"run {run_id} was cancelled")

    def delete_data(self, run_id: str, *, reason: str, by: str, idempotency_key: str) -> None:
        """Have the data of a finished run deleted by the delete process."""
        author = self._author(run_id, "delete-data", reason, by, idempotency_key)
        self.act(run_id, "delete-data", lambda _: Erasing(), author)

    def act(self, run_id: str, action: str, effect: Callable[[Record], Effect], author: Author) -> None:
        """Make the change, again on the newer version whenever another writer was first."""
        while True:
            record = self.load(run_id)
            if author.cause and self._environment.adapters.record_store.applied(record.workflow_name, author.cause):
                return
            try:
                change = advance(self._environment, record, effect(record), author)
            except IllegalRunState as error:
                raise IllegalRunState(f"{action}: {error}") from error
            refusal = self._committer.commit([change])[0]
            if refusal is None or isinstance(refusal, AlreadyApplied):
                return
            if not isinstance(refusal, StaleRecord):
                raise refusal

    def _author(self, run_id: str, action: str, reason: str, by: str, key: str) -> Author:
        cause = composite("operator", action, run_id, key) if check_key(key) else ""
        return author_of(cause, by, reason)

    def _wake_timers(self, run_id: str) -> None:
        store, now = self._environment.adapters.timeout_store, self._environment.now()
        for item in store.of_run(run_id):
            if item.error_type == RUN_PAUSED and item.due_at is not None:
                store.reschedule(item.id, now, item.attempt, "")

    def items(self, run_id: str | None, after: str, limit: int) -> Page[Timeout]:
        """Due and held items of a run, or a page of all of the workflow's."""
        store = self._environment.adapters.timeout_store
        if run_id is not None:
            return Page(tuple(store.of_run(run_id)))
        return store.list(self._environment.workflow_name, after=after, limit=limit)

    def retry(self, name: str, *, by: str, reason: str) -> None:
        """Make an item, or a run in backoff, due now. Raises `RunNotFound` if there is neither of that name.

        A run's retry is a change, and stands in its history; an item's is no change of its run, and goes to the log.
        """
        now, author = self._environment.now(), author_of("", by, reason)
        item = self._find_item(name)
        if item is None:
            self.act(name, "retry", lambda record: self._hastened(record, now), author)
            return
        self._environment.adapters.timeout_store.reschedule(item.id, now, 0, "")
        self._environment.logger.log(
            INFO, "item retried", item=item.id, kind=item.kind, run_id=item.run_id, by=by, reason=reason
        )

    def _hastened(self, record: Record, now: datetime) -> Effect:
        if record.run_state is not RunState.RUNNING:
            raise IllegalRunState(
                f"run {record.run_id} is {record.run_state.name}: nothing to retry"
                + (", resume it" if record.run_state is RunState.PAUSED else "")
            )
        if record.available_at <= now:
            raise IllegalRunState(f"run {record.run_id} is not waiting for a retry")
        return Hastened()

    def _find_item(self, item_id: str) -> Timeout | None:
        cursor = ""
        while True:
            page = self.items(None, cursor, 500)
            for item in page.items:
                if item.id == item_id:
                    return item
            cursor = page.next
            if not cursor:
                return None
