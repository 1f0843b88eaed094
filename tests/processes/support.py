"""Worker processes, as a test sees them."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import workflow
from tests.processes.jobs import Effects, Job, Stage, assert_done_at_least_once, assert_done_once, jobs
from workflow import Adapters, RunState, Trigger, Workflow

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 60.0
"""Seconds after which something is taken not to happen any more: long, for machines that are slow or busy."""


def wait_for(condition: Callable[[], object], what: str = "the condition", seconds: float = DEADLINE) -> None:
    """Return as soon as the condition holds; fail at the deadline."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come to hold within {seconds:g} s"
        threading.Event().wait(0.01)


class Worker:
    """A process that runs one of the programs."""

    def __init__(self, program: str, **arguments: object) -> None:
        command = [sys.executable, "-m", "tests.processes.programs", program, json.dumps(arguments)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def hear(self, seconds: float = DEADLINE) -> Any:
        """The next thing that it tells."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"the worker told nothing within {seconds:g} s") from None
        assert line is not None, f"the worker ended with {self._process.wait()}"
        return json.loads(line)

    def send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def ask(self, line: str) -> Any:
        self.send(line)
        return self.hear()

    def kill(self) -> None:
        """Kill it without warning, and wait until it is gone."""
        self._process.kill()
        self._process.wait(DEADLINE)

    def freeze(self) -> None:
        """Stop it in its tracks, and wait until it stands."""
        os.kill(self.pid, signal.SIGSTOP)
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it gracefully; no thread may be left."""
        assert self.ask("stop") == []
        assert self._process.wait(DEADLINE) == 0

    def clear_away(self) -> None:
        """At the end of the test: whatever it still does is over."""
        self._process.kill()
        self._process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # by a line that it was sent and never read
                pipe.close()


@dataclass
class Site:
    """One SQLite file, the processes that work on it, and what they did."""

    folder: Path
    workers: list[Worker] = field(default_factory=list)
    opened: list[Adapters] = field(default_factory=list)

    @property
    def path(self) -> str:
        return str(self.folder / "store.db")

    @property
    def effects(self) -> Effects:
        return Effects(self.folder / "effects")

    def start(self, program: str, **arguments: object) -> Worker:
        """A worker process on this file, which has not said that it is ready yet."""
        worker = Worker(program, path=self.path, **arguments)
        self.workers.append(worker)
        return worker

    def serve(self, **arguments: object) -> Worker:
        """A worker that serves the jobs, and is ready."""
        worker = self.start_serving(**arguments)
        assert worker.hear() == "ready"
        return worker

    def start_serving(self, **arguments: object) -> Worker:
        """One that may not live long enough to say that it is ready."""
        return self.start("serve", **{"effects": str(self.effects.path), "lease_time": 1.0, **arguments})

    def open(self) -> Adapters:
        """The file's adapters, in this process, closed at the end of the test."""
        self.opened.append(workflow.sqlite(self.path))
        return self.opened[-1]

    def jobs(self) -> Workflow[Job, Stage]:
        """The jobs' workflow, in this process, which serves nothing."""
        return jobs(self.effects).build(self.open())

    def trigger(self, count: int, name: str, job: Job | None = None) -> list[str]:
        """Start so many runs; their ids."""
        requests: list[Trigger[Job, Stage]] = [Trigger(f"{name}-{number}", job or Job()) for number in range(count)]
        run_ids = [answer for answer in self.jobs().trigger_many(requests) if isinstance(answer, str)]
        assert len(run_ids) == count
        return run_ids

    def wait_for_effects(self, count: int) -> None:
        """Wait until the steps were called so many times."""
        wait_for(lambda: len(self.effects.read()) >= count, f"the call number {count} of a step")

    def wait_for_ends(self) -> None:
        """Wait until all runs have ended."""
        wf = self.jobs()

        def ended() -> bool:
            page = wf.list(limit=1, run_states={RunState.RUNNING, RunState.PAUSED})
            return not page.items and not page.next

        wait_for(ended, "the end of all runs")

    def assert_all_is_well(self, run_ids: Sequence[str]) -> None:
        """Wait for the ends; then each run went its way once, and its steps were called."""
        self.wait_for_ends()
        assert_done_once(self.jobs(), run_ids)
        assert_done_at_least_once(self.effects, run_ids)

    def clear_away(self) -> None:
        """At the end of the test."""
        for worker in self.workers:
            worker.clear_away()
        for adapters in self.opened:
            adapters.close()
