"""A lease store in memory: the handle on the roles of a storage.

It compares no clocks and expires nothing. It counts beats, and lets a role go from one member to another only if the
one who takes it saw the row as it is now, the holder's beat included.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...clock import Signal
from ...protocols import LeaseRow, LeaseTable, MemberRow, Unsubscribe
from ..support.guard import Guard
from .storage import LeaseOf, MemoryStorage

NOBODY = MemberRow(0, frozenset())


class MemoryLeaseStore:
    """A `LeaseStore`."""

    capabilities = frozenset({"notify"})

    def __init__(self, storage: MemoryStorage) -> None:
        self._leases = storage.leases
        self._guard = Guard("the lease store in memory")

    def close(self) -> None:
        self._guard.close()

    def beat(self, member: str, wants: Sequence[str]) -> LeaseTable:
        self._guard.check()
        store = self._leases
        with store.lock:
            before = store.members.get(member, NOBODY)
            after = store.members[member] = MemberRow(before.beat + 1, frozenset(wants))
            table = LeaseTable(dict(store.members), {role: self._row(role) for role in store.leases})
        if after.wants != before.wants:
            self._tell()
        return table

    def acquire(self, role: str, member: str, seen: LeaseRow | None) -> int | None:
        self._guard.check()
        store = self._leases
        with store.lock:
            current = self._row(role) if role in store.leases else None
            if current != seen:
                return None
            lease = store.leases.setdefault(role, LeaseOf())
            lease.epoch += 1
            lease.holder = member
            return lease.epoch

    def release(self, role: str, member: str, epoch: int) -> None:
        self._guard.check()
        with self._leases.lock:
            lease = self._leases.leases.get(role)
            if lease is None or (lease.holder, lease.epoch) != (member, epoch):
                return
            lease.holder = ""
        self._tell()

    def leave(self, member: str, beat: int | None = None) -> None:
        self._guard.check()
        store = self._leases
        with store.lock:
            known = store.members.get(member)
            if known is None or beat not in (None, known.beat):
                return
            del store.members[member]
            for lease in store.leases.values():
                if lease.holder == member:
                    lease.holder = ""
        self._tell()

    def subscribe_leases(self, signal: Signal) -> Unsubscribe:
        self._guard.check()
        return self._leases.listeners.subscribe("leases", signal)

    def _row(self, role: str) -> LeaseRow:
        lease = self._leases.leases[role]
        return LeaseRow(lease.epoch, lease.holder, self._leases.members.get(lease.holder, NOBODY).beat)

    def _tell(self) -> None:
        self._leases.listeners.tell("leases")
