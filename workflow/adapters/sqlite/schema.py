"""What is in the file: tables, indexes, and how an older file becomes a newer one.

Keys are integers inside, text only at the border: `name` holds each workflow, topic, kind and instance once, and every
other table has its number. Where the key is the order, the table is the index (`WITHOUT ROWID`). Instants are
microseconds since 1970. What is empty for nearly every row is NULL, or one JSON column, `rare`.

    name       every interned text
    workflow   whether its events go straight into the log; its definitions are in `definition`
    run        one row for each run: its current version. `id` is the order of creation
    history    (run, version): one row for each accepted change
    cause      (workflow, cause) to the run on which it took effect
    tally      how many runs are in (workflow, status, run state), kept by every write
    outbox     events for later, or for another system
    topic      the last position given out in it
    event      (topic, position): the log
    layout     a receiver's name on a topic, its number of shards; its `id` is the generation, never given twice
    cursor     (layout, shard): what was acknowledged, and what may have been handed out
    timeout    due items
    member     schedulers, their beat and what they wait for
    lease      roles, their epoch and holder
    change     counters that rise, by which other processes notice what has no version of its own

A file is made or brought forward in one transaction, so that of several processes which open it at once, one does it
and the others find it done; a kill in between leaves it as it was. `user_version` counts the migrations,
`application_id` says that the file is ours. A file that is not, or that a newer version wrote, is refused before
anything is changed.
"""

from __future__ import annotations

import sqlite3

from ...errors import StoreVersionError

