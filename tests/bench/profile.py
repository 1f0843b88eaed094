"""Where the time of a transition goes: samples all threads of a busy engine, and prints the share of each function."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from tests.bench.workload import TRANSITIONS, adapters, push_through, three_steps

WAITS = ("wait", "_lower", "_wait_for_tstate_lock", "join")


class Sampler:
    """Looks at every thread's stack a thousand times a second."""

    def __init__(self) -> None:
        self.leaves: Counter[str] = Counter()
        self.inside: Counter[str] = Counter()
        self.samples = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.001):
            for thread, frame in sys._current_frames().items():  # pyright: ignore[reportPrivateUsage] - there is no other
                if thread != threading.get_ident():
                    self._note(frame)

    def _note(self, frame: FrameType) -> None:
        if frame.f_code.co_name in WAITS:
            return
        self.samples += 1
        self.leaves[_name(frame)] += 1
        inside: set[str] = set()
        step: FrameType | None = frame
        while step is not None:
            inside.add(_name(step))
            step = step.f_back
        self.inside.update(inside)


def _name(frame: FrameType) -> str:
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("memory", "sqlite"))
    parser.add_argument("--runs", type=int, default=5000)
    options = parser.parse_args()
    with adapters(options.kind) as (made, _), three_steps().build(made) as wf:
        push_through(wf, 200, "warm-up-")
        begun = time.perf_counter()
        with Sampler() as sampler:
            push_through(wf, options.runs)
        each = 1e6 * (time.perf_counter() - begun) / (options.runs * TRANSITIONS)
    print(f"{each:.0f} µs for a transition; of these, by function:")
    for title, counted in (("itself", sampler.leaves), ("with what it calls", sampler.inside)):
        print(f"  {title}")
        for name, samples in counted.most_common(25):
            print(f"    {each * samples / sampler.samples:7.1f} µs  {name}")


if __name__ == "__main__":
    main()
