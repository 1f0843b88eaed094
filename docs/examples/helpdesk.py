"""A help desk: the tickets of an event log, each a run of its own, fed from a file of JSON lines into SQLite.

    python -m docs.examples.helpdesk [LOG] [--store FILE]

Each line of the log says that something was done for a ticket. The first line of a ticket starts its run at that
activity, each further one is a callback, which moves the run on. Kill the program wherever you like and start it again
with the same `--store`: it goes on, loses nothing and does nothing twice. Three things make that so:

- what was read is acknowledged only when its effect is stored, so a line comes again rather than not at all;
- the effect of a line is stored under the line's id, so that a line that comes again finds itself done;
- the connector is `ordered`: a line that fails is tried again in its place, and no later line of its ticket overtakes.

There is no last activity: a closed ticket may be opened again. So no run completes; each stays where its last line put
it, and the job is done when every line is acknowledged.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

if not __package__:  # started as a script, from a checkout: `workflow` is two folders up
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import workflow
from workflow.files import JsonLines

SAMPLE = Path(__file__).with_name("helpdesk-sample.jsonl")
SHARDS = 8
"""Tickets are split into so many parts, each fed line by line. Their commits join into one, which the disk likes."""


class Activity(IntEnum):
    """What may be done for a ticket; its run is in the status of what was done last. The numbers are stored."""

    ASSIGN_SERIOUSNESS = 1
    TAKE_IN_CHARGE_TICKET = 2
    WAIT = 3
    REQUIRE_UPGRADE = 4
    INSERT_TICKET = 5
    CREATE_SW_ANOMALY = 6
    RESOLVE_SW_ANOMALY = 7
    SCHEDULE_INTERVENTION = 8
    RESOLVE_TICKET = 9
    RESOLVED = 10
    INVALID = 11
    DUPLICATE = 12
    VERIFIED = 13
    CLOSED = 14


@dataclass
class Ticket:
    opened_by: str
    """The id of the log's line that opened it."""
    seriousness: str
    agents: list[str] = field(default_factory=list)
    """Who worked on it, in the order in which they came to it."""


Desk = workflow.Workflow[Ticket, Activity]


def activity_of(line: dict[str, str]) -> Activity:
    """The activity of a line, as in "Resolve ticket"."""
    return Activity[line["activity"].upper().replace(" ", "_")]


def move(run: workflow.Run[Ticket, Activity], payload: bytes) -> Activity:
    """What happens to a ticket with each further line of it: this is all there is of business logic here."""
    line = json.loads(payload)
    run.object.seriousness = line["seriousness"]
    if line["resource"] not in run.object.agents:
        run.object.agents.append(line["resource"])
    return activity_of(line)


def feed(api: workflow.Api[Ticket, Activity], event: workflow.ConnectorEvent) -> None:
    """Bring one line to its ticket."""
    line = json.loads(event.payload)
    ticket = api.latest(line["case"])
    if ticket is None or ticket.object.opened_by == event.id:  # the latter: it comes again, and starts nothing
        opened = Ticket(event.id, line["seriousness"], [line["resource"]])
        api.trigger(line["case"], initial_value=opened, start_at=activity_of(line))
    elif not api.callback(line["case"], ticket.status, event.payload):
        # Another process has taken our shard over and moved the run since we looked. The next try sees what it did.
        raise RuntimeError(f"ticket {line['case']} is not in {ticket.status.name} any more")


def build(adapters: workflow.Adapters, source: JsonLines) -> Desk:
    """The workflow of tickets, fed from `source`."""
    desk = workflow.Builder("helpdesk", Ticket, Activity, start=Activity.ASSIGN_SERIOUSNESS)
    for activity in Activity:  # agents do as they see fit: any activity may follow any, itself too
        desk.callback(activity, to=tuple(Activity))(move)
    desk.connector("log", source, ordered=True, parallel_count=SHARDS)(feed)
    return desk.build(adapters)


def tickets(desk: Desk) -> Iterator[workflow.RunView[Ticket, Activity]]:
    """All runs, page by page."""
    cursor = ""
    while True:
        page = desk.list(after=cursor, limit=500)
        yield from page.items
        cursor = page.next
        if not cursor:
            return


def serve(log: Path, store: Path) -> None:
    """Feed the whole log, and tell what came of it."""
    adapters = workflow.sqlite(store)
    # The cursor says how much of the log is in this store, so it stands beside the store and goes where that goes.
    source = JsonLines(log, key="case", id="id", cursor=f"{store}.cursor", follow=False)
    desk = build(adapters, source)
    try:
        before = list(tickets(desk))
        begun = time.monotonic()
        with desk:
            while not source.caught_up("log"):
                time.sleep(0.05)
        seconds = time.monotonic() - begun
        after = list(tickets(desk))
        started = len(after) - len(before)
        moved = sum(ticket.version for ticket in after) - sum(ticket.version for ticket in before)  # a version a line
        print(f"{started} tickets and {moved} lines in {seconds:.1f} s:", end=" ")
        print(f"{started / seconds:.0f} runs/s, {moved / seconds:.0f} transitions/s; now there are")
        for activity, number in Counter(ticket.status for ticket in after).most_common():
            print(f"{number:6} {activity.name}")
    finally:
        adapters.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Feed a help desk's event log into a durable workflow.")
    parser.add_argument(
        "log", metavar="LOG", nargs="?", type=Path, default=SAMPLE, help="JSON lines (default: a sample)"
    )
    parser.add_argument("--store", metavar="FILE", type=Path, help="keep the store, and go on where it was")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)  # a line that cannot be brought to its ticket is told, and tried again
    if given.store is not None:
        serve(given.log, given.store)
        return
    with tempfile.TemporaryDirectory() as folder:
        serve(given.log, Path(folder) / "helpdesk.db")


if __name__ == "__main__":
    main()
