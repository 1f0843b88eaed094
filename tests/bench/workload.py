"""What all benchmarks run: three steps that do nothing but count."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import workflow
from workflow import Adapters, Builder, Run, Trigger, Workflow


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
def adapters(kind: str) -> Iterator[tuple[Adapters, Path | None]]:
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
    begun = time.perf_counter()
    ids: list[str] = []
    for first in range(0, runs, 500):
        requests = [Trigger(f"{prefix}{n}", Item()) for n in range(first, min(first + 500, runs))]
        ids.extend(answer for answer in wf.trigger_many(requests) if isinstance(answer, str))
    for n, run_id in enumerate(ids):
        wf.await_status(f"{prefix}{n}", run_id, Status.DONE, timeout=600)
    return time.perf_counter() - begun
