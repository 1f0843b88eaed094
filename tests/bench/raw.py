"""Raw loops: the same JSON, locks and SQL as a transition needs, without an engine. The floor for the ratios."""

from __future__ import annotations

import json
import queue
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

OBJECT = {"name": "item", "amount": 0, "note": ""}


def memory_through_queues(transitions: int) -> float:
    """Seconds for so many transitions: JSON in and out, an id, compare and append under a lock, two queues."""
    lock, records, history = threading.Lock(), {}, []
    first: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    second: queue.SimpleQueue[tuple[str, bytes, int] | None] = queue.SimpleQueue()
    runs = transitions // 3
    for number in range(runs):
        records[f"run-{number}"] = (json.dumps(OBJECT).encode(), 1)
        first.put(f"run-{number}")
    done = threading.Event()

    def work() -> None:
        while (run_id := first.get()) is not None:
            data, version = records[run_id]
            value = json.loads(data)
            value["amount"] += 1
            second.put((run_id, json.dumps(value).encode(), version))

    def commit() -> None:
        left = runs
        while left:
            item = second.get()
            if item is None:
                return
            run_id, data, version = item
            with lock:
                if records[run_id][1] != version:
                    continue
                records[run_id] = (data, version + 1)
                history.append((run_id, version + 1, time.time_ns()))
            if version < 3:
                first.put(run_id)
            else:
                left -= 1
        done.set()

    begun = time.perf_counter()
    threads = [threading.Thread(target=work), threading.Thread(target=commit)]
    for thread in threads:
        thread.start()
    done.wait()
    first.put(None)
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun


SCHEMA = """
CREATE TABLE run (id INTEGER PRIMARY KEY, version INTEGER, status INTEGER, object BLOB, updated_at INTEGER);
CREATE TABLE history (run INTEGER, version INTEGER, status INTEGER, at INTEGER, PRIMARY KEY (run, version))
    WITHOUT ROWID;
CREATE TABLE event (topic INTEGER, position INTEGER, run INTEGER, version INTEGER, PRIMARY KEY (topic, position))
    WITHOUT ROWID;
"""


def sqlite_batches(file: Path, transitions: int, batch: int) -> float:
    """Seconds for so many transitions on SQLite, FULL, a narrow schema, one transaction for each batch, JSON each way."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.executescript(SCHEMA)
    runs = max(batch, transitions // 3)
    rows: list[tuple[Any, ...]] = [(n, 1, 1, json.dumps(OBJECT).encode(), 0) for n in range(runs)]
    connection.executemany("INSERT INTO run VALUES (?, ?, ?, ?, ?)", rows)
    position, begun, made = 0, time.perf_counter(), 0
    for status in (2, 3, 4):
        for first in range(0, runs, batch):
            last = min(first + batch, runs)
            read = connection.execute("SELECT id, version, object FROM run WHERE id >= ? AND id < ?", (first, last))
            changed, history, events = [], [], []
            for run, version, data in read.fetchall():
                value = json.loads(data)
                value["amount"] += 1
                now = time.time_ns() // 1000
                position += 1
                changed.append((version + 1, status, json.dumps(value).encode(), now, run, version))
                history.append((run, version + 1, status, now))
                events.append((status, position, run, version + 1))
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "UPDATE run SET version = ?, status = ?, object = ?, updated_at = ? WHERE id = ? AND version = ?", changed
            )
            connection.executemany("INSERT INTO history VALUES (?, ?, ?, ?)", history)
            connection.executemany("INSERT INTO event VALUES (?, ?, ?, ?)", events)
            connection.execute("COMMIT")
            made += len(changed)
    seconds = time.perf_counter() - begun
    connection.close()
    return seconds * transitions / made
