"""What every scheduler over a lease store does. The names in the docstrings are those of the rules in the kit.

The lease time is short, and what a test waits for has a deadline; nothing is concluded from an exact time.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from tests.adapters.build import DEADLINE, InThread, eventually, race
from tests.adapters.conftest import Backend
from workflow.cancel import CancelToken
from workflow.clock import SystemClock
from workflow.errors import Cancelled, Closed
from workflow.protocols import Lease, RoleScheduler, holders

LEASE_TIME = 0.3


@pytest.fixture
def opened(backend: Backend) -> Callable[[], RoleScheduler]:
    """Opens one more instance's scheduler."""
    return lambda: backend.open(lease_time=LEASE_TIME).role_scheduler


def get(scheduler: RoleScheduler, role: str = "role") -> Lease:
    """The role, or a failure after the deadline."""
    with CancelToken() as token:
        timer = threading.Timer(DEADLINE, token.cancel, ["the role was not granted in time"])
        timer.daemon = True
        timer.start()
        try:
            return scheduler.await_role(role, token)
        finally:
            timer.cancel()


def holding(scheduler: RoleScheduler) -> dict[str, str]:
    told = holders(scheduler)
    assert told is not None
    return dict(told.holders())


class Worker:
    """An instance: it waits for its roles, holds them until they are wanted or lost, and waits again."""

    def __init__(self, scheduler: RoleScheduler, roles: list[str]) -> None:
        self.stop = CancelToken()
        self.held: dict[str, Lease] = {}
        self.lost: list[str] = []
        self._scheduler = scheduler
        self._threads = [InThread(partial(self._serve, role)) for role in roles]

    def _serve(self, role: str) -> None:
        while True:
            with self._scheduler.await_role(role, self.stop) as lease:
                self.held[role] = lease
                try:
                    with CancelToken.child_of(self.stop, lease.lost, lease.wanted) as token:
                        SystemClock().signal().wait(token)
                except Cancelled:
                    self.stop.raise_if_cancelled()
                finally:
                    if lease.lost.cancelled:
                        self.lost.append(role)
                    del self.held[role]

    def end(self) -> None:
        self.stop.cancel("end")
        for thread in self._threads:
            assert isinstance(thread.join().error, (Cancelled, Closed))


def test_a_free_role_is_granted_at_once(opened: Callable[[], RoleScheduler]) -> None:
    scheduler = opened()
    with get(scheduler) as lease:
        assert not lease.lost.cancelled
        assert not lease.wanted.cancelled
        assert set(holding(scheduler)) == {"role"}
    assert holding(scheduler) == {}


def test_a_role_has_one_holder(opened: Callable[[], RoleScheduler]) -> None:
    """RL-1: across handles and threads, many hand-overs."""
    schedulers = [opened() for _ in range(3)]
    inside: list[int] = []
    epochs: list[int] = []

    def work(place: int) -> None:
        for _ in range(4):
            with get(schedulers[place % 3]) as lease:
                inside.append(place)
                assert inside == [place], "two at once"
                epochs.append(lease.epoch)
                inside.remove(place)

    race([partial(work, place) for place in range(6)])
    assert len(epochs) == 24
    assert epochs == sorted(set(epochs)), "RL-2: epochs rise"


def test_roles_are_independent_and_exact(opened: Callable[[], RoleScheduler]) -> None:
    """RL-1"""
    scheduler = opened()
    names = ["role", "Role", "role ", "role-1", "rôle", "a/b", "a", "%", "_"]
    leases = [get(scheduler, name) for name in names]
    assert sorted(holding(scheduler)) == sorted(names)
    for lease in leases:
        lease.release()


def test_epochs_survive(opened: Callable[[], RoleScheduler]) -> None:
    """RL-2"""
    first = opened()
    lease = get(first)
    first.close()
    assert get(opened()).epoch > lease.epoch


def test_a_stale_release_frees_nobody(opened: Callable[[], RoleScheduler]) -> None:
    """RL-3"""
    one, two = opened(), opened()
    old = get(one)
    old.release()
    old.release()
    new = get(two)
    old.release()
    assert set(holding(one)) == {"role"}
    token = CancelToken()
    waiting = InThread(lambda: one.await_role("role", token))
    assert not new.lost.cancelled
    old.release()
    token.cancel()
    assert isinstance(waiting.join().error, Cancelled)
    assert not new.lost.cancelled


def test_an_exception_hands_over(opened: Callable[[], RoleScheduler]) -> None:
    """RL-4"""
    one, two = opened(), opened()
    waiting: InThread | None = None

    def fail() -> None:
        nonlocal waiting
        with get(one):
            waiting = InThread(lambda: get(two))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert waiting is not None
    assert waiting.join().error is None


