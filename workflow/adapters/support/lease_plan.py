"""Who should hold which role: what a scheduler concludes from the table of leases, without asking anybody.

Every member reads the same table and computes the same plan, so none has to lead. Plans may differ for a moment,
since tables are read one after the other; then compare-and-set decides, and the next round corrects.

*Time.* No two clocks are compared, and no expiry is stored. A member counts for how long it has itself seen a row
unchanged, on a clock that only moves while it looks: two looks that are further apart than `LONGEST_LOOK` count as
that. So a clock that jumps, or a process that was stopped for an hour, takes nothing from a holder that is alive:
the holder's next beat is seen first.

*Shares.* A free role goes to the live member that waits for it and holds the fewest. While one member holds two more
roles than another that waits for one of them, one is to move. So with n roles that all k members want, each comes to
hold n/k of them, rounded down or up.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass

from ...event import composite, hash_of
from ...protocols import LeaseTable

LONGEST_LOOK = 0.3
"""The longest time, in lease times, that passes on a watch between two looks."""
GRACE = 0.5
"""For how many lease times a role is left to the member that the plan gives it to, before any other takes it."""
FORGOTTEN = 5.0
"""After how many lease times without a beat a member that holds nothing is removed."""


class Watch:
    """What one member has seen of the table so far, and for how long. In lease times."""

    def __init__(self) -> None:
        self._now = 0.0
        self._seen: dict[Hashable, tuple[object, float]] = {}
        self.table = LeaseTable({}, {})

    def look(self, table: LeaseTable, elapsed: float) -> None:
        """Take in the table, read `elapsed` after the one before."""
        self._now += min(elapsed, LONGEST_LOOK)
        self.table = table
        wanted = frozenset[str]().union(*(row.wants for row in table.members.values()))
        rows: dict[Hashable, object] = {("role", role): None for role in wanted}  # it may never have been held
        rows.update((("role", role), row) for role, row in table.leases.items())
        rows.update((("member", member), row.beat) for member, row in table.members.items())
        before = self._seen
        self._seen = {}
        for key, row in rows.items():
            known = before.get(key)
            self._seen[key] = known if known is not None and known[0] == row else (row, self._now)

    def _age(self, kind: str, name: str) -> float:
        known = self._seen.get((kind, name))
        return self._now - known[1] if known is not None else 0.0

    def role_age(self, role: str) -> float:
        """For how long its row, with its holder's beat, has been as it is."""
        return self._age("role", role)

    def live(self) -> set[str]:
        """The members whose beat changed within one lease time, or that are new to us."""
        return {member for member in self.table.members if self._age("member", member) < 1.0}

    def forgotten(self) -> dict[str, int]:
        """The members to remove, each with its beat."""
        holders = {row.holder for row in self.table.leases.values()}
        return {
            member: row.beat
            for member, row in self.table.members.items()
            if member not in holders and self._age("member", member) > FORGOTTEN
        }

    def open_for(self, role: str) -> float:
        """For how long the role has been there for the taking; negative while a holder has time left."""
        row = self.table.leases.get(role)
        held = row is not None and row.holder
        return self.role_age(role) - 1.0 if held else self.role_age(role)


@dataclass
class Shares:
    """Who holds what and who waits for what, as a plan changes it. Only live members count."""

    held: dict[str, set[str]]
    wants: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, table: LeaseTable, live: Collection[str]) -> Shares:
        held: dict[str, set[str]] = {member: set() for member in live}
        for role, row in table.leases.items():
            if row.holder in held:
                held[row.holder].add(role)
        return cls(held, {member: table.members[member].wants for member in live})

    def allot(self, free: Collection[str]) -> dict[str, str]:
        """Give each free role to the member that waits for it and holds the fewest, and say to whom."""
        allotted: dict[str, str] = {}
        for role in sorted(free):
            waiting = [member for member, wanted in self.wants.items() if role in wanted]
            if waiting:
                taker = min(waiting, key=lambda member: (len(self.held[member]), _lot(role, member)))
                self.held[taker].add(role)
                allotted[role] = taker
        return allotted

    def moves(self, promised: Collection[str] = ()) -> dict[str, str]:
        """The roles that are to move, and from whom. Those that were promised before go first."""
        moved: dict[str, str] = {}
        while (move := self._next_move(promised)) is not None:
            role, giver, taker = move
            self.held[giver].discard(role)
            self.held[taker].add(role)
            moved[role] = giver
        return moved

    def _next_move(self, promised: Collection[str]) -> tuple[str, str, str] | None:
        takers = sorted((len(self.held[member]), member) for member, wanted in self.wants.items() if wanted)
        givers = sorted((-len(roles), member) for member, roles in self.held.items())
        for count, giver in givers:
            for few, taker in takers:
                if -count - few < 2:
                    break
                roles = self.held[giver] & self.wants[taker]
                if roles:
                    return min(roles, key=lambda role: (role not in promised, _lot(role, taker))), giver, taker
        return None


def _lot(role: str, member: str) -> tuple[int, str]:
    """What decides where nothing else does: the same for everybody, and different for each role."""
    return hash_of(composite(role, member)), member
