"""Waiting for a run to reach a status.

State first, news second: each look asks the record, and the history if the run may have passed the status since the
look before. Only then does it wait, for a notification of the store, or for the next look where the store cannot
notify. So it works before `run()`, in a process without consumers, for a status that was passed long ago; and it leaves
nothing behind.
"""

from __future__ import annotations

from typing import Any

from .clock import Signal
from .environment import Environment
from .errors import AwaitTimeout, RunNotFound, StatusUnreachable
from .options import POLL_INTERVAL
from .poll import subscribe_to
from .record import Record
from .run import RunView

HISTORY_PAGE = 1000


def await_status(
    environment: Environment[Any, Any],
    foreign_id: str,
    run_id: str,
    status: int,
    *,
    timeout: float | None,
    poll_interval: float | None,
) -> RunView[Any, Any]:
    """The run, once it is or was in `status`; see `Workflow.await_status`."""
    signal = environment.clock.signal()
    unsubscribe = subscribe_to(environment.adapters.record_store, "run", run_id, signal)
    try:
        record = _Watch(environment, foreign_id, run_id, status).wait(
            signal, timeout, poll_interval or (None if unsubscribe else POLL_INTERVAL)
        )
    finally:
        if unsubscribe is not None:
            unsubscribe()
    return environment.view(record)


class _Watch:
    """One caller's wait."""

    def __init__(self, environment: Environment[Any, Any], foreign_id: str, run_id: str, status: int) -> None:
        self._environment = environment
        self._foreign_id = foreign_id
        self._run_id = run_id
        self._status = status
        self._seen_version = 0

    def wait(self, signal: Signal, timeout: float | None, interval: float | None) -> Record:
        clock = self._environment.clock
        deadline = None if timeout is None else clock.monotonic() + timeout
        while True:
            record = self._load()
            if self._reached(record):
                return record
            self._check_reachable(record)
            left = None if deadline is None else deadline - clock.monotonic()
            if left is not None and left <= 0:
                raise AwaitTimeout(self._told(record, f"did not reach {self._name} within {timeout:g} s"))
            bounds = [bound for bound in (left, interval) if bound is not None]
            signal.wait(timeout=min(bounds) if bounds else None)

    @property
    def _name(self) -> str:
        return self._environment.graph.name(self._status)

    def _load(self) -> Record:
        record = self._environment.adapters.record_store.lookup([self._run_id])[0]
        known = record is not None and record.workflow_name == self._environment.workflow_name
        if record is None or not known or record.foreign_id != self._foreign_id:
            raise RunNotFound(
                f"workflow {self._environment.workflow_name!r} has no run {self._run_id} of {self._foreign_id!r}"
            )
        return record

    def _reached(self, record: Record) -> bool:
        """Whether the run is in the status, or passed it since the last look."""
        if record.status == self._status:
            return True
        store, after = self._environment.adapters.record_store, self._seen_version
        while record.version > after + 1:
            rows = store.history(self._run_id, after_version=after, limit=HISTORY_PAGE)
            if any(row.status == self._status and row.version < record.version for row in rows):
                return True  # a newer row is a matter of the next look, which loads the newer record too
            if len(rows) < HISTORY_PAGE:
                break
            after = rows[-1].version
        self._seen_version = record.version
        return False

    def _check_reachable(self, record: Record) -> None:
        if record.run_state.finished:
            raise StatusUnreachable(self._told(record, f"is {record.run_state.name} and never reached {self._name}"))
        if not self._environment.graph.reachable(record.status, self._status):
            raise StatusUnreachable(self._told(record, f"cannot reach {self._name} any more"))

    def _told(self, record: Record, what: str) -> str:
        return (
            f"run {self._run_id} of {self._foreign_id!r} {what}: it is {record.run_state.name} "
            f"in {self._environment.graph.name(record.status)}, version {record.version}"
        )
