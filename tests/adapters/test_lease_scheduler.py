"""The lease scheduler alone: outages, jumps of the clock, lost answers, silent members. On a virtual clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import pytest

from tests.adapters.build import InThread
from workflow.adapters.memory.lease_store import MemoryLeaseStore
from workflow.adapters.memory.storage import LeaseOf, MemoryStorage
from workflow.adapters.support.lease_scheduler import HeldLease, LeaseScheduler
from workflow.cancel import CancelToken
from workflow.clock import Clock, Signal, runtime_with
from workflow.errors import BrokenAdapter, Cancelled, Unavailable
from workflow.protocols import LeaseRow, LeaseTable, Unsubscribe
from workflow.testing import VirtualClock

LEASE_TIME = 10.0


class FaultyStore(MemoryLeaseStore):
    """Fails where it is told to; counts its beats."""

    def __init__(self, storage: MemoryStorage) -> None:
        super().__init__(storage)
        self.down = False
        self.deaf = False
        self.stopped: Signal | None = None
        """Holds up each beat until it is notified, as if the process were stopped."""
        self.lose_answers = 0
        self.beats = 0
        self.error: Exception = Unavailable("down")

    def _fail(self) -> None:
        if self.down:
            raise self.error

    def beat(self, member: str, wants: Sequence[str]) -> LeaseTable:
        if self.stopped is not None:
            self.stopped.wait()
        self.beats += 1
        self._fail()
        return super().beat(member, wants)

    def acquire(self, role: str, member: str, seen: LeaseRow | None) -> int | None:
        self._fail()
        epoch = super().acquire(role, member, seen)
        if self.lose_answers:
            self.lose_answers -= 1
            raise self.error
        return epoch

    def release(self, role: str, member: str, epoch: int) -> None:
        self._fail()
        super().release(role, member, epoch)

    def subscribe_leases(self, signal: Signal) -> Unsubscribe:
        self._fail()
        return (lambda: None) if self.deaf else super().subscribe_leases(signal)


class SkewedClock:
    """A clock that is ahead of another one, sometimes more than before."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.ahead = 0.0

    def signal(self) -> Signal:
        return self._clock.signal()

    def now(self) -> datetime:
        return self._clock.now() + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        return self._clock.monotonic() + self.ahead


class LateSignal:
    """A signal whose waiter finds, once it was notified, that its token was cancelled too."""

    def __init__(self, signal: Signal) -> None:
        self._signal = signal
        self.notify = signal.notify

    def wait(self, cancel: CancelToken | None = None, timeout: float | None = None) -> bool:
        self._signal.wait(None, timeout)
        raise Cancelled("at the same moment")


class LateClock(SkewedClock):
    """Makes such signals once it is told to."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.cancelling = False

    def signal(self) -> Signal:
        made = super().signal()
        return LateSignal(made) if self.cancelling else made


class Members:
    """Schedulers on one storage and one virtual clock."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.storage = MemoryStorage()
        self.opened: list[LeaseScheduler] = []

    def open(self, member: str) -> tuple[LeaseScheduler, FaultyStore]:
        store = FaultyStore(self.storage)
        scheduler = LeaseScheduler(store, runtime_with(self.clock), lease_time=LEASE_TIME, member=member)
        self.opened.append(scheduler)
        return scheduler, store

    def advance(self, lease_times: float) -> None:
        self.clock.advance(lease_times * LEASE_TIME)


@pytest.fixture
def members() -> Iterator[Members]:
    made = Members()
    yield made
    for scheduler in made.opened:
        scheduler.close()


class Waiting:
    """A call of `await_role` on a thread of its own."""

    def __init__(self, scheduler: LeaseScheduler, role: str = "role") -> None:
        self.cancel = CancelToken()
        self._call = InThread(lambda: scheduler.await_role(role, self.cancel))

    def ended(self) -> bool:
        return self._call.ended()

    @property
    def error(self) -> BaseException | None:
        return self._call.join().error

    @property
    def lease(self) -> HeldLease:
        result = self._call.join().result
        assert isinstance(result, HeldLease), self._call.error
        return result


def granted(scheduler: LeaseScheduler, role: str = "role") -> HeldLease:
    return Waiting(scheduler, role).lease


# --- silence -------------------------------------------------------------------------------------------------------