APPLICATION_ID = 0x776B666C
"""`wkfl`, in the file's header."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE name (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)",
        "CREATE TABLE workflow (id INTEGER PRIMARY KEY, published INTEGER NOT NULL)",
        """CREATE TABLE definition (
            workflow INTEGER NOT NULL, fingerprint TEXT NOT NULL, last_seen INTEGER NOT NULL, content TEXT NOT NULL,
            PRIMARY KEY (workflow, fingerprint)) WITHOUT ROWID""",
        # The object stands last: what a listing filters by is on the row's first page, however large the object is.
        """CREATE TABLE run (
            id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL UNIQUE, workflow INTEGER NOT NULL,
            foreign_id TEXT NOT NULL, version INTEGER NOT NULL, run_state INTEGER NOT NULL, status INTEGER NOT NULL,
            status_entered INTEGER NOT NULL, entered_at INTEGER NOT NULL, turn INTEGER NOT NULL,
            created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, available_at INTEGER NOT NULL,
            attempt INTEGER NOT NULL, suspect INTEGER NOT NULL, by TEXT, rare TEXT, object BLOB NOT NULL)""",
        # Listings by run state, each in the order of creation: a sweep over the running ones never meets the finished.
        "CREATE INDEX run_by_state ON run (workflow, run_state)",
        "CREATE INDEX run_by_foreign_id ON run (workflow, foreign_id)",
        # The store asks before it writes; that the answer is right, this index proves.
        "CREATE UNIQUE INDEX run_active ON run (workflow, foreign_id) WHERE run_state <= 2",
        """CREATE TABLE history (
            run INTEGER NOT NULL, version INTEGER NOT NULL, write_id TEXT NOT NULL, status INTEGER NOT NULL,
            run_state INTEGER NOT NULL, at INTEGER NOT NULL, attempt INTEGER NOT NULL, instance INTEGER NOT NULL,
            cause TEXT, rare TEXT, PRIMARY KEY (run, version)) WITHOUT ROWID""",
        """CREATE TABLE cause (
            workflow INTEGER NOT NULL, cause TEXT NOT NULL, run INTEGER NOT NULL,
            PRIMARY KEY (workflow, cause)) WITHOUT ROWID""",
        """CREATE TABLE tally (
            workflow INTEGER NOT NULL, status INTEGER NOT NULL, run_state INTEGER NOT NULL, runs INTEGER NOT NULL,
            PRIMARY KEY (workflow, status, run_state)) WITHOUT ROWID""",
        """CREATE TABLE outbox (
            id INTEGER PRIMARY KEY AUTOINCREMENT, workflow INTEGER NOT NULL, topic INTEGER NOT NULL, key TEXT NOT NULL,
            status INTEGER NOT NULL, run_state INTEGER NOT NULL, version INTEGER NOT NULL, created_at INTEGER NOT NULL,
            headers TEXT, available_at INTEGER NOT NULL, attempt INTEGER NOT NULL, error_type TEXT NOT NULL,
            region TEXT NOT NULL)""",
        "CREATE INDEX outbox_due ON outbox (workflow, available_at)",
        "CREATE INDEX outbox_by_key ON outbox (key)",
        "CREATE TABLE topic (id INTEGER PRIMARY KEY, head INTEGER NOT NULL, trimmed INTEGER NOT NULL)",
        """CREATE TABLE event (
            topic INTEGER NOT NULL, position INTEGER NOT NULL, hash INTEGER NOT NULL, key TEXT NOT NULL,
            status INTEGER NOT NULL, run_state INTEGER NOT NULL, version INTEGER NOT NULL, created_at INTEGER NOT NULL,
            headers TEXT, PRIMARY KEY (topic, position)) WITHOUT ROWID""",
        """CREATE TABLE layout (
            id INTEGER PRIMARY KEY AUTOINCREMENT, topic INTEGER NOT NULL, name INTEGER NOT NULL,
            shards INTEGER NOT NULL, last_opened INTEGER NOT NULL, UNIQUE (topic, name))""",
        """CREATE TABLE cursor (
            layout INTEGER NOT NULL, shard INTEGER NOT NULL, acked INTEGER NOT NULL, handed_out INTEGER NOT NULL,
            PRIMARY KEY (layout, shard)) WITHOUT ROWID""",
        """CREATE TABLE timeout (
            id INTEGER PRIMARY KEY AUTOINCREMENT, workflow INTEGER NOT NULL, kind INTEGER NOT NULL, key TEXT NOT NULL,
            name TEXT NOT NULL, run_id TEXT NOT NULL, status INTEGER NOT NULL, status_entered INTEGER NOT NULL,
            due_at INTEGER, created_at INTEGER NOT NULL, hash INTEGER NOT NULL, attempt INTEGER NOT NULL,
            error_type TEXT NOT NULL, state INTEGER NOT NULL, region TEXT NOT NULL, payload BLOB NOT NULL)""",
        "CREATE UNIQUE INDEX timeout_by_key ON timeout (workflow, kind, key)",
        """CREATE INDEX timeout_due ON timeout (workflow, kind, status, due_at)
            WHERE state = 0 AND due_at IS NOT NULL""",
        "CREATE INDEX timeout_by_run ON timeout (run_id)",
        "CREATE INDEX timeout_pending ON timeout (workflow) WHERE state = 0",
        "CREATE INDEX timeout_ended ON timeout (created_at) WHERE state <> 0",
        "CREATE TABLE member (name TEXT PRIMARY KEY, beat INTEGER NOT NULL, wants TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE lease (role TEXT PRIMARY KEY, epoch INTEGER NOT NULL, holder TEXT NOT NULL) WITHOUT ROWID",
        """CREATE TABLE change (
            kind TEXT NOT NULL, name INTEGER NOT NULL, number INTEGER NOT NULL,
            PRIMARY KEY (kind, name)) WITHOUT ROWID""",
    ),
)
"""One entry for each version of the file. An entry that was released never changes: a new one is added."""

VERSION = len(MIGRATIONS)


def found_version(connection: sqlite3.Connection, path: str) -> int:
    """The version of the file, 0 for an empty one. Raises `StoreVersionError` if it is not for us; changes nothing.

    To be called in a transaction, so that what it reads is of one moment.
    """
    application_id: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if application_id == APPLICATION_ID:
        if version > VERSION:
            raise StoreVersionError(
                f"{path} is of version {version}, this code knows versions up to {VERSION}: upgrade this program "
                "(all others that use the file may stay as they are); nothing was changed"
            )
        return version
    tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application_id or version or tables:
        raise StoreVersionError(
            f"{path} is a database of another program: give the store a file of its own; nothing was changed"
        )
    return 0


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the file forward. To be called in a transaction that holds the write lock."""
    version = found_version(connection, path)  # again: another process may have done it before we had the lock
    if version == VERSION:
        return
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    # A pragma takes no parameters; both are numbers of ours, and both are part of the transaction.
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")
    connection.execute(f"PRAGMA user_version = {VERSION:d}")
