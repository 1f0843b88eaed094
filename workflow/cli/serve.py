"""`run MODULE:WORKFLOW`: serve a workflow until told to stop, or until the runs of an input file have ended.

The exit status, with an input: 0 if every line's run is completed; 1 if some line started none, or its run was
cancelled, deleted, is paused, or still moves because the command was stopped. A paused run is waited for as long as
others move: somebody may resume it, and then it counts as what becomes of it. Without an input: 0 if it stopped in
time.
"""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from contextlib import closing
from pathlib import Path
from typing import Any

from ..clock import SYSTEM
from ..engine import Workflow
from ..errors import InvalidInput, StopTimeout
from ..record import Record
from . import target
from .feed import Feed, Followed, count_lines
from .stop import Stop
from .store import opened
from .terminal import PROGRAM, Terminal, can_move, clean, span

FIRST_WAIT = 1.0
"""Seconds that a stop takes before it tells what it waits for."""
SHORTEST_LOOK, LONGEST_LOOK = 0.02, 0.5
"""Seconds between two looks at the runs: short while they end, long while none does."""
TELL_EVERY = 10.0
"""Seconds between two lines of progress where the line cannot be written over."""
MOST_TOLD = 20
"""Problems of one kind are told one by one up to here."""
STOPPING = b"\nstopping: what is in hand is finished first; Ctrl-C again stops at once\n"


def run(arguments: Namespace, terminal: Terminal) -> int:
    """The command."""
    path = Path(arguments.input) if arguments.input else None
    if path is not None and not path.is_file():
        raise InvalidInput(f"there is no file {path} to read input from")
    make = target.find(arguments.target)
    with opened(arguments.store, create=True) as adapters:
        workflow = make(adapters)
        with Stop(STOPPING) as stop, closing(LogLines(terminal)):
            feeding = None if path is None else _Feeding(workflow, path, terminal, stop)
            workflow.run()
            try:
                terminal.note(f"serving {workflow.name}, {len(workflow.states())} roles; Ctrl-C stops")
                status = 0 if feeding is None else feeding.run()
                if feeding is None:
                    stop.wait()
            finally:
                stop_gracefully(workflow, arguments.stop_timeout, terminal)
    return status


def stop_gracefully(workflow: Workflow[Any, Any], seconds: float, terminal: Terminal) -> None:
    """Stop, and after a while tell what is waited for. Raises `StopTimeout` after that many seconds."""
    first = min(FIRST_WAIT, seconds)
    try:
        workflow.stop(first)
    except StopTimeout as error:
        terminal.note(f"waiting, at most {span(seconds)}, for {', '.join(error.pending)}")
    else:
        return
    try:
        workflow.stop(seconds - first)
    except StopTimeout as error:
        raise StopTimeout(workflow.name, error.pending, seconds) from None


