"""Callbacks: the outside world tells a run something, and a function of the run's status decides what that does.

    callback(foreign id, status, payload)
       ─► seen before (by its cause)? True
       ─► the active run ─► in that status? call the function, store its answer under the cause ─► True
                        ─► not there yet, or paused: kept if buffered, else False or `RunPaused`

A *buffered* callback becomes an item of the timeout store, bound to run and status. It is applied when the run enters
the status: by the callback process, at the event of the entry. The item is made before the record is read once more, so
one of the two sees the other, whichever comes first.

The function runs on the caller's thread, and its exception reaches the caller. A lost race loads the record again, and
calls the function again on the newer version: what it did to the object the first time was never stored.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NamedTuple

from .call import INFRASTRUCTURE, InHand, effect_of, make_run
from .commit import Committer
from .consume import Duty
from .environment import Environment, Fault
from .errors import (
    AlreadyApplied,
    InvalidInput,
    Refusal,
    RunNotFound,
    RunPaused,
    StaleRecord,
)
from .event import Change, NewTimeout, Timeout, TimeoutState, composite
from .items import claim, postpone
from .options import Settled
from .protocols import Delivery
from .record import Record
from .run import Run
from .run_state import RunState
from .transition import Author, advance
from .trigger import author_of, check_key

KIND = "callback"


class Callback(NamedTuple):
    """A callback as the definition has it."""

    status: int
    function: Callable[[Run[Any, Any], bytes], Any]
    destinations: Set[int]
    buffered: bool
    options: Settled


class Kept(NamedTuple):
    """What an item keeps of a callback, beside its cause."""

    payload: bytes
    by: str
    reason: str

    def to_bytes(self) -> bytes:
        """As JSON."""
        payload = base64.b64encode(self.payload).decode("ascii")
        return json.dumps([payload, self.by, self.reason]).encode("utf-8")

    @classmethod
    def from_bytes(cls, data: bytes) -> Kept:
        payload, by, reason = json.loads(data)
        return cls(base64.b64decode(payload), by, reason)


class Callbacks:
    """Delivers callbacks to the runs of one workflow. Thread-safe."""

    def __init__(
        self,
        environment: Environment[Any, Any],
        committer: Committer,
        in_hand: InHand,
        declared: Mapping[int, Callback],
    ) -> None:
        self._environment = environment
        self._committer = committer
        self._in_hand = in_hand
        self._declared = declared

    def deliver(
        self,
        foreign_id: str,
        status: int,
        payload: bytes,
        *,
        run_id: str | None = None,
        idempotency_key: str = "",
        cause: str = "",
        by: str = "",
        reason: str = "",
    ) -> bool:
        """Deliver one; see `Workflow.callback`. `cause` stands for the key where the engine itself delivers."""
        callback = self._callback(status)
        if not isinstance(payload, bytes):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
            raise InvalidInput(f"callback to {foreign_id!r}: the payload is a {type(payload).__name__}, not bytes")
        key = check_key(idempotency_key) or self._environment.runtime.new_id()
        author = author_of(cause or composite("callback", foreign_id, status, key), by, reason)
        if self._seen(author):
            return True
        record = self._find(foreign_id, run_id, author)
        if record is None:
            return True
        if callback.buffered and not self._takes(record, callback):
            if self._passed(record, callback):
                return False
            return self._keep(record, callback, key, payload, author)
        return self._apply(record, callback, payload, author)

    def _callback(self, status: int) -> Callback:
        callback = self._declared.get(status)
        if callback is None:
            name = self._environment.graph.name(status)
            raise InvalidInput(f"workflow {self._environment.workflow_name!r} declares no callback for {name}")
        return callback

    def _seen(self, author: Author) -> bool:
        store = self._environment.adapters.record_store
        return store.applied(self._environment.workflow_name, author.cause) is not None

    def _find(self, foreign_id: str, run_id: str | None, author: Author) -> Record | None:
        """The active run, or None if the callback turns out to have been applied meanwhile."""
        store, name = self._environment.adapters.record_store, self._environment.workflow_name
        record = store.latest(name, foreign_id) if run_id is None else store.lookup([run_id])[0]
        known = record is not None and record.workflow_name == name and record.foreign_id == foreign_id
        if record is not None and known and record.run_state.active:
            return record
        if self._seen(author):
            return None
        raise RunNotFound(f"workflow {name!r} has no active run of {foreign_id!r}" + (f", {run_id}" if run_id else ""))

    def _takes(self, record: Record, callback: Callback) -> bool:
        return record.run_state is RunState.RUNNING and record.status == callback.status

    def _passed(self, record: Record, callback: Callback) -> bool:
        """Whether the run can never be in the callback's status again."""
        return record.status != callback.status and not self._environment.graph.reachable(
            record.status, callback.status
        )

    def _apply(self, record: Record, callback: Callback, payload: bytes, author: Author) -> bool:
        """Call the function on the current version, until its answer is stored or the run is elsewhere."""
        while True:
            if record.run_state is RunState.PAUSED:
                raise RunPaused(
                    f"run {record.run_id} is paused: resume it, or declare the callback with buffer=True to keep it"
                )
            if not self._takes(record, callback):
                return self._seen(author)
            change = self._answer(record, callback, payload, author)
            if change is None:
                return True
            refusal = self._committer.commit([change])[0]
            if refusal is None or isinstance(refusal, AlreadyApplied):
                return True
            if not isinstance(refusal, StaleRecord):
                raise refusal
            again = self._environment.adapters.record_store.lookup([record.run_id])[0]
            if again is None:
                raise RunNotFound(f"run {record.run_id} was deleted")
            record = again

    def _answer(self, record: Record, callback: Callback, payload: bytes, author: Author) -> Change | None:
        """What the function's answer does; its exceptions pass."""
        value, carry = self._environment.decode(record)
        label = getattr(callback.function, "__name__", "callback")
        with self._in_hand.hold(label, record.run_id) as token:
            run = make_run(self._environment, record, value, token, f"callback:{author.cause}")
            answer = callback.function(run, payload)
        effect, reason = effect_of(self._environment, answer, run, carry, callback.destinations)
        if effect is None:
            self._environment.skipped("by-the-callback", KIND)
            return None
        written = Author(cause=author.cause, by=author.by, reason=author.reason or reason)
        return advance(self._environment, record, effect, written)

    def _keep(self, record: Record, callback: Callback, key: str, payload: bytes, author: Author) -> bool:
        """Keep it until the run is there; then look once more, in case it is there now."""
        environment, now = self._environment, self._environment.now()
        item = NewTimeout(
            workflow_name=environment.workflow_name,
            kind=KIND,
            key=composite(record.run_id, callback.status, author.cause),
            name=author.cause,
            run_id=record.run_id,
            status=callback.status,
            payload=Kept(payload, author.by, author.reason).to_bytes(),
            due_at=now,
            created_at=now,
            region=environment.region,
        )
        environment.adapters.timeout_store.create([item])
        again = environment.adapters.record_store.lookup([record.run_id])[0]
        if again is not None and self._takes(again, callback):
            for kept in self.kept(record.run_id, callback.status):
                self.apply_kept(again, kept)
        return True

    def kept(self, run_id: str, status: int) -> list[Timeout]:
        """The run's callbacks that wait for this status, in the order in which they came."""
        items = self._environment.adapters.timeout_store.of_run(run_id)
        return [item for item in items if item.kind == KIND and item.status == status]

    def claim(self, item: Timeout) -> bool:
        """Count the attempt that is about to be made at a kept callback; False if there is none left."""
        return claim(self._environment, item, self._declared[item.status].options.retry)

    def apply_kept(self, record: Record, item: Timeout) -> None:
        """Apply a kept callback to a run that is in its status. A failure puts it off, at last holds it."""
        callback = self._declared[item.status]
        try:
            kept = Kept.from_bytes(item.payload)
            applied = self._apply(record, callback, kept.payload, Author(item.name, kept.by, kept.reason))
        except RunPaused:
            applied = False
        except INFRASTRUCTURE:
            raise
        except BaseException as error:
            postpone(self._environment, item, Fault.of(error), callback.options.retry)
            return
        if applied:
            self._environment.adapters.timeout_store.finish([item.id], TimeoutState.COMPLETED)
        else:
            self._put_by(item, record)

    def _put_by(self, item: Timeout, record: Record) -> None:
        """The run is not in the status: hold the item for the event of its entry, or end it with its run."""
        store = self._environment.adapters.timeout_store
        if record.run_state.finished:
            self._environment.skipped("run-finished", KIND)
            store.finish([item.id], TimeoutState.CANCELLED)
        else:
            store.reschedule(item.id, None, item.attempt, item.error_type)

    def due(self, items: Sequence[Timeout]) -> None:
        """Deal with kept callbacks whose caller may have ended before it could apply them."""
        records = self._environment.adapters.record_store.lookup([item.run_id for item in items])
        for item, record in zip(items, records, strict=True):
            callback = self._declared.get(item.status)
            if record is None or callback is None:
                self._environment.skipped("run-deleted", KIND)
                self._environment.adapters.timeout_store.finish([item.id], TimeoutState.CANCELLED)
            elif not self._takes(record, callback):
                self._put_by(item, record)
            elif self.claim(item):
                self.apply_kept(record, item)


class CallbackHandler:
    """What the callback process does at each event of a status with a buffered callback: apply what was kept."""

    def __init__(self, environment: Environment[Any, Any], callbacks: Callbacks, status: int) -> None:
        self._environment = environment
        self._callbacks = callbacks
        self._status = status

    def alone(self, delivery: Delivery, record: Record) -> bool:
        return False

    def handle(self, delivery: Delivery, record: Record, duty: Duty) -> Change | None:
        if record.run_state is not RunState.RUNNING or record.status != self._status:
            self._environment.skipped("entry-over", KIND)
            return None
        for item in self._callbacks.kept(record.run_id, self._status):
            current = self._environment.adapters.record_store.lookup([record.run_id])[0]
            if current is None or current.run_state is not RunState.RUNNING or current.status != self._status:
                break
            if not delivery.redelivered or self._callbacks.claim(item):
                self._callbacks.apply_kept(current, item)
        return None

    def refused(self, record: Record, refusal: Refusal) -> Change | None:
        return None
