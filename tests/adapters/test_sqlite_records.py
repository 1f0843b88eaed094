"""The record store on SQLite: batches, what can never be stored, listings that are bounded, counts that are kept."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.sqlite_support import START, WORKFLOW, bind, bound, change, events_in
from workflow.adapters.sqlite import record_store, sqlite
from workflow.adapters.sqlite.timeout_store import STATES
from workflow.errors import AlreadyApplied, InvalidCursor, InvalidInput, Refusal, Rejected, RunInProgress, StaleRecord
from workflow.event import Change, NewTimeout, TimeoutState
from workflow.protocols import Adapters, counts
from workflow.record import Order, Record, RecordFilter
from workflow.run_state import RunState


@pytest.fixture
def adapters(tmp_path: Path) -> Iterator[Adapters]:
    opened = bound(tmp_path / "records.db")
    yield opened
    opened.close()


def counted(adapters: Adapters, workflow_name: str = WORKFLOW) -> dict[tuple[int, RunState], int]:
    counting = counts(adapters.record_store)
    assert counting is not None
    return dict(counting.counts(workflow_name))


def everything(path: Path) -> list[str]:
    """All that the file has, but for counters of changes, and for counts of nothing."""
    with closing(sqlite3.connect(path)) as connection:
        tables = ("run", "history", "cause", "tally WHERE runs <> 0", "event", "outbox", "topic", "name")
        return [str(row) for table in tables for row in connection.execute(f"SELECT * FROM {table}").fetchall()]


# --- batches -------------------------------------------------------------------------------------------------------


def random_changes(chance: random.Random, number: int) -> list[Change]:
    """Changes as a busy and confused caller makes them: stale, repeated, in each other's way, some unstorable."""
    made: list[Change] = []
    for index in range(number):
        run_id = chance.choice("abcdef")
        if made and chance.random() < 0.15:
            made.append(chance.choice(made))
            continue
        one = change(
            run_id,
            chance.choice((1, 1, 2, 2, 3, 4)),
            foreign_id=f"of-{chance.choice('xy')}",
            status=chance.choice((1, 2)),
            run_state=chance.choice(tuple(RunState)),
            delay=timedelta(hours=chance.choice((0, 0, 1))),
            write_id=f"w{index}",
            cause=chance.choice(("", "", "c1", "c2", "c3")),
            workflow_name=chance.choice((WORKFLOW, "unbound")),
            object=b"x" * chance.choice((0, 10, 6000)),
            meta={"traceparent": "t"} if chance.random() < 0.3 else {},
            headers={"traceparent": "t"} if chance.random() < 0.3 else {},
        )
        if chance.random() < 0.1:
            one = replace(one, record=replace(one.record, error="\ud800"))
        made.append(one)
    return made


