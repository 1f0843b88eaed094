"""The commands that act on runs: `pause`, `resume`, `cancel`, `delete-data`, `retry`.

Each action is stored in the run's history with who did it and why. Of several runs, one that cannot be acted on does
not keep the others from it; the exit status tells.
"""

from __future__ import annotations

import getpass
from argparse import Namespace
from collections.abc import Callable, Mapping

from ..console import Console
from ..errors import RunNotFound, WorkflowError
from ..protocols import Adapters
from ..record import Record
from .store import consoles, find_run, opened
from .story import state_name
from .terminal import Terminal, clean

Action = Callable[[Console, str, str, str], None]

ACTIONS: dict[str, Action] = {
    "pause": lambda console, run_id, by, reason: console.pause(run_id, by=by, reason=reason),
    "resume": lambda console, run_id, by, reason: console.resume(run_id, by=by, reason=reason),
    "cancel": lambda console, run_id, by, reason: console.cancel(run_id, by=by, reason=reason),
    "delete-data": lambda console, run_id, by, reason: console.delete_data(run_id, by=by, reason=reason),
    "retry": lambda console, run_id, by, reason: console.retry(run_id, by=by, reason=reason),
}


def user_name() -> str:
    """Who acts, unless --by tells: the user of the operating system, empty if that has no name."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return ""


def act(arguments: Namespace, terminal: Terminal) -> int:
    """Do it to each run that was named."""
    by = user_name() if arguments.by is None else arguments.by
    failed = False
    with opened(arguments.store) as adapters:
        for name in arguments.runs:
            try:
                _act_on(adapters, name, arguments.command, by, arguments.reason, terminal)
            except WorkflowError as error:
                if len(arguments.runs) == 1:
                    raise
                terminal.note(f"{name}: {clean(str(error))}")
                failed = True
    return 1 if failed else 0


def _act_on(adapters: Adapters, name: str, command: str, by: str, reason: str, terminal: Terminal) -> None:
    if command == "retry" and _retry_item(adapters, name, by, reason):
        _tell(terminal, {"command": command, "item": name}, f"retry: item {name} is due now")
        return
    console, record = _run(adapters, name, command)
    ACTIONS[command](console, record.run_id, by, reason)
    after = console.get(record.run_id)
    told = f"{command}: {clean(after.foreign_id)} ({after.run_id}) in {console.status_name(after.status)}"
    told += f" was {state_name(record.run_state)}, is {state_name(after.run_state)}"
    _tell(terminal, {"command": command} | console.plain(after), told)


def _run(adapters: Adapters, name: str, command: str) -> tuple[Console, Record]:
    console, record = find_run(adapters, name)
    if command == "delete-data" and record.run_id != name:
        # A foreign id may have had many runs: deleting the data of the last one must not look like deleting all.
        raise RunNotFound(f"delete-data takes a run id: the last run of {name!r} is {record.run_id}")
    return console, record


def _retry_item(adapters: Adapters, name: str, by: str, reason: str) -> bool:
    """Make the item of this id due now. False if there is none: then the name is a run's."""
    if adapters.record_store.lookup([name])[0] is not None:
        return False
    for console in consoles(adapters):
        try:
            console.retry(name, by=by, reason=reason)
        except RunNotFound:
            continue
        return True
    return False


def _tell(terminal: Terminal, values: Mapping[str, object], text: str) -> None:
    if terminal.as_json:
        terminal.give(values)
    else:
        terminal.say(text)
