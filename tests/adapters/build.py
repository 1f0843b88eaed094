"""Records, changes, events and due items for the tests of adapters, and ways to wait and to run in parallel."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, TypeVar

from workflow.cancel import CancelToken
from workflow.event import Change, Event, NewTimeout, run_state_topic, status_topic
from workflow.protocols import Delivery, EventReceiver
from workflow.record import Record, Transition
from workflow.run_state import RunState

T = TypeVar("T")

START = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=timezone.utc)
FAR = datetime(2199, 12, 31, tzinfo=timezone.utc)
WORKFLOW = "orders"
DEADLINE = 10.0
"""Seconds after which what a test waits for will not come any more."""

_write_ids = itertools.count(1)


def at(seconds: float) -> datetime:
    """An instant some seconds after the start of the test's time."""
    return START + timedelta(seconds=seconds)


def first(run_id: str = "run-1", **fields: Any) -> Record:
    """Version 1 of a run. Its foreign id is its own unless given."""
    given: dict[str, Any] = {
        "workflow_name": WORKFLOW,
        "foreign_id": f"of {run_id}",
        "run_id": run_id,
        "version": 1,
        "run_state": RunState.RUNNING,
        "status": 1,
        "status_entered": 1,
        "entered_at": START,
        "turn": 0,
        "object": b"{}",
        "created_at": START,
        "updated_at": START,
        "available_at": START,
    }
    return Record(**{**given, **fields})


def following(record: Record, **fields: Any) -> Record:
    """The next version, a second later."""
    later = record.updated_at + timedelta(seconds=1)
    given: dict[str, Any] = {"version": record.version + 1, "updated_at": later, "available_at": later}
    return replace(record, **{**given, **fields})


def change(record: Record, *, write_id: str = "", cause: str = "", headers: dict[str, str] | None = None) -> Change:
    """The change to this version, as the engine makes it. Each has a write id of its own unless given."""
    running = record.run_state is RunState.RUNNING
    name = record.workflow_name
    transition = Transition(
        run_id=record.run_id,
        version=record.version,
        write_id=write_id or f"write-{next(_write_ids)}",
        status=record.status,
        run_state=record.run_state,
        at=record.updated_at,
        cause=cause,
        by=record.by,
        attempt=record.attempt,
        instance="tests",
    )
    made = Event(
        topic=status_topic(name, record.status) if running else run_state_topic(name),
        key=record.run_id,
        status=record.status,
        run_state=record.run_state,
        version=record.version,
        created_at=record.updated_at,
        headers=headers or {},
    )
    return Change(record, transition, made)


def event(key: str, version: int = 1, topic: str = "topic") -> Event:
    """An event to send."""
    return Event(topic, key, 1, RunState.RUNNING, version, START)


def timeout(key: str, due_at: datetime | None = START, **fields: Any) -> NewTimeout:
    """A timer to create."""
    given: dict[str, Any] = {"workflow_name": WORKFLOW, "kind": "timeout", "status": 1, "run_id": f"run of {key}"}
    return NewTimeout(key=key, due_at=due_at, created_at=START, **{**given, **fields})


def drain(receiver: EventReceiver, limit: int = 7) -> list[Delivery]:
    """All that is there, without waiting."""
    deliveries: list[Delivery] = []
    while more := receiver.recv(CancelToken(), limit=limit, timeout=0):
        assert len(more) <= limit
        deliveries += more
    return deliveries


def keys(deliveries: Iterable[Delivery]) -> list[str]:
    return [delivery.event.key for delivery in deliveries]


def eventually(condition: Callable[[], object], timeout: float = DEADLINE) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + timeout
    look = threading.Event()
    while not condition():
        assert time.monotonic() < end, "it did not come to hold in time"
        look.wait(0.003)


class InThread:
    """A call on a thread of its own."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.result: object = None
        self.error: BaseException | None = None
        self._function = function
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as error:
            self.error = error

    def ended(self) -> bool:
        return not self._thread.is_alive()

    def join(self) -> InThread:
        self._thread.join(DEADLINE)
        assert self.ended(), "the call did not return"
        return self


def race(functions: Sequence[Callable[[], T]]) -> list[T]:
    """Call all at the same time, each on a thread of its own; their results in order. Raises what one raised."""
    barrier = threading.Barrier(len(functions))
    results: dict[int, T] = {}

    def call(place: int, function: Callable[[], T]) -> None:
        barrier.wait(DEADLINE)
        results[place] = function()

    calls = [InThread(partial(call, i, f)) for i, f in enumerate(functions)]
    for one in calls:
        error = one.join().error
        if error is not None:
            raise error
    return [results[place] for place in range(len(functions))]
