"""Who holds which role, in one file.

Every method is one transaction, so that what it compared is what it wrote on. Heartbeats are frequent and worth little:
none of this waits for the disk. What a loss of power takes back, it takes back for all processes of the machine, which
are gone too; but an epoch must never be given twice, so a grant is durable.

A beat that waits for the file's lock is a beat that fails: whoever holds roles has to know in time. So these
transactions are less patient than all others.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager

from ...clock import Signal
from ...protocols import LeaseRow, LeaseTable, MemberRow, Unsubscribe
from ..support.guard import Guard
from .database import Database, bump
from .watcher import LEASE, Watcher

ANY = 0
"""Leases have one change counter for all roles."""


class SqliteLeaseStore:
    """A `LeaseStore`."""

    capabilities = frozenset({"notify"})

    def __init__(self, database: Database, watcher: Watcher, *, patience: float = 1.0) -> None:
        self._database = database
        self._patience = patience
        self._watcher = watcher
        self._guard = Guard(f"the lease store of {database.path}")

    def close(self) -> None:
        self._guard.close()

    def _write(self, *, durable: bool = True) -> AbstractContextManager[sqlite3.Connection]:
        return self._database.write(durable=durable, patience=self._patience)

    def beat(self, member: str, wants: Sequence[str]) -> LeaseTable:
        self._guard.check()
        wanted = json.dumps(sorted(set(wants)), ensure_ascii=False)
        change = 0
        with self._write(durable=False) as connection:
            row = connection.execute("SELECT wants FROM member WHERE name = ?", (member,)).fetchone()
            connection.execute(
                "INSERT INTO member VALUES (?, 1, ?) "
                "ON CONFLICT (name) DO UPDATE SET beat = beat + 1, wants = excluded.wants",
                (member, wanted),
            )
            if (row[0] if row else "[]") != wanted:
                change = bump(connection, LEASE, ANY)
            members = connection.execute("SELECT name, beat, wants FROM member").fetchall()
            leases = connection.execute("SELECT role, epoch, holder FROM lease").fetchall()
        self._tell(change)
        beats = {name: beat for name, beat, _ in members}
        return LeaseTable(
            members={name: MemberRow(beat, frozenset(json.loads(wants))) for name, beat, wants in members},
            leases={role: LeaseRow(epoch, holder, beats.get(holder, 0)) for role, epoch, holder in leases},
        )

    def acquire(self, role: str, member: str, seen: LeaseRow | None) -> int | None:
        self._guard.check()
        with self._write() as connection:
            row = connection.execute("SELECT epoch, holder FROM lease WHERE role = ?", (role,)).fetchone()
            if row != (None if seen is None else (seen.epoch, seen.holder)):
                return None
            if seen is not None and seen.holder and _beat(connection, seen.holder) != seen.beat:
                return None
            epoch = 1 if seen is None else seen.epoch + 1
            connection.execute(
                "INSERT INTO lease VALUES (?, ?, ?) "
                "ON CONFLICT (role) DO UPDATE SET epoch = excluded.epoch, holder = excluded.holder",
                (role, epoch, member),
            )
        return epoch

    def release(self, role: str, member: str, epoch: int) -> None:
        self._guard.check()
        change = 0
        with self._write(durable=False) as connection:
            freed = connection.execute(
                "UPDATE lease SET holder = '' WHERE role = ? AND holder = ? AND epoch = ?", (role, member, epoch)
            ).rowcount
            if freed:
                change = bump(connection, LEASE, ANY)
        self._tell(change)

    def leave(self, member: str, beat: int | None = None) -> None:
        self._guard.check()
        change = 0
        with self._write(durable=False) as connection:
            if beat is not None and _beat(connection, member) != beat:
                return
            gone = connection.execute("DELETE FROM member WHERE name = ?", (member,)).rowcount
            freed = connection.execute("UPDATE lease SET holder = '' WHERE holder = ?", (member,)).rowcount
            if gone or freed:
                change = bump(connection, LEASE, ANY)
        self._tell(change)

    def _tell(self, change: int) -> None:
        if change:
            self._watcher.tell(LEASE, ANY, change)

    def subscribe_leases(self, signal: Signal) -> Unsubscribe:
        self._guard.check()
        return self._watcher.subscribe(LEASE, ANY, signal)


def _beat(connection: sqlite3.Connection, member: str) -> int:
    """The member's beat, 0 if it is not known."""
    row = connection.execute("SELECT beat FROM member WHERE name = ?", (member,)).fetchone()
    return row[0] if row else 0
