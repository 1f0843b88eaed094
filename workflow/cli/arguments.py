"""The commands and their options."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable
from typing import Any, NoReturn

from ..options import STOP_TIMEOUT
from ..run_state import RunState
from ..version import __version__
from . import look, play, serve, steer
from .story import state_name
from .terminal import PROGRAM

RUN_HELP = """\
Serve a workflow until SIGTERM or Ctrl-C, or, with --input, until the runs of a file have ended.

MODULE is the name of a module, found from the current folder and PYTHONPATH. WORKFLOW is a name in it:
a Builder, or a callable that takes the adapters and returns a built Workflow:

    def orders(adapters: Adapters) -> Workflow:
        return builder.build(adapters, retention=timedelta(days=30))

Each line of the input is a JSON object, of which only foreign_id is needed:

    {"foreign_id": "order-1", "initial_value": {"amount": 100}, "start_at": "PAID", "idempotency_key": "…"}

A line without a key has one made of the file's name, its number and its text. So the same command, given
again after whatever happened, goes on where it was: nothing starts twice. A file may grow meanwhile.

Exit status with --input: 0 if the run of every line is completed; 1 if a line started none, or if its run
was cancelled, is paused (somebody has to resume it: then run the command again), or still moves because
the command was stopped."""


class Parser(ArgumentParser):
    """Its errors are one line, as all others."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


Commands = Any  # what `add_subparsers` returns has no public name


def parser() -> ArgumentParser:
    """The parser of the whole command line."""
    whole = Parser(prog=PROGRAM, description="Durable, event-driven state machines.", epilog="Start with: demo")
    whole.add_argument("--version", action="version", version=f"workflow-stdlib {__version__}")
    commands = whole.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True, parser_class=Parser
    )
    _add_demo(commands)
    _add_run(commands)
    _add_lookers(commands)
    for name, told in (
        ("pause", "stop running runs until somebody resumes them"),
        ("resume", "have paused runs go on"),
        ("retry", "have runs in backoff, or items, tried at once"),
        ("cancel", "end runs where they are"),
        ("delete-data", "have the data of finished runs deleted; the process that serves the workflow does it"),
    ):
        _add_action(commands, name, told)
    return whole


def _command(commands: Commands, name: str, function: Callable[..., int], told: str, description: str = "") -> Parser:
    described = description or f"{told[0].upper()}{told[1:]}."
    made: Parser = commands.add_parser(
        name, help=told, description=described, formatter_class=RawDescriptionHelpFormatter
    )
    made.set_defaults(function=function, prog=made.prog)
    made.add_argument("--json", action="store_true", help="one JSON object a line on stdout, all else on stderr")
    made.add_argument("--debug", action="store_true", help="show where an error comes from")
    return made


def _add_store(command: Parser) -> None:
    command.add_argument(
        "--store",
        metavar="URL",
        default="",
        help="sqlite:///FILE, sqlite:////ABSOLUTE/FILE, postgresql://…; by default what WORKFLOW_ADAPTERS, "
        "DATABASE_URL and KAFKA_BROKERS name",
    )


def _add_demo(commands: Commands) -> None:
    demo = _command(commands, "demo", play.demo, "watch twelve orders go through a small workflow")
    demo.add_argument(
        "--keep", metavar="FILE", default="", help="keep the store in this new file, to look at it afterwards"
    )


def _add_run(commands: Commands) -> None:
    run = _command(commands, "run", serve.run, "serve a workflow; with --input, start and follow runs", RUN_HELP)
    run.add_argument("target", metavar="MODULE:WORKFLOW", help="what to serve, as in shop:orders")
    _add_store(run)
    run.add_argument("--input", metavar="FILE.jsonl", default="", help="start a run for each line, and end with them")
    run.add_argument(
        "--stop-timeout",
        metavar="SECONDS",
        type=float,
        default=STOP_TIMEOUT,
        help="how long a stop waits for functions in hand (%(default)g)",
    )


def _add_lookers(commands: Commands) -> None:
    workflows = _command(commands, "workflows", look.list_workflows, "list the workflows that were served on a store")
    _add_store(workflows)

    runs = _command(commands, "runs", look.list_runs, "list runs, the newest first")
    _add_store(runs)
    runs.add_argument("--workflow", metavar="NAME", default="", help="of this workflow only")
    runs.add_argument("--status", metavar="NAME", action="append", default=[], help="in this status; may be repeated")
    states = [state_name(state) for state in RunState]
    runs.add_argument("--state", choices=states, metavar="STATE", action="append", default=[], help=", ".join(states))
    runs.add_argument("--foreign-id", metavar="ID", help="of this foreign id")
    _add_limit(runs)

    show = _command(commands, "show", look.show_run, "show one run with its history")
    _add_store(show)
    show.add_argument("run", metavar="RUN", help="a run id, or a foreign id: then its last run")

    items = _command(commands, "items", look.list_items, "list what is due later or held: timers, failures, callbacks")
    _add_store(items)
    items.add_argument("run", metavar="RUN", nargs="?", default="", help="of this run only")
    items.add_argument("--workflow", metavar="NAME", default="", help="of this workflow only")
    _add_limit(items)

    diagram = _command(commands, "diagram", look.draw, "print the graph of a workflow as Mermaid text")
    _add_store(diagram)
    diagram.add_argument("target", metavar="MODULE:WORKFLOW", nargs="?", default="", help="take it from the code")
    diagram.add_argument("--workflow", metavar="NAME", default="", help="take it from the store")


def _add_limit(command: Parser) -> None:
    command.add_argument("--limit", metavar="N", type=positive_number, default=25, help="at most so many (%(default)s)")
    command.add_argument("--all", action="store_true", help="without a limit")


def positive_number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def _add_action(commands: Commands, name: str, told: str) -> None:
    action = _command(commands, name, steer.act, told)
    _add_store(action)
    of = "a run id" if name == "delete-data" else "a run id, or a foreign id: then its last run"
    of += "; or the id of an item" if name == "retry" else ""
    action.add_argument("runs", metavar="RUN", nargs="+", help=of)
    action.add_argument("--reason", metavar="TEXT", default="", help="why: goes into the history")
    action.add_argument("--by", metavar="NAME", help="who: goes into the history (by default your user name)")
