"""What every streamer over a log does. The names in the docstrings are those of the rules in the conformance kit."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial

import pytest

from tests.adapters.build import START, InThread, at, drain, event, keys, race
from tests.adapters.conftest import Backend
from workflow.cancel import CancelToken
from workflow.clock import SystemClock
from workflow.errors import Cancelled, Closed, InvalidInput, Rejected
from workflow.event import Event, Shard
from workflow.protocols import Adapters, Delivery, EventReceiver, EventStreamer, lag, notify
from workflow.run_state import RunState


@pytest.fixture
def streamer(handle: Adapters) -> EventStreamer:
    return handle.event_streamer


def send(streamer: EventStreamer, *names: str, topic: str = "topic") -> None:
    streamer.new_sender(topic).send([event(name, topic=topic) for name in names])


def flags(deliveries: list[Delivery]) -> list[bool]:
    return [delivery.redelivered for delivery in deliveries]


def wait_for(receiver: EventReceiver) -> list[str]:
    return keys(receiver.recv(CancelToken(), limit=5))


def ack_all(deliveries: Sequence[Delivery]) -> None:
    for delivery in deliveries:
        delivery.ack()


# --- events --------------------------------------------------------------------------------------------------------


def test_events_come_back_in_order_with_rising_ids(streamer: EventStreamer) -> None:
    """ES-1, ES-3"""
    receiver = streamer.new_receiver("topic", "consumer")
    states = list(RunState)
    sent = [
        Event("topic", "key 😀", 7 + i, states[i % 6], i, at(i / 1e6), {"traceparent": "é", "": ""} if i % 2 else {})
        for i in range(30)
    ]
    sender = streamer.new_sender("topic")
    sender.send(sent[:1])
    sender.send([])
    sender.send(sent[1:])
    got = [delivery.event for delivery in drain(receiver)]
    fields = [(e.topic, e.key, e.status, e.run_state, e.version, e.created_at, dict(e.headers)) for e in got]
    assert fields == [(e.topic, e.key, e.status, e.run_state, e.version, e.created_at, dict(e.headers)) for e in sent]
    ids = [e.id for e in got]
    assert len(set(ids)) == 30
    assert ids == sorted(ids, key=lambda text: (len(text), text))


def test_events_do_not_alias(streamer: EventStreamer) -> None:
    """GN-6"""
    headers = {"traceparent": "1"}
    receiver = streamer.new_receiver("topic", "consumer")
    streamer.new_sender("topic").send([Event("topic", "k", 1, RunState.RUNNING, 1, START, headers)])
    headers["traceparent"] = "2"
    assert dict(drain(receiver)[0].event.headers) == {"traceparent": "1"}


def test_what_cannot_be_stored_is_rejected(streamer: EventStreamer) -> None:
    """GN-9"""
    receiver = streamer.new_receiver("topic", "consumer")
    with pytest.raises(Rejected):
        send(streamer, "fine", "half a character: \ud800")
    assert drain(receiver) == []


def test_topics_are_isolated(streamer: EventStreamer) -> None:
    """ES-4"""
    topics = ["a-1", "a-11", "A-1", "a", "a-1 ", "é"]
    receivers = [streamer.new_receiver(topic, "consumer") for topic in topics]
    for topic in topics:
        send(streamer, f"of {topic}", topic=topic)
    assert [keys(drain(receiver)) for receiver in receivers] == [[f"of {topic}"] for topic in topics]


def test_each_name_sees_every_event(streamer: EventStreamer) -> None:
    """ES-5, ES-11"""
    early = streamer.new_receiver("topic", "early")
    send(streamer, "a", "b")
    drain(early)[-1].ack()
    late = streamer.new_receiver("topic", "late")
    assert keys(drain(late)) == ["a", "b"]
    assert sorted((info.topic, info.name) for info in streamer.receivers()) == [("topic", "early"), ("topic", "late")]


def test_receivers_say_when_they_were_opened(streamer: EventStreamer) -> None:
    before = SystemClock().now()
    streamer.new_receiver("topic", "consumer").close()
    (info,) = streamer.receivers()
    assert before <= info.last_opened <= SystemClock().now()
    streamer.new_receiver("topic", "consumer").close()
    (again,) = streamer.receivers()
    assert again.last_opened >= info.last_opened


# --- acknowledging -------------------------------------------------------------------------------------------------


def test_unacked_comes_again_and_acked_does_not(backend: Backend) -> None:
    """ES-6, ES-7, ES-9"""
    one, two = backend.open().event_streamer, backend.open().event_streamer
    receiver = one.new_receiver("topic", "consumer")
    send(one, *"abcdef")
    got = receiver.recv(CancelToken(), limit=4)
    got[1].ack()
    receiver.close()
    again = two.new_receiver("topic", "consumer")
    assert keys(drain(again)) == list("cdef")
    again.close()
    assert keys(drain(one.new_receiver("topic", "consumer"))) == list("cdef")


def test_acks_never_rewind(backend: Backend) -> None:
    """ES-8"""
    streamer = backend.open().event_streamer
    send(streamer, *"abcdef")
    first = streamer.new_receiver("topic", "consumer")
    got = drain(first)
    got[3].ack()
    for late in (got[0], got[3], got[2]):
        late.ack()
    second = backend.open().event_streamer.new_receiver("topic", "consumer")
    more = drain(second)
    assert keys(more) == ["e", "f"]
    more[-1].ack()
    got[4].ack()  # of a receiver that was superseded
    first.close()
    assert drain(backend.open().event_streamer.new_receiver("topic", "consumer")) == []


def test_an_ack_after_close_counts(streamer: EventStreamer) -> None:
    """Work that was done is done, though its receiver is gone."""
    send(streamer, *"abc")
    receiver = streamer.new_receiver("topic", "consumer")
    got = drain(receiver)
    receiver.close()
    got[1].ack()
    assert keys(drain(streamer.new_receiver("topic", "consumer"))) == ["c"]


def test_acks_from_many_threads(streamer: EventStreamer) -> None:
    """GN-1"""
    send(streamer, *(f"k{i}" for i in range(200)))
    receiver = streamer.new_receiver("topic", "consumer")
    got = receiver.recv(CancelToken(), limit=200)
    mixed = got[:150]
    random.Random(5).shuffle(mixed)
    race([partial(ack_all, mixed[i::8]) for i in range(8)])
    receiver.close()
    again = drain(streamer.new_receiver("topic", "consumer"))
    assert keys(again) == [f"k{i}" for i in range(150, 200)]
    assert all(flags(again))


# --- waiting -------------------------------------------------------------------------------------------------------


def test_timeouts(streamer: EventStreamer) -> None:
    """ES-12"""
    receiver = streamer.new_receiver("topic", "consumer")
    clock = SystemClock()
    before = clock.monotonic()
    assert receiver.recv(CancelToken(), timeout=0) == []
    assert clock.monotonic() - before < 1
    before = clock.monotonic()
    assert receiver.recv(CancelToken(), timeout=0.1) == []
    assert 0.1 <= clock.monotonic() - before < 2


def test_a_send_wakes_a_blocked_recv(backend: Backend) -> None:
    """ES-12; another handle's send too, if later."""
    one, two = backend.open().event_streamer, backend.open().event_streamer
    receiver = one.new_receiver("topic", "consumer")
    for sender in (one, two):
        waiting = InThread(partial(wait_for, receiver))
        send(sender, "a")
        assert waiting.join().result == ["a"]