def test_a_silent_member_loses_its_roles_after_one_lease_time(members: Members) -> None:
    """RL-8: and sees it when it comes back."""
    one, store = members.open("one")
    two, _ = members.open("two")
    lease = granted(one)
    members.advance(3)
    waiting = Waiting(two)
    members.advance(1)
    assert not waiting.ended()
    stopped = store.stopped = members.clock.signal()
    members.advance(0.75)
    assert not waiting.ended()
    members.advance(0.5)
    assert waiting.lease.epoch > lease.epoch
    store.stopped = None
    stopped.notify()
    members.advance(0.3)
    assert lease.lost.cancelled
    lease.release()
    members.advance(2)
    assert not waiting.lease.lost.cancelled


def test_many_roles_of_a_dead_member_are_shared(members: Members) -> None:
    _, dead = members.open("dead")
    table = dead.beat("dead", [])
    assert table.members["dead"].beat == 1
    roles = [f"role-{i}" for i in range(6)]
    assert [dead.acquire(role, "dead", None) for role in roles] == [1] * 6
    two, three = members.open("two")[0], members.open("three")[0]
    waiting = {two: [Waiting(two, role) for role in roles], three: [Waiting(three, role) for role in roles]}
    members.advance(1.3)
    assert [sum(wait.ended() for wait in waits) for waits in waiting.values()] == [3, 3]


def test_a_dead_candidate_holds_up_a_free_role_for_a_moment_only(members: Members) -> None:
    """It is fairer to give the role to the one that waits and holds nothing; but that one is dead."""
    one, store = members.open("one")
    granted(one, "another")
    lease = granted(one)
    store.beat("dead", ["role"])
    members.clock.settle()
    assert lease.wanted.cancelled
    lease.release()
    waiting = Waiting(one)
    members.clock.settle()
    assert not waiting.ended()
    members.advance(0.7)
    assert waiting.ended()


def test_members_that_are_long_gone_are_removed(members: Members) -> None:
    one, store = members.open("one")
    store.beat("gone", ["role"])
    store.beat("holder", [])
    store.acquire("held", "holder", None)
    granted(one, "mine")
    members.advance(4)
    assert set(members.storage.leases.members) == {"one", "gone", "holder"}
    members.advance(3)
    assert set(members.storage.leases.members) == {"one", "holder"}


# --- outages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Unavailable("down"), RuntimeError("a bug")], ids=["unavailable", "bug"])
def test_in_an_outage_all_is_given_up_before_the_lease_time_is_over(members: Members, error: Exception) -> None:
    """RL-7"""
    one, store = members.open("one")
    lease = granted(one)
    store.down, store.error = True, error
    members.advance(0.5)
    assert lease.lost.reason == ""
    members.advance(0.45)
    assert "failed" in lease.lost.reason
    lease.release()
    waiting = Waiting(one)
    store.down = False
    members.advance(0.3)
    assert waiting.lease.epoch > lease.epoch, "the row that was left in our name is freed first"
    assert not waiting.lease.lost.cancelled


def test_a_short_outage_costs_nothing(members: Members) -> None:
    one, store = members.open("one")
    lease = granted(one)
    waiting = Waiting(one)
    for _ in range(5):
        store.down = True
        members.advance(0.6)
        store.down = False
        members.advance(0.25)
    assert not lease.lost.cancelled
    assert not waiting.ended()


@pytest.mark.parametrize(
    ("error", "raised"), [(Unavailable("down"), Unavailable), (RuntimeError("a bug"), BrokenAdapter)]
)
def test_waiters_are_told_of_an_outage(members: Members, error: Exception, raised: type[Exception]) -> None:
    """GN-9"""
    one, store = members.open("one")
    store.down, store.error = True, error
    waiting = Waiting(one)
    members.advance(0.5)
    assert not waiting.ended()
    members.advance(0.6)
    assert isinstance(waiting.error, raised)
    store.down = False
    assert granted(one).epoch == 1


def test_a_lost_answer_to_acquire_leaves_no_role_behind(members: Members) -> None:
    """GN-10"""
    one, store = members.open("one")
    store.lose_answers = 1
    waiting = Waiting(one)
    members.advance(0.5)
    assert waiting.lease.epoch == 2
    waiting.lease.release()
    assert members.storage.leases.leases["role"].holder == ""


def test_a_release_that_fails_is_made_up_for(members: Members) -> None:
    one, store = members.open("one")
    two, _ = members.open("two")
    lease = granted(one)
    waiting = Waiting(two)
    members.clock.settle()
    store.down = True
    lease.release()
    members.clock.settle()
    assert not waiting.ended()
    store.down = False
    members.advance(0.3)
    assert waiting.ended()


def test_a_store_that_tells_of_nothing_is_looked_at(members: Members) -> None:
    one, first = members.open("one")
    two, second = members.open("two")
    first.deaf = second.deaf = True
    lease = granted(one)
    waiting = Waiting(two)
    members.advance(1)
    lease.release()
    members.advance(0.3)
    assert waiting.ended()


