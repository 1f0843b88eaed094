"""A connector in memory: a source that a test, or code in the same process, puts events into.

It is a topic of its own, read by an ordinary receiver. A log keeps events of runs; so an event from outside travels
in one as JSON, in a header.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...cancel import CancelToken
from ...clock import SYSTEM, Runtime
from ...event import NO_HEADERS, ConnectorEvent, Event, Shard
from ...protocols import Delivery, EventReceiver
from ...run_state import RunState
from ..support.log_streamer import LogStreamer
from ..support.serial import connector_event_from_json, connector_event_to_json
from .event_log import MemoryEventLog
from .storable import Unstorable, check_bytes, rejected
from .storage import MemoryStorage

TOPIC = "connector"
CARRIED = "event"


@dataclass(frozen=True)
class MemoryConnectorDelivery:
    """An event from outside in somebody's hands."""

    event: ConnectorEvent
    delivery: Delivery

    @property
    def redelivered(self) -> bool:
        return self.delivery.redelivered

    def ack(self) -> None:
        """Acknowledge all that the receiver has handed out, up to this one."""
        self.delivery.ack()


class MemoryConnectorReceiver:
    """A `ConnectorReceiver`."""

    def __init__(self, receiver: EventReceiver) -> None:
        self._receiver = receiver

    def recv(
        self, cancel: CancelToken, *, limit: int = 1, timeout: float | None = None
    ) -> Sequence[MemoryConnectorDelivery]:
        deliveries = self._receiver.recv(cancel, limit=limit, timeout=timeout)
        return [MemoryConnectorDelivery(_unpacked(delivery.event), delivery) for delivery in deliveries]

    def close(self) -> None:
        self._receiver.close()


class MemoryConnector:
    """A `Connector`. Each name that opens it gets every event; its progress lasts as long as this object."""

    def __init__(self, runtime: Runtime = SYSTEM) -> None:
        self._runtime = runtime
        self._streamer = LogStreamer(MemoryEventLog(MemoryStorage(), runtime.clock), runtime)
        self._sender = self._streamer.new_sender(TOPIC)

    def put(self, events: Sequence[ConnectorEvent]) -> None:
        """Add these events. One that is put twice comes twice, with the same id."""
        try:
            packed = [_packed(event) for event in events]
        except Unstorable as error:
            raise rejected("an event from outside", error) from error
        self._sender.send(packed)

    def publish(
        self, key: str, payload: bytes, *, id: str = "", headers: Mapping[str, str] = NO_HEADERS
    ) -> ConnectorEvent:
        """Add one event, with an id of its own unless one is given, and return it."""
        event = ConnectorEvent(id or self._runtime.new_id(), key, payload, self._runtime.clock.now(), headers)
        self.put([event])
        return event

    def open(self, name: str, shard: Shard) -> MemoryConnectorReceiver:
        """The receiver of this name and shard, from where it was acknowledged."""
        return MemoryConnectorReceiver(self._streamer.new_receiver(TOPIC, name, shard=shard))

    def close(self) -> None:
        """Close all its receivers."""
        self._streamer.close()


def _packed(event: ConnectorEvent) -> Event:
    check_bytes(event.payload)
    carried = {CARRIED: connector_event_to_json(event)}
    return Event(TOPIC, event.key, 0, RunState.RUNNING, 1, event.created_at, carried)


def _unpacked(event: Event) -> ConnectorEvent:
    return connector_event_from_json(event.headers[CARRIED])
