"""An outage downstream opens the breaker and pauses no run; one bad run among good ones opens nothing."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Literal

import pytest

import workflow
from workflow import Adapters, Breaker, Builder, Cancelled, CancelToken, Retry, Run, RunState, Trigger, Workflow
from workflow.step import CircuitBreaker
from workflow.testing import VirtualClock

POLICY = Breaker(failures=5, cool_down=10.0)
RETRY = Retry(initial=1.0, jitter=False, max_attempts=3)


class Stage(IntEnum):
    NEW = 1
    CHECKED = 2
    DONE = 3


@dataclass
class Job:
    bad: bool = False


@pytest.fixture
def adapters(clock: VirtualClock) -> Iterator[Adapters]:
    made = workflow.memory(clock=clock)
    yield made
    made.close()


class Shop:
    """Two steps, one of which calls a service that may be down."""

    def __init__(self) -> None:
        self.down = False
        self.calls = 0

    def build(self, adapters: Adapters, clock: VirtualClock, parallel_count: int = 1) -> Workflow[Job, Stage]:
        builder = Builder("shop", Job, Stage)
        builder.defaults(retry=RETRY, breaker=POLICY, parallel_count=parallel_count)

        @builder.step(Stage.NEW)
        def check(run: Run[Job, Stage]) -> Literal[Stage.CHECKED]:
            return Stage.CHECKED

        @builder.step(Stage.CHECKED)
        def charge(run: Run[Job, Stage]) -> Literal[Stage.DONE]:
            self.calls += 1
            if self.down or run.object.bad:
                raise ConnectionError("no answer")
            return Stage.DONE

        return builder.build(adapters, clock=clock)


def trigger(wf: Workflow[Job, Stage], names: str, total: int) -> list[str]:
    answers = wf.trigger_many([Trigger(f"{names}-{n}") for n in range(total)])
    return [answer for answer in answers if isinstance(answer, str)]


def states(wf: Workflow[Job, Stage], run_ids: list[str]) -> Counter[RunState]:
    return Counter(wf.get(run_id).run_state for run_id in run_ids)


@pytest.mark.parametrize("parallel_count", [1, 4])
def test_an_outage_pauses_no_run_and_costs_one_call_each_cool_down(
    parallel_count: int, adapters: Adapters, clock: VirtualClock
) -> None:
    shop = Shop()
    wf = shop.build(adapters, clock, parallel_count)
    with wf:
        shop.down = True
        run_ids = trigger(wf, "job", 50)
        clock.settle()
        assert shop.calls <= POLICY.failures + parallel_count - 1, "those under way when it opens may still fail"
        clock.advance(timedelta(hours=1))
        assert shop.calls <= POLICY.failures + parallel_count + 360, "one probe each cool-down"
        assert shop.calls >= 350
        assert states(wf, run_ids) == {RunState.RUNNING: 50}
        assert max(wf.get(run_id).attempt for run_id in run_ids) == 1, "probes do not count against a run"
        assert all(wf.get(run_id).status is Stage.CHECKED for run_id in run_ids), "the other step goes on"
        shop.down, before = False, shop.calls
        clock.advance(20)
        assert shop.calls > before + 1, "the first success closes it"
        clock.advance(timedelta(hours=1))
    assert states(wf, run_ids) == {RunState.COMPLETED: 50}


def test_one_bad_run_opens_nothing(adapters: Adapters, clock: VirtualClock) -> None:
    shop = Shop()
    wf = shop.build(adapters, clock)
    with wf:
        bad = wf.trigger("bad", initial_value=Job(bad=True))
        clock.settle()
        clock.advance(60)
        assert wf.get(bad).run_state is RunState.PAUSED
        good = trigger(wf, "good", 50)
        clock.settle()
        assert states(wf, good) == {RunState.COMPLETED: 50}


def test_the_same_run_counts_once(clock: VirtualClock) -> None:
    breaker = CircuitBreaker(POLICY, clock)
    told = [(breaker.failed(f"run-{max(1, n - 20)}"), breaker.open) for n in range(1, 27)]
    assert told[:24] == [(True, False)] * 24
    assert told[24] == (True, True)
    assert told[25] == (False, True), "a failure while it is open counts against nobody"


def test_a_success_in_between_starts_the_count_anew(clock: VirtualClock) -> None:
    breaker = CircuitBreaker(POLICY, clock)
    for first in range(0, 100, 4):
        assert all(breaker.failed(f"run-{first + n}") for n in range(4))
        assert not breaker.open
        breaker.succeeded()


def opened(clock: VirtualClock) -> CircuitBreaker:
    breaker = CircuitBreaker(POLICY, clock)
    for n in range(5):
        breaker.failed(f"run-{n}")
    return breaker


def test_it_half_opens_with_one_run(clock: VirtualClock) -> None:
    breaker = opened(clock)
    entered: list[float] = []

    def enter() -> None:
        breaker.enter(CancelToken())
        entered.append(clock.monotonic())

    threads = [threading.Thread(target=enter, daemon=True) for _ in range(5)]
    for thread in threads:
        thread.start()
    clock.advance(9.999)
    assert entered == []
    clock.advance(0.001)
    assert entered == [10.0]
    breaker.failed("run-9")
    clock.advance(9.999)
    assert entered == [10.0]
    clock.advance(0.001)
    assert entered == [10.0, 20.0]
    breaker.succeeded()
    clock.settle()
    assert entered == [10.0, 20.0, 20.0, 20.0, 20.0]
    for thread in threads:
        thread.join(10)


def test_a_probe_that_is_never_heard_of_holds_up_nobody(clock: VirtualClock) -> None:
    breaker = opened(clock)
    for expected in (10.0, 20.0, 30.0):
        breaker.enter(CancelToken())
        assert clock.monotonic() == expected


def test_who_waits_for_it_can_be_stopped(adapters: Adapters, clock: VirtualClock) -> None:
    token = CancelToken()
    token.cancel("stop")
    with pytest.raises(Cancelled, match="stop"):
        opened(clock).enter(token)
    shop = Shop()
    shop.down = True
    with shop.build(adapters, clock) as wf:
        trigger(wf, "job", 10)
        clock.settle()
        began = clock.monotonic()
    assert clock.monotonic() == began