# --- leaving -------------------------------------------------------------------------------------------------------


def test_closing_frees_the_roles_at_once(members: Members) -> None:
    one, two = members.open("one")[0], members.open("two")[0]
    lease = granted(one)
    waiting = Waiting(two)
    members.clock.settle()
    one.close()
    members.clock.settle()
    assert waiting.ended()
    assert lease.lost.cancelled
    assert set(members.storage.leases.members) == {"two"}


def test_a_cancelled_waiter_wants_nothing_any_more(members: Members) -> None:
    """RL-5: the others plan without it from the next beat on, which comes at once."""
    one, two = members.open("one")[0], members.open("two")[0]
    granted(two, "other")
    granted(one)
    waiting = Waiting(two)
    members.clock.settle()
    assert members.storage.leases.members["two"].wants == {"role"}
    waiting.cancel.cancel()
    members.clock.settle()
    assert members.storage.leases.members["two"].wants == set()


def test_a_grant_that_meets_a_cancel_is_given_back(members: Members) -> None:
    """RL-5: the role was granted, and before the waiter woke, its token was cancelled."""
    late = LateClock(members.clock)
    scheduler = LeaseScheduler(
        FaultyStore(members.storage), runtime_with(late), lease_time=LEASE_TIME, member="one"
    )  # fmt: skip
    members.opened.append(scheduler)
    late.cancelling = True
    waiting = Waiting(scheduler)
    assert isinstance(waiting.error, Cancelled)
    members.clock.settle()
    assert members.storage.leases.leases["role"] == LeaseOf(1, "")


def test_who_needs_nothing_leaves_no_trace(members: Members) -> None:
    """P9: no thread, no beats, no row; and comes back when it is needed."""
    one, store = members.open("one")
    granted(one).release()
    members.advance(1)
    assert members.storage.leases.members == {}
    beats = store.beats
    members.advance(9)
    assert store.beats == beats
    assert granted(one).epoch == 2


# --- time ----------------------------------------------------------------------------------------------------------


def test_a_jump_of_a_waiters_clock_takes_nothing(members: Members) -> None:
    """RL-9: a waiter that was stopped for two days saw no beats, but it did not look either."""
    one, _ = members.open("one")
    lease = granted(one)
    skewed = SkewedClock(members.clock)
    two = LeaseScheduler(
        FaultyStore(members.storage), runtime_with(skewed), lease_time=LEASE_TIME, member="two"
    )  # fmt: skip
    members.opened.append(two)
    waiting = Waiting(two)
    for _ in range(20):
        members.advance(0.1)
        skewed.ahead += 48 * 3600
    assert not waiting.ended()
    assert not lease.lost.cancelled


def test_a_jump_of_all_clocks_takes_nothing(members: Members) -> None:
    """RL-9"""
    one, two = members.open("one")[0], members.open("two")[0]
    lease = granted(one)
    waiting = Waiting(two)
    members.clock.advance(48 * 3600)
    assert not lease.lost.cancelled
    assert not waiting.ended()
    lease.release()
    members.clock.settle()
    assert waiting.ended()


# --- cost ----------------------------------------------------------------------------------------------------------


def test_idle_members_beat_now_and_then_only(members: Members) -> None:
    """P9: five beats in a lease time while something is held, none while nothing is."""
    one, first = members.open("one")
    two, second = members.open("two")
    leases = [granted(one, f"role-{i}") for i in range(7)]
    waiting = [Waiting(two, f"role-{i}") for i in range(7)]
    members.clock.settle()
    for lease in leases:
        if lease.wanted.cancelled:
            lease.release()
    members.clock.settle()
    before = first.beats, second.beats
    members.advance(4)
    assert [after - b for after, b in zip((first.beats, second.beats), before, strict=True)] == [20, 20]
    for lease in leases:
        lease.release()
    for wait in waiting:
        wait.lease.release()
    members.clock.settle()
    before = first.beats, second.beats
    members.advance(20)
    assert (first.beats, second.beats) == before


def test_a_change_is_followed_by_few_rounds(members: Members) -> None:
    """A round that changes nothing tells nobody: members do not chase each other."""
    opened = [members.open(f"member-{i}") for i in range(4)]
    for scheduler, _ in opened:
        granted(scheduler, scheduler.member)
    members.clock.settle()
    before = [store.beats for _, store in opened]
    waiting = Waiting(opened[0][0], "member-1")
    members.clock.settle()
    waiting.cancel.cancel()
    members.clock.settle()
    assert max(store.beats - b for (_, store), b in zip(opened, before, strict=True)) <= 6
