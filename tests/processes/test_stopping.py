"""Stopping: what is in hand is finished and stored, what hangs is named, and nothing is left behind."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest

from tests.engine.orders import Order, Status
from tests.processes.support import DEADLINE, wait_for
from workflow import Adapters, Builder, Retry, Run, RunState, StopTimeout, Workflow, memory, sqlite
from workflow.testing import wait_for_status

SOON = Retry(initial=0.01, maximum=0.01)


@pytest.fixture(params=["memory", "sqlite"])
def adapters(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Adapters]:
    made = memory() if request.param == "memory" else sqlite(tmp_path / "store.db")
    try:
        yield made
    finally:
        made.close()


class Gate:
    """A step that others wait for: it says when it is entered, and waits until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def pass_through(self) -> None:
        self.entered.set()
        assert self.opened.wait(DEADLINE)


def test_a_step_of_two_seconds_is_finished_and_stored(adapters: Adapters) -> None:
    before = set(threading.enumerate())
    builder = Builder("slow", Order, Status)
    entered = threading.Event()

    @builder.step(Status.CREATED)
    def slow(run: Run[Order, Status]) -> Literal[Status.PAID]:
        entered.set()
        threading.Event().wait(2.0)
        run.object.amount = 7
        return Status.PAID

    wf = builder.build(adapters)
    wf.run()
    run_id = wf.trigger("a")
    assert entered.wait(DEADLINE)
    wf.stop()
    assert wf.get(run_id).status is Status.PAID
    assert wf.get(run_id).object.amount == 7
    wait_for(lambda: set(threading.enumerate()) <= before, "the end of all threads")


def test_a_step_that_hangs_is_named(adapters: Adapters) -> None:
    before = set(threading.enumerate())
    builder = Builder("hanging", Order, Status)
    gate = Gate()

    @builder.step(Status.CREATED)
    def hang(run: Run[Order, Status]) -> Literal[Status.PAID]:
        gate.pass_through()
        return Status.PAID

    wf = builder.build(adapters)
    wf.run()
    run_id = wf.trigger("a")
    assert gate.entered.wait(DEADLINE)
    with pytest.raises(StopTimeout, match=f"hang of run {run_id}") as raised:
        wf.stop(timeout=0.2)
    assert raised.value.pending == (f"hang of run {run_id}",)
    gate.opened.set()
    wf.stop()
    assert wf.get(run_id).status is Status.PAID
    wait_for(lambda: set(threading.enumerate()) <= before, "the end of all threads")


def test_a_step_that_hangs_beyond_its_timeout_is_given_up(adapters: Adapters) -> None:
    """Its attempt is stored as failed, its role is carried on, and what it answers in the end comes too late."""
    before = set(threading.enumerate())
    builder = Builder("given-up", Order, Status)
    gate = Gate()
    ended = threading.Event()

    @builder.step(Status.CREATED, timeout=0.3, retry=SOON)
    def hang(run: Run[Order, Status]) -> Literal[Status.PAID, Status.REJECTED]:
        if run.foreign_id != "a" or gate.entered.is_set():
            return Status.PAID
        gate.pass_through()
        run.object.amount = 99
        ended.set()
        return Status.REJECTED

    wf = builder.build(adapters)
    with wf:
        run_id = wf.trigger("a")
        assert gate.entered.wait(DEADLINE)
        other = wf.trigger("b")
        wait_for_status(wf, other, Status.PAID, timeout=DEADLINE)
        wait_for_status(wf, run_id, Status.PAID, timeout=DEADLINE)
        assert not ended.is_set()
        gate.opened.set()
        assert ended.wait(DEADLINE)
    rows = wf.history(run_id)
    assert [(row.status, row.attempt, row.error_type) for row in rows[:2]] == [(1, 0, ""), (1, 1, "FunctionTimeout")]
    assert rows[-1].status == Status.PAID
    assert wf.get(run_id).object.amount == 0
    wait_for(lambda: set(threading.enumerate()) <= before, "the end of all threads")


class TestTheTokenOfARun:
    """`run.cancelled` fires whenever the function should end; one that heeds it ends at once."""

    def build(self, adapters: Adapters, *, timeout: float | None = None) -> Workflow[Order, Status]:
        builder = Builder("heeding", Order, Status)
        self.entered = threading.Event()
        self.reasons: list[str] = []

        @builder.step(Status.CREATED, timeout=timeout, retry=SOON)
        def heed(run: Run[Order, Status]) -> Literal[Status.PAID]:
            if self.entered.is_set():
                return Status.PAID
            self.entered.set()
            fired = threading.Event()
            run.cancelled.subscribe(fired.set)
            assert fired.wait(DEADLINE)
            self.reasons.append(run.cancelled.reason)
            return Status.PAID

        return builder.build(adapters)

    def test_fires_on_stop(self, adapters: Adapters) -> None:
        wf = self.build(adapters)
        wf.run()
        run_id = wf.trigger("a")
        assert self.entered.wait(DEADLINE)
        wf.stop()
        assert self.reasons == ["stop"]
        assert wf.get(run_id).status is Status.PAID  # what it answered is stored all the same

    def test_fires_when_an_operator_cancels_the_run(self, adapters: Adapters) -> None:
        wf = self.build(adapters)
        with wf:
            run_id = wf.trigger("a")
            assert self.entered.wait(DEADLINE)
            wf.cancel(run_id, by="ann")
            wait_for(lambda: self.reasons)
        assert self.reasons == [f"run {run_id} was cancelled"]
        assert wf.get(run_id).run_state is RunState.CANCELLED  # and its answer came too late
        assert len(wf.history(run_id)) == 2

    def test_fires_at_the_steps_own_timeout(self, adapters: Adapters) -> None:
        wf = self.build(adapters, timeout=0.1)
        with wf:
            run_id = wf.trigger("a")
            wait_for_status(wf, run_id, Status.PAID, timeout=DEADLINE)
        assert self.reasons == ["heed did not return within 0.1 s"]

    def test_fires_when_the_role_is_lost(self, tmp_path: Path) -> None:
        """Another member takes the role away, as it would from one that had been frozen."""
        made = sqlite(tmp_path / "store.db", lease_time=0.5)
        wf = self.build(made)
        with wf:
            run_id = wf.trigger("a")
            assert self.entered.wait(DEADLINE)
            with closing(sqlite3.connect(tmp_path / "store.db", timeout=DEADLINE)) as thief, thief:
                thief.execute("UPDATE lease SET holder = '', epoch = epoch + 1 WHERE role LIKE '%-1-consumer-%'")
            wait_for_status(wf, run_id, Status.PAID, timeout=DEADLINE)
        assert self.reasons == ["the role heeding-1-consumer-1-of-1 went to another member"]
        made.close()
