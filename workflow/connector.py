"""Connectors: events from outside start runs and call them back.

A connector's function gets each event with an `Api` that triggers and calls back. What the function does through it
takes effect once, however often the event comes: each call's cause is (connector, event id, method, foreign id, and how
many such calls came before it for this event). So a function that does the same calls again for the same event adds
nothing.

A failing event is parked, and later ones overtake it. A connector declared `ordered=True` parks nothing: its shard
tries the event again in place, with backoff, and everything behind it waits.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Generic, NamedTuple

from .call import InHand, attempt
from .callback import Callbacks
from .cancel import CancelToken
from .consume import Duty
from .environment import Environment, Fault
from .event import ConnectorEvent, Shard, Timeout, composite
from .items import SUSPECT
from .options import Settled
from .parked import Parking, Redo
from .protocols import WARNING, Connector, ConnectorDelivery
from .run import O, RunView, S
from .trigger import Trigger, Triggers


class ConnectorStep(NamedTuple):
    """A connector as the definition has it."""

    name: str
    source: Connector
    function: Callable[[Any, ConnectorEvent], object]
    ordered: bool
    options: Settled

    @property
    def process(self) -> str:
        """The name of its process and receiver."""
        return f"connector.{self.name}"


class Api(Generic[O, S]):
    """What a connector's function can do, for one event. It belongs to the thread that runs the function."""

    def __init__(
        self,
        environment: Environment[O, S],
        triggers: Triggers[O, S],
        callbacks: Callbacks,
        connector: str,
        event: ConnectorEvent,
        cancelled: CancelToken,
    ) -> None:
        self._environment = environment
        self._triggers = triggers
        self._callbacks = callbacks
        self._connector = connector
        self._event = event
        self._made: Counter[tuple[str, str]] = Counter()
        self.cancelled = cancelled
        """Fires on stop, and when the role is lost."""

    def trigger(
        self,
        foreign_id: str,
        *,
        initial_value: O | None = None,
        start_at: S | None = None,
        delay: timedelta | float | None = None,
    ) -> str:
        """Start a run, once for this event; returns its id. Raises `RunInProgress` if another one is active."""
        request = Trigger(foreign_id, initial_value, start_at, delay=delay, by=f"connector {self._connector}")
        return self._triggers.start(request, cause=self._cause("trigger", foreign_id))

    def callback(self, foreign_id: str, status: S, payload: bytes) -> bool:
        """Call the active run back, once for this event; see `Workflow.callback`."""
        cause = self._cause("callback", foreign_id)
        by = f"connector {self._connector}"
        return self._callbacks.deliver(foreign_id, int(status), payload, cause=cause, by=by)

    def latest(self, foreign_id: str) -> RunView[O, S] | None:
        """The run of this foreign id that was started last, None if there was none."""
        record = self._environment.adapters.record_store.latest(self._environment.workflow_name, foreign_id)
        return None if record is None else self._environment.view(record)

    def _cause(self, method: str, foreign_id: str) -> str:
        ordinal = self._made[method, foreign_id]
        self._made[method, foreign_id] += 1
        return composite("connector", self._connector, self._event.id, method, foreign_id, ordinal)


class ConnectorReader(Generic[O, S]):
    """Serves one shard of a connector. `serve` runs on one thread."""

    def __init__(
        self,
        environment: Environment[O, S],
        triggers: Triggers[O, S],
        callbacks: Callbacks,
        in_hand: InHand,
        parking: Parking,
        step: ConnectorStep,
        shard: Shard,
    ) -> None:
        self._environment = environment
        self._triggers = triggers
        self._callbacks = callbacks
        self._in_hand = in_hand
        self._parking = parking
        self._step = step
        self._shard = shard
        parking.register(step.process, Redo(self._again, step.options.retry))

    def serve(self, duty: Duty) -> None:
        """Take events until `duty.idle` fires, which raises `Cancelled`."""
        receiver = self._step.source.open(self._step.name, self._shard)
        try:
            while True:
                deliveries = receiver.recv(duty.idle, limit=self._step.options.batch)
                handled: ConnectorDelivery | None = None
                try:
                    for delivery in deliveries:
                        duty.idle.raise_if_cancelled()
                        self._handle(delivery, duty)
                        handled = delivery
                finally:
                    if handled is not None:
                        handled.ack()
                        duty.progress()
        finally:
            receiver.close()

    def _handle(self, delivery: ConnectorDelivery, duty: Duty) -> None:
        """Call the function. A failure parks the event, or, if order matters, stays with it until it goes well."""
        event = delivery.event
        if self._step.ordered:
            self._insist(event, duty)
            return
        fault = SUSPECT if delivery.redelivered else self._call(event, duty)
        if fault is not None:
            self._parking.park(self._step.process, event.id, fault, payload=event_to_bytes(event))

    def _insist(self, event: ConnectorEvent, duty: Duty) -> None:
        """Call the function until it goes well."""
        tried = 0
        while (fault := self._call(event, duty)) is not None:
            tried += 1
            delay = self._step.options.retry.delay(tried, self._environment.runtime.random)
            self._environment.logger.log(
                WARNING, "connector waits", connector=self._step.name, attempt=tried, error=fault.type
            )
            self._environment.clock.signal().wait(duty.idle, delay.total_seconds())

    def _call(self, event: ConnectorEvent, duty: Duty) -> Fault | None:
        with self._in_hand.hold(self._step.process, event.id, duty.work) as token:
            api = Api(self._environment, self._triggers, self._callbacks, self._step.name, event, token)
            return attempt(partial(self._step.function, api, event)).fault

    def _again(self, item: Timeout, duty: Duty) -> Fault | None:
        return self._call(event_from_bytes(item.payload), duty)


def event_to_bytes(event: ConnectorEvent) -> bytes:
    """The event as JSON, to be parked."""
    return json.dumps(
        {
            "id": event.id,
            "key": event.key,
            "payload": base64.b64encode(event.payload).decode("ascii"),
            "created_at": event.created_at.isoformat(),
            "headers": dict(event.headers),
        }
    ).encode("utf-8")


def event_from_bytes(data: bytes) -> ConnectorEvent:
    """The event that `event_to_bytes` wrote."""
    fields = json.loads(data)
    return ConnectorEvent(
        id=fields["id"],
        key=fields["key"],
        payload=base64.b64decode(fields["payload"]),
        created_at=datetime.fromisoformat(fields["created_at"]),
        headers=fields["headers"],
    )
