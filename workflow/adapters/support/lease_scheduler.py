"""A role scheduler over any store that can compare and set a row: leases without clocks.

One thread for each scheduler, alive while something is held or waited for, goes round:

    beat       count our beat up, say what we wait for, and read the whole table, in one call
    check      a lease whose row is no longer ours is lost
    tidy       a row that is ours and that nobody here has (the answer to a call was lost) is freed
    take       the roles that the plan gives us, and those that nobody else takes
    hand over  the roles that the plan gives to others become `wanted`; their holders finish and release them

A round comes every fifth of the lease time, and at once when there is news: somebody here waits or released, or the
store tells of a change. A round that changes nothing tells nobody, so rounds
do not chase each other.

Two rules keep two members from holding one role. A holder whose beats fail gives everything up before its lease time
is over, counted from the start of its last good beat. A taker waits until it has seen the holder's row and beat
unchanged for a whole lease time, counted by its own looks, and takes the role only if the row is still so. A holder
that was stopped in between finds its row changed at its next beat; until then it is a zombie, which versions make
harmless.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType

from ...cancel import CancelToken
from ...clock import SYSTEM, Runtime, Signal, Task
from ...errors import BrokenAdapter, Closed, InvalidInput, Unavailable, WorkflowError
from ...protocols import LeaseStore, LeaseTable, Unsubscribe
from .guard import Guard
from .lease_plan import GRACE, Shares, Watch

ROUND = 0.2
"""Lease times between two rounds."""
GIVE_UP = 0.8
"""Lease times after the start of the last good beat until all is given up."""
MOMENT = 0.01
"""Lease times by which a look comes late rather than early."""


class HeldLease:
    """A granted role. Leaving its `with` block releases it."""

    def __init__(self, scheduler: LeaseScheduler, role: str, epoch: int) -> None:
        self._scheduler = scheduler
        self.role = role
        self.epoch = epoch
        self.lost = CancelToken()
        self.wanted = CancelToken()

    def release(self) -> None:
        """Let the role go. A second time, or after it was lost, nothing happens."""
        self._scheduler.release(self)

    def __enter__(self) -> HeldLease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class _Waiter:
    """Somebody who waits for a role. Settled once, with a lease or an error."""

    def __init__(self, signal: Signal, since: float) -> None:
        self.signal = signal
        self.since = since
        self.lease: HeldLease | None = None
        self.error: WorkflowError | None = None

    @property
    def settled(self) -> bool:
        return self.lease is not None or self.error is not None


class LeaseScheduler:
    """A `RoleScheduler` over `store`, which it closes with itself.

    `lease_time` is the time, in seconds, after which a member that fell silent loses its roles. `member` names this
    scheduler; no two that live may have the same name.
    """

    capabilities = frozenset({"holders"})

    def __init__(
        self, store: LeaseStore, runtime: Runtime = SYSTEM, *, lease_time: float = 5.0, member: str | None = None
    ) -> None:
        if not lease_time > 0:
            raise InvalidInput(f"lease_time={lease_time}: more than 0 seconds are wanted")
        self.member = member or runtime.new_id()
        self._store = store
        self._runtime = runtime
        self._clock = runtime.clock
        self._lease_time = lease_time
        self._guard = Guard(f"the role scheduler {self.member}")
        self._news: Signal = runtime.clock.signal()

        self._lock = threading.Lock()  # guards these, for moments: never held over a call of the store or a wait
        self._held: dict[str, HeldLease] = {}
        self._waiters: dict[str, deque[_Waiter]] = {}
        self._thread: Task | None = None

        # These belong to the thread.
        self._watch = Watch()
        self._looked = self._clock.monotonic()
        self._beat = self._looked  # when the last good beat started
        self._good = self._looked  # when the last good round ended
        self._told: tuple[str, ...] = ()  # what we wait for, as the last good beat has it
        self._unsubscribe: Unsubscribe | None = None

    # --- for those who want roles ----------------------------------------------------------------------------------

    def await_role(self, role: str, cancel: CancelToken) -> HeldLease:
        """Wait until the role is ours. Raises `Unavailable` once the store has failed for nearly a lease time."""
        self._guard.check()
        cancel.raise_if_cancelled()
        waiter = _Waiter(self._clock.signal(), self._clock.monotonic())
        with self._lock:
            self._guard.check()
            self._waiters.setdefault(role, deque()).append(waiter)
            if self._thread is None:
                self._thread = self._runtime.spawn(f"workflow-leases-{self.member}", self._run)
        self._news.notify()
        try:
            while not waiter.settled:
                waiter.signal.wait(cancel)
        except BaseException:
            self._withdraw(role, waiter)
            raise
        if waiter.lease is None:
            raise waiter.error or Closed("no role")
        return waiter.lease

    def _withdraw(self, role: str, waiter: _Waiter) -> None:
        """Leave no claim: neither a place in the queue, nor a role that was granted at the same moment."""
        with self._lock:
            queue = self._waiters.get(role)
            if queue is not None and waiter in queue:
                queue.remove(waiter)
                if not queue:
                    del self._waiters[role]
            lease = waiter.lease
        if lease is not None:
            lease.release()
        self._news.notify()  # the next beat says that nobody waits

    def release(self, lease: HeldLease) -> None:
        """Let a role go, if this lease still holds it."""
        with self._lock:
            if self._held.get(lease.role) is not lease:
                return
            del self._held[lease.role]
        try:
            self._store.release(lease.role, self.member, lease.epoch)
        except (Unavailable, Closed):
            return  # a row that nobody here has is freed by the next round that goes well
        finally:
            self._news.notify()

    def holders(self) -> Mapping[str, str]:
        """`holders`: role to the member that holds it."""
        self._guard.check()
        table = self._store.beat(self.member, self._wants())
        if self._thread is None:  # we only looked: leave no member behind
            self._store.leave(self.member, table.members[self.member].beat)
        return {role: row.holder for role, row in table.leases.items() if row.holder}

    def close(self) -> None:
        """End the waits, give up what is held, leave, and end the thread."""
        if not self._guard.close() or self._guard.forked:
            return
        self._give_up("closed")
        self._fail_waiters(Closed(f"{self._guard.what} was closed"))
        self._news.notify()
        with self._lock:
            thread = self._thread  # it may be about to retire
        if thread is not None:
            thread.join()
            with suppress(Unavailable, Closed):  # if it fails, the others see that we beat no more
                self._store.leave(self.member)
        self._store.close()

    # --- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = 0.0
        while not self._guard.closed:
            self._news.wait(timeout=pause)
            if self._is_idle() and self._retire():
                return
            pause = self._next_round()
        self._unsubscribe_leases()

    def _next_round(self) -> float:
        """Go round. Returns how many seconds to pause before the next one."""
        try:
            self._round()
            self._good = self._clock.monotonic()
            return self._pause()
        except Exception as error:  # whatever it is, leases that cannot be renewed have to end
            failure = error if isinstance(error, WorkflowError) else BrokenAdapter(f"the lease store failed: {error!r}")
            return self._failed(failure)

    def _retire(self) -> bool:
        """Leave the table and end the thread, unless somebody came to wait meanwhile. True if it ends."""
        with suppress(Unavailable, Closed):  # if it fails, the others see that we beat no more
            self._store.leave(self.member)
        self._unsubscribe_leases()
        with self._lock:
            if self._waiters:
                return False
            self._watch, self._told, self._thread = Watch(), (), None
            return True

    def _unsubscribe_leases(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _is_idle(self) -> bool:
        """Whether nobody here holds or waits, and the table says so too."""
        with self._lock:
            busy = bool(self._held or self._waiters or self._told)
        return not busy and all(row.holder != self.member for row in self._watch.table.leases.values())

    def _round(self) -> None:
        if self._unsubscribe is None:
            self._unsubscribe = self._store.subscribe_leases(self._news)
        started, wants = self._clock.monotonic(), self._wants()
        table = self._store.beat(self.member, wants)
        self._beat, self._told = started, wants
        self._watch.look(table, (started - self._looked) / self._lease_time)
        self._looked = self._clock.monotonic()
        self._check(table)
        self._tidy(table)
        live = self._watch.live()
        shares = Shares.of(table, live)
        self._take(table, shares)
        self._hand_over(shares)

    def _check(self, table: LeaseTable) -> None:
        """Leases whose rows are no longer ours are lost."""
        with self._lock:
            held = list(self._held.values())
        for lease in held:
            row = table.leases.get(lease.role)
            if row is None or row.holder != self.member or row.epoch != lease.epoch:
                with self._lock:
                    if self._held.get(lease.role) is lease:
                        del self._held[lease.role]
                lease.lost.cancel(f"the role {lease.role} went to another member")

    def _tidy(self, table: LeaseTable) -> None:
        """Free what is ours by the table and nobody's here; remove members that are long gone."""
        for role, row in table.leases.items():
            lease = self._held.get(role)
            if row.holder == self.member and (lease is None or lease.epoch != row.epoch):
                self._store.release(role, self.member, row.epoch)
        for member, beat in self._watch.forgotten().items():
            self._store.leave(member, beat)

    def _take(self, table: LeaseTable, shares: Shares) -> None:
        """Acquire the free roles that are for us, and those that nobody else takes."""
        wanted = frozenset[str]().union(*shares.wants.values())
        free = {role for role in wanted if self._watch.open_for(role) >= 0}
        allotted = shares.allot(free)
        for role in sorted(free.intersection(self._told)):
            if allotted.get(role) == self.member or self._watch.open_for(role) >= GRACE:
                epoch = self._store.acquire(role, self.member, table.leases.get(role))
                if epoch is not None:
                    self._grant(role, epoch)

    def _grant(self, role: str, epoch: int) -> None:
        lease = HeldLease(self, role, epoch)
        with self._lock:
            queue = None if self._guard.closed else self._waiters.get(role)
            if queue:
                waiter = queue.popleft()
                if not queue:
                    del self._waiters[role]
                waiter.lease = self._held[role] = lease
            else:
                waiter = None
        if waiter is None:  # it was cancelled meanwhile
            self._store.release(role, self.member, epoch)
        else:
            waiter.signal.notify()

    def _hand_over(self, shares: Shares) -> None:
        """Tell the holders here of the roles that others should have."""
        with self._lock:
            held = dict(self._held)
        promised = {role for role, lease in held.items() if lease.wanted.cancelled}
        for role, giver in shares.moves(promised).items():
            if giver == self.member and role in held:
                held[role].wanted.cancel(f"another member should have the role {role}")

    def _pause(self) -> float:
        """Seconds until the next round: until a role that is waited for opens, if that is sooner."""
        pause = ROUND
        for role in self._told:
            open_for = self._watch.open_for(role)
            opens = -open_for if open_for < 0 else GRACE - open_for
            if opens > 0:
                pause = min(pause, opens + MOMENT)
        return pause * self._lease_time

    # --- failures --------------------------------------------------------------------------------------------------

    def _failed(self, error: WorkflowError) -> float:
        """A round failed. Returns how long to pause before the next one, in seconds."""
        now, patience = self._clock.monotonic(), GIVE_UP * self._lease_time
        left = patience - (now - self._beat)
        if left <= 0:
            self._give_up(f"the lease store failed: {error}")
        self._fail_waiters(error, before=now - patience)
        return min(ROUND * self._lease_time, left) if left > 0 else ROUND * self._lease_time

    def _give_up(self, reason: str) -> None:
        with self._lock:
            held, self._held = list(self._held.values()), {}
        for lease in held:
            lease.lost.cancel(reason)

    def _fail_waiters(self, error: WorkflowError, before: float | None = None) -> None:
        """Tell those who have waited since `before`, with no good round since; None tells all."""
        if before is not None and self._good > before:
            return
        with self._lock:
            failed = [
                waiter
                for queue in self._waiters.values()
                for waiter in queue
                if before is None or waiter.since <= before
            ]
            kept = {
                role: deque(waiter for waiter in queue if waiter not in failed) for role, queue in self._waiters.items()
            }
            self._waiters = {role: queue for role, queue in kept.items() if queue}
            for waiter in failed:
                waiter.error = error
        for waiter in failed:
            waiter.signal.notify()

    def _wants(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(sorted(self._waiters))
