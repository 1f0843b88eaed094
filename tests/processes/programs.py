"""The programs that worker processes run: `python -m tests.processes.programs NAME ARGUMENTS-AS-JSON`.

Each tells its parent what it has done in lines of JSON, and does the next thing when it is sent a line. One whose
parent is gone ends.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, cast

from tests.processes.jobs import Effects, Job, Stage, jobs, pause
from workflow import (
    Adapters,
    Api,
    Builder,
    ConnectorEvent,
    ProcessState,
    Retry,
    Run,
    RunInProgress,
    Trigger,
    Workflow,
    memory,
    sqlite,
)
from workflow.adapters.memory import MemoryConnector


class Five(IntEnum):
    A = 1
    B = 2
    C = 3
    D = 4
    E = 5


def tell(value: object) -> None:
    print(json.dumps(value), flush=True)


def hear() -> str:
    """The next line from the parent. Without a parent there is nobody to work for."""
    line = sys.stdin.readline()
    if not line:
        os._exit(3)
    return line.strip()


def held(wf: Workflow[Any, Any]) -> int:
    return list(wf.states().values()).count(ProcessState.RUNNING)


# --- serving -------------------------------------------------------------------------------------------------------


def serve(path: str, effects: str, lease_time: float, shards: int = 1, max_attempts: int = 10) -> None:
    """Serve the jobs. Answers `held` with the number of roles; `lock` takes the file's write lock; `stop` ends."""
    adapters = sqlite(path, lease_time=lease_time)
    retry = Retry(initial=0.1, maximum=2.0, jitter=False, max_attempts=max_attempts)
    wf = jobs(Effects(effects), shards=shards, retry=retry).build(adapters)
    wf.run()
    tell("ready")
    lock = sqlite3.connect(path, isolation_level=None)
    while (line := hear()) != "stop":
        if line == "held":
            tell(held(wf))
        elif line == "lock":
            lock.execute("BEGIN IMMEDIATE")
            tell("locked")
    lock.close()
    wf.stop()
    adapters.close()
    tell([thread.name for thread in threading.enumerate() if thread is not threading.main_thread()])


# --- two versions of one workflow ----------------------------------------------------------------------------------


@dataclass
class OldAddress:
    street: str = ""


@dataclass
class OldOrder:
    steps: list[str] = field(default_factory=list)
    address: OldAddress = field(default_factory=OldAddress)


@dataclass
class NewAddress:
    street: str = ""
    zip_code: str = ""


@dataclass
class NewOrder:
    steps: list[str] = field(default_factory=list)
    address: NewAddress = field(default_factory=NewAddress)
    note: str = ""
    tags: list[str] = field(default_factory=list)


def serve_version(path: str, new: bool) -> None:
    """Serve five statuses of an order, as old or as new code. `trigger` runs some, and tells what became of them."""
    adapters = sqlite(path)
    wf = (versioned(NewOrder) if new else versioned(OldOrder)).build(adapters, instance="new" if new else "old")
    wf.run()
    tell("ready")
    while (line := hear()) != "stop":
        tell(held(wf) if line == "held" else take_through(cast("Workflow[NewOrder, Five]", wf), 20))
    wf.stop()
    adapters.close()
    tell([])


def versioned(kind: type[Any]) -> Builder[Any, Five]:
    builder: Builder[Any, Five] = Builder("versioned", kind, Five)
    builder.defaults(parallel_count=2)
    for status, following in itertools.pairwise(Five):
        builder.add_step(status, noting(following), following)
    return builder


def noting(following: Five) -> Callable[[Run[Any, Five]], Five]:
    def step(run: Run[Any, Five]) -> Five:
        run.object.steps.append(run.status.name.lower())
        return following

    return step


def take_through(wf: Workflow[NewOrder, Five], count: int) -> list[object]:
    told: list[object] = []
    for number in range(count):
        order = NewOrder([], NewAddress("street", f"zip {number}"), f"note {number}", ["x", str(number)])
        run_id = wf.trigger(f"order-{number}", initial_value=order)
        end = wf.await_status(f"order-{number}", run_id, Five.E, timeout=60.0).object
        instances = [row.instance for row in wf.history(run_id)]
        told.append((instances, end.steps, end.note, end.address.zip_code, end.tags))
    return told


# --- at once -------------------------------------------------------------------------------------------------------


def at_once(threads: int, work: Callable[[int], object]) -> None:
    """Run `work` on so many threads that start together, once the parent says so."""
    barrier = threading.Barrier(threads + 1)

    def run(number: int) -> None:
        barrier.wait()
        work(number)

    started = [threading.Thread(target=run, args=[number]) for number in range(threads)]
    for thread in started:
        thread.start()
    tell("ready")
    hear()
    barrier.wait()
    for thread in started:
        thread.join()


