"""Transitions a second, each against a raw loop of the same run."""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.bench.raw import memory_through_queues, sqlite_batches
from tests.bench.workload import TRANSITIONS, adapters, push_through, three_steps


def engine(kind: str, runs: int) -> float:
    """Transitions a second of the engine."""
    with adapters(kind) as (made, _), three_steps().build(made) as wf:
        push_through(wf, 200, "warm-up-")
        return runs * TRANSITIONS / push_through(wf, runs)


def raw(kind: str, transitions: int) -> float:
    """Transitions a second of the raw loop."""
    if kind == "memory":
        return transitions / memory_through_queues(transitions)
    with TemporaryDirectory() as folder:
        return transitions / sqlite_batches(Path(folder) / "raw.db", transitions, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    print(f"{options.runs} runs of three steps, medians of {options.times}")
    for kind in ("memory", "sqlite"):
        pairs = [(raw(kind, options.runs * 4), engine(kind, options.runs)) for _ in range(options.times)]
        floor, ours = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
        ratio = median(pair[1] / pair[0] for pair in pairs)
        print(f"{kind:8} raw {floor:9,.0f} tr/s   engine {ours:9,.0f} tr/s   ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
