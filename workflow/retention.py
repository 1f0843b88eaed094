"""Retention: what is finished and old goes, in an order that can be repeated from any point.

Of finished runs that have not changed for the time given, open timers and callbacks are cancelled; then those without
open items, whose last event every reader has had, are purged from the timeout store and deleted from the record store.
Items that ended go after the same time. Without a retention, runs and items are kept for ever.

Whatever the setting, the log must not grow behind topics that nobody reads: such a topic gets a receiver named
`retention`, which acknowledges what is older than a bound; and a receiver that was last opened long ago and that the
definition does not have any more is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

from .callback import KIND as CALLBACK
from .consume import Duty
from .environment import Environment
from .event import TimeoutState, run_state_topic, status_topic
from .options import SWEEP_INTERVAL
from .poll import FAR, Sweeper
from .protocols import lag
from .record import Record, RecordFilter
from .run_state import FINISHED, RunState
from .timeout import KIND as TIMER

PROCESS = "retention"
UNREAD_BOUND = timedelta(days=1)
"""How long events are kept in a topic that no process reads, for one that is deployed later."""
FORGET_BOUND = timedelta(days=7)
"""How long a receiver's progress is kept that the definition does not have any more."""
PAGE = 500


class Retention:
    """One instance's retention sweeps."""

    def __init__(
        self, environment: Environment[Any, Any], keep: timedelta | None, readers: Set[tuple[str, str]]
    ) -> None:
        self._environment = environment
        self._keep = keep
        self._readers = readers

    def sweeper(self) -> Sweeper:
        """The sweeper of the retention role."""
        return Sweeper(self._environment, self._old, self._delete, SWEEP_INTERVAL, self._finish)

    def _old(self, now: datetime) -> RecordFilter:
        if self._keep is None:
            return RecordFilter(run_id="")  # no run has this id: nothing is deleted
        states = FINISHED - {RunState.DATA_DELETION_REQUESTED}
        return RecordFilter(run_states=states, updated_before=min(now - self._keep, self._oldest_unread()))

    def _oldest_unread(self) -> datetime:
        """Since when a reader of the run-state topic has events before it; their runs must stay."""
        streamer = self._environment.adapters.event_streamer
        backlog = lag(streamer)
        if backlog is None:
            return FAR
        topic = run_state_topic(self._environment.workflow_name)
        since = [backlog.pending(topic, name)[1] for read, name in self._readers if read == topic]
        return min((instant for instant in since if instant is not None), default=FAR)

    def _delete(self, record: Record, duty: Duty) -> None:
        store, items = self._environment.adapters.record_store, self._environment.adapters.timeout_store
        waiting = items.of_run(record.run_id)
        items.finish([item.id for item in waiting if item.kind in (CALLBACK, TIMER)], TimeoutState.CANCELLED)
        if any(item.kind not in (CALLBACK, TIMER) for item in waiting):
            self._environment.skipped("open-items", PROCESS)
            return
        items.purge([record.run_id])
        store.delete_runs([record.run_id])

    def _finish(self, now: datetime, duty: Duty) -> None:
        if self._keep is not None:
            while self._environment.adapters.timeout_store.purge_finished(now - self._keep, PAGE) == PAGE:
                duty.idle.raise_if_cancelled()
        for topic in self._unread():
            self._acknowledge_old(topic, now - UNREAD_BOUND, duty)
        self._forget_receivers(now - FORGET_BOUND)

    def _topics(self) -> Sequence[str]:
        name = self._environment.workflow_name
        statuses = [status for status in self._environment.graph.statuses if not self._ends(status)]
        return [*(status_topic(name, status) for status in statuses), run_state_topic(name)]

    def _ends(self, status: int) -> bool:
        return status in self._environment.graph.terminals

    def _unread(self) -> list[str]:
        read = {topic for topic, _ in self._readers}
        return [topic for topic in self._topics() if topic not in read]

    def _acknowledge_old(self, topic: str, before: datetime, duty: Duty) -> None:
        receiver = self._environment.adapters.event_streamer.new_receiver(topic, PROCESS)
        try:
            while True:
                handed_out = receiver.recv(duty.idle, limit=PAGE, timeout=0)
                old = list(takewhile(lambda delivery: delivery.event.created_at < before, handed_out))
                if not old:
                    return
                old[-1].ack()
                if len(old) < PAGE:
                    return
        finally:
            receiver.close()

    def _forget_receivers(self, before: datetime) -> None:
        topics = set(self._topics())
        unread = {(topic, PROCESS) for topic in self._unread()}
        for receiver in self._environment.adapters.event_streamer.receivers():
            live = (receiver.topic, receiver.name) in self._readers | unread
            if receiver.topic in topics and not live and receiver.last_opened < before:
                self._environment.adapters.event_streamer.forget_receiver(receiver.topic, receiver.name)
