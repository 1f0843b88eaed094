"""Raw loops: the same JSON, locks and SQL as a transition needs, without an engine. The floor for the ratios."""

from __future__ import annotations

import json
import queue
import sqlite3
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

OBJECT = {"name": "item", "amount": 0, "note": ""}


def memory_through_queues(transitions: int) -> float:
    """Seconds for so many transitions: JSON in and out, an id, compare and append under a lock, two queues."""
    lock = threading.Lock()
    records: dict[str, tuple[bytes, int]] = {}
    history: list[tuple[str, str, int, datetime]] = []
    first: queue.Queue[str | None] = queue.Queue()
    second: queue.Queue[tuple[str, bytes, int]] = queue.Queue()
    runs = transitions // 3
    for _ in range(runs):
        run_id = uuid4().hex
        records[run_id] = (json.dumps(OBJECT).encode(), 1)
        first.put(run_id)

    def work() -> None:
        while (run_id := first.get()) is not None:
            data, version = records[run_id]
            value = json.loads(data)
            value["amount"] += 1
            second.put((run_id, json.dumps(value).encode(), version))

    def commit() -> None:
        left = runs
        while left:
            run_id, data, version = second.get()
            with lock:
                if records[run_id][1] != version:
                    continue
                records[run_id] = (data, version + 1)
                history.append((uuid4().hex, run_id, version + 1, datetime.now(timezone.utc)))
            if version < 3:
                first.put(run_id)
            else:
                left -= 1
        first.put(None)

    begun = time.perf_counter()
    threads = [threading.Thread(target=work), threading.Thread(target=commit)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(history) == 3 * runs
    return time.perf_counter() - begun


SCHEMA = """
CREATE TABLE run (id INTEGER PRIMARY KEY, run_id TEXT UNIQUE, version INTEGER, status INTEGER, object BLOB,
    updated_at INTEGER);
CREATE TABLE history (run INTEGER, version INTEGER, write_id TEXT, status INTEGER, at INTEGER,
    PRIMARY KEY (run, version)) WITHOUT ROWID;
CREATE TABLE event (topic INTEGER, position INTEGER, run_id TEXT, version INTEGER, at INTEGER,
    PRIMARY KEY (topic, position)) WITHOUT ROWID;
CREATE TABLE cursor (topic INTEGER PRIMARY KEY, position INTEGER);
"""
READ = "SELECT position, run_id, version FROM event WHERE topic = ? AND position > ? ORDER BY position LIMIT ?"


def sqlite_batches(file: Path, transitions: int, batch: int) -> float:
    """Seconds for so many transitions on SQLite, FULL, in a narrow schema, one transaction for each batch.

    Each batch reads its events, looks up its runs by their text ids, decodes and encodes their JSON, and writes record,
    history and event by compare-and-set, then its cursor: the SQL that a transition needs, and nothing else.
    """
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.executescript(SCHEMA)
    runs = max(batch, transitions // 3 // batch * batch)
    ids = [uuid4().hex for _ in range(runs)]
    begin = [(n, run_id, 1, 1, json.dumps(OBJECT).encode(), 0) for n, run_id in enumerate(ids)]
    connection.executemany("INSERT INTO run VALUES (?, ?, ?, ?, ?, ?)", begin)
    connection.executemany("INSERT INTO event VALUES (1, ?, ?, 1, 0)", list(enumerate(ids, 1)))
    begun = time.perf_counter()
    for status in (2, 3, 4):
        for position in range(0, runs, batch):
            _one_batch(connection, status, position, batch)
    seconds = time.perf_counter() - begun
    connection.close()
    return seconds * transitions / (3 * runs)


def _one_batch(connection: sqlite3.Connection, status: int, position: int, batch: int) -> None:
    events = connection.execute(READ, (status - 1, position, batch)).fetchall()
    holes = ",".join("?" * len(events))
    select = f"SELECT id, run_id, version, object FROM run WHERE run_id IN ({holes})"
    found = connection.execute(select, [run_id for _, run_id, _ in events]).fetchall()
    runs = {run_id: (number, version, data) for number, run_id, version, data in found}
    changed: list[tuple[Any, ...]] = []
    history: list[tuple[Any, ...]] = []
    sent: list[tuple[Any, ...]] = []
    for offset, run_id, event_version in events:
        number, version, data = runs[run_id]
        assert version == event_version
        value = json.loads(data)
        value["amount"] += 1
        now = time.time_ns() // 1000
        changed.append((version + 1, status, json.dumps(value).encode(), now, number, version))
        history.append((number, version + 1, uuid4().hex, status, now))
        sent.append((status, offset, run_id, version + 1, now))
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        "UPDATE run SET version = ?, status = ?, object = ?, updated_at = ? WHERE id = ? AND version = ?", changed
    )
    connection.executemany("INSERT INTO history VALUES (?, ?, ?, ?, ?)", history)
    connection.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?)", sent)
    connection.execute("INSERT OR REPLACE INTO cursor VALUES (?, ?)", (status, position + batch))
    connection.execute("COMMIT")
