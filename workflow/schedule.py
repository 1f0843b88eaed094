"""Schedules: runs that start by the calendar.

A schedule is one item of the timeout store, due at its next slot. The schedule process triggers the slot's run, with
the slot itself as the trigger's key, and moves the item to the next slot; a crash in between triggers again, which
starts nothing. A slot that meets an active run of its foreign id is skipped, and counted; with `catch_up` it waits for
that run's end instead, and slots that were missed while no process ran are made up one after the other.

A schedule that is set again with other values replaces the former; the `filter` is a function, so it lives in the
process that set the schedule: a process without it leaves the slot to one that has it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, NamedTuple

from .call import attempt
from .clock import Signal
from .consume import Duty
from .environment import Environment, Fault, check_text
from .errors import CodecError, InvalidInput, Rejected, RunInProgress
from .event import NewTimeout, Timeout, TimeoutState, composite
from .items import postpone
from .options import Retry
from .poll import FAR, subscribe_to
from .protocols import INFO, Unsubscribe
from .run import O, S
from .trigger import LONGEST_FOREIGN_ID, Trigger, Triggers

KIND = "schedule"
PAGE = 500
BUSY_RETRY = timedelta(seconds=5)
"""When a slot is tried again that waits for the active run, or for a process that has its filter."""

Filter = Callable[[datetime], bool]


class Plan(NamedTuple):
    """A schedule as its item keeps it."""

    foreign_id: str
    spec: str
    zone: str
    object: bytes
    catch_up: bool
    filtered: bool

    def to_bytes(self) -> bytes:
        """As JSON, the same bytes for the same plan."""
        fields = {**self._asdict(), "object": base64.b64encode(self.object).decode("ascii")}
        return json.dumps(fields, sort_keys=True).encode("utf-8")

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        fields: dict[str, Any] = json.loads(data)
        fields["object"] = base64.b64decode(fields["object"])
        return cls(**fields)

    def next_slot(self, after: datetime) -> datetime:
        """The first slot after that instant, in UTC. Raises `InvalidInput` if the specification or zone is none."""
        from .cron import Cron  # late: it costs milliseconds, and few workflows have schedules

        return Cron.parse(self.spec, self.zone).next(after)


class Schedules(Generic[O, S]):
    """The schedules of one workflow, and a poller's source of their slots. Thread-safe."""

    def __init__(self, environment: Environment[O, S], triggers: Triggers[O, S], retry: Retry) -> None:
        self._environment = environment
        self._triggers = triggers
        self._retry = retry
        self._filters: dict[str, Filter] = {}

    def set(self, plan: Plan, keep: Filter | None) -> None:
        """Have this schedule from now on, in place of another one of its foreign id."""
        check_text("the foreign id", plan.foreign_id, LONGEST_FOREIGN_ID, 1)
        environment, now, payload = self._environment, self._environment.now(), plan.to_bytes()
        first = plan.next_slot(now)
        if keep is not None:
            self._filters[plan.foreign_id] = keep
        others = [item for item in self._live() if item.name == plan.foreign_id]
        if any(item.payload == payload for item in others):
            return
        store = environment.adapters.timeout_store
        store.create(
            [
                NewTimeout(
                    workflow_name=environment.workflow_name,
                    kind=KIND,
                    key=composite(plan.foreign_id, environment.runtime.new_id()),
                    name=plan.foreign_id,
                    payload=payload,
                    due_at=first,
                    created_at=now,
                    region=environment.region,
                )
            ]
        )
        store.finish([item.id for item in others], TimeoutState.CANCELLED)

    def _live(self) -> list[Timeout]:
        """All schedules that are not held."""
        found: list[Timeout] = []
        limit = PAGE
        while len(found := list(self.due(FAR, limit))) == limit:
            limit *= 2
        return found

    # as a poller's source

    def due(self, now: datetime, limit: int) -> Sequence[Timeout]:
        environment = self._environment
        store, name = environment.adapters.timeout_store, environment.workflow_name
        return store.list_valid(name, KIND, 0, now, limit, region=environment.region)

    def due_at(self, item: Timeout) -> datetime:
        return item.due_at or item.created_at

    def name_of(self, item: Timeout) -> str:
        return f"{item.id}@{item.due_at}"

    def subscribe(self, signal: Signal) -> Unsubscribe | None:
        environment = self._environment
        return subscribe_to(environment.adapters.timeout_store, "timeout", environment.workflow_name, signal)

    def handle(self, items: Sequence[Timeout], duty: Duty) -> None:
        for item in items:
            duty.idle.raise_if_cancelled()
            self._slot(item, Plan.from_bytes(item.payload))

    def _slot(self, item: Timeout, plan: Plan) -> None:
        """Start the slot's run, if its filter wants it, and move on to the next slot."""
        slot = self._slot_of(item, plan)
        keep = self._filters.get(plan.foreign_id)
        if plan.filtered and keep is None:
            self._put_off(item, slot, "NoFilterHere")
            return
        made = attempt(lambda: keep is None or keep(slot))
        if made.fault is not None:
            self._failed(item, plan, slot, made.fault)
            return
        if not made.answer:
            self._environment.skipped("filtered", KIND)
            self._move_on(item, plan, slot, "")
            return
        try:
            self._trigger(plan, slot)
        except RunInProgress:
            if plan.catch_up:
                self._put_off(item, slot, "RunInProgress")
                return
            self._environment.skipped("run-in-progress", KIND)
            self._environment.logger.log(INFO, "slot skipped", foreign_id=plan.foreign_id, slot=slot.isoformat())
            self._move_on(item, plan, slot, "RunInProgress")
            return
        except (CodecError, InvalidInput, Rejected) as error:  # this schedule's trouble, and not that of others
            self._failed(item, plan, slot, Fault.of(error))
            return
        self._move_on(item, plan, slot, "")

    def _slot_of(self, item: Timeout, plan: Plan) -> datetime:
        """Which slot the item stands for: what was put off is due later than its slot, on no slot of its own."""
        due_at = item.due_at or item.created_at
        stored = item.error_type.partition(" of ")[2]
        return datetime.fromisoformat(stored) if stored else due_at

    def _put_off(self, item: Timeout, slot: datetime, why: str) -> None:
        due_at = self._environment.now() + BUSY_RETRY
        told = f"{why} of {slot.isoformat()}"
        self._environment.adapters.timeout_store.reschedule(item.id, due_at, item.attempt, told)

    def _failed(self, item: Timeout, plan: Plan, slot: datetime, fault: Fault) -> None:
        """The filter or the trigger failed: try the slot again, with backoff; at last skip it, not the schedule."""
        if item.attempt + 1 >= self._retry.max_attempts:
            self._environment.skipped("slot-failed", KIND)
            self._move_on(item, plan, slot, fault.type)
            return
        marked = Fault(f"{fault.type} of {slot.isoformat()}", fault.place, fault.text)
        postpone(self._environment, item, marked, self._retry)

    def _trigger(self, plan: Plan, slot: datetime) -> None:
        value, _ = self._environment.codec.decode(self._environment.object_type, plan.object)
        request: Trigger[O, S] = Trigger(plan.foreign_id, initial_value=value, by="schedule")
        self._triggers.start(request, cause=composite("schedule", plan.foreign_id, slot.isoformat()))

    def _move_on(self, item: Timeout, plan: Plan, slot: datetime, error_type: str) -> None:
        """Make the item due at the next slot: the one after this slot if all are to be made up, else one to come."""
        after = slot if plan.catch_up else max(slot, self._environment.now())
        self._environment.adapters.timeout_store.reschedule(item.id, plan.next_slot(after), 0, error_type)
