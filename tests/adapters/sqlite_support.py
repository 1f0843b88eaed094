"""What the tests of the SQLite adapters share: changes, child processes, and programs that the children run."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

from workflow.adapters.sqlite import sqlite
from workflow.adapters.sqlite.event_log import SqliteEventLog
from workflow.adapters.support.log_streamer import LogStreamer
from workflow.event import NO_HEADERS, WHOLE, Change, Event, run_state_topic, status_topic
from workflow.protocols import Adapters, DirectPublish
from workflow.record import NO_META, Record, Transition
from workflow.run_state import RunState

ROOT = Path(__file__).resolve().parents[2]
START = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=timezone.utc)
WORKFLOW = "orders"
DEADLINE = 60.0

_write_ids = itertools.count(1)


def change(
    run_id: str,
    version: int = 1,
    *,
    foreign_id: str = "",
    status: int = 1,
    run_state: RunState = RunState.RUNNING,
    delay: timedelta = timedelta(0),
    write_id: str = "",
    cause: str = "",
    workflow_name: str = WORKFLOW,
    object: bytes = b"{}",
    error: str = "",
    by: str = "",
    meta: Mapping[str, str] = NO_META,
    headers: Mapping[str, str] = NO_HEADERS,
) -> Change:
    """A change as the engine would make it."""
    at = START + timedelta(seconds=version)
    record = Record(
        workflow_name=workflow_name, foreign_id=foreign_id or f"of-{run_id}", run_id=run_id, version=version,
        run_state=run_state, status=status, status_entered=version, entered_at=at, turn=0, object=object,
        created_at=START, updated_at=at, available_at=at + delay, error=error, by=by, meta=meta,
    )  # fmt: skip
    transition = Transition(
        run_id=run_id, version=version, write_id=write_id or f"{os.getpid()}.{next(_write_ids)}", status=status,
        run_state=run_state, at=at, cause=cause, by=by, instance="tests",
    )  # fmt: skip
    running = run_state is RunState.RUNNING
    topic = status_topic(workflow_name, status) if running else run_state_topic(workflow_name)
    return Change(record, transition, Event(topic, run_id, status, run_state, version, at, headers))


def bound(path: Path | str, workflow_name: str = WORKFLOW) -> Adapters:
    """The adapters of the file, with the workflow's events going into its log."""
    adapters = sqlite(path)
    assert bind(adapters, workflow_name)
    return adapters


def bind(adapters: Adapters, workflow_name: str = WORKFLOW) -> bool:
    return cast("DirectPublish", adapters.record_store).bind(workflow_name, adapters.event_streamer)


def log_of(adapters: Adapters) -> SqliteEventLog:
    streamer = adapters.event_streamer
    assert isinstance(streamer, LogStreamer)
    assert isinstance(streamer.log, SqliteEventLog)
    return streamer.log


def events_in(adapters: Adapters, topic: str) -> list[Event]:
    return [entry.event for entry in log_of(adapters).read(topic, WHOLE, 0, 1_000_000)[0]]


def wait_for(condition: Callable[[], bool], deadline: float = DEADLINE) -> None:
    """Return as soon as it holds; fail at the deadline."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, "the deadline has passed"
        time.sleep(0.001)


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Run one of the programs below in a child process. It writes lines, and goes on when it is sent one."""
    code = f"import sys; from tests.adapters import sqlite_support as s; s.{program}(*sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def line_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def send(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdin is not None
    child.stdin.write(line + "\n")
    child.stdin.flush()


def end(child: subprocess.Popen[str]) -> Any:
    """Wait for the child, and return what its last line has as JSON."""
    out, _ = child.communicate(timeout=DEADLINE)
    assert child.returncode == 0
    return json.loads(out.splitlines()[-1]) if out.strip() else None


def kill(child: subprocess.Popen[str]) -> list[str]:
    """Kill it without warning. Returns the lines that it wrote and nobody read."""
    child.kill()
    out, _ = child.communicate(timeout=DEADLINE)
    return out.splitlines()


# --- programs ------------------------------------------------------------------------------------------------------


def storing(path: str, name: str) -> None:
    """Store batches of changes for ever: some for later, with causes. Tell each batch after it was stored."""
    adapters = bound(path)
    for number in itertools.count():
        ids = [f"{name}-{number}-{index}" for index in range(10)]
        for version in (1, 2, 3):
            state = RunState.COMPLETED if version == 3 else RunState.RUNNING
            delay = timedelta(hours=1) if version == 2 else timedelta(0)
            changes = [
                change(i, version, status=version, run_state=state, delay=delay, cause=f"{i}/{version}") for i in ids
            ]
            assert adapters.record_store.store(changes) == [None] * len(ids)
            print(number, version, flush=True)


def racing(path: str, name: str, runs: str, versions: str) -> None:
    """Take every version of every run, if no other process does; tell which were taken."""
    adapters = bound(path)
    print("ready", flush=True)
    sys.stdin.readline()
    won: list[tuple[str, int]] = []
    for version in range(1, int(versions) + 1):
        changes = [change(f"run-{index}", version, by=name) for index in range(int(runs))]
        answers = adapters.record_store.store(changes)
        won += [(c.record.run_id, version) for c, answer in zip(changes, answers, strict=True) if answer is None]
    adapters.close()
    print(json.dumps(won))


def opening(path: str) -> None:
    """Open the file when told to, store one run, close."""
    print("ready", flush=True)
    sys.stdin.readline()
    adapters = bound(path)
    answers = adapters.record_store.store([change(f"of-process-{os.getpid()}")])
    adapters.close()
    print(json.dumps(answers == [None]))


def storing_when_told(path: str) -> None:
    """Store the run whose id it is sent, and tell when that was committed."""
    adapters = bound(path)
    print("ready", flush=True)
    for line in sys.stdin:
        adapters.record_store.store([change(line.strip())])
        print(time.monotonic(), flush=True)
    adapters.close()