class LogLines(logging.Handler):
    """Puts the engine's warnings on the terminal, one line each, while it is open."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(logging.WARNING)
        self._terminal = terminal
        logging.getLogger("workflow").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().partition(" frames=")[0]
        self._terminal.note(clean(f"{record.levelname.lower()}: {text}"))

    def close(self) -> None:
        logging.getLogger("workflow").removeHandler(self)
        super().close()


class _Feeding:
    """Feeds the input and follows its runs, with progress."""

    def __init__(self, workflow: Workflow[Any, Any], path: Path, terminal: Terminal, stop: Stop) -> None:
        self._workflow = workflow
        self._path = path
        self._terminal = terminal
        self._stop = stop
        self._feed = Feed(workflow, path)
        self._problems = 0
        self._total = count_lines(path)
        self._clock = SYSTEM.clock
        self._started = self._told = self._clock.monotonic()
        self._before = 0  # runs that had ended when this feeding began
        self._began = self._clock.now()  # before the workflow runs: what ends from now on is this feeding's

    def run(self) -> int:
        """The exit status."""
        for batch in self._feed.batches():
            for number, error in self._feed.start(batch):
                self._tell_problem(number, str(error))
            self._look()
            if self._stop.asked:
                break
        pause = SHORTEST_LOOK
        while not self._stop.asked and (self._feed.running or self._look()):
            pause = SHORTEST_LOOK if self._look() else min(2 * pause, LONGEST_LOOK)
            self._stop.wait(pause)
        self._terminal.let_go()
        return self._conclude()

    def _look(self) -> bool:
        """Look at some runs. Whether there is news: a run ended, or a paused one moves again."""
        idle = not self._feed.running
        ended = self._feed.look()
        for followed, record in ended:
            if record is not None and record.updated_at < self._began:
                self._before += 1
            if self._terminal.as_json:
                self._terminal.give(self._values(followed, record))
        self._terminal.flush()
        self._show_progress()
        return bool(self._feed.running) if idle else bool(ended)

    def _values(self, followed: Followed, record: Record | None) -> dict[str, object]:
        values: dict[str, object] = {"line": followed.line, "run_id": followed.run_id, "run_state": None}
        if record is not None:
            name = self._workflow.environment.graph.name(record.status)
            values |= {"foreign_id": record.foreign_id, "status_name": name, "run_state": record.run_state.name}
        return values

    def _tell_problem(self, number: int, problem: str) -> None:
        self._problems += 1
        if self._terminal.as_json:
            self._terminal.give({"line": number, "error": problem})
        if self._problems <= MOST_TOLD:
            self._terminal.note(f"{self._path}:{number}: {clean(problem)}")
        elif self._problems == MOST_TOLD + 1:
            self._terminal.note("more lines like these are only counted")

    # --- progress --------------------------------------------------------------------------------------------------

    def _show_progress(self) -> None:
        if can_move(sys.stderr):
            self._terminal.hold(self._progress())
        elif self._clock.monotonic() - self._told > TELL_EVERY:
            self._told = self._clock.monotonic()
            self._terminal.note(self._progress())

    def _progress(self) -> str:
        done = self._feed.tally.ended.total() + self._feed.tally.failed
        seconds = self._clock.monotonic() - self._started
        rate = (done - self._before) / seconds if seconds > 0 else 0.0
        part = done / self._total if self._total else 1.0
        bar = "█" * int(20 * part) + "░" * (20 - int(20 * part))
        told = f"{bar} {done} of {self._total} ended · {self._feed.running} running"
        if self._feed.paused:
            told += f" · {len(self._feed.paused)} paused"
        if rate > 0:
            told += f" · {rate:.0f}/s · {span((self._total - done) / rate)} left"
        return told

    def _conclude(self) -> int:
        tally, terminal = self._feed.tally, self._terminal
        for told, (followed, record) in enumerate(self._feed.paused.values()):
            if terminal.as_json:
                terminal.give(self._values(followed, record))
            if told < MOST_TOLD:
                terminal.note(f"paused: {clean(record.foreign_id)} ({record.run_id}){self._reason(record)}")
        if self._feed.paused:
            terminal.note(f"somebody has to look at what is paused: {PROGRAM} resume RUN, or cancel RUN")
        parts = [f"{count} {what}" for what, count in (*tally.ended.items(), *self._unended().items()) if count]
        earlier = f" ({self._before} had ended before)" if self._before else ""
        terminal.note(f"{self._total} lines: {', '.join(parts) or 'none'}{earlier}")
        if self._stop.asked:
            terminal.note("stopped before the end: the same command goes on from here")
        return 0 if tally.all_completed and tally.lines == self._total else 1

    def _unended(self) -> dict[str, int]:
        tally, feed = self._feed.tally, self._feed
        return {
            "paused": len(feed.paused),
            "running": feed.running,
            "not started": tally.failed,
            "not read": self._total - tally.lines,
        }

    def _reason(self, record: Record) -> str:
        rows = self._workflow.adapters.record_store.history(record.run_id, after_version=record.version - 1)
        return "".join(f": {clean(row.reason)}" for row in rows if row.reason)
