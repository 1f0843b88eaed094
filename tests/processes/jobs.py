"""The workflow that the worker processes serve, and the file in which they note what they did."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

from workflow import Builder, Outcome, Retry, Run, RunState, Transition, Workflow

WORKFLOW = "jobs"
ROLES_OF_WORKFLOW = 6  # outbox, parked, schedule, delete, reconcile, retention


class Stage(IntEnum):
    FIRST = 1
    SECOND = 2
    DONE = 3


@dataclass
class Job:
    poison: str = ""
    """As long as there is a file of this name, the first step kills its process."""
    gate: str = ""
    """Until there is a file of this name, the first step does not return."""
    pace: float = 0.0
    """How many seconds each step takes."""


@dataclass(frozen=True)
class Effect:
    """One call of a step, as the outside world sees it."""

    key: str
    run_id: str
    stage: int
    process: int
    at: float
    """On the machine's monotonic clock, which is the same for all processes."""


class Effects:
    """A file to which any number of processes append, one line at a time."""

    def __init__(self, path: Path | str) -> None:
        self.path = path

    def add(self, run: Run[Any, Any]) -> None:
        """Note that a step works on this run. A line is one write, which the system does not tear."""
        line = f"{run.idempotency_key} {run.run_id} {int(run.status)} {os.getpid()} {time.monotonic():.6f}\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def read(self) -> list[Effect]:
        """All that was noted so far, in order."""
        try:
            lines = Path(self.path).read_text().splitlines()
        except FileNotFoundError:
            return []
        split = (line.split() for line in lines)
        return [Effect(key, run_id, int(stage), int(pid), float(at)) for key, run_id, stage, pid, at in split]


def jobs(effects: Effects, *, shards: int = 1, retry: Retry | None = None) -> Builder[Job, Stage]:
    """FIRST ─► SECOND ─► DONE; each step notes its effect, then does what the job asks for."""
    builder = Builder(WORKFLOW, Job, Stage)
    builder.defaults(parallel_count=shards, retry=retry or Retry(initial=0.05, maximum=1.0))

    @builder.step(Stage.FIRST)
    def first(run: Run[Job, Stage]) -> Literal[Stage.SECOND] | Outcome:
        effects.add(run)
        if run.object.poison and os.path.exists(run.object.poison):
            os.kill(os.getpid(), signal.SIGKILL)
        while run.object.gate and not os.path.exists(run.object.gate):
            pause(0.005)
        pause(run.object.pace)
        return Stage.SECOND

    @builder.step(Stage.SECOND)
    def second(run: Run[Job, Stage]) -> Literal[Stage.DONE]:
        effects.add(run)
        pause(run.object.pace)
        return Stage.DONE

    return builder


def pause(seconds: float) -> None:
    """What stands for the work of a step."""
    if seconds:
        threading.Event().wait(seconds)


def role_count(shards: int) -> int:
    """How many roles there are to hold."""
    return 2 * shards + ROLES_OF_WORKFLOW


# --- what must hold of a run's history, whatever happened on the way -----------------------------------------------


def path_of(rows: Sequence[Transition]) -> list[int]:
    """The statuses in the order in which they were entered."""
    statuses = [row.status for row in rows]
    return [status for index, status in enumerate(statuses) if index == 0 or status != statuses[index - 1]]


def assert_done_once(wf: Workflow[Job, Stage], run_ids: Sequence[str]) -> None:
    """Each run went its way once: one row for each version without a gap, and each status entered once."""
    for run_id in run_ids:
        rows = wf.history(run_id)
        assert [row.version for row in rows] == list(range(1, len(rows) + 1)), run_id
        assert path_of(rows) == [1, 2, 3], run_id
        assert [row.run_state for row in rows].count(RunState.COMPLETED) == 1, run_id
        assert rows[-1].run_state is RunState.COMPLETED, run_id


def assert_done_at_least_once(effects: Effects, run_ids: Sequence[str]) -> None:
    """Each step of each run was called, and every call of a step for a run had the same key."""
    keys: dict[tuple[str, int], set[str]] = {}
    for effect in effects.read():
        keys.setdefault((effect.run_id, effect.stage), set()).add(effect.key)
    assert set(keys) == {(run_id, stage) for run_id in run_ids for stage in (1, 2)}
    assert all(len(known) == 1 for known in keys.values())