@pytest.mark.parametrize("seed", range(25))
def test_a_batch_equals_single_calls(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    changes = random_changes(chance, 80)
    batched, single = bound(tmp_path / "batched.db"), bound(tmp_path / "single.db")
    answers: list[Refusal | None] = []
    start = 0
    while start < len(changes):
        size = chance.randint(1, 25)
        answers += batched.record_store.store(changes[start : start + size])
        start += size
    alone = [single.record_store.store([one])[0] for one in changes]
    batched.close()
    single.close()
    assert [(type(answer), str(answer)) for answer in answers] == [(type(one), str(one)) for one in alone]
    assert {type(None), StaleRecord} <= {type(answer) for answer in alone}
    assert everything(tmp_path / "batched.db") == everything(tmp_path / "single.db")


def test_a_foreign_id_that_becomes_free_in_a_batch_may_be_taken_in_it(adapters: Adapters) -> None:
    store = adapters.record_store
    store.store([change("a", foreign_id="f"), change("b", foreign_id="g", run_state=RunState.PAUSED)])
    answers = store.store(
        [
            change("c", foreign_id="f"),
            change("a", 2, foreign_id="f", run_state=RunState.COMPLETED),
            change("c", foreign_id="f"),
            change("d", foreign_id="f"),
        ]
    )
    assert [type(answer) for answer in answers] == [RunInProgress, type(None), type(None), RunInProgress]
    latest = store.latest(WORKFLOW, "f")
    assert latest is not None
    assert latest.run_id == "c"


def test_a_run_takes_over_within_a_batch_whatever_the_order_of_the_ids(adapters: Adapters) -> None:
    """The file allows one active run at any moment, so the rows have to be written in the right order too."""
    store = adapters.record_store
    for old, new in (("a", "b"), ("d", "c")):
        finished = RunState.CANCELLED
        store.store([change(new, foreign_id="f", run_state=finished), change(old, foreign_id="f")])
        ends, begins = change(old, 2, foreign_id="f", run_state=finished), change(new, 2, foreign_id="f")
        assert store.store([ends, begins]) == [None, None]
        store.store([change(new, 3, foreign_id="f", run_state=finished)])


def test_the_file_itself_allows_one_active_run(tmp_path: Path) -> None:
    """Should the question before the write ever be wrong, the index still is not."""
    adapters = bound(tmp_path / "a.db")
    adapters.record_store.store([change("a", foreign_id="f"), change("b", foreign_id="g")])
    adapters.close()
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute("UPDATE run SET foreign_id = 'f'")


def test_a_batch_of_refusals_writes_nothing(adapters: Adapters, tmp_path: Path) -> None:
    adapters.record_store.store([change("a", cause="key")])
    before = everything(tmp_path / "records.db")
    answers = adapters.record_store.store([change("a", 3), change("b", cause="key"), change("c", foreign_id="of-a")])
    assert [type(answer) for answer in answers] == [StaleRecord, AlreadyApplied, RunInProgress]
    assert everything(tmp_path / "records.db") == before


# --- what can never be stored --------------------------------------------------------------------------------------


def with_record(**values: Any) -> Callable[[Change], Change]:
    return lambda one: replace(one, record=replace(one.record, **values))


def with_transition(**values: Any) -> Callable[[Change], Change]:
    return lambda one: replace(one, transition=replace(one.transition, **values))


def with_event(**values: Any) -> Callable[[Change], Change]:
    return lambda one: replace(one, event=replace(one.event, **values))


NAIVE = datetime(2024, 1, 1)  # noqa: DTZ001 - that is what is tested

UNSTORABLE: dict[str, Callable[[Change], Change]] = {
    "surrogate in the foreign id": with_record(foreign_id="\ud800"),
    "surrogate in the run id": with_record(run_id="\udfff"),
    "surrogate in the error": with_record(error="a\ud800b"),
    "surrogate in meta": with_record(meta={"a": "\ud800"}),
    "number in meta": with_record(meta={"a": 1}),
    "object of the wrong type": with_record(object="text"),
    "no object": with_record(object=None),
    "mutable object": with_record(object=bytearray(b"x")),
    "object too large": with_record(object=bytes(500_000_001)),
    "naive instant": with_record(updated_at=NAIVE),
    "instant of another time zone": with_record(updated_at=datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
    "unknown run state": with_record(run_state=7),
    "NUL": with_record(error="a\0b"),
    "instant too early": with_record(created_at=datetime(1969, 12, 31, tzinfo=timezone.utc)),
    "instant too late": with_record(available_at=datetime(2200, 1, 1, tzinfo=timezone.utc)),
    "no instant": with_record(entered_at=None),
    "number too large": with_record(status=2**63),
    "fraction": with_record(status=1.5),
    "text for a number": with_record(attempt="1"),
    "number for a text": with_record(by=7),
    "surrogate in the cause": with_transition(cause="\ud800"),
    "surrogate in the reason": with_transition(reason="\ud800"),
    "surrogate in a header": with_event(headers={"a": "\ud800"}),
    "naive instant of the event": with_event(created_at=NAIVE),
}


@pytest.mark.parametrize("what", UNSTORABLE)
def test_what_can_never_be_stored_spoils_no_other(adapters: Adapters, what: str) -> None:
    answers = adapters.record_store.store([change("good"), UNSTORABLE[what](change("bad")), change("fine")])
    assert [type(answer) for answer in answers] == [type(None), Rejected, type(None)]
    assert [record is None for record in adapters.record_store.lookup(["good", "bad", "fine"])] == [False, True, False]
    assert counted(adapters) == {(1, RunState.RUNNING): 2}


def test_other_refusals_come_before_rejected(adapters: Adapters) -> None:
    adapters.record_store.store([change("a", cause="key"), change("b", write_id="w")])
    spoil = UNSTORABLE["surrogate in the error"]
    answers = adapters.record_store.store(
        [
            spoil(change("x", cause="key")),
            spoil(change("a", 5)),
            spoil(change("y", foreign_id="of-a")),
            spoil(change("b", write_id="w")),
        ]
    )
    assert [type(answer) for answer in answers] == [AlreadyApplied, StaleRecord, RunInProgress, type(None)]


def test_texts_and_bytes_come_back_exactly(adapters: Adapters) -> None:
    texts = ["'; DROP TABLE run; --", "%_\\", "a\nb", "\N{PILE OF POO}", "é", "e\u0301", "A", "a", "a ", "x" * 255]
    everyone = [change(f"run-{text}", foreign_id=text, object=text.encode(), error=text, by=text) for text in texts]
    everyone = [replace(one, record=replace(one.record, meta={text: text}, region=text)) for one, text in
                zip(everyone, texts, strict=True)]  # fmt: skip
    assert adapters.record_store.store(everyone) == [None] * len(texts)
    assert adapters.record_store.lookup([one.record.run_id for one in everyone]) == [one.record for one in everyone]
    for one in everyone:
        assert adapters.record_store.latest(WORKFLOW, one.record.foreign_id) == one.record
        page = adapters.record_store.list(WORKFLOW, where=RecordFilter(by=one.record.by))
        assert page.items == (one.record,)


# --- listings ------------------------------------------------------------------------------------------------------


def listed(adapters: Adapters, order: Order, limit: int, where: RecordFilter) -> tuple[list[str], int]:
    found: list[str] = []
    after, pages = "", 0
    while True:
        page = adapters.record_store.list(WORKFLOW, after=after, limit=limit, order=order, where=where)
        assert len(page.items) <= limit
        assert all(where.matches(record) for record in page.items)
        found += [record.run_id for record in page.items]
        pages += 1
        after = page.next
        if not after:
            return found, pages


def filled(adapters: Adapters, chance: random.Random, number: int) -> list[Record]:
    """Runs of two workflows in all run states; returns those of ours in the order of creation."""
    first = [
        change(f"run-{index:04}", foreign_id=f"f{index % 40}-{index // 40}", by=chance.choice(("", "ann", "bob")),
               workflow_name=chance.choice((WORKFLOW, WORKFLOW, "other")), status=index % 3)
        for index in range(number)
    ]  # fmt: skip
    assert set(adapters.record_store.store(first)) == {None}
    second = [
        change(one.record.run_id, 2, status=chance.randint(0, 4), run_state=chance.choice(tuple(RunState)),
               foreign_id=one.record.foreign_id, workflow_name=one.record.workflow_name, by=one.record.by,
               delay=timedelta(seconds=chance.choice((0, 0, 50))))
        for one in first if chance.random() < 0.7
    ]  # fmt: skip
    chance.shuffle(second)
    assert set(adapters.record_store.store(second)) <= {None}
    records = adapters.record_store.lookup([one.record.run_id for one in first])
    return [record for record in records if record is not None and record.workflow_name == WORKFLOW]


@pytest.mark.parametrize("window", [7, 2000])
@pytest.mark.parametrize("seed", range(3))
def test_listings_equal_brute_force(
    adapters: Adapters, monkeypatch: pytest.MonkeyPatch, seed: int, window: int
) -> None:
    monkeypatch.setattr(record_store, "WINDOW", window)
    chance = random.Random(seed)
    records = filled(adapters, chance, 120)
    for _ in range(60):
        some_states = frozenset(chance.sample(tuple(RunState), chance.randint(0, 3)))
        where = RecordFilter(
            statuses=chance.choice((None, None, frozenset({1, 3}), frozenset[int]())),
            run_states=chance.choice((None, some_states)),
            foreign_id=chance.choice((None, None, None, chance.choice(records).foreign_id)),
            run_id=chance.choice((None, None, None, chance.choice(records).run_id)),
            by=chance.choice((None, None, "", "ann", "nobody")),
            updated_before=chance.choice((None, None, START + timedelta(seconds=2))),
            available_before=chance.choice((None, None, START + timedelta(seconds=30))),
        )
        wanted = [record.run_id for record in records if where.matches(record)]
        limit = chance.choice((1, 3, 200))
        assert listed(adapters, Order.ASCENDING, limit, where)[0] == wanted
        assert listed(adapters, Order.DESCENDING, limit, where)[0] == wanted[::-1]
    found = counted(adapters)
    assert found == Counter((record.status, record.run_state) for record in records)


def test_a_sparse_filter_looks_at_a_bounded_number_of_runs(adapters: Adapters) -> None:
    number = 2 * record_store.WINDOW + 100
    adapters.record_store.store([change(f"run-{index}") for index in range(number)])
    page = adapters.record_store.list(WORKFLOW, where=RecordFilter(by="nobody"))
    assert page.items == ()
    assert page.next
    found, pages = listed(adapters, Order.ASCENDING, 25, RecordFilter(by="nobody"))
    assert (found, pages) == ([], 3)


ORDERED = {
    "listing": (
        "SELECT id FROM run INDEXED BY run_by_state WHERE workflow = 1 AND run_state = 1 AND id > 5 "
        "UNION ALL SELECT id FROM run INDEXED BY run_by_state WHERE workflow = 1 AND run_state = 2 AND id > 5 "
        "ORDER BY id LIMIT 5"
    ),
    "latest": (
        "SELECT * FROM run INDEXED BY run_by_foreign_id WHERE workflow = 1 AND foreign_id = 'f' "
        "ORDER BY id DESC LIMIT 1"
    ),
    "outbox": (
        "SELECT * FROM outbox INDEXED BY outbox_due WHERE workflow = 1 AND available_at <= 5 ORDER BY available_at, id"
    ),
    "due": (
        "SELECT * FROM timeout INDEXED BY timeout_due WHERE workflow = 1 AND kind = 1 AND status = 1 AND state = 0 "
        "AND due_at IS NOT NULL AND due_at <= 5 ORDER BY due_at, id"
    ),
    "pending": (
        "SELECT * FROM timeout INDEXED BY timeout_pending WHERE workflow = 1 AND state = 0 AND id > 3 ORDER BY id"
    ),
    "ended": (
        "SELECT id FROM timeout INDEXED BY timeout_ended WHERE state <> 0 AND created_at < 5 ORDER BY created_at, id"
    ),
    "log": "SELECT * FROM event WHERE topic = 1 AND position > 5 ORDER BY position LIMIT 5",
}


@pytest.mark.parametrize("query", ORDERED.values(), ids=ORDERED.keys())
def test_ordered_queries_neither_scan_nor_sort(adapters: Adapters, tmp_path: Path, query: str) -> None:
    with closing(sqlite3.connect(tmp_path / "records.db")) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert not [step for step in plan if "SCAN" in step or "TEMP B-TREE" in step], plan
    assert [step for step in plan if "SEARCH" in step]


@pytest.mark.parametrize("cursor", ["x", "run-", "run-x", "run--1", "run-01", "due-1", "run-" + "9" * 40, "1"])
def test_a_bad_cursor(adapters: Adapters, cursor: str) -> None:
    with pytest.raises(InvalidCursor, match="start again"):
        adapters.record_store.list(WORKFLOW, after=cursor)


def test_a_limit_below_one(adapters: Adapters) -> None:
    for call in (
        lambda: adapters.record_store.list(WORKFLOW, limit=0),
        lambda: adapters.record_store.history("a", limit=0),
        lambda: adapters.record_store.list_outbox_events(WORKFLOW, 0, START),
        lambda: adapters.timeout_store.list(WORKFLOW, limit=0),
    ):
        with pytest.raises(InvalidInput, match="at least 1"):
            call()


def test_the_first_end_of_a_due_item_wins(adapters: Adapters, tmp_path: Path) -> None:
    adapters.timeout_store.create([NewTimeout(WORKFLOW, "timeout", "k", START, START)])
    (item,) = adapters.timeout_store.list(WORKFLOW).items
    for state in (TimeoutState.COMPLETED, TimeoutState.CANCELLED):
        adapters.timeout_store.finish([item.id], state)
    with closing(sqlite3.connect(tmp_path / "records.db")) as connection:
        assert connection.execute("SELECT state FROM timeout").fetchall() == [(STATES[TimeoutState.COMPLETED],)]


# --- the end of runs -----------------------------------------------------------------------------------------------


def test_the_place_of_a_deleted_run_is_not_given_again(adapters: Adapters) -> None:
    store = adapters.record_store
    store.store([change("a"), change("b", run_state=RunState.CANCELLED, cause="key")])
    cursor = store.list(WORKFLOW, limit=1, order=Order.DESCENDING).next
    assert store.delete_runs(["b", "a", "b", "unknown"]) == ["b"]
    assert store.applied(WORKFLOW, "key") is None
    assert store.history("b") == []
    assert counted(adapters) == {(1, RunState.RUNNING): 1}
    store.store([change("c", cause="key")])
    assert [r.run_id for r in store.list(WORKFLOW, after=cursor, order=Order.DESCENDING).items] == ["a"]
    assert store.delete_runs(["b"]) == []


def test_runs_with_outbox_rows_are_kept(tmp_path: Path) -> None:
    adapters = sqlite(tmp_path / "a.db")
    store = adapters.record_store
    store.store([change("a", run_state=RunState.COMPLETED)])
    assert store.delete_runs(["a"]) == []
    store.delete_outbox_events([waits.id for waits in store.outbox_of("a")])
    assert store.delete_runs(["a"]) == ["a"]
    adapters.close()


def test_deleted_data_is_gone_from_the_outbox_and_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    adapters = sqlite(path)
    store = adapters.record_store
    headers = {"traceparent": "SECRET-header"}
    store.store([change("a", object=b"SECRET-object", error="SECRET-error", meta=headers, headers=headers)])
    ends = (RunState.COMPLETED, RunState.DATA_DELETION_REQUESTED, RunState.DATA_DELETED)
    for version, state in enumerate(ends, 2):
        store.store([change("a", version, run_state=state, object=b"", headers=headers)])
    assert [dict(waits.event.headers) for waits in store.outbox_of("a")] == [{}] * 4
    adapters.close()
    assert b"SECRET" not in path.read_bytes()


def test_events_go_into_the_log_or_into_the_outbox(tmp_path: Path) -> None:
    adapters = sqlite(tmp_path / "a.db")
    store = adapters.record_store
    store.store([change("unbound")])
    assert bind(adapters)
    store.store([change("now"), change("later", delay=timedelta(seconds=1))])
    assert [event.key for event in events_in(adapters, f"{WORKFLOW}-1")] == ["now"]
    assert [len(store.outbox_of(run_id)) for run_id in ("unbound", "now", "later")] == [1, 0, 1]
    due = store.list_outbox_events(WORKFLOW, 10, START + timedelta(seconds=1))
    assert [waits.event.key for waits in due] == ["unbound"]
    due = store.list_outbox_events(WORKFLOW, 10, START + timedelta(seconds=2))
    assert [waits.event.key for waits in due] == ["unbound", "later"]
    adapters.close()
