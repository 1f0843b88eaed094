"""What is particular to the memory set: its connector, its orders, its cost with many shards and timers, its locks."""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime

import pytest

from tests.adapters.build import FAR, START, WORKFLOW, InThread, at, change, drain, event, first, following, timeout
from workflow.adapters.memory import MemoryConnector, MemoryStorage, memory
from workflow.adapters.memory.listeners import Listeners, TopicListeners
from workflow.adapters.memory.ordered import Agenda, Roll
from workflow.adapters.memory.record_store import WINDOW
from workflow.adapters.memory.topic import TRIM, Topic
from workflow.cancel import CancelToken
from workflow.clock import SystemClock
from workflow.errors import Cancelled, Closed, Rejected
from workflow.event import ConnectorEvent, Shard
from workflow.protocols import ConnectorReceiver, counts, definitions, direct_publish, holders, lag, notify
from workflow.record import RecordFilter
from workflow.run_state import RunState
from workflow.testing import VirtualClock


def ids(receiver: ConnectorReceiver, limit: int = 100) -> list[str]:
    return [delivery.event.id for delivery in receiver.recv(CancelToken(), limit=limit, timeout=0)]


# --- the set -------------------------------------------------------------------------------------------------------


def test_it_declares_its_capabilities() -> None:
    """CP-1"""
    adapters = memory()
    assert direct_publish(adapters.record_store)
    assert notify(adapters.record_store)
    assert counts(adapters.record_store)
    assert definitions(adapters.record_store)
    assert lag(adapters.event_streamer)
    assert notify(adapters.event_streamer)
    assert notify(adapters.timeout_store)
    assert holders(adapters.role_scheduler)
    adapters.close()


def test_sets_without_a_common_storage_are_apart() -> None:
    one, two = memory(), memory()
    one.record_store.store([change(first())])
    assert two.record_store.lookup(["run-1"]) == [None]
    lease = one.role_scheduler.await_role("role", CancelToken())
    two.role_scheduler.await_role("role", CancelToken()).release()
    lease.release()
    one.close()
    two.close()


def test_it_takes_its_time_from_the_given_clock() -> None:
    clock = VirtualClock()
    adapters = memory(clock=clock)
    adapters.event_streamer.new_receiver("topic", "consumer")
    clock.advance(3600)
    (info,) = adapters.event_streamer.receivers()
    assert (clock.now() - info.last_opened).total_seconds() == 3600
    adapters.close()


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_what_a_database_refuses_is_refused(text: str) -> None:
    adapters = memory()
    (answer,) = adapters.record_store.store([change(first(error=text))])
    assert isinstance(answer, Rejected)
    with pytest.raises(Rejected):
        adapters.timeout_store.create([timeout(text)])
    with pytest.raises(Rejected):
        adapters.event_streamer.new_sender("topic").send([event(text)])
    adapters.close()


def test_record_history_and_event_appear_at_the_same_moment() -> None:
    """RS-20: whoever sees one sees all."""
    storage = MemoryStorage()
    writer, reader = memory(storage=storage), memory(storage=storage)
    binding = direct_publish(writer.record_store)
    assert binding is not None
    binding.bind(WORKFLOW, writer.event_streamer)

    def write() -> None:
        record = first()
        for _ in range(500):
            assert writer.record_store.store([change(record)]) == [None]
            record = following(record)

    receiver = reader.event_streamer.new_receiver("orders-1", "consumer")
    writing = InThread(write)
    seen = 0
    while seen < 500:
        for delivery in receiver.recv(CancelToken(), limit=50, timeout=10):
            seen = delivery.event.version
            (record,) = reader.record_store.lookup(["run-1"])
            assert record is not None
            assert record.version >= seen
            assert len(reader.record_store.history("run-1")) >= seen
    writing.join()
    writer.close()
    reader.close()


def test_a_listing_looks_at_so_many_runs_and_then_ends_its_page() -> None:
    """However few it found: others wait for the lock."""
    adapters = memory()
    adapters.record_store.store([change(first(f"run-{i}")) for i in range(WINDOW + 1)])
    page = adapters.record_store.list(WORKFLOW, where=RecordFilter(by="nobody"))
    assert page.items == ()
    assert page.next
    assert adapters.record_store.list(WORKFLOW, after=page.next, where=RecordFilter(by="nobody")).next == ""
    adapters.close()


# --- the connector -------------------------------------------------------------------------------------------------


