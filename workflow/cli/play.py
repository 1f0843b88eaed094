"""`demo`: twelve orders go through the workflow of `demo.py`, on a SQLite file, before the reader's eyes.

On a terminal there is one line for each order, which grows with its history; elsewhere one line for each thing that
happens. At the end, what happened to each order and why, all of it read from the store.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .. import InvalidInput, RunState, RunView, Workflow, sqlite
from ..clock import SYSTEM
from . import demo as process
from .demo import Order, Status, bank, mails
from .serve import stop_gracefully
from .stage import CAST, look, place_orders, play
from .stop import Stop
from .story import Happening, Kind, state_name, story
from .terminal import PROGRAM, Block, Terminal, aligned, can_move, clip, columns, lines_of_screen

TICK = 0.08
PATIENCE = 30.0
"""Seconds after which the demo gives up. It takes four."""
STOP_WITHIN = 10.0
PLAIN = (Kind.STARTED, Kind.ENTERED, Kind.COMPLETED)
COLOUR_OF = {RunState.COMPLETED: "green", RunState.PAUSED: "yellow", RunState.CANCELLED: "red"}
STOPPING = b"\nstopping: what is in hand is finished first\n"
LEGEND = "✗ an attempt failed, the next one comes later   ↻ the courier was reminded"

View = RunView[Order, Status]


def demo(arguments: Namespace, terminal: Terminal) -> int:
    """The command."""
    with _store_file(arguments.keep) as file:
        adapters = sqlite(file)
        try:
            workflow = process.orders.build(adapters, instance="demo")
            shown = _Show(workflow, terminal)
            with Stop(STOPPING, at_once=lambda: None if arguments.keep else shutil.rmtree(file.parent, True)) as stop:
                with ExitStack() as serving:
                    workflow.run()
                    serving.callback(stop_gracefully, workflow, STOP_WITHIN, terminal)
                    finished = shown.watch(stop)
                shown.sum_up(file, kept=bool(arguments.keep))
        finally:
            adapters.close()
    if stop.asked:
        return stop.status
    return 0 if finished else 1


@contextmanager
def _store_file(keep: str) -> Generator[Path, None, None]:
    """The file to use: a new one that stays, or one in a folder that goes."""
    if keep:
        if Path(keep).exists():
            raise InvalidInput(f"{keep} is there already: name a new file, or remove it")
        yield Path(keep)
    else:
        with tempfile.TemporaryDirectory(prefix="workflow-demo-") as folder:
            yield Path(folder) / "demo.db"


class _Show:
    """What the reader sees."""

    def __init__(self, workflow: Workflow[Order, Status], terminal: Terminal) -> None:
        self._workflow = workflow
        self._terminal = terminal
        self._clock = SYSTEM.clock
        self._told: dict[str, int] = {}  # by run, the last version that was shown
        fits = lines_of_screen() > len(CAST) + 3
        self._block = Block() if can_move(sys.stdout) and fits and not terminal.as_json else None

    # --- live ------------------------------------------------------------------------------------------------------

    def watch(self, stop: Stop) -> bool:
        """Play until all orders have ended and their mails are out. False if that did not come."""
        self._terminal.say(f"{len(CAST)} orders are placed: watch what becomes of them.\n")
        place_orders(self._workflow)
        deadline = self._clock.monotonic() + PATIENCE
        while not stop.wait(TICK):
            runs = look(self._workflow)
            self._show(runs)
            if all(run.run_state.finished for run in runs) and len(mails) >= len(runs):
                return True
            if self._clock.monotonic() > deadline:
                self._terminal.note(f"the demo did not end within {PATIENCE:g} s: is this machine very busy?")
                return False
            play(self._workflow, runs, self._clock.now())
        return False

    def _show(self, runs: Sequence[View]) -> None:
        if self._block is not None:
            self._block.show([*(self._trail(run) for run in runs), "", self._footer(runs)])
            return
        news = [
            (run, each) for run in runs for each in self._story(run) if each.row.version > self._told.get(run.run_id, 0)
        ]
        for run, each in sorted(news, key=lambda pair: pair[1].row.at):
            self._told[run.run_id] = each.row.version
            self._tell(run, each)
        self._terminal.flush()

    def _tell(self, run: View, each: Happening) -> None:
        if self._terminal.as_json:
            self._terminal.give(
                {
                    "foreign_id": run.foreign_id,
                    "run_id": run.run_id,
                    "version": each.row.version,
                    "at": each.row.at.isoformat(),
                    "happened": each.kind.value,
                    "status_name": Status(each.row.status).name,
                    "run_state": each.row.run_state.name,
                    "text": each.text,
                }
            )
        else:
            self._terminal.say(f"{_seconds(run, each):5.2f} s  {run.foreign_id}  {each.text}")

    def _story(self, run: View) -> list[Happening]:
        return list(story(self._workflow.history(run.run_id), lambda status: Status(status).name))

    def _trail(self, run: View) -> str:
        """The order's line: all that happened to it, in a few signs."""
        signs = "".join(_sign(each) for each in self._story(run))
        return self._terminal.paint(clip(f"{run.foreign_id}  {signs}", columns() - 1), COLOUR_OF.get(run.run_state, ""))

    def _footer(self, runs: Sequence[View]) -> str:
        states = [run.run_state for run in runs]
        counts = "  ".join(f"{states.count(state)} {state_name(state)}" for state in RunState if state in states)
        return self._terminal.paint(clip(f"{counts}     {LEGEND}", columns() - 1), "dim")

    # --- the summary -----------------------------------------------------------------------------------------------

    def sum_up(self, file: Path, *, kept: bool) -> None:
        """What happened, and why; and what to do next."""
        say, bold = self._terminal.say, "bold"
        runs = look(self._workflow)
        changes = 0
        say(f"\n{self._terminal.paint('What happened, and why', bold)}\n")
        for part, run in zip(CAST, runs, strict=True):
            happenings = self._story(run)
            changes += len(happenings)
            end = "cancelled" if run.run_state is RunState.CANCELLED else run.status.name
            say(f"{run.foreign_id}  {self._terminal.paint(f'{end:<9}', COLOUR_OF.get(run.run_state, ''))}  {part.why}")
            for line in _remarkable(run, happenings):
                say(f"          {line}")
            if not run.run_state.finished:
                say("          it has not ended")
        say()
        say(f"{len(runs)} runs, {changes} changes, each stored in one transaction with its event and its history row.")
        asked, charged = bank.calls, len(bank.receipts)
        say(f"The bank was asked {asked} times and charged {charged} orders, each once: each call has its run's key.")
        say(f"{len(mails)} mails were sent by hooks.")
        self._next_steps(file, kept)

    def _next_steps(self, file: Path, kept: bool) -> None:
        say, heading = self._terminal.say, self._terminal.paint("Next", "bold")
        store = f"--store {shlex.quote(f'sqlite:///{file}')}"
        steps = [(f"read {process.__file__}", "the workflow that you have just seen, made to be read")]
        if kept:
            steps += [
                (f"{PROGRAM} runs {store}", "what is in the store"),
                (f"{PROGRAM} show order-07 {store}", "one run and its history"),
                (f"{PROGRAM} diagram {store}", "the graph, as Mermaid text"),
            ]
        else:
            steps.append((f"{PROGRAM} demo --keep demo.db", "the same, with a store to look into afterwards"))
        steps.append((f"{PROGRAM} --help", "all commands"))
        say(f"\n{heading}\n")
        for line in aligned(steps):
            say(f"  {line}")


def _sign(each: Happening) -> str:
    name = Status(each.row.status).name
    return {
        Kind.STARTED: name,
        Kind.ENTERED: f" → {name}",
        Kind.COMPLETED: f" → {name}",
        Kind.FAILED: " ✗",
        Kind.STAYED: " ↻",
        Kind.PAUSED: f" {'✗ ' if each.row.error_type else ''}paused",
    }.get(each.kind, f" {each.kind.value}")


def _remarkable(run: View, happenings: Sequence[Happening]) -> Iterator[str]:
    """All that is more than going from one status to the next."""
    for each in happenings:
        if each.kind not in PLAIN or each.row.cause.startswith("timer"):
            yield f"{_seconds(run, each):5.2f} s  {each.text}"


def _seconds(run: View, each: Happening) -> float:
    """When it happened, from when the order was placed."""
    return (each.row.at - run.created_at).total_seconds()
