"""Callbacks: one effect each, kept where declared, never on the wrong run."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

import pytest

from workflow import Adapters, Builder, InvalidInput, Outcome, Run, RunNotFound, RunPaused, RunState, Workflow

DEADLINE = 20.0


class Status(IntEnum):
    OPEN = 1
    WAITING = 2
    CONFIRMED = 3
    DONE = 4


@dataclass
class Parcel:
    told: list[str] = field(default_factory=list)


def parcels(adapters: Adapters, *, buffer: bool = False) -> Workflow[Parcel, Status]:
    """OPEN goes to WAITING by itself; a callback confirms; CONFIRMED ends by itself."""
    builder = Builder("parcels", Parcel, Status)

    @builder.step(Status.OPEN)
    def open_it(run: Run[Parcel, Status]) -> Literal[Status.WAITING] | Outcome:
        return run.pause("hold") if run.foreign_id.startswith("hold") else Status.WAITING

    @builder.callback(Status.WAITING, buffer=buffer)
    def confirm(run: Run[Parcel, Status], payload: bytes) -> Literal[Status.CONFIRMED] | Outcome:
        if payload == b"bad":
            raise ValueError("cannot read it")
        run.object.told.append(payload.decode())
        return run.repeat() if payload == b"more" else Status.CONFIRMED

    @builder.step(Status.CONFIRMED)
    def end(run: Run[Parcel, Status]) -> Literal[Status.DONE]:
        return Status.DONE

    return builder.build(adapters)


def test_it_moves_the_run(adapters: Adapters) -> None:
    with parcels(adapters) as wf:
        run_id = wf.trigger("a")
        wf.await_status("a", run_id, Status.WAITING, timeout=DEADLINE)
        assert wf.callback("a", Status.WAITING, b"yes", by="carrier") is True
        assert wf.await_status("a", run_id, Status.DONE, timeout=DEADLINE).object.told == ["yes"]
    assert wf.history(run_id)[2].by == "carrier"


def test_before_its_status_the_answer_is_false(adapters: Adapters) -> None:
    wf = parcels(adapters)
    run_id = wf.trigger("a")
    assert wf.callback("a", Status.WAITING, b"early") is False
    assert wf.get(run_id).version == 1


def test_without_an_active_run_it_raises(adapters: Adapters) -> None:
    wf = parcels(adapters)
    with pytest.raises(RunNotFound, match="nobody"):
        wf.callback("nobody", Status.WAITING)
    with pytest.raises(InvalidInput, match="OPEN"):
        wf.callback("nobody", Status.OPEN)


def test_to_a_paused_run_it_raises_unless_it_is_kept(adapters: Adapters) -> None:
    wf = parcels(adapters)
    run_id = wf.trigger("a")
    wf.pause(run_id)
    with pytest.raises(RunPaused, match="buffer=True"):
        wf.callback("a", Status.WAITING, b"yes")


def test_an_exception_reaches_the_caller_and_consumes_nothing(adapters: Adapters) -> None:
    with parcels(adapters) as wf:
        run_id = wf.trigger("a")
        wf.await_status("a", run_id, Status.WAITING, timeout=DEADLINE)
        with pytest.raises(ValueError, match="cannot read it"):
            wf.callback("a", Status.WAITING, b"bad", idempotency_key="k")
        assert wf.callback("a", Status.WAITING, b"good", idempotency_key="k") is True
        assert wf.await_status("a", run_id, Status.DONE, timeout=DEADLINE).object.told == ["good"]


def test_one_key_has_one_effect_from_sixteen_threads_and_later(adapters: Adapters) -> None:
    with parcels(adapters) as wf:
        run_id = wf.trigger("a")
        wf.await_status("a", run_id, Status.WAITING, timeout=DEADLINE)
        answers: list[bool] = []
        barrier = threading.Barrier(16)

        def call() -> None:
            barrier.wait()
            answers.append(wf.callback("a", Status.WAITING, b"more", idempotency_key="k"))

        threads = [threading.Thread(target=call) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [True] * 16
        assert wf.get(run_id).object.told == ["more"]
        wf.callback("a", Status.WAITING, b"yes")
        wf.await_status("a", run_id, Status.DONE, timeout=DEADLINE)
        assert wf.callback("a", Status.WAITING, b"more", idempotency_key="k") is True
        assert wf.get(run_id).object.told == ["more", "yes"]


def test_callbacks_without_keys_all_count(adapters: Adapters) -> None:
    with parcels(adapters) as wf:
        run_id = wf.trigger("a")
        wf.await_status("a", run_id, Status.WAITING, timeout=DEADLINE)
        threads = [threading.Thread(target=wf.callback, args=("a", Status.WAITING, b"more")) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wf.get(run_id).object.told == ["more"] * 8


class TestBuffered:
    def test_an_early_one_is_kept_and_applied_at_the_entry(self, adapters: Adapters) -> None:
        wf = parcels(adapters, buffer=True)
        run_id = wf.trigger("a")
        assert wf.callback("a", Status.WAITING, b"early", idempotency_key="k") is True
        assert wf.callback("a", Status.WAITING, b"early", idempotency_key="k") is True
        assert [item.kind for item in wf.items(run_id).items] == ["callback"]
        with wf:
            assert wf.await_status("a", run_id, Status.DONE, timeout=DEADLINE).object.told == ["early"]
        assert wf.items(run_id).items == ()

    def test_they_are_applied_in_the_order_in_which_they_came(self, adapters: Adapters) -> None:
        wf = parcels(adapters, buffer=True)
        run_id = wf.trigger("a")
        wf.callback("a", Status.WAITING, b"more", by="ann", reason="first")
        wf.callback("a", Status.WAITING, b"last", by="bob", reason="second")
        with wf:
            assert wf.await_status("a", run_id, Status.DONE, timeout=DEADLINE).object.told == ["more", "last"]
        told = [(row.by, row.reason) for row in wf.history(run_id)]
        assert told == [("", ""), ("", ""), ("ann", "first"), ("bob", "second"), ("", "")]

    def test_one_to_a_paused_run_waits_for_the_resume(self, adapters: Adapters) -> None:
        with parcels(adapters, buffer=True) as wf:
            run_id = wf.trigger("a")
            wf.await_status("a", run_id, Status.WAITING, timeout=DEADLINE)
            wf.pause(run_id, by="ann")
            assert wf.callback("a", Status.WAITING, b"kept") is True
            assert wf.get(run_id).run_state is RunState.PAUSED
            wf.resume(run_id, by="ann")
            assert wf.await_status("a", run_id, Status.DONE, timeout=DEADLINE).object.told == ["kept"]

    def test_one_that_comes_too_late_is_not_kept(self, adapters: Adapters) -> None:
        with parcels(adapters, buffer=True) as wf:
            run_id = wf.trigger("a")
            wf.callback("a", Status.WAITING, b"first")
            wf.await_status("a", run_id, Status.DONE, timeout=DEADLINE)
            with pytest.raises(RunNotFound):
                wf.callback("a", Status.WAITING, b"late")