@pytest.mark.parametrize("there", [0, 3])
def test_a_cancelled_token_raises_and_changes_nothing(streamer: EventStreamer, there: int) -> None:
    """GN-8"""
    receiver = streamer.new_receiver("topic", "consumer")
    send(streamer, *"abc"[:there])
    token = CancelToken()
    token.cancel("stop")
    with pytest.raises(Cancelled):
        receiver.recv(token)
    assert len(drain(receiver)) == there


def test_a_cancel_ends_a_wait(streamer: EventStreamer) -> None:
    """GN-8"""
    receiver = streamer.new_receiver("topic", "consumer")
    token = CancelToken()
    waiting = InThread(lambda: receiver.recv(token))
    token.cancel("stop")
    assert isinstance(waiting.join().error, Cancelled)
    send(streamer, "a")
    assert keys(receiver.recv(CancelToken())) == ["a"]


def test_close_ends_a_wait(backend: Backend) -> None:
    """GN-2"""
    for close_all in (False, True):
        handle = backend.open()
        receiver = handle.event_streamer.new_receiver("topic", "consumer")
        waiting = InThread(partial(wait_for, receiver))
        (handle.close if close_all else receiver.close)()
        assert isinstance(waiting.join().error, Closed)
        receiver.close()
        with pytest.raises(Closed):
            receiver.recv(CancelToken(), timeout=0)


