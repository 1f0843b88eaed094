"""What the file has after a process was killed in the middle of its work: all of a change, or nothing of it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tests.adapters.sqlite_support import WORKFLOW, bound, events_in, kill, line_of, start
from workflow.protocols import Adapters, counts
from workflow.record import Record
from workflow.run_state import RunState


def all_runs(adapters: Adapters) -> list[Record]:
    records: list[Record] = []
    page = adapters.record_store.list(WORKFLOW, limit=500)
    records += page.items
    while page.next:
        page = adapters.record_store.list(WORKFLOW, limit=500, after=page.next)
        records += page.items
    return records


def check_whole(path: Path, told: list[str], name: str) -> None:
    """Every batch that was told is there, and of every run there are as many versions as rows and events."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    adapters = bound(path)
    store = adapters.record_store
    records = all_runs(adapters)
    found = {record.run_id: record.version for record in records}
    for line in told:
        number, version = map(int, line.split())
        assert all(found[f"{name}-{number}-{index}"] >= version for index in range(10))

    topics = [f"{WORKFLOW}-1", f"{WORKFLOW}-2", f"{WORKFLOW}-run-state"]
    logged = Counter((event.key, event.version) for topic in topics for event in events_in(adapters, topic))
    assert set(logged.values()) <= {1}
    for record in records:
        versions = list(range(1, record.version + 1))
        assert [row.version for row in store.history(record.run_id)] == versions
        assert [store.applied(WORKFLOW, f"{record.run_id}/{version}") for version in versions] == (
            [record.run_id] * record.version
        )
        waiting = [waits.event.version for waits in store.outbox_of(record.run_id)]
        assert waiting == [version for version in versions if version == 2]
        assert all((record.run_id, version) in logged for version in versions if version != 2)
    assert len(logged) == sum(record.version - (record.version >= 2) for record in records)

    counting = counts(store)
    assert counting is not None
    assert counting.counts(WORKFLOW) == Counter((record.status, record.run_state) for record in records)
    adapters.close()


@pytest.mark.parametrize("batches", [1, 2, 7, 40])
def test_a_kill_leaves_all_of_a_change_or_nothing(tmp_path: Path, batches: int) -> None:
    path = tmp_path / "killed.db"
    bound(path).close()
    names = ["one", "two"]
    children = [start("storing", path, name) for name in names]
    told = [[line_of(child) for _ in range(batches)] for child in children]
    for child, lines in zip(children, told, strict=True):
        lines += [line for line in kill(child) if len(line.split()) == 2]
    for name, lines in zip(names, told, strict=True):
        check_whole(path, [line for line in lines if line], name)


def test_whoever_is_left_goes_on_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "left.db"
    left = bound(path)
    for round in range(3):
        child = start("storing", path, f"round-{round}")
        line_of(child)
        kill(child)
        before = len(all_runs(left))
        assert before >= 10 * (round + 1)
        assert all(record.run_state in (RunState.RUNNING, RunState.COMPLETED) for record in all_runs(left))
    left.close()
