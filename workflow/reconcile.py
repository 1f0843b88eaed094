"""Reconciling: runs that should move and do not, because a log lost their event, get it again.

A slow sweep over running runs. One whose version has been due for longer than a bound gets its event once more, and
then at doubling intervals while the version stays. Nothing is changed: if the event was not lost after all, the version
guard absorbs the second one. What no live definition declares is reported, never touched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from datetime import datetime, timedelta
from typing import Any

from .consume import Duty
from .environment import Environment
from .errors import WorkflowError
from .options import SWEEP_INTERVAL
from .parked import KIND as PARKED
from .poll import SWEEP_PAGE, Sweeper
from .protocols import WARNING, counts
from .record import Record, RecordFilter
from .run_state import RunState
from .transition import event_of

PROCESS = "reconcile"


class Reconciler:
    """The state of one instance's sweeps: when each stuck version gets its event the next time."""

    def __init__(self, environment: Environment[Any, Any], processed: Set[int], bound: float) -> None:
        self._environment = environment
        self._processed = processed
        self._bound = timedelta(seconds=bound)
        self._known: dict[tuple[str, int], tuple[datetime, timedelta]] = {}
        self._seen: set[tuple[str, int]] = set()
        self._cursor = ""

    def sweeper(self) -> Sweeper:
        """The sweeper of the reconcile role."""
        interval = min(SWEEP_INTERVAL, self._bound.total_seconds() / 2)
        return Sweeper(self._environment, self._stuck, self._emit_again, interval, self._finish)

    def _stuck(self, now: datetime) -> RecordFilter:
        self._seen = set()
        bound = now - self._bound
        return RecordFilter(
            run_states=frozenset({RunState.RUNNING, RunState.DATA_DELETION_REQUESTED}),
            updated_before=bound,
            available_before=bound,
        )

    def _emit_again(self, record: Record, duty: Duty) -> None:
        if record.run_state is RunState.RUNNING and record.status not in self._processed:
            return  # it waits for a callback, or for a person
        version = (record.run_id, record.version)
        self._seen.add(version)
        now = self._environment.now()
        due, interval = self._known.get(version, (now, self._bound))
        if now < due:
            return
        event = event_of(record)
        told = {"run_id": record.run_id, "status": record.status, "version": record.version}
        environment = self._environment
        sender = environment.adapters.event_streamer.new_sender(event.topic)
        try:
            sender.send([event])
        except WorkflowError as error:  # this one keeps no other from its event: it is tried again by the next sweep
            environment.logger.log(WARNING, "event not emitted again", error=type(error).__name__, **told)
            return
        finally:
            sender.close()
        self._known[version] = (now + interval, 2 * interval)
        environment.metrics.count("workflow_reconciled_total", workflow=environment.workflow_name)
        environment.logger.log(WARNING, "event emitted again", **told)

    def _finish(self, now: datetime, duty: Duty) -> None:
        """Forget versions that moved on; report what stands in statuses that the definition does not have."""
        self._known = {version: known for version, known in self._known.items() if version in self._seen}
        self._report("timers", self._undeclared_timers())
        counter = counts(self._environment.adapters.record_store)
        if counter is not None:
            found = counter.counts(self._environment.workflow_name)
            self._report("runs", Counter({status: n for (status, state), n in found.items() if state.active}))

    def _undeclared_timers(self) -> Counter[int]:
        """Due items by status, of one page of them: each sweep looks at the next page, so that none is long."""
        store, name = self._environment.adapters.timeout_store, self._environment.workflow_name
        page = store.list(name, after=self._cursor, limit=SWEEP_PAGE)
        self._cursor = page.next
        return Counter(item.status for item in page.items if item.run_id and item.kind != PARKED)

    def _report(self, what: str, found: Counter[int]) -> None:
        name = self._environment.workflow_name
        for status, number in found.items():
            if number and status not in self._environment.graph.edges:
                self._environment.metrics.gauge(
                    f"workflow_undeclared_{what}", number, workflow=name, status=str(status)
                )
                self._environment.logger.log(
                    WARNING, f"{what} in an undeclared status", workflow=name, status=status, number=number
                )
