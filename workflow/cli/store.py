"""Opening a store, and finding runs in it by what a person typed."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

from ..console import Console, console_of, workflows
from ..environ import adapters_from_env, adapters_from_url
from ..errors import InvalidInput, RunNotFound
from ..protocols import Adapters
from ..record import Record


@contextmanager
def opened(url: str, *, create: bool = False) -> Generator[Adapters, None, None]:
    """The adapters of this URL, without one those that the environment names; closed at the end.

    A store that is a file has to be there already, unless `create` is given: a tool with a wrong path makes no file.
    """
    if not url and not os.environ.get("DATABASE_URL") and not os.environ.get("WORKFLOW_ADAPTERS"):
        raise InvalidInput("no store is named: give --store sqlite:///FILE, or set DATABASE_URL")
    adapters = adapters_from_url(url, create=create) if url else adapters_from_env(create=create)
    try:
        yield adapters
    finally:
        adapters.close()


def consoles(adapters: Adapters, workflow_name: str = "") -> list[Console]:
    """The console of this workflow, or those of all that were ever served on the store."""
    if workflow_name:
        return [Console(adapters, workflow_name)]
    return [Console(adapters, definition.workflow_name) for definition in workflows(adapters)]


def find_run(adapters: Adapters, name: str) -> tuple[Console, Record]:
    """The run with this id, else the run of this foreign id that was started last."""
    if adapters.record_store.lookup([name])[0] is not None:
        console = console_of(adapters, name)
        return console, console.get(name)
    found = [(console, record) for console in consoles(adapters) if (record := console.latest(name)) is not None]
    if len(found) > 1:
        listed = ", ".join(f"{record.run_id} of {console.name}" for console, record in found)
        raise InvalidInput(f"several workflows have runs of {name!r}: give a run id, {listed}")
    if not found:
        raise RunNotFound(f"this store has no run {name!r}, by run id or foreign id: `runs` lists what it has")
    return found[0]
