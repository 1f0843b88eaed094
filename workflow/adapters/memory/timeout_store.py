"""A timeout store in memory: the handle on the due items of a storage.

An item is in `items` and under its key from its creation until it is purged; it is in `pending` until it ends, and
in `due` while it is pending and not held. Ids are numbers padded with zeros, so that their order is that of
creation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime
from itertools import islice

from ...clock import Signal
from ...errors import InvalidCursor, InvalidInput
from ...event import WHOLE, NewTimeout, Shard, Timeout, TimeoutState
from ...protocols import Unsubscribe
from ...record import Page
from ..support.guard import Guard
from .storable import (
    Unstorable,
    check_instants,
    check_integers,
    check_limit,
    check_new_timeout,
    check_texts,
    rejected,
)
from .storage import MemoryStorage

CURSOR = "timeout-"
GIVEN = tuple(field.name for field in fields(NewTimeout))


class MemoryTimeoutStore:
    """A `TimeoutStore`."""

    capabilities = frozenset({"notify"})

    def __init__(self, storage: MemoryStorage) -> None:
        self._timeouts = storage.timeouts
        self._guard = Guard("the timeout store in memory")

    def close(self) -> None:
        self._guard.close()

    # --- changes ---------------------------------------------------------------------------------------------------

    def create(self, timeouts: Sequence[NewTimeout]) -> None:
        self._guard.check()
        for timeout in timeouts:
            try:
                check_new_timeout(timeout)
            except Unstorable as error:
                raise rejected(f"{timeout.kind} {timeout.key!r}", error) from error
        with self._timeouts.lock:
            created = [timeout for timeout in timeouts if self._create(timeout)]
        self._tell({timeout.workflow_name for timeout in created})

    def _create(self, timeout: NewTimeout) -> bool:
        store, key = self._timeouts, (timeout.workflow_name, timeout.kind, timeout.key)
        if key in store.by_key:
            return False
        number = store.next_item()
        item = Timeout(id=f"{number:012d}", **{name: getattr(timeout, name) for name in GIVEN})
        store.items[item.id] = item
        store.by_key[key] = item.id
        if item.run_id:
            store.by_run[item.run_id].add(item.id)
        store.pending[item.workflow_name].add(number, item.id)
        self._put_down(item)
        return True

    def finish(self, ids: Sequence[str], state: TimeoutState) -> None:
        self._guard.check()
        if state is TimeoutState.PENDING:
            raise InvalidInput("an item ends as COMPLETED or CANCELLED, not as PENDING")
        store = self._timeouts
        with store.lock:
            for item_id in ids:
                item = store.items.get(item_id)
                if item is not None and item.state is TimeoutState.PENDING:
                    self._take_off(item)
                    store.pending[item.workflow_name].remove(int(item.id))
                    store.items[item.id] = replace(item, state=state)
                    store.ended.add(item.created_at, item.id)

    def reschedule(self, timeout_id: str, due_at: datetime | None, attempt: int, error_type: str) -> None:
        self._guard.check()
        try:
            if due_at is not None:
                check_instants(due_at)
            check_integers(attempt)
            check_texts((error_type,))
        except Unstorable as error:
            raise rejected(f"item {timeout_id!r}", error) from error
        store = self._timeouts
        with store.lock:
            item = store.items.get(timeout_id)
            if item is None or item.state is not TimeoutState.PENDING:
                return
            self._take_off(item)
            item = replace(item, due_at=due_at, attempt=attempt, error_type=error_type)
            store.items[item.id] = item
            self._put_down(item)
        self._tell({item.workflow_name})

    def purge(self, run_ids: Sequence[str]) -> None:
        self._guard.check()
        with self._timeouts.lock:
            for run_id in run_ids:
                for item_id in self._timeouts.by_run.pop(run_id, set()):
                    self._delete(self._timeouts.items[item_id])

    def purge_finished(self, before: datetime, limit: int) -> int:
        self._guard.check()
        check_limit(limit)
        store = self._timeouts
        with store.lock:
            old = (store.items[item_id] for item_id in store.ended.until(before))
            purged = list(islice((item for item in old if item.created_at < before), limit))
            for item in purged:
                self._delete(item)
        return len(purged)

    def _delete(self, item: Timeout) -> None:
        store = self._timeouts
        if item.state is TimeoutState.PENDING:
            self._take_off(item)
            store.pending[item.workflow_name].remove(int(item.id))
        else:
            store.ended.remove(item.created_at, item.id)
        del store.items[item.id]
        del store.by_key[item.workflow_name, item.kind, item.key]
        siblings = store.by_run.get(item.run_id)
        if siblings is not None:
            siblings.discard(item.id)
            if not siblings:
                del store.by_run[item.run_id]

    def _put_down(self, item: Timeout) -> None:
        if item.due_at is not None:
            self._timeouts.due[item.workflow_name, item.kind, item.status].add(item.due_at, item.id)

    def _take_off(self, item: Timeout) -> None:
        if item.due_at is not None:
            self._timeouts.due[item.workflow_name, item.kind, item.status].remove(item.due_at, item.id)

    def _tell(self, workflow_names: set[str]) -> None:
        for workflow_name in workflow_names:
            self._timeouts.listeners.tell(workflow_name)

    # --- questions -------------------------------------------------------------------------------------------------

    def list_valid(
        self,
        workflow_name: str,
        kind: str,
        status: int,
        now: datetime,
        limit: int,
        *,
        shard: Shard = WHOLE,
        region: str = "",
    ) -> Sequence[Timeout]:
        self._guard.check()
        check_limit(limit)
        store = self._timeouts
        with store.lock:
            agenda = store.due.get((workflow_name, kind, status))
            due = (store.items[item_id] for item_id in agenda.until(now)) if agenda is not None else iter(())
            valid = (item for item in due if region in ("", item.region) and shard.owns(item.shard_key))
            return list(islice(valid, limit))

    def of_run(self, run_id: str) -> Sequence[Timeout]:
        self._guard.check()
        store = self._timeouts
        with store.lock:
            items = [store.items[item_id] for item_id in sorted(store.by_run.get(run_id, ()))]
        return [item for item in items if item.state is TimeoutState.PENDING]

    def list(self, workflow_name: str, *, after: str = "", limit: int = 25) -> Page[Timeout]:
        self._guard.check()
        check_limit(limit)
        start = _number(after)
        store = self._timeouts
        with store.lock:
            roll = store.pending.get(workflow_name)
            found = list(islice(roll.walk(start), limit + 1)) if roll is not None else []
            items = tuple(store.items[item_id] for _, item_id in found[:limit])
        return Page(items, f"{CURSOR}{items[-1].id}" if len(found) > limit else "")

    def subscribe(self, kind: str, name: str, signal: Signal) -> Unsubscribe:
        """`notify`: of new items of the workflow `name`, and of new times of old ones."""
        self._guard.check()
        if kind != "timeout":
            raise InvalidInput(f"a timeout store tells of timeouts, not of {kind!r}")
        return self._timeouts.listeners.subscribe(name, signal)


def _number(cursor: str) -> int | None:
    """The item's number in a cursor, None for none."""
    if not cursor:
        return None
    digits = cursor.removeprefix(CURSOR)
    if not cursor.startswith(CURSOR) or not digits.isascii() or not digits.isdecimal():
        raise InvalidCursor(f"{cursor!r} is no cursor of a listing of due items: start again without one")
    return int(digits)
