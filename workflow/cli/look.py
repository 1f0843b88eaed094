"""The commands that look: `workflows`, `runs`, `show`, `items`, `diagram`. They change nothing."""

from __future__ import annotations

import heapq
import json
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from itertools import islice

from ..adapters.memory import memory
from ..clock import SYSTEM
from ..console import Console, content
from ..errors import InvalidInput
from ..event import Timeout
from ..protocols import Adapters
from ..record import Record, RecordFilter
from ..run_state import RunState
from . import target
from .store import consoles, find_run, opened
from .story import Kind, state_name, story
from .terminal import Terminal, aligned, clean, clip, indented, relative, span

COLOUR_OF = {RunState.COMPLETED: "green", RunState.PAUSED: "yellow", RunState.CANCELLED: "red"}
COLOUR_OF_KIND = {Kind.COMPLETED: "green", Kind.FAILED: "red", Kind.PAUSED: "yellow", Kind.CANCELLED: "red"}
LONGEST_CELL = 40


def _more(terminal: Terminal, shown: int) -> None:
    terminal.note(f"the first {shown}; there are more: --all shows them, --limit sets how many")


# --- workflows ------------------------------------------------------------------------------------------------------


def list_workflows(arguments: Namespace, terminal: Terminal) -> int:
    """Each workflow that was ever served on the store, with how many runs are in which state."""
    with opened(arguments.store) as adapters:
        found = [(console, _by_state(console)) for console in consoles(adapters)]
    if terminal.as_json:
        for console, counts in found:
            terminal.give(_workflow(console, counts))
        return 0
    now = SYSTEM.clock.now()
    rows = [
        (
            console.name,
            " ".join(f"{count} {state}" for state, count in counts.items()) or "no runs",
            relative(console.definition.last_seen, now),
            " ".join(console.status_name(status) for status in console.graph.statuses),
        )
        for console, counts in found
    ]
    terminal.table(("WORKFLOW", "RUNS", "LAST STARTED", "STATUSES"), rows)
    if not rows:
        terminal.note("no workflow was ever served on this store")
    return 0


def _by_state(console: Console) -> Mapping[str, int]:
    found: Counter[RunState] = Counter()
    for (_, state), count in console.counts().items():
        found[state] += count
    return {state_name(state): found[state] for state in sorted(found) if found[state]}


def _workflow(console: Console, counts: Mapping[str, int]) -> dict[str, object]:
    definition = console.definition
    return {
        "workflow_name": console.name,
        "fingerprint": definition.fingerprint,
        "last_seen": definition.last_seen.isoformat(),
        "start": console.status_name(definition.start),
        "statuses": {console.status_name(status): status for status in console.graph.statuses},
        "edges": {
            console.status_name(status): [console.status_name(each) for each in sorted(targets)]
            for status, targets in console.graph.edges.items()
        },
        "runs": counts,
    }


# --- runs -----------------------------------------------------------------------------------------------------------


def list_runs(arguments: Namespace, terminal: Terminal) -> int:
    """Runs that fit the filters, the newest first."""
    with opened(arguments.store) as adapters:
        asked = consoles(adapters, arguments.workflow)
        found = _newest_first(_asked_for(asked, arguments))
        shown = found if arguments.all else islice(found, arguments.limit)
        if terminal.as_json:
            for console, record in shown:
                terminal.give(console.plain(record))
            return 0
        now, several = SYSTEM.clock.now(), len(asked) > 1
        head = (
            "RUN",
            "FOREIGN ID",
            *(("WORKFLOW",) if several else ()),
            "STATUS",
            "STATE",
            "VERSION",
            "STARTED",
            "CHANGED",
        )
        terminal.table(head, (_row(console, record, now, several) for console, record in shown))
        if not arguments.all and next(found, None) is not None:
            _more(terminal, arguments.limit)
    return 0


def _asked_for(asked: Sequence[Console], arguments: Namespace) -> list[tuple[Console, RecordFilter]]:
    """What to ask each workflow for; those that have none of the statuses are left out."""
    states = frozenset(RunState[name.upper().replace("-", "_")] for name in arguments.state) or None
    found: list[tuple[Console, RecordFilter]] = []
    problem: InvalidInput | None = None
    for console in asked:
        try:
            statuses = frozenset(console.status_named(name) for name in arguments.status) or None
        except InvalidInput as error:
            problem = error
            continue
        found.append((console, RecordFilter(statuses, states, arguments.foreign_id)))
    if problem is not None and not found:
        raise problem
    return found


def _newest_first(asked: Sequence[tuple[Console, RecordFilter]]) -> Iterator[tuple[Console, Record]]:
    def each(console: Console, where: RecordFilter) -> Iterator[tuple[Console, Record]]:
        return ((console, record) for record in console.each(where=where))

    return heapq.merge(*(each(*one) for one in asked), key=lambda pair: pair[1].created_at, reverse=True)


def _row(console: Console, record: Record, now: datetime, several: bool) -> Sequence[str]:
    state = state_name(record.run_state)
    if record.attempt and record.run_state.active:
        state += f", {record.attempt} failed"
    return (
        record.run_id,
        clip(clean(record.foreign_id), LONGEST_CELL),
        *((console.name,) if several else ()),
        console.status_name(record.status),
        state,
        str(record.version),
        relative(record.created_at, now),
        relative(record.updated_at, now),
    )


# --- show -----------------------------------------------------------------------------------------------------------