def test_a_cancelled_waiter_leaves_no_claim(opened: Callable[[], RoleScheduler]) -> None:
    """RL-5, GN-8"""
    one, two = opened(), opened()
    lease = get(one)
    token = CancelToken()
    waiting = InThread(lambda: two.await_role("role", token))
    other = InThread(lambda: one.await_role("role", token))
    token.cancel("enough")
    assert isinstance(waiting.join().error, Cancelled)
    assert isinstance(other.join().error, Cancelled)
    lease.release()
    third = get(opened())
    assert not third.wanted.cancelled
    with pytest.raises(Cancelled):
        two.await_role("role", token)


def test_two_waiters_of_one_instance_take_turns(opened: Callable[[], RoleScheduler]) -> None:
    scheduler = opened()
    lease = get(scheduler)
    waiting = InThread(lambda: get(scheduler))
    eventually(lambda: holding(scheduler))
    assert not waiting.ended()
    lease.release()
    second = waiting.join().result
    assert isinstance(second, type(lease))
    assert second.epoch > lease.epoch


def test_a_lease_outlives_its_time(opened: Callable[[], RoleScheduler]) -> None:
    """RL-7, RL-11: with a waiter beside it, which gets nothing."""
    one, two = opened(), opened()
    lease = get(one)
    token = CancelToken()
    waiting = InThread(lambda: two.await_role("role", token))
    with CancelToken() as time_up:
        timer = threading.Timer(5 * LEASE_TIME, time_up.cancel)
        timer.start()
        waiting_too = InThread(lambda: two.await_role("role", time_up))
        assert isinstance(waiting_too.join().error, Cancelled), "nobody gets it in five lease times"
    assert not lease.lost.cancelled
    assert not lease.wanted.cancelled
    assert not waiting.ended()
    token.cancel()
    waiting.join()


def test_closing_ends_waits_and_leases(opened: Callable[[], RoleScheduler]) -> None:
    """GN-2, GN-3"""
    before = threading.active_count()
    one, two = opened(), opened()
    lease = get(one)
    waiting = InThread(lambda: one.await_role("role", CancelToken()))
    next_one = InThread(lambda: get(two))
    one.close()
    one.close()
    assert isinstance(waiting.join().error, Closed)
    assert lease.lost.cancelled
    lease.release()
    with pytest.raises(Closed):
        one.await_role("role", CancelToken())
    assert next_one.join().error is None, "its roles are free at once"
    two.close()
    eventually(lambda: threading.active_count() <= before + 2, timeout=5)  # a watcher of another process's changes


def test_fair_shares_after_a_join_and_after_a_leave(opened: Callable[[], RoleScheduler]) -> None:
    """RL-10, RL-11"""
    roles = [f"role-{i}" for i in range(7)]
    workers: list[Worker] = []

    def is_shared(fair: list[int]) -> bool:
        return sorted(len(worker.held) for worker in workers) == fair

    for fair in ([7], [3, 4], [2, 2, 3]):
        workers.append(Worker(opened(), roles))
        eventually(partial(is_shared, fair))
    workers.pop(0).end()
    eventually(partial(is_shared, [3, 4]))
    for worker in workers:
        assert worker.lost == [], "a hand-over is wanted, not lost"
        worker.end()


def test_a_few_roles_among_many_instances(opened: Callable[[], RoleScheduler]) -> None:
    workers = [Worker(opened(), ["a", "b"]) for _ in range(4)]
    eventually(lambda: Counter(len(worker.held) for worker in workers) == {0: 2, 1: 2})
    for worker in workers:
        worker.end()


def test_a_wanted_role_stays_until_it_is_released(opened: Callable[[], RoleScheduler]) -> None:
    """RL-11, P8: and whoever gave it does not snatch it back."""
    one, two = opened(), opened()
    first, second = get(one, "a"), get(one, "b")
    waiting = [InThread(partial(get, two, role)) for role in ("a", "b")]
    eventually(lambda: first.wanted.cancelled or second.wanted.cancelled)
    given, kept = (first, second) if first.wanted.cancelled else (second, first)
    role = "a" if given is first else "b"
    assert not given.lost.cancelled
    token = CancelToken()
    given.release()
    again = InThread(lambda: one.await_role(role, token))
    eventually(lambda: any(wait.ended() for wait in waiting))
    assert not again.ended()
    assert not kept.wanted.cancelled
    assert not kept.lost.cancelled
    token.cancel()
    again.join()
    kept.release()
    for wait in waiting:
        wait.join()


def test_asking_for_holders_makes_no_member(opened: Callable[[], RoleScheduler]) -> None:
    """CP-2"""
    worker, tool = opened(), opened()
    leases = [get(worker, role) for role in ("a", "b")]
    told = holding(tool)
    assert set(told) == {"a", "b"}
    assert len(set(told.values())) == 1
    leases[0].release()
    assert set(holding(tool)) == {"b"}
