"""The outbox process: events that were stored with a record, but not yet sent, go to the streamer when they are due.

The record store wrote event and record in one transaction, so no event is lost between the two systems. Sending and
deleting the row are two steps: a crash in between sends twice, never not at all. A row that cannot be sent is put off
with a capped backoff and never held, since a run waits behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from .clock import Signal
from .consume import Duty
from .environment import Environment
from .errors import WorkflowError
from .event import OutboxEvent
from .options import OUTBOX_RETRY
from .poll import subscribe_to
from .protocols import WARNING, EventSender, Unsubscribe


class Outbox:
    """A poller's source: the workflow's outbox."""

    def __init__(self, environment: Environment[Any, Any]) -> None:
        self._environment = environment
        self._senders: dict[str, EventSender] = {}

    def due(self, now: datetime, limit: int) -> Sequence[OutboxEvent]:
        environment = self._environment
        return environment.adapters.record_store.list_outbox_events(
            environment.workflow_name, limit, now, region=environment.region
        )

    def due_at(self, item: OutboxEvent) -> datetime:
        return item.available_at

    def name_of(self, item: OutboxEvent) -> str:
        return item.id

    def subscribe(self, signal: Signal) -> Unsubscribe | None:
        environment = self._environment
        return subscribe_to(environment.adapters.record_store, "outbox", environment.workflow_name, signal)

    def handle(self, items: Sequence[OutboxEvent], duty: Duty) -> None:
        """Send the rows, topic by topic, and delete those that were sent."""
        topics: dict[str, list[OutboxEvent]] = {}
        for item in items:
            topics.setdefault(item.event.topic, []).append(item)
        for topic, rows in topics.items():
            self._relay(topic, rows)

    def _relay(self, topic: str, rows: Sequence[OutboxEvent]) -> None:
        store = self._environment.adapters.record_store
        try:
            self._sender(topic).send([row.event for row in rows])
        except WorkflowError as error:
            if len(rows) == 1:
                self._postpone(rows[0], error)
                return
            for row in rows:  # one bad row must not hold up the others
                self._relay(topic, [row])
            return
        store.delete_outbox_events([row.id for row in rows])

    def _postpone(self, row: OutboxEvent, error: WorkflowError) -> None:
        environment = self._environment
        attempt = row.attempt + 1
        until = environment.now() + OUTBOX_RETRY.delay(attempt, environment.runtime.random)
        kind = type(error).__name__
        environment.logger.log(
            WARNING, "event not sent", run_id=row.event.key, topic=row.event.topic, attempt=attempt, error=kind
        )
        environment.adapters.record_store.postpone_outbox_event(row.id, until, attempt, kind)

    def _sender(self, topic: str) -> EventSender:
        sender = self._senders.get(topic)
        if sender is None:
            sender = self._senders[topic] = self._environment.adapters.event_streamer.new_sender(topic)
        return sender

    def close(self) -> None:
        """Close the senders."""
        senders, self._senders = self._senders, {}
        for sender in senders.values():
            sender.close()
