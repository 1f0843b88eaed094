"""Resuming what the engine paused: a run that failed too often is given another chance, `after` that long.

Off unless the workflow asks for it. A run that a person paused has that person's name on its last version (`Record.by`)
and stays paused, unless the workflow says `everyone`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from .consume import Duty
from .control import Control
from .environment import Environment
from .errors import IllegalRunState, RunNotFound
from .options import PauseRetry
from .poll import Sweeper
from .record import Record, RecordFilter
from .run_state import RunState

PROCESS = "pause-retry"
REASON = "resumed by pause-retry"


def pause_retry(environment: Environment[Any, Any], control: Control, policy: PauseRetry) -> Sweeper:
    """The sweeper that resumes paused runs."""
    return Sweeper(environment, _paused(policy), _resume(environment, control), min(30.0, policy.after.total_seconds()))


def _paused(policy: PauseRetry) -> Callable[[datetime], RecordFilter]:
    def where(now: datetime) -> RecordFilter:
        return RecordFilter(
            run_states=frozenset({RunState.PAUSED}),
            by=None if policy.everyone else "",
            updated_before=now - policy.after,
        )

    return where


def _resume(environment: Environment[Any, Any], control: Control) -> Callable[[Record, Duty], None]:
    def resume(record: Record, duty: Duty) -> None:
        try:
            control.resume(record.run_id, reason=REASON, by="", idempotency_key="")
        except (IllegalRunState, RunNotFound):
            environment.skipped("resumed-already", PROCESS)

    return resume
