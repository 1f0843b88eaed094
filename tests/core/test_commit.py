"""Group commit: one call for all that is queued, each change answered alone, failures kept apart."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, cast

import pytest

from workflow import StaleRecord, Unavailable
from workflow.clock import SYSTEM
from workflow.commit import Committer
from workflow.errors import BrokenAdapter, Refusal
from workflow.event import Change
from workflow.protocols import RecordStore, StandardLogger


class Store:
    """Takes changes that are plain words; some words make it fail."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.failures = 0
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.gate.set()

    def store(self, changes: Sequence[Change]) -> list[Refusal | None]:
        words = [cast("str", change) for change in changes]
        self.entered.set()
        assert self.gate.wait(20)
        self.calls.append(words)
        if self.failures:
            self.failures -= 1
            raise Unavailable("the store is away")
        if "poison" in words:
            raise RuntimeError("a bug in the store")
        return [StaleRecord(word, 1, 2) if word == "stale" else None for word in words]


def committer_on(store: Store) -> Committer:
    return Committer(cast("RecordStore", store), SYSTEM, StandardLogger())


def changes(*words: str) -> list[Any]:
    return list(words)


def test_each_change_has_its_own_answer() -> None:
    answers = committer_on(Store()).commit(changes("a", "stale", "b"))
    assert [type(answer) for answer in answers] == [type(None), StaleRecord, type(None)]


def test_what_comes_while_a_commit_runs_goes_into_the_next_one_together() -> None:
    store = Store()
    committer = committer_on(store)
    store.gate.clear()
    threads = [threading.Thread(target=committer.commit, args=(changes(f"w{n}"),)) for n in range(1)]
    threads[0].start()
    assert store.entered.wait(20)
    tickets = [committer.submit(change, SYSTEM.clock.signal()) for change in changes("x", "y", "z")]
    store.gate.set()
    threads[0].join()
    committer.wait(tickets)
    assert store.calls == [["w0"], ["x", "y", "z"]]


def test_sixteen_threads_are_all_served() -> None:
    store = Store()
    committer = committer_on(store)
    done: list[int] = []

    def work(number: int) -> None:
        for turn in range(50):
            assert committer.commit(changes(f"{number}.{turn}")) == [None]
        done.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(done) == list(range(16))
    assert sorted(word for call in store.calls for word in call) == sorted(
        f"{n}.{t}" for n in range(16) for t in range(50)
    )


def test_an_unavailable_store_is_asked_again_with_the_same_changes() -> None:
    store = Store()
    store.failures = 2
    assert committer_on(store).commit(changes("a", "b")) == [None, None]
    assert store.calls == [["a", "b"]] * 3


def test_after_several_tries_all_are_told() -> None:
    store = Store()
    store.failures = 100
    with pytest.raises(Unavailable, match="away"):
        committer_on(store).commit(changes("a"))


def test_a_change_that_breaks_the_store_spoils_no_other() -> None:
    store = Store()
    committer = committer_on(store)
    signal = SYSTEM.clock.signal()
    tickets = [committer.submit(change, signal) for change in changes("a", "poison", "b")]
    committer.wait(tickets)
    assert tickets[0].result() is None
    assert tickets[2].result() is None
    with pytest.raises(BrokenAdapter, match="RuntimeError"):
        tickets[1].result()


def test_the_committers_thread_stores_for_those_who_do_not_wait() -> None:
    store = Store()
    committer = committer_on(store)
    committer.start("committer")
    signal = SYSTEM.clock.signal()
    ticket = committer.submit(changes("a")[0], signal)
    committer.wake()
    assert signal.wait(timeout=20)
    assert ticket.done
    committer.submit(changes("left over")[0], signal)
    committer.stop(20)
    assert store.calls == [["a"], ["left over"]]
