"""One run of three steps at a time: how long from trigger to end. And what an idle engine costs."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from statistics import median, quantiles

from tests.bench.workload import Item, Status, adapters, three_steps


def one_by_one(kind: str, runs: int) -> list[float]:
    """Milliseconds of each."""
    took: list[float] = []
    with adapters(kind) as (made, _), three_steps().build(made) as wf:
        for n in range(runs + 20):
            begun = time.perf_counter()
            run_id = wf.trigger(f"r{n}", initial_value=Item())
            wf.await_status(f"r{n}", run_id, Status.DONE, timeout=60)
            took.append(1000 * (time.perf_counter() - begun))
    return took[20:]


def idle(kind: str, seconds: float, workflows: int = 10) -> float:
    """The share of one core that so many idle workflows take."""
    with adapters(kind) as (made, _), ExitStack() as stack:
        for n in range(workflows):
            stack.enter_context(three_steps(f"idle-{n}").build(made))
        threading.Event().wait(1.0)
        before = time.process_time()
        threading.Event().wait(seconds)
        return (time.process_time() - before) / seconds


def main() -> None:
    for kind in ("memory", "sqlite"):
        took = one_by_one(kind, 300)
        tenths = quantiles(took, n=100)
        print(f"{kind:8} p50 {median(took):6.2f} ms   p99 {tenths[98]:6.2f} ms   idle {100 * idle(kind, 5):.2f}%")


if __name__ == "__main__":
    main()