def trigger_same(path: str, threads: int, foreign_ids: list[str], with_keys: bool) -> None:
    """Trigger each of them on every thread; tell the run ids, None where a run was in progress."""
    adapters = sqlite(path)
    wf = jobs(Effects(os.devnull)).build(adapters)
    answers: list[tuple[str, str | None]] = []

    def trigger(_: int) -> None:
        for foreign_id in foreign_ids:
            try:
                key = f"key of {foreign_id}" if with_keys else ""
                answers.append((foreign_id, wf.trigger(foreign_id, idempotency_key=key)))
            except RunInProgress:
                answers.append((foreign_id, None))

    at_once(threads, trigger)
    adapters.close()
    tell(answers)


def counting() -> Builder[list[str], Stage]:
    """A run that waits in FIRST for callbacks, which it counts, until one says that it is done."""
    builder: Builder[list[str], Stage] = Builder("counting", list[str], Stage)

    @builder.callback(Stage.FIRST)
    def count(run: Run[list[str], Stage], payload: bytes) -> Literal[Stage.FIRST, Stage.DONE]:
        run.object.append(payload.decode())
        return Stage.DONE if payload == b"last" else Stage.FIRST

    return builder


def callback_same(path: str, threads: int, keys: list[str]) -> None:
    """Call the run back under each key on every thread; tell the answers."""
    adapters = sqlite(path)
    wf = counting().build(adapters)
    answers: list[bool] = []

    def call_back(_: int) -> None:
        answers.extend(wf.callback("one", Stage.FIRST, key.encode(), idempotency_key=key) for key in keys)

    at_once(threads, call_back)
    adapters.close()
    tell(answers)


def connect_same(path: str, shards: int, events: int) -> None:
    """Take the same events from a connector as every other process, under roles of a layout of our own."""
    adapters = sqlite(path)
    source = MemoryConnector()
    builder = counting()

    @builder.connector("source", source, parallel_count=shards)
    def take(api: Api[list[str], Stage], event: ConnectorEvent) -> None:
        api.trigger(event.key)
        api.callback(event.key, Stage.FIRST, b"first")
        api.callback(event.key, Stage.FIRST, b"last")
        taken.append(event.id)

    taken: list[str] = []
    wf = builder.build(adapters)
    tell("ready")
    hear()
    for _ in range(2):  # a source may repeat itself
        for number in range(events):
            source.publish(f"order-{number}", b"", id=f"event-{number}")
    with wf:
        while len(taken) < 2 * events:
            pause(0.005)
    source.close()
    adapters.close()
    tell(len(wf.states()))


def trigger_and_wait(path: str, count: int) -> None:
    """Start runs in a process that serves nothing, and wait for their ends; tell the ids and the threads left."""
    adapters = sqlite(path)
    wf = jobs(Effects(os.devnull)).build(adapters)
    answers = wf.trigger_many([Trigger(f"job-{number}", Job()) for number in range(count)])
    run_ids = [answer for answer in answers if isinstance(answer, str)]
    for number, run_id in enumerate(run_ids):
        wf.await_status(f"job-{number}", run_id, Stage.DONE, timeout=60.0)
    adapters.close()
    tell([run_ids, len(threading.enumerate())])


# --- idling --------------------------------------------------------------------------------------------------------


def chain(name: str) -> Builder[Job, Five]:
    """A workflow of five statuses, one after the other."""
    builder = Builder(name, Job, Five)
    for status, following in itertools.pairwise(Five):
        builder.add_step(status, _to(following), following)
    return builder


def _to(following: Five) -> Callable[[Run[Job, Five]], Five]:
    return lambda run: following


def idle(path: str, seconds: float, windows: int, limit: float) -> None:
    """Serve ten workflows with nothing to do; tell which share of a core that takes, the least of a few windows."""
    adapters: Adapters = sqlite(path) if path else memory()
    workflows = [chain(f"idle-{number}").build(adapters) for number in range(10)]
    for wf in workflows:
        wf.run()
    for number, wf in enumerate(workflows):  # warm: each step has been at work
        wf.await_status(f"run-{number}", wf.trigger(f"run-{number}"), Five.E, timeout=60.0)
    shares: list[float] = []
    while len(shares) < windows and not any(share < limit for share in shares):
        pause(1.0)
        begun = time.process_time()
        pause(seconds)
        shares.append((time.process_time() - begun) / seconds)
    for wf in workflows:
        wf.stop()
    adapters.close()
    tell(min(shares))


if __name__ == "__main__":
    program: Callable[..., None] = globals()[sys.argv[1]]
    program(**json.loads(sys.argv[2]))
