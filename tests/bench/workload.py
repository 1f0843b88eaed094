"""What all benchmarks run: three steps that do nothing but count."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import workflow
from workflow import Adapters, Builder, Run, RunState, Trigger, Workflow
from workflow.protocols import counts


class Status(IntEnum):
    ONE = 1
    TWO = 2
    THREE = 3
    DONE = 4


@dataclass
class Item:
    name: str = "item"
    amount: int = 0
    note: str = ""


TRANSITIONS = 4
"""Of one run: the trigger and three steps."""


def three_steps(name: str = "bench", batch: int = 100, shards: int = 1) -> Builder[Item, Status]:
    """The workflow."""
    builder = Builder(name, Item, Status)
    builder.defaults(batch=batch, parallel_count=shards)

    @builder.step(Status.ONE)
    def one(run: Run[Item, Status]) -> Literal[Status.TWO]:
        run.object.amount += 1
        return Status.TWO

    @builder.step(Status.TWO)
    def two(run: Run[Item, Status]) -> Literal[Status.THREE]:
        run.object.amount += 1
        return Status.THREE

    @builder.step(Status.THREE)
    def three(run: Run[Item, Status]) -> Literal[Status.DONE]:
        run.object.amount += 1
        return Status.DONE

    return builder


@contextmanager
def adapters(kind: str) -> Generator[tuple[Adapters, Path | None], None, None]:
    """A fresh set, and its file if it has one."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "bench.db"
        made = workflow.memory() if kind == "memory" else workflow.sqlite(file)
        try:
            yield made, (None if kind == "memory" else file)
        finally:
            made.close()


def push_through(wf: Workflow[Item, Status], runs: int, prefix: str = "r") -> float:
    """Trigger so many runs while the engine works, wait for the last end; how many seconds it took."""
    counter = counts(wf.adapters.record_store)
    assert counter is not None
    done = (int(Status.DONE), RunState.COMPLETED)
    goal = counter.counts(wf.name).get(done, 0) + runs
    begun = time.perf_counter()
    for first in range(0, runs, 500):
        wf.trigger_many([Trigger(f"{prefix}{n}", Item()) for n in range(first, min(first + 500, runs))])
    pause = threading.Event()
    while counter.counts(wf.name).get(done, 0) < goal:
        pause.wait(0.005)
    return time.perf_counter() - begun
