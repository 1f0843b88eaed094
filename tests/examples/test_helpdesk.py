"""The help desk of docs/examples: every line of its log has its one effect, in order, whatever is killed meanwhile.

The sample runs everywhere. The whole log is no part of the repository: WORKFLOW_HELPDESK_LOG names it, or it stands
beside the checkout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import workflow
from docs.examples import helpdesk
from docs.examples.helpdesk import Activity
from workflow.files import JsonLines
from workflow.protocols import counts
from workflow.testing import eventually

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "docs" / "examples" / "helpdesk.py"
LOG = Path(os.environ.get("WORKFLOW_HELPDESK_LOG", ROOT.parent / "shared" / "data" / "helpdesk.jsonl"))
DEADLINE = 100.0

needs_the_log = pytest.mark.skipif(
    not LOG.is_file(), reason="the whole log is not here: name it in WORKFLOW_HELPDESK_LOG"
)


def activities(log: Path) -> dict[str, list[Activity]]:
    """What the log says: the activities of each case, in order."""
    cases: dict[str, list[Activity]] = {}
    for text in log.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        cases.setdefault(line["case"], []).append(Activity[line["activity"].replace(" ", "_").upper()])
    return cases


def start(log: Path, store: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(log), "--store", str(store)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the program's end; returns what it told."""
    told, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, errors
    assert not errors
    return told


def check(log: Path, store: Path) -> None:
    """The store has what the log says: nothing lost, nothing doubled, nothing out of order."""
    expected = activities(log)
    adapters = workflow.sqlite(store)
    try:
        desk = helpdesk.build(adapters, JsonLines(log))
        tickets = list(helpdesk.tickets(desk))
        found = {ticket.foreign_id: [Activity(row.status) for row in desk.history(ticket.run_id)] for ticket in tickets}
    finally:
        adapters.close()
    assert found == expected
    assert len(tickets) == len(expected)
    final = Counter(ticket.status for ticket in tickets)
    assert final == Counter(sequence[-1] for sequence in expected.values())


def test_the_sample(tmp_path: Path) -> None:
    store = tmp_path / "desk.db"
    told = finish(start(helpdesk.SAMPLE, store))
    assert told.startswith("5 tickets and 32 lines in ")
    assert "3 CLOSED" in told
    check(helpdesk.SAMPLE, store)


def test_it_runs_without_arguments_as_a_module() -> None:
    command = [sys.executable, "-m", "docs.examples.helpdesk"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout
    assert told.startswith("5 tickets and 32 lines in ")


def test_lines_that_come_again_change_nothing(tmp_path: Path) -> None:
    """Without its cursor, the file is delivered from the start, to runs that have long moved on."""
    store = tmp_path / "desk.db"
    helpdesk.serve(helpdesk.SAMPLE, store)
    cursors = list(tmp_path.glob("desk.db.cursor*"))
    assert cursors
    for cursor in cursors:
        cursor.unlink()
    helpdesk.serve(helpdesk.SAMPLE, store)
    check(helpdesk.SAMPLE, store)


def test_a_log_that_has_grown_goes_on(tmp_path: Path) -> None:
    store, log = tmp_path / "desk.db", tmp_path / "log.jsonl"
    lines = helpdesk.SAMPLE.read_text(encoding="utf-8").splitlines(keepends=True)
    for part in (lines[:11], lines[11:12], lines[12:]):
        with log.open("a", encoding="utf-8") as file:
            file.writelines(part)
        helpdesk.serve(log, store)
        check(log, store)


@needs_the_log
def test_the_whole_log(tmp_path: Path) -> None:
    store = tmp_path / "desk.db"
    told = finish(start(LOG, store))
    print(told)
    assert told.startswith("4580 tickets and 21348 lines in ")
    assert "4557 CLOSED" in told
    check(LOG, store)


def started(store: Path) -> int:
    """How many runs the store has, seen from a process of its own."""
    adapters = workflow.sqlite(store)
    try:
        counting = counts(adapters.record_store)
        assert counting is not None
        return sum(counting.counts("helpdesk").values())
    finally:
        adapters.close()


@needs_the_log
def test_the_whole_log_with_kills_in_the_middle(tmp_path: Path) -> None:
    store = tmp_path / "desk.db"
    for enough in (1000, 2200, 3400):
        process = start(LOG, store)

        def has_enough(process: subprocess.Popen[str] = process, enough: int = enough) -> bool:
            return process.poll() is not None or (store.exists() and started(store) >= enough)

        eventually(has_enough, timeout=DEADLINE)
        process.kill()
        process.communicate(timeout=DEADLINE)
        assert process.returncode < 0, "it had ended before it was killed"
    told = finish(start(LOG, store))
    assert not told.startswith("0 tickets")
    check(LOG, store)
