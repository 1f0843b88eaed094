"""The one decision of a record store: is this change accepted, and if not, why not.

A store looks up what it knows (`Known`), inside the lock or transaction that it will write in, and asks `judge`. The
order of the questions is the contract's: it is what makes a repeated call harmless, and a trigger's key stronger than
`RunInProgress`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ...errors import AlreadyApplied, Refusal, RunInProgress, StaleRecord
from ...event import Change


@dataclass(frozen=True)
class Known:
    """What a store knows that bears on one change, at the moment of writing."""

    current: int
    """The run's current version, 0 if there is no such run."""
    write_id: str | None
    """The write id of the history row with the change's version, None if there is no such row."""
    applied: str | None
    """The run on which the change's cause took effect; None if it is new, or if the change has none."""
    active: str | None
    """The active run of the change's workflow and foreign id, None if there is none."""


class Verdict(Enum):
    """The answers that are not a refusal."""

    WRITE = "write"
    """Accepted: write it."""
    DONE = "done"
    """Accepted before, by the same call: write nothing."""


def judge(change: Change, known: Known) -> Verdict | Refusal:
    """Accept or refuse `change`."""
    record, transition = change.record, change.transition
    if known.write_id is not None and known.write_id == transition.write_id:
        return Verdict.DONE
    if transition.cause and known.applied is not None:
        return AlreadyApplied(transition.cause, known.applied)
    if record.version != known.current + 1:
        return StaleRecord(record.run_id, record.version, known.current)
    if record.run_state.active and known.active is not None and known.active != record.run_id:
        return RunInProgress(record.workflow_name, record.foreign_id, known.active)
    return Verdict.WRITE