def test_a_closed_streamer_says_so(backend: Backend) -> None:
    """GN-2"""
    handle = backend.open()
    sender = handle.event_streamer.new_sender("topic")
    handle.close()
    for call in (
        lambda: sender.send([event("a")]),
        lambda: handle.event_streamer.new_receiver("topic", "x"),
        handle.event_streamer.receivers,
    ):
        with pytest.raises(Closed):
            call()


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_1_is_an_error(streamer: EventStreamer, limit: int) -> None:
    """GN-11"""
    receiver = streamer.new_receiver("topic", "consumer")
    with pytest.raises(InvalidInput, match="limit"):
        receiver.recv(CancelToken(), limit=limit)


# --- shards --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [1, 2, 3, 7, 10])
def test_shards_are_disjoint_and_complete(streamer: EventStreamer, total: int) -> None:
    """ES-13"""
    names = [f"run-{i}" for i in range(60)]
    shards = [Shard(i + 1, total) for i in range(total)]
    early = [streamer.new_receiver("topic", "early", shard=shard) for shard in shards]
    send(streamer, *names)
    late = [streamer.new_receiver("topic", "late", shard=shard) for shard in shards]
    for receivers in (early, late):
        got = [keys(drain(receiver)) for receiver in receivers]
        assert Counter(name for part in got for name in part) == Counter(names)
        for shard, part in zip(shards, got, strict=True):
            assert part == [name for name in names if shard.owns(name)]


def test_a_send_wakes_its_shard(streamer: EventStreamer) -> None:
    """P9"""
    shards = [Shard(i, 3) for i in (1, 2, 3)]
    receivers = [streamer.new_receiver("topic", "consumer", shard=shard) for shard in shards]
    waiting = [InThread(partial(wait_for, receiver)) for receiver in receivers]
    for shard, wait in zip(shards, waiting, strict=True):
        name = next(f"run-{i}" for i in range(99) if shard.owns(f"run-{i}"))
        send(streamer, name)
        assert wait.join().result == [name]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 5), (4, 2)])
