"""A nightly job: a run each night at half past two, in a process that serves until it is told to stop.

    python docs/examples/nightly.py [--store FILE]

The schedule is stored, so setting it at each start changes nothing. With `catch_up`, nights that passed while no
process ran are made up, one after the other. Start a second process on the same store, and it takes over when the first
one ends.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Literal

if not __package__:  # started as a script, from a checkout: `workflow` is two folders up
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import workflow


class Report(IntEnum):
    DUE = 1
    COUNTED = 2
    SENT = 3


@dataclass
class Night:
    sales: int = 0


b = workflow.Builder("nightly", Night, Report)
b.defaults(retry=workflow.Retry(initial=60.0, maximum=3600.0, max_attempts=8))


@b.step(Report.DUE)
def count(run: workflow.Run[Night, Report]) -> Literal[Report.COUNTED]:
    run.object.sales = 42  # what your shop sold that day
    return Report.COUNTED


@b.step(Report.COUNTED)
def send(run: workflow.Run[Night, Report]) -> Literal[Report.SENT]:
    print(f"night of {run.created_at:%Y-%m-%d}: {run.object.sales} sold", flush=True)
    return Report.SENT


@b.on_pause()
def tell(view: workflow.RunView[Night, Report]) -> None:
    print(f"the report {view.run_id} needs a person: {view.error}", file=sys.stderr, flush=True)


def plan(wf: workflow.Workflow[Night, Report]) -> None:
    """Have a run each night."""
    wf.schedule("sales", "30 2 * * *", catch_up=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a nightly report until SIGTERM or Ctrl-C.")
    parser.add_argument("--store", metavar="FILE", type=Path, default=Path("nightly.db"))
    stop = threading.Event()

    def end(number: int, frame: object) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    adapters = workflow.sqlite(parser.parse_args().store)
    try:
        wf = b.build(adapters)
        with wf:
            plan(wf)
            print("serving", flush=True)
            stop.wait()
    finally:
        adapters.close()


if __name__ == "__main__":
    main()