def test_connector_events_come_back_exactly() -> None:
    """CN-1"""
    connector = MemoryConnector()
    sent = [
        ConnectorEvent("1", "key 😀", bytes(range(256)), at(1e-6), {"h": "é\0"}),
        ConnectorEvent("2", "", b"", START),
    ]
    connector.put(sent)
    published = connector.publish("key", b"x", headers={"a": "b"})
    receiver = connector.open("billing", Shard())
    got = receiver.recv(CancelToken(), limit=9)
    assert [delivery.event for delivery in got] == [*sent, published]
    receiver.close()
    again = connector.open("billing", Shard()).recv(CancelToken(), limit=9)
    assert [(delivery.event, delivery.redelivered) for delivery in again] == [(one, True) for one in [*sent, published]]
    connector.close()


def test_connector_progress_is_of_its_name() -> None:
    """CN-2"""
    connector = MemoryConnector()
    for name in "abcd":
        connector.publish(name, b"", id=name)
    one, two = connector.open("one", Shard()), connector.open("two", Shard())
    deliveries = one.recv(CancelToken(), limit=3)
    deliveries[1].ack()
    deliveries[0].ack()
    one.close()
    assert ids(connector.open("one", Shard())) == ["c", "d"]
    assert ids(two) == ["a", "b", "c", "d"]
    connector.close()


def test_connector_shards_are_disjoint_and_complete() -> None:
    """CN-3"""
    connector = MemoryConnector()
    receivers = [connector.open("one", Shard(i, 3)) for i in (1, 2, 3)]
    connector.put([ConnectorEvent(str(i), f"key-{i % 11}", b"", START) for i in range(50)])
    got = [ids(receiver) for receiver in receivers]
    assert Counter(one for part in got for one in part) == Counter(str(i) for i in range(50))
    for i, part in enumerate(got):
        assert all(Shard(i + 1, 3).owns(f"key-{int(one) % 11}") for one in part)
    connector.close()


def test_connector_waits_end() -> None:
    """CN-2"""
    connector = MemoryConnector()
    receiver = connector.open("one", Shard())
    token = CancelToken()
    waiting = InThread(lambda: receiver.recv(token))
    token.cancel()
    assert isinstance(waiting.join().error, Cancelled)
    waiting = InThread(lambda: ids_of(receiver))
    connector.publish("k", b"", id="x")
    assert waiting.join().result == ["x"]
    connector.close()
    with pytest.raises(Closed):
        receiver.recv(CancelToken())
    with pytest.raises(Closed):
        connector.publish("k", b"")


def ids_of(receiver: ConnectorReceiver) -> list[str]:
    return [delivery.event.id for delivery in receiver.recv(CancelToken())]


def test_a_connector_refuses_what_is_not_bytes() -> None:
    connector = MemoryConnector()
    with pytest.raises(Rejected):
        connector.put([ConnectorEvent("1", "k", "text", START)])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # that is the point
    connector.close()


# --- orders --------------------------------------------------------------------------------------------------------


def test_an_agenda_equals_a_sorted_list() -> None:
    dice = random.Random(1)
    agenda, model = Agenda(), list[tuple[datetime, str]]()
    for turn in range(500):
        if model and dice.random() < 0.4:
            entry = dice.choice(model)
            model.remove(entry)
            agenda.remove(*entry)
        else:
            entry = (at(dice.randrange(20)), f"{turn:04d}")
            model.append(entry)
            agenda.add(*entry)
        now = at(dice.randrange(25))
        assert list(agenda.until(now)) == [name for due, name in sorted(model) if due <= now]


def test_a_roll_equals_a_dictionary() -> None:
    dice = random.Random(2)
    roll, model = Roll[str](), dict[int, str]()
    for number in range(2000):
        roll.add(number, str(number))
        model[number] = str(number)
        while model and dice.random() < 0.47:
            gone = dice.choice(list(model))
            del model[gone]
            roll.remove(gone)
        if number % 50 == 0:
            after = dice.randrange(number + 1)
            assert list(roll.walk()) == list(model.items())
            assert list(roll.walk(backwards=True)) == list(model.items())[::-1]
            assert [n for n, _ in roll.walk(after)] == [n for n in model if n > after]
            assert [n for n, _ in roll.walk(after, backwards=True)] == [n for n in reversed(model) if n < after]
            assert all(roll.has(n) == (n in model) for n in range(number))


# --- listeners -----------------------------------------------------------------------------------------------------