def test_a_new_layout_takes_over_at_the_least_progress(streamer: EventStreamer, before: int, after: int) -> None:
    """ES-15"""
    names = [f"run-{i}" for i in range(40)]
    send(streamer, *names)
    old = [streamer.new_receiver("topic", "consumer", shard=Shard(i + 1, before)) for i in range(before)]
    acked: set[str] = set()
    kept: list[Delivery] = []
    for receiver in old:
        got = drain(receiver)
        got[len(got) // 2].ack()
        acked |= set(keys(got[: len(got) // 2 + 1]))
        kept += got
    new = [streamer.new_receiver("topic", "consumer", shard=Shard(i + 1, after)) for i in range(after)]
    kept[-1].ack()  # of a layout that is retired: ignored
    got = [delivery for receiver in new for delivery in drain(receiver)]
    assert set(keys(got)) >= set(names) - acked
    assert len(keys(got)) == len(set(keys(got)))
    assert all(flags(got))
    for receiver in [*old, *new]:
        receiver.close()
    again = [streamer.new_receiver("topic", "consumer", shard=Shard(i + 1, after)) for i in range(after)]
    assert sorted(keys(delivery for receiver in again for delivery in drain(receiver))) == sorted(keys(got))


# --- redelivered ---------------------------------------------------------------------------------------------------


def test_what_was_handed_out_and_left_is_redelivered(streamer: EventStreamer) -> None:
    """ES-17: exactly, after an orderly close."""
    send(streamer, *"abcdef")
    receiver = streamer.new_receiver("topic", "consumer")
    got = receiver.recv(CancelToken(), limit=3)
    assert not any(flags(got))
    got[0].ack()
    receiver.close()
    again = streamer.new_receiver("topic", "consumer")
    assert [(d.event.key, d.redelivered) for d in drain(again)] == [
        ("b", True), ("c", True), ("d", False), ("e", False), ("f", False)
    ]  # fmt: skip


def test_a_close_before_anything_was_handed_out_forgets_nothing(streamer: EventStreamer) -> None:
    """ES-17"""
    send(streamer, *"abcd")
    receiver = streamer.new_receiver("topic", "consumer")
    assert len(receiver.recv(CancelToken(), limit=3)) == 3
    receiver.close()
    in_between = streamer.new_receiver("topic", "consumer")
    assert flags(in_between.recv(CancelToken(), limit=1)) == [True]
    in_between.close()
    assert flags(drain(streamer.new_receiver("topic", "consumer"))) == [True, True, True, False]


def test_after_a_crash_all_that_was_handed_out_is_redelivered(backend: Backend) -> None:
    """ES-17: a receiver that was never closed, as if its process had died."""
    crashed, streamer = backend.open().event_streamer, backend.open().event_streamer
    send(streamer, *(f"a{i}" for i in range(150)))
    receiver = crashed.new_receiver("topic", "consumer")
    got = [delivery for _ in range(120) for delivery in receiver.recv(CancelToken())]
    got[9].ack()
    again = streamer.new_receiver("topic", "consumer")
    send(streamer, *(f"b{i}" for i in range(300)))
    marks = {d.event.key: d.redelivered for d in drain(again)}
    assert all(marks[f"a{i}"] for i in range(10, 120))
    assert not any(marks[f"b{i}"] for i in range(300))


def test_at_most_one_window_is_marked_wrongly(backend: Backend) -> None:
    """ES-17"""
    crashed, streamer = backend.open().event_streamer, backend.open().event_streamer
    send(streamer, *(f"a{i}" for i in range(500)))
    receiver = crashed.new_receiver("topic", "consumer")
    for _ in range(3):
        receiver.recv(CancelToken(), limit=50)[-1].ack()
    marked = flags(drain(streamer.new_receiver("topic", "consumer"), limit=100))
    assert len(marked) == 350
    assert marked.count(True) <= 100


# --- trimming ------------------------------------------------------------------------------------------------------


def test_nothing_is_trimmed_without_receivers(streamer: EventStreamer) -> None:
    """ES-16"""
    for i in range(30):
        send(streamer, *(f"{i}.{j}" for j in range(100)))
    assert len(drain(streamer.new_receiver("topic", "consumer"), limit=500)) == 3000


def test_what_a_known_receiver_has_not_acked_is_kept(streamer: EventStreamer) -> None:
    """ES-16"""
    slow, quick = streamer.new_receiver("topic", "slow"), streamer.new_receiver("topic", "quick")
    slow.close()
    for i in range(30):
        send(streamer, *(f"{i}.{j}" for j in range(100)))
        drain(quick, limit=100)[-1].ack()
    assert len(drain(streamer.new_receiver("topic", "slow"), limit=500)) == 3000
    streamer.forget_receiver("topic", "slow")
    streamer.forget_receiver("topic", "unknown")
    assert [info.name for info in streamer.receivers()] == ["quick"]
    for i in range(30):
        send(streamer, *(f"new {i}.{j}" for j in range(100)))
        drain(quick, limit=100)[-1].ack()
    left = keys(drain(streamer.new_receiver("topic", "slow"), limit=500))
    assert len(left) < 3000, "what nobody waits for goes"
    assert left == [f"new {i}.{j}" for i in range(30) for j in range(100)][3000 - len(left) :]


def test_reading_goes_on_across_trimming(streamer: EventStreamer) -> None:
    """ES-14, in miniature"""
    shards = [Shard(1, 2), Shard(2, 2)]
    receivers = [streamer.new_receiver("topic", "consumer", shard=shard) for shard in shards]
    got: list[str] = []
    for i in range(40):
        send(streamer, *(f"{i}.{j}" for j in range(100)))
        for receiver in receivers:
            deliveries = drain(receiver, limit=100)
            got += keys(deliveries)
            deliveries[-1].ack()
    assert Counter(got) == Counter(f"{i}.{j}" for i in range(40) for j in range(100))


# --- everything at once --------------------------------------------------------------------------------------------


def test_random_sends_receives_acks_and_closes_lose_nothing(backend: Backend) -> None:
    """ES-14"""
    dice = random.Random(11)
    streamers = [backend.open().event_streamer for _ in range(2)]
    sent: dict[str, list[int]] = defaultdict(list)
    acked: set[tuple[str, int]] = set()
    last_seen: dict[str, int] = {}
    receiver = streamers[0].new_receiver("topic", "consumer")
    for turn in range(400):
        choice = dice.random()
        if choice < 0.3:
            name = f"key-{dice.randrange(4)}"
            sent[name].append(turn)
            dice.choice(streamers).new_sender("topic").send([event(name, version=turn)])
        elif choice < 0.85:
            deliveries = receiver.recv(CancelToken(), limit=dice.randrange(1, 6), timeout=0)
            for delivery in deliveries:
                key, version = delivery.event.key, delivery.event.version
                assert version in sent[key], "invented"
                assert (key, version) not in acked, "came again after its ack"
                assert version > last_seen.get(key, -1), "out of order"
                last_seen[key] = version
            if deliveries and dice.random() < 0.6:
                place = dice.randrange(len(deliveries))
                deliveries[place].ack()
                acked |= {(d.event.key, d.event.version) for d in deliveries[: place + 1]}
                handed = {(k, v) for k, last in last_seen.items() for v in sent[k] if v <= last}
                acked |= handed - {(d.event.key, d.event.version) for d in deliveries[place + 1 :]}
        else:
            if dice.random() < 0.5:
                receiver.close()
            receiver = dice.choice(streamers).new_receiver("topic", "consumer")
            last_seen = {}
    rest = {(d.event.key, d.event.version) for d in drain(streamers[0].new_receiver("topic", "consumer"))}
    assert rest | acked == {(key, version) for key, versions in sent.items() for version in versions}
    assert not rest & acked


def test_many_threads_at_once(backend: Backend) -> None:
    """GN-1, ES-3"""
    streamers = [backend.open().event_streamer for _ in range(2)]
    total = 4
    receivers = [
        streamers[i % 2].new_receiver("topic", "consumer", shard=Shard(i + 1, total)) for i in range(total)
    ]  # fmt: skip

    def produce(place: int) -> list[tuple[str, int]]:
        sender = streamers[place % 2].new_sender("topic")
        for version in range(50):
            sender.send([event(f"key-{place}", version=version)])
        return []

    def consume(place: int) -> list[tuple[str, int]]:
        got: list[tuple[str, int]] = []
        owned = [f"key-{i}" for i in range(6) if Shard(place + 1, total).owns(f"key-{i}")]
        while len(got) < 50 * len(owned):
            deliveries = receivers[place].recv(CancelToken(), limit=10, timeout=10)
            assert deliveries, "an event never came"
            got += [(d.event.key, d.event.version) for d in deliveries]
            deliveries[-1].ack()
        return got

    results = race(
        [partial(produce, i) for i in range(6)] + [partial(consume, i) for i in range(total)]
    )  # fmt: skip
    merged = [pair for got in results for pair in got]
    for place in range(6):
        assert [version for key, version in merged if key == f"key-{place}"] == list(range(50))


# --- capabilities --------------------------------------------------------------------------------------------------


def test_pending_equals_a_recount(streamer: EventStreamer) -> None:
    """CP-2"""
    counting = lag(streamer)
    assert counting is not None
    assert counting.pending("topic", "unknown") == (0, None)
    receivers = [streamer.new_receiver("topic", "consumer", shard=Shard(i, 3)) for i in (1, 2, 3)]
    assert counting.pending("topic", "consumer") == (0, None)
    names = [f"run-{i}" for i in range(20)]
    streamer.new_sender("topic").send(
        [Event("topic", name, 1, RunState.RUNNING, 1, at(i)) for i, name in enumerate(names)]
    )
    assert counting.pending("topic", "consumer") == (20, at(0))
    left = set(names)
    for receiver, count in zip(receivers, (3, 5, 0), strict=True):
        got = drain(receiver)
        if count:
            got[count - 1].ack()
            left -= set(keys(got[:count]))
    oldest = min(i for i, name in enumerate(names) if name in left)
    assert counting.pending("topic", "consumer") == (12, at(oldest))


def test_it_tells_of_topics(backend: Backend) -> None:
    """CP-1"""
    streamer = backend.open().event_streamer
    notifier = notify(streamer)
    assert notifier is not None
    signal, other = SystemClock().signal(), SystemClock().signal()
    leave = notifier.subscribe("topic", "topic", signal)
    notifier.subscribe("topic", "other", other)
    send(streamer, "a")
    assert signal.wait(timeout=5)
    send(backend.open().event_streamer, "b")
    assert signal.wait(timeout=5)
    assert not other.wait(timeout=0)
    leave()
    with pytest.raises(InvalidInput, match="nonsense"):
        notifier.subscribe("nonsense", "x", signal)
