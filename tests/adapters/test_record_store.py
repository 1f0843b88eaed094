"""What every record store does. The names in the docstrings are those of the rules in the conformance kit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, cast

import pytest

from tests.adapters.build import (
    FAR,
    START,
    WORKFLOW,
    at,
    change,
    drain,
    eventually,
    first,
    following,
    keys,
    race,
)
from tests.adapters.conftest import Backend
from workflow.clock import SystemClock
from workflow.errors import (
    AlreadyApplied,
    Closed,
    InvalidCursor,
    InvalidInput,
    Refusal,
    Rejected,
    RunInProgress,
    StaleRecord,
)
from workflow.event import Change
from workflow.protocols import (
    Adapters,
    Definition,
    RecordStore,
    counts,
    definitions,
    direct_publish,
    notify,
)
from workflow.record import Order, Record, RecordFilter
from workflow.run_state import FINISHED, RunState

TEXTS = [
    "it's", 'a "b"', "100%", "under_score", "back\\slash", ";-- drop", "line\nbreak", "😀", "\u00e9", "e\u0301", "CASE",
    "case", "trailing ", " leading", "x" * 255, "a/b", "a~b", "a-b", "tab\t",
]  # fmt: skip


@pytest.fixture
def store(handle: Adapters) -> RecordStore:
    return handle.record_store


def put(store: RecordStore, *records: Record) -> None:
    assert store.store([change(record) for record in records]) == [None] * len(records)


def store_one(store: RecordStore, one: Change) -> Refusal | None:
    (answer,) = store.store([one])
    return answer


def outbox(store: RecordStore, now: datetime = FAR, limit: int = 100, region: str = "") -> list[str]:
    return [one.event.key for one in store.list_outbox_events(WORKFLOW, limit, now, region=region)]


# --- one record ----------------------------------------------------------------------------------------------------


def test_all_fields_come_back(store: RecordStore) -> None:
    """RS-1, GN-5, GN-7"""
    micro = timedelta(microseconds=1)
    record = first(
        status=7, status_entered=1, entered_at=START + micro, turn=3, object=bytes(range(256)),
        updated_at=START + 2 * micro, available_at=START + 3 * micro, attempt=2, error="é 😀", suspect=True,
        by="someone", region="eu", meta={"traceparent": "00-ab", "tracestate": ""},
    )  # fmt: skip
    put(store, record)
    assert store.lookup(["missing", record.run_id, record.run_id]) == [None, record, record]
    found = store.lookup([record.run_id])[0]
    assert found is not None
    assert (type(found.suspect), type(found.run_state)) == (bool, RunState)
    assert found.entered_at.utcoffset() == timedelta(0)


def test_a_large_object_comes_back(store: RecordStore) -> None:
    """GN-5"""
    record = first(object=bytes(range(256)) * 4096)
    put(store, record)
    assert store.lookup([record.run_id]) == [record]


def test_texts_come_back_and_stay_distinct(store: RecordStore) -> None:
    """GN-4"""
    records = [first(f"run {text}", foreign_id=text, error=text, by=text) for text in TEXTS]
    put(store, *records)
    assert store.lookup([record.run_id for record in records]) == records
    assert [store.latest(WORKFLOW, text) for text in TEXTS] == records
    for text, record in zip(TEXTS, records, strict=True):
        assert store.list(WORKFLOW, where=RecordFilter(foreign_id=text)).items == (record,)


def test_nothing_aliases(store: RecordStore) -> None:
    """GN-6"""
    meta, headers = {"a": "1"}, {"traceparent": "1"}
    record = first(meta=meta, available_at=at(5))
    store.store([change(record, headers=headers)])
    meta["a"] = headers["traceparent"] = "2"
    found = store.lookup([record.run_id])[0]
    assert found is not None
    assert dict(found.meta) == {"a": "1"}
    with pytest.raises(TypeError):
        cast("dict[str, str]", found.meta)["a"] = "3"
    assert dict(store.outbox_of(record.run_id)[0].event.headers) == {"traceparent": "1"}


@pytest.mark.parametrize(
    "fields",
    [
        {"object": bytearray(b"{}")},
        {"object": "text"},
        {"created_at": START.replace(tzinfo=None)},
        {"available_at": datetime(1969, 12, 31, tzinfo=timezone.utc)},
        {"available_at": datetime(2200, 1, 1, tzinfo=timezone.utc)},
        {"error": "half a character: \ud800"},
        {"status": 2**63},
        {"status": "1"},
        {"meta": {"a": "\udfff"}},
    ],
    ids=str,
)
def test_what_cannot_be_stored_is_rejected_alone(store: RecordStore, fields: dict[str, Any]) -> None:
    """GN-9, RS-17"""
    answers = store.store([change(first("a")), change(first("bad", **fields)), change(first("b"))])
    assert answers[::2] == [None, None]
    assert isinstance(answers[1], Rejected)
    assert [record and record.run_id for record in store.lookup(["a", "bad", "b"])] == ["a", None, "b"]
    assert not store.history("bad")


# --- compare and set -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2, 4])
def test_a_wrong_version_is_stale_and_changes_nothing(store: RecordStore, version: int) -> None:
    """RS-2"""
    one = first()
    two = following(one)
    put(store, one, two)
    (answer,) = store.store([change(following(two, version=version))])
    assert isinstance(answer, StaleRecord)
    assert (answer.version, answer.current) == (version, 2)
    assert store.lookup(["run-1"]) == [two]
    assert [row.version for row in store.history("run-1")] == [1, 2]
    assert len(outbox(store)) == 2


def test_a_later_version_of_nothing_is_stale(store: RecordStore) -> None:
    """RS-4"""
    (answer,) = store.store([change(following(first()))])
    assert isinstance(answer, StaleRecord)
    assert store.lookup(["run-1"]) == [None]


def test_of_racing_writers_one_wins(backend: Backend) -> None:
    """RS-3, GN-1"""
    stores = [backend.open().record_store for _ in range(3)]
    put(stores[0], first())
    for _ in range(10):
        (current,) = stores[0].lookup(["run-1"])
        assert current is not None
        changes = [change(following(current, by=str(writer))) for writer in range(12)]
        answers = race([partial(store_one, stores[i % 3], c) for i, c in enumerate(changes)])
        winners = [writer for writer, answer in enumerate(answers) if answer is None]
        assert len(winners) == 1
        assert all(isinstance(answer, StaleRecord) for answer in answers if answer is not None)
        (after,) = stores[1].lookup(["run-1"])
        assert after is not None
        assert after.by == str(winners[0])


def test_the_same_call_again_is_accepted_and_adds_nothing(store: RecordStore) -> None:
    """GN-10"""
    one, two = change(first(), cause="key"), change(following(first()))
    assert store.store([one, two]) == [None, None]
    assert store.store([one, two, one]) == [None, None, None]  # though another writer has moved on from version 1
    assert len(store.history("run-1")) == 2
    assert len(outbox(store)) == 2


def test_version_1_fixes_name_foreign_id_and_creation(store: RecordStore) -> None:
    one = first()
    put(store, one, following(one, workflow_name="other", foreign_id="other", created_at=at(99)))
    (found,) = store.lookup(["run-1"])
    assert found is not None
    assert (found.workflow_name, found.foreign_id, found.created_at) == (WORKFLOW, one.foreign_id, START)


# --- refusals ------------------------------------------------------------------------------------------------------


def test_one_active_run_for_each_foreign_id(store: RecordStore) -> None:
    """RS-5"""
    one = first("a", foreign_id="f")
    put(store, one, first("elsewhere", workflow_name="other", foreign_id="f"))
    (answer,) = store.store([change(first("b", foreign_id="f"))])
    assert isinstance(answer, RunInProgress)
    assert answer.run_id == "a"
    two = following(one, run_state=RunState.PAUSED)
    put(store, two)
    assert isinstance(store.store([change(first("b", foreign_id="f"))])[0], RunInProgress)
    put(store, following(two, run_state=RunState.CANCELLED), first("b", foreign_id="f"))


def test_of_racing_triggers_one_wins(backend: Backend) -> None:
    """RS-5, P3"""
    stores = [backend.open().record_store for _ in range(2)]
    for turn in range(5):
        changes = [change(first(f"{turn}-{i}", foreign_id=f"f{turn}")) for i in range(10)]
        answers = race([partial(store_one, stores[i % 2], c) for i, c in enumerate(changes)])
        assert answers.count(None) == 1
        winner = changes[answers.index(None)].record.run_id
        assert {answer.run_id for answer in answers if isinstance(answer, RunInProgress)} == {winner}
        assert len([answer for answer in answers if isinstance(answer, RunInProgress)]) == 9


def test_a_trigger_key_seen_before_comes_before_run_in_progress(store: RecordStore) -> None:
    """RS-14"""
    one = first("a", foreign_id="f")
    assert store.store([change(one, cause="key")]) == [None]
    (active,) = store.store([change(first("b", foreign_id="f"), cause="key")])
    put(store, following(one, run_state=RunState.COMPLETED))
    (finished,) = store.store([change(first("c", foreign_id="f"), cause="key")])
    for answer in (active, finished):
        assert isinstance(answer, AlreadyApplied)
        assert (answer.run_id, answer.cause) == ("a", "key")
    assert store.lookup(["b", "c"]) == [None, None]
    assert store.applied(WORKFLOW, "key") == "a"
    assert store.applied("other", "key") is None


def test_of_racing_causes_one_takes_effect(backend: Backend) -> None:
    """RS-18"""
    stores = [backend.open().record_store for _ in range(2)]
    runs = [first(f"run-{i}") for i in range(8)]
    put(stores[0], *runs)
    changes = [change(following(record), cause="callback/1") for record in runs]
    answers = race([partial(store_one, stores[i % 2], c) for i, c in enumerate(changes)])
    winner = runs[answers.index(None)].run_id
    assert Counter(type(answer) for answer in answers) == {type(None): 1, AlreadyApplied: 7}
    assert stores[1].applied(WORKFLOW, "callback/1") == winner
    versions = [record.version for record in stores[1].lookup([record.run_id for record in runs]) if record]
    assert sorted(versions) == [1] * 7 + [2]


def test_causes_are_of_their_workflow(store: RecordStore) -> None:
    one, other = first("a"), first("b", workflow_name="other")
    assert store.store([change(one, cause="key"), change(other, cause="key")]) == [None, None]


def test_refusals_come_in_order(store: RecordStore) -> None:
    """RS-17: each change breaks the rules that follow the one it is refused for as well."""
    one = first("a", foreign_id="f")
    applied = change(one, cause="key", write_id="w")
    assert store.store([applied]) == [None]
    bad: dict[str, Any] = {"foreign_id": "f", "object": bytearray()}
    answers = store.store(
        [
            change(first("a", **bad), cause="key", write_id="w"),
            change(first("b", version=5, **bad), cause="key"),
            change(first("b", version=5, **bad)),
            change(first("b", **bad)),
            change(first("b", object=bytearray())),
        ]
    )
    assert [type(answer) for answer in answers] == [type(None), AlreadyApplied, StaleRecord, RunInProgress, Rejected]


def test_a_change_sees_those_before_it_in_its_call(store: RecordStore) -> None:
    """RS-17"""
    one = first("a", foreign_id="f")
    two = following(one)
    three = following(two, run_state=RunState.COMPLETED)
    changes = [
        change(two), change(one, cause="key"), change(two), change(first("b", foreign_id="f")), change(two),
        change(first("c"), cause="key"), change(three), change(first("d", foreign_id="f")),
    ]  # fmt: skip
    answers = store.store(changes)
    expected = [StaleRecord, None, None, RunInProgress, StaleRecord, AlreadyApplied, None, None]
    assert [answer and type(answer) for answer in answers] == expected
    assert [row.version for row in store.history("a")] == [1, 2, 3]


def test_many_changes_in_one_call_equal_single_calls(backend: Backend) -> None:
    """RS-17"""
    single = backend.open().record_store
    runs = [first(f"run-{i}", foreign_id=f"f{i % 5}") for i in range(10)]
    made = [change(record, cause=f"c{i % 7}") for i, record in enumerate(runs)]
    made += [change(following(record)) for record in runs]
    expected = [single.store([one])[0] for one in made]

    def elsewhere(one: Change) -> Change:
        record = first(
            f"other {one.record.run_id}", foreign_id=f"other {one.record.foreign_id}", version=one.record.version
        )  # fmt: skip
        return change(record, cause=one.transition.cause and f"other {one.transition.cause}")

    answers = single.store([elsewhere(one) for one in made])
    assert [type(answer) for answer in answers] == [type(answer) for answer in expected]


# --- history, latest, listings -------------------------------------------------------------------------------------


def test_each_accepted_change_adds_one_row_and_one_event(store: RecordStore) -> None:
    """RS-6, RS-15"""
    record = first()
    made: list[Change] = []
    for _ in range(5):
        made.append(change(record, cause=f"cause {record.version}"))
        assert store.store([made[-1]]) == [None]
        record = following(record, status=record.status + 1, by="me", attempt=record.version)
    assert store.history("run-1") == [one.transition for one in made]
    assert store.history("run-1", after_version=2, limit=2) == [one.transition for one in made[2:4]]
    assert store.history("run-1", after_version=5) == []
    assert store.history("missing") == []
    assert [one.event for one in store.list_outbox_events(WORKFLOW, 99, FAR)] == [one.event for one in made]


def test_latest_follows_creation(store: RecordStore) -> None:
    """RS-9"""
    a = first("z", foreign_id="f", run_state=RunState.COMPLETED)
    b = first("a", foreign_id="f", run_state=RunState.COMPLETED)
    put(store, a, b)  # created at the same instant
    put(store, following(a, run_state=RunState.DATA_DELETION_REQUESTED))
    found = store.latest(WORKFLOW, "f")
    assert found is not None
    assert found.run_id == "a"
    assert store.latest(WORKFLOW, "F") is None
    assert store.latest("other", "f") is None


def pages(
    store: RecordStore, limit: int, order: Order = Order.ASCENDING, where: RecordFilter | None = None
) -> list[str]:
    found: list[str] = []
    cursor = ""
    while True:
        page = store.list(WORKFLOW, after=cursor, limit=limit, order=order, where=where or RecordFilter())
        assert len(page.items) <= limit
        found += [record.run_id for record in page.items]
        cursor = page.next
        if not cursor:
            return found


def test_listing_pages_through_all_in_both_orders(backend: Backend) -> None:
    """RS-10, RS-13"""
    store = backend.open().record_store
    ids = [f"run-{i}" for i in range(11)]
    put(store, *(first(run_id) for run_id in ids))
    put(store, first("elsewhere", workflow_name="other"))
    for limit in (1, 3, 11, 50):
        assert pages(store, limit) == ids
        assert pages(store, limit, Order.DESCENDING) == ids[::-1]
    page = store.list(WORKFLOW, limit=4)
    again = backend.open().record_store.list(WORKFLOW, after=page.next, limit=4)
    assert [record.run_id for record in again.items] == ids[4:8]
    assert store.list("unknown").items == ()


@pytest.mark.parametrize("cursor", ["x", "run-", "run-x", "-1", "timeout-1", "run-١", "😀"])
def test_a_bad_cursor_is_refused(store: RecordStore, cursor: str) -> None:
    """RS-13"""
    with pytest.raises(InvalidCursor):
        store.list(WORKFLOW, after=cursor)


def test_paging_meets_each_lasting_run_once(store: RecordStore) -> None:
    """RS-11"""
    runs = [first(f"run-{i}", run_state=RunState.COMPLETED) for i in range(60)]
    put(store, *runs)
    store.delete_outbox_events([one.id for one in store.list_outbox_events(WORKFLOW, 100, FAR)])
    met: list[str] = []
    cursor, turn = "", 0
    while True:
        page = store.list(WORKFLOW, after=cursor, limit=7)
        met += [record.run_id for record in page.items]
        turn += 1
        put(store, first(f"new-{turn}"))
        if 7 * turn < 60:
            put(store, following(runs[7 * turn], run_state=RunState.DATA_DELETION_REQUESTED))
        store.delete_runs([f"run-{i}" for i in range(turn * 7 + 1, turn * 7 + 5)])
        cursor = page.next
        if not cursor or turn > 30:
            break
    assert len(met) == len(set(met))
    assert set(met) >= {f"run-{i}" for i in range(60)} - {f"run-{7 * t + i}" for t in range(30) for i in range(1, 5)}


def test_filters_are_what_the_filter_says(store: RecordStore) -> None:
    """RS-12"""
    states = list(RunState)
    records = [
        first(
            f"run-{i}", foreign_id=f"f{i // 3}", status=i % 3, run_state=states[i % len(states)], by="ab"[i % 2],
            updated_at=at(i), available_at=at(i + i % 4),
        )
        for i in range(24)
    ]  # fmt: skip
    stored = [one for one, answer in zip(records, store.store([change(r) for r in records]), strict=True) if not answer]
    assert len(stored) > 15
    filters = [
        RecordFilter(),
        RecordFilter(statuses=frozenset({0, 2})),
        RecordFilter(statuses=frozenset()),
        RecordFilter(run_states=frozenset({RunState.RUNNING, RunState.COMPLETED})),
        RecordFilter(run_states=frozenset()),
        RecordFilter(foreign_id="f2"),
        RecordFilter(foreign_id="f2", by="a", run_states=FINISHED),
        RecordFilter(run_id="run-7"),
        RecordFilter(run_id="run-7", by="a"),
        RecordFilter(run_id="run-7", foreign_id="f2", statuses=frozenset({1})),
        RecordFilter(by="b", updated_before=at(12)),
        RecordFilter(updated_before=at(5), available_before=at(5)),
        RecordFilter(statuses=frozenset({1}), run_states=frozenset({RunState.PAUSED}), available_before=at(20)),
    ]
    for where in filters:
        expected = [record.run_id for record in stored if where.matches(record)]
        for limit in (1, 2, 50):
            assert pages(store, limit, where=where) == expected, where
            assert pages(store, limit, Order.DESCENDING, where) == expected[::-1], where


def test_a_sparse_filter_over_many_runs_ends(store: RecordStore) -> None:
    for start in range(0, 3000, 500):
        put(store, *(first(f"run-{i}", by="x" if i in (5, 2990) else "") for i in range(start, start + 500)))
    assert pages(store, 10, where=RecordFilter(by="x")) == ["run-5", "run-2990"]
    assert pages(store, 1, Order.DESCENDING, RecordFilter(by="x")) == ["run-2990", "run-5"]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_1_is_an_error(store: RecordStore, limit: int) -> None:
    """GN-11"""
    for call in (
        lambda: store.list(WORKFLOW, limit=limit),
        lambda: store.history("run-1", limit=limit),
        lambda: store.list_outbox_events(WORKFLOW, limit, FAR),
    ):
        with pytest.raises(InvalidInput, match="limit"):
            call()


# --- outbox --------------------------------------------------------------------------------------------------------


def test_the_outbox_lists_what_is_due_oldest_first(store: RecordStore) -> None:
    """OB-1, OB-2"""
    delays = [5, 0, 3, 0, 9]
    put(store, *(first(f"run-{i}", available_at=at(delay)) for i, delay in enumerate(delays)))
    put(store, first("elsewhere", workflow_name="other"))
    assert outbox(store, at(-1)) == []
    assert outbox(store, at(0)) == ["run-1", "run-3"]
    assert outbox(store, at(5) - timedelta(microseconds=1)) == ["run-1", "run-3", "run-2"]
    assert outbox(store, at(5), limit=3) == ["run-1", "run-3", "run-2"]
    assert outbox(store) == outbox(store) == ["run-1", "run-3", "run-2", "run-0", "run-4"]
    assert outbox(store, limit=1) == ["run-1"]


def test_ids_order_ties_in_the_outbox(store: RecordStore) -> None:
    put(store, *(first(f"run-{i}") for i in range(12)))
    assert outbox(store) == [f"run-{i}" for i in range(12)]


def test_outbox_deletion_is_exact(store: RecordStore) -> None:
    """OB-3"""
    put(store, *(first(f"run-{i}") for i in range(3)))
    ids = [one.id for one in store.list_outbox_events(WORKFLOW, 9, FAR)]
    store.delete_outbox_events([ids[1], ids[1], "unknown", "", "99999999"])
    assert outbox(store) == ["run-0", "run-2"]
    store.delete_outbox_events(ids)
    put(store, first("again"))
    (new,) = store.list_outbox_events(WORKFLOW, 9, FAR)
    assert new.id not in ids


def test_postponing_moves_one_row(store: RecordStore) -> None:
    """OB-4"""
    put(store, *(first(f"run-{i}") for i in range(3)))
    one = store.list_outbox_events(WORKFLOW, 1, FAR)[0]
    store.postpone_outbox_event(one.id, at(7), 2, "ConnectionError")
    store.postpone_outbox_event("unknown", at(7), 2, "ConnectionError")
    assert outbox(store, at(6)) == ["run-1", "run-2"]
    (moved,) = store.outbox_of("run-0")
    assert moved == replace(one, available_at=at(7), attempt=2, error_type="ConnectionError")
    store.postpone_outbox_event(one.id, at(-1), 3, "")
    assert outbox(store, limit=1) == ["run-0"]


def test_regions_filter_the_outbox(store: RecordStore) -> None:
    """OB-4"""
    put(store, *(first(f"run-{i}", region=["", "eu", "us"][i % 3]) for i in range(9)))
    assert outbox(store, region="eu") == ["run-1", "run-4", "run-7"]
    assert outbox(store, region="us", limit=2) == ["run-2", "run-5"]
    assert len(outbox(store, region="")) == 9


def test_outbox_of_a_run(store: RecordStore) -> None:
    one = first(available_at=at(50))
    put(store, one, following(one), first("other"))
    assert [(row.event.version, row.available_at) for row in store.outbox_of("run-1")] == [(2, at(1)), (1, at(50))]
    assert store.outbox_of("missing") == []


def test_deleted_data_is_nowhere(store: RecordStore) -> None:
    """RS-19"""
    one = first(run_state=RunState.COMPLETED, object=b"secret", error="secret", available_at=at(99))
    two = following(one, run_state=RunState.DATA_DELETION_REQUESTED, available_at=at(99))
    three = following(two, run_state=RunState.DATA_DELETED, object=b"", error="", available_at=at(99))
    headers = {"traceparent": "secret"}
    assert store.store([change(record, headers=headers) for record in (one, two, three)]) == [None] * 3
    rows = store.outbox_of("run-1")
    assert [dict(row.event.headers) for row in rows] == [{}, {}, {}]
    seen = repr(
        (rows, store.lookup(["run-1"]), store.history("run-1"), store.list(WORKFLOW), store.latest(WORKFLOW, "f"))
    )
    assert "secret" not in seen


def test_deleting_runs_is_exact(store: RecordStore) -> None:
    """RS-16"""
    done, waiting = first("done", run_state=RunState.COMPLETED), first("waiting", run_state=RunState.COMPLETED)
    other, active = first("other", run_state=RunState.COMPLETED), first("active")
    assert store.store([change(record, cause=f"of {record.run_id}") for record in (done, waiting, other, active)])
    for run_id in ("done", "other"):
        store.delete_outbox_events([row.id for row in store.outbox_of(run_id)])
    assert list(store.delete_runs(["done", "waiting", "active", "missing"])) == ["done"]
    assert store.delete_runs(["done"]) == []
    assert store.lookup(["done"]) == [None]
    assert store.history("done") == []
    assert store.applied(WORKFLOW, "of done") is None
    assert store.latest(WORKFLOW, done.foreign_id) is None
    assert pages(store, 10) == ["waiting", "other", "active"]
    assert store.history("other")
    assert store.applied(WORKFLOW, "of other") == "other"


# --- capabilities --------------------------------------------------------------------------------------------------


def test_a_bound_workflow_publishes_in_its_own_transaction(backend: Backend) -> None:
    """RS-20, CP-1"""
    ours, tool = backend.open(), backend.open()
    binding = direct_publish(ours.record_store)
    assert binding is not None
    receiver = ours.event_streamer.new_receiver("orders-1", "consumer")
    assert binding.bind(WORKFLOW, ours.event_streamer)
    put(tool.record_store, first("a"), first("later", available_at=at(1)), first("b"))  # a handle that bound nothing
    assert keys(drain(receiver)) == ["a", "b"]
    assert outbox(ours.record_store) == ["later"]
    put(ours.record_store, first("elsewhere", workflow_name="other"))
    assert len(ours.record_store.list_outbox_events("other", 9, FAR)) == 1


def test_a_foreign_streamer_is_not_bound(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> None:
    handle = backend.open()
    other = Backend(backend.name, tmp_path_factory.mktemp("other")).open()
    binding = direct_publish(handle.record_store)
    assert binding is not None
    assert binding.bind(WORKFLOW, handle.event_streamer)
    assert not binding.bind(WORKFLOW, other.event_streamer)
    put(handle.record_store, first())
    assert outbox(handle.record_store) == ["run-1"]
    other.close()


def test_it_tells_of_runs_and_outboxes(store: RecordStore) -> None:
    """CP-1"""
    notifier = notify(store)
    assert notifier is not None
    of_run, of_other, of_outbox = (SystemClock().signal() for _ in range(3))
    leave = notifier.subscribe("run", "run-1", of_run)
    notifier.subscribe("run", "run-2", of_other)
    notifier.subscribe("outbox", WORKFLOW, of_outbox)
    one = first()
    put(store, one)
    assert of_run.wait(timeout=5)
    assert of_outbox.wait(timeout=5)
    (row,) = store.outbox_of("run-1")
    store.postpone_outbox_event(row.id, at(9), 1, "")
    assert of_outbox.wait(timeout=5)
    assert not of_other.wait(timeout=0)
    leave()
    leave()
    put(store, following(one))
    assert not of_run.wait(timeout=0.05)
    with pytest.raises(InvalidInput, match="nonsense"):
        notifier.subscribe("nonsense", "x", of_run)


def test_it_tells_other_handles(backend: Backend) -> None:
    notifier = notify(backend.open().record_store)
    assert notifier is not None
    signal = SystemClock().signal()
    notifier.subscribe("run", "run-1", signal)
    put(backend.open().record_store, first())
    assert signal.wait(timeout=5)


def test_counts_equal_a_recount(store: RecordStore) -> None:
    """CP-2"""
    counting = counts(store)
    assert counting is not None
    records = [first(f"run-{i}", status=i % 3) for i in range(9)]
    put(store, *records)
    put(store, *(following(r, status=5, run_state=RunState.COMPLETED) for r in records[:4]))
    store.store([change(records[0])])
    store.delete_outbox_events([one.id for one in store.list_outbox_events(WORKFLOW, 100, FAR)])
    store.delete_runs(["run-0"])
    expected = Counter((record.status, record.run_state) for record in store.list(WORKFLOW, limit=50).items)
    assert counting.counts(WORKFLOW) == dict(expected)
    assert counting.counts("unknown") == {}


def test_definitions_are_kept(backend: Backend) -> None:
    """CP-1"""
    announcing = definitions(backend.open().record_store)
    reading = definitions(backend.open().record_store)
    assert announcing is not None
    assert reading is not None
    old = Definition(WORKFLOW, "1", 1, {1: (2,), 2: ()}, {1: "A", 2: "B"}, at(0), (1,))
    new = Definition(WORKFLOW, "2", 1, {1: (2, 3), 2: (), 3: ()}, {1: "A", 2: "B", 3: "C"}, at(5))
    seen = Definition(WORKFLOW, "1", 1, {1: (2,), 2: ()}, {1: "A", 2: "B"}, at(2), (1,))
    for one in (new, old, seen):
        announcing.announce(one)
    assert list(reading.definitions()) == [seen, new]


# --- the handle ----------------------------------------------------------------------------------------------------


def test_after_close_calls_raise_closed_and_others_go_on(backend: Backend) -> None:
    """GN-2"""
    handle, other = backend.open(), backend.open()
    put(handle.record_store, first())
    handle.close()
    handle.close()
    for call in (
        lambda: handle.record_store.lookup(["run-1"]),
        lambda: handle.record_store.store([change(first("b"))]),
        lambda: handle.record_store.list(WORKFLOW),
    ):
        with pytest.raises(Closed):
            call()
    assert other.record_store.lookup(["run-1"]) == [first()]


def test_many_threads_at_once(backend: Backend) -> None:
    """GN-1"""
    stores = [backend.open().record_store for _ in range(2)]

    def live(place: int) -> None:
        store = stores[place % 2]
        record = first(f"run-{place}", foreign_id="shared" if place < 4 else f"f{place}")
        (answer,) = store.store([change(record, cause=f"c{place}")])
        if answer is not None:
            assert isinstance(answer, RunInProgress)
            return
        for _ in range(15):
            record = following(record)
            assert store.store([change(record)]) == [None]
            assert store.lookup([record.run_id]) == [record]

    race([partial(live, place) for place in range(16)])
    versions = Counter(record.version for record in stores[0].list(WORKFLOW, limit=100).items)
    assert versions == {16: 13}
    eventually(lambda: len(stores[1].list_outbox_events(WORKFLOW, 1000, FAR)) == 13 * 16)
