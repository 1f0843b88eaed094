"""The states of a run, and the one table of which may follow which.

The *status* of a run is the user's: where it stands in the workflow. Its *run state* is the engine's: whether it moves.

    RUNNING ⇄ PAUSED          active: at most one run of a foreign id
       │  ╲     │
       ▼   ╲    ▼
    COMPLETED  CANCELLED      finished
         ╲      ╱
    DATA_DELETION_REQUESTED ─► DATA_DELETED
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType


class RunState(IntEnum):
    """Whether a run moves. The numbers are stored: they never change."""

    RUNNING = 1
    PAUSED = 2
    COMPLETED = 3
    CANCELLED = 4
    DATA_DELETION_REQUESTED = 5
    DATA_DELETED = 6

    @property
    def active(self) -> bool:
        """Whether the run holds its foreign id: no other run of it may start."""
        return self in ACTIVE

    @property
    def finished(self) -> bool:
        """Whether the run will enter no other status."""
        return self not in ACTIVE


ACTIVE = frozenset({RunState.RUNNING, RunState.PAUSED})
FINISHED = frozenset(RunState) - ACTIVE

FOLLOWERS: Mapping[RunState, frozenset[RunState]] = MappingProxyType(
    {
        RunState.RUNNING: frozenset({RunState.RUNNING, RunState.PAUSED, RunState.COMPLETED, RunState.CANCELLED}),
        RunState.PAUSED: frozenset({RunState.RUNNING, RunState.CANCELLED}),
        RunState.COMPLETED: frozenset({RunState.DATA_DELETION_REQUESTED}),
        RunState.CANCELLED: frozenset({RunState.DATA_DELETION_REQUESTED}),
        RunState.DATA_DELETION_REQUESTED: frozenset({RunState.DATA_DELETED}),
        RunState.DATA_DELETED: frozenset(),
    }
)
"""What a run's next version may be in, for each state."""
