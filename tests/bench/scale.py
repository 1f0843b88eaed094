"""Whether it stays flat: with the number of runs, with the number of shards; and what a run and a definition take."""

from __future__ import annotations

import argparse
import threading
import time
import tracemalloc
from collections import Counter
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import workflow
from tests.bench.workload import TRANSITIONS, adapters, push_through, three_steps
from workflow import Builder, Run, RunState, Trigger
from workflow.event import hash_of
from workflow.protocols import counts

WAIT = 0.010


class Stage(IntEnum):
    WAITING = 1
    DONE = 2


@dataclass
class Nothing:
    """A run without data."""


def by_runs(kind: str, sizes: list[int]) -> None:
    """Transitions a second, each with that many runs in the store before."""
    with adapters(kind) as (made, file), three_steps().build(made) as wf:
        present, sample, first = 0, 2000, 0.0
        for size in sizes:
            push_through(wf, size - present, f"fill-{size}-")
            rate = sample * TRANSITIONS / push_through(wf, sample, f"sample-{size}-")
            present = size + sample
            first = first or rate
            print(f"{kind:8} {size:8,} runs   {rate:9,.0f} tr/s   ratio to the first {rate / first:.2f}")
        if file is not None:
            made.close()
            print(
                f"{kind:8} {file.stat().st_size / present:8,.0f} bytes on disk for a run of {TRANSITIONS} transitions"
            )


def by_shards(kind: str, layouts: list[int]) -> None:
    """Runs a second of a step that waits 10 ms, against what so many shards can do at best."""
    for shards in layouts:
        builder = Builder("shards", Nothing, Stage)
        pause = threading.Event()

        def wait(run: Run[Nothing, Stage], pause: threading.Event = pause) -> Literal[Stage.DONE]:
            pause.wait(WAIT)
            return Stage.DONE

        builder.add_step(Stage.WAITING, wait, Stage.DONE, parallel_count=shards)
        runs = 100 * shards
        with adapters(kind) as (made, _):
            wf = builder.build(made)
            ids = [str(answer) for answer in wf.trigger_many([Trigger(f"r{n}") for n in range(runs)])]
            begun = time.perf_counter()
            counter = counts(made.record_store)
            assert counter is not None
            with wf:
                while counter.counts(wf.name).get((int(Stage.DONE), RunState.COMPLETED), 0) < runs:
                    pause.wait(0.005)
                seconds = time.perf_counter() - begun
        fullest = max(Counter(hash_of(run_id) % shards for run_id in ids).values())  # it decides
        share = fullest * WAIT / seconds
        print(f"{kind:8} {shards:3} shards   {runs / seconds:9,.0f} runs/s   of the best {share:.2f}")


def definition() -> None:
    """Memory for one more built workflow, not running."""
    made = workflow.memory()
    three_steps("first").build(made)
    tracemalloc.start()
    kept = [three_steps(f"more-{n}").build(made) for n in range(100)]
    current, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{current / len(kept) / 1024:.0f} KiB for one built definition of three steps")
    made.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=200_000, help="runs in the store at the end")
    options = parser.parse_args()
    definition()
    for kind in ("memory", "sqlite"):
        by_shards(kind, [1, 4, 16, 64])
        by_runs(kind, [size for size in (2_000, 20_000, 200_000) if size <= options.most])


if __name__ == "__main__":
    main()