def test_only_those_concerned_are_told() -> None:
    """P9"""
    listeners = TopicListeners()
    clock = SystemClock()
    signals = {shard: clock.signal() for shard in (Shard(), Shard(1, 2), Shard(2, 2), Shard(1, 3))}
    leave = [listeners.subscribe("topic", shard, signal) for shard, signal in signals.items()]
    other = clock.signal()
    listeners.subscribe("other", Shard(), other)
    for name in (f"key-{i}" for i in range(20)):
        listeners.tell("topic", [name])
        told = {shard for shard, signal in signals.items() if signal.wait(timeout=0)}
        assert told == {shard for shard in signals if shard.owns(name)}
    assert not other.wait(timeout=0)
    for unsubscribe in [*leave, *leave]:
        unsubscribe()
    listeners.tell("topic", ["key-1"])
    assert not any(signal.wait(timeout=0) for signal in signals.values())


def test_a_listener_leaves_alone() -> None:
    listeners = Listeners()
    one, two = SystemClock().signal(), SystemClock().signal()
    leave = listeners.subscribe("key", one)
    listeners.subscribe("key", two)
    leave()
    leave()
    listeners.tell("key")
    assert (one.wait(timeout=0), two.wait(timeout=0)) == (False, True)


# --- topics --------------------------------------------------------------------------------------------------------


def filled(count: int) -> Topic:
    topic = Topic("topic")
    for i in range(count):
        topic.append(event(f"run-{i}"))
    return topic


def test_a_shard_without_entries_holds_up_nothing() -> None:
    topic = Topic("topic")
    cursors = [topic.open_cursor("consumer", Shard(i, 2), 1, START) for i in (1, 2)]
    for _ in range(3 * TRIM):
        topic.append(event("the only key"))
    owner = cursors[0] if Shard(1, 2).owns("the only key") else cursors[1]
    topic.save_cursor(owner, 3 * TRIM, 3 * TRIM)
    assert topic.read(Shard(), 0, 10) == ([], 3 * TRIM)
    assert topic.open_cursor("new layout", Shard(), 2, START).acked == 3 * TRIM


def test_reading_a_shard_after_trimming() -> None:
    topic = filled(4 * TRIM)
    cursor = topic.open_cursor("consumer", Shard(), 1, START)
    before, _ = topic.read(Shard(1, 3), 2 * TRIM + 7, 50)
    topic.save_cursor(cursor, 2 * TRIM + 5, 0)
    after, looked = topic.read(Shard(1, 3), 2 * TRIM + 7, 50)
    assert after == before
    assert looked == after[-1].position
    kept, _ = topic.read(Shard(), 0, 1)
    assert kept[0].position == 2 * TRIM + 6


def test_a_new_name_starts_at_the_oldest_kept() -> None:
    topic = filled(2 * TRIM)
    cursor = topic.open_cursor("consumer", Shard(), 1, START)
    topic.save_cursor(cursor, TRIM, 0)
    new = topic.open_cursor("new", Shard(), 2, START)
    assert (new.acked, new.handed_out, new.head) == (TRIM, TRIM, 2 * TRIM)


def test_a_forgotten_name_starts_anew() -> None:
    topic = filled(10)
    old = topic.open_cursor("consumer", Shard(), 1, START)
    topic.save_cursor(old, 10, 10)
    topic.forget("consumer")
    new = topic.open_cursor("consumer", Shard(), 2, START)
    topic.save_cursor(old, 10, 10)
    assert new.acked == 0
    assert topic.open_cursor("consumer", Shard(), 3, START).acked == 0


def test_deleted_data_leaves_the_outbox_rows() -> None:
    """RS-19: they are still sent, without headers."""
    adapters = memory()
    one = first(run_state=RunState.DATA_DELETION_REQUESTED)
    two = following(one, run_state=RunState.DATA_DELETED, object=b"")
    adapters.record_store.store([change(one, headers={"traceparent": "x"}), change(two, headers={"traceparent": "y"})])
    rows = adapters.record_store.list_outbox_events(WORKFLOW, 9, FAR)
    assert [(row.event.version, dict(row.event.headers)) for row in rows] == [(1, {}), (2, {})]
    adapters.close()


def test_a_receiver_reads_on_while_others_are_far_behind() -> None:
    adapters = memory()
    streamer = adapters.event_streamer
    streamer.new_receiver("topic", "slow")
    quick = streamer.new_receiver("topic", "quick")
    streamer.new_sender("topic").send([event(f"k{i}") for i in range(3 * TRIM)])
    got = drain(quick, limit=100)
    got[-1].ack()
    assert len(got) == 3 * TRIM
    assert len(drain(streamer.new_receiver("topic", "slow"), limit=100)) == 3 * TRIM
    adapters.close()