def show_run(arguments: Namespace, terminal: Terminal) -> int:
    """One run: where it is, its object, its history, and what is due later."""
    with opened(arguments.store) as adapters:
        console, record = find_run(adapters, arguments.run)
        items = console.items(record.run_id).items
        if terminal.as_json:
            history = [console.plain(row) for row in console.history(record.run_id)]
            terminal.give(
                console.plain(record) | {"history": history, "items": [console.plain(item) for item in items]}
            )
            return 0
        now = SYSTEM.clock.now()
        _show_head(console, record, now, terminal)
        _show_history(console, record, terminal)
        if items:
            terminal.say(f"\n{terminal.paint('Due later', 'bold')}")
            for line in aligned([_item_cells(console, item, now) for item in items]):
                terminal.say(f"  {line}")
    return 0


def _show_head(console: Console, record: Record, now: datetime, terminal: Terminal) -> None:
    state = terminal.paint(state_name(record.run_state), COLOUR_OF.get(record.run_state, "cyan"))
    terminal.say(f"{terminal.paint(clean(record.foreign_id), 'bold')}  {console.status_name(record.status)}  {state}")
    waits = record.run_state is RunState.RUNNING and record.available_at > now
    facts = [
        ("run", record.run_id),
        ("workflow", record.workflow_name),
        ("started", f"{relative(record.created_at, now)} ({record.created_at:%Y-%m-%d %H:%M:%S} UTC)"),
        ("changed", f"{relative(record.updated_at, now)}, version {record.version}"),
        ("attempts", f"{record.attempt} failed" if record.attempt else ""),
        ("next try", relative(record.available_at, now) if waits else ""),
        ("trace", clean(record.meta.get("traceparent", ""))),
    ]
    for line in aligned([(name, value) for name, value in facts if value]):
        terminal.say(f"  {line}")
    value = content(record.object)
    terminal.say(f"\n{terminal.paint('Object', 'bold')}")
    for line in indented("deleted, or empty" if value is None else json.dumps(value, indent=2, ensure_ascii=False)):
        terminal.say(line)
    if record.error:
        terminal.say(f"\n{terminal.paint('Last error', 'bold')}")
        for line in indented(record.error):
            terminal.say(line)


def _show_history(console: Console, record: Record, terminal: Terminal) -> None:
    terminal.say(f"\n{terminal.paint('History', 'bold')}")
    happenings = list(story(console.history(record.run_id), console.status_name))
    cells = [(f"{each.row.version}", f"+{span(_after(record, each.row.at))}", each.text) for each in happenings]
    for each, line in zip(happenings, aligned(cells), strict=True):
        terminal.say(f"  {terminal.paint(line, COLOUR_OF_KIND.get(each.kind, ''))}")


def _after(record: Record, instant: datetime) -> float:
    return max(0.0, (instant - record.created_at).total_seconds())


# --- items ----------------------------------------------------------------------------------------------------------


def list_items(arguments: Namespace, terminal: Terminal) -> int:
    """What is due later or held: timers, kept callbacks, parked failures, schedules."""
    with opened(arguments.store) as adapters:
        found = _items(adapters, arguments)
        shown = found if arguments.all else islice(found, arguments.limit)
        if terminal.as_json:
            for console, item in shown:
                terminal.give(console.plain(item))
            return 0
        now = SYSTEM.clock.now()
        head = ("ITEM", "KIND", "NAME", "STATUS", "DUE", "TRIES", "RUN")
        terminal.table(head, ((*_item_cells(console, item, now), item.run_id) for console, item in shown))
        if not arguments.all and next(found, None) is not None:
            _more(terminal, arguments.limit)
    return 0


def _items(adapters: Adapters, arguments: Namespace) -> Iterator[tuple[Console, Timeout]]:
    if arguments.run:
        console, record = find_run(adapters, arguments.run)
        yield from ((console, item) for item in console.items(record.run_id).items)
        return
    for console in consoles(adapters, arguments.workflow):
        cursor, more = "", True
        while more:
            page = console.items(after=cursor)
            yield from ((console, item) for item in page.items)
            cursor, more = page.next, bool(page.next)


def _item_cells(console: Console, item: Timeout, now: datetime) -> Sequence[str]:
    due = "held: needs a retry by hand" if item.due_at is None else relative(item.due_at, now)
    tries = f"{item.attempt} failed, {clean(item.error_type)}" if item.error_type else "-"
    status = console.status_name(item.status) if item.status else "-"
    return item.id, item.kind, clip(clean(item.name), LONGEST_CELL), status, due, tries


# --- diagram --------------------------------------------------------------------------------------------------------


def draw(arguments: Namespace, terminal: Terminal) -> int:
    """The graph as Mermaid text: of code, its edges labelled with functions, or of a definition in the store."""
    if arguments.target:
        make = target.find(arguments.target)
        with closing(memory()) as nowhere:
            workflow = make(nowhere)
            name, text = workflow.name, workflow.diagram()
    else:
        with opened(arguments.store) as adapters:
            known = consoles(adapters, arguments.workflow)
            if len(known) != 1:
                names = ", ".join(console.name for console in known) or "none"
                raise InvalidInput(f"choose one with --workflow; this store knows {names}")
            name, text = known[0].name, known[0].diagram()
    if terminal.as_json:
        terminal.give({"workflow_name": name, "mermaid": text})
    else:
        terminal.say(text.rstrip())
    return 0
