"""The streamer over a log that counts its calls, fails, and does things in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tests.adapters.build import InThread, drain, event, eventually, keys
from workflow.adapters.memory.event_log import MemoryEventLog
from workflow.adapters.memory.storage import MemoryStorage
from workflow.adapters.support.log_streamer import LogStreamer
from workflow.cancel import CancelToken
from workflow.clock import Signal, SystemClock
from workflow.errors import Closed, InvalidInput, Unavailable
from workflow.event import Shard
from workflow.protocols import Cursor, LogEntry, Unsubscribe, lag, notify


class WatchedLog(MemoryEventLog):
    """Counts calls, and lets the test meddle."""

    def __init__(self, storage: MemoryStorage | None = None) -> None:
        super().__init__(storage or MemoryStorage(), SystemClock())
        self.reads = 0
        self.after = 0
        self.saved: list[tuple[int, int]] = []
        self.before_save: Callable[[], None] = lambda: None
        self.fail_reads = False
        self.fail_saves = False

    def read(self, topic: str, shard: Shard, after: int, limit: int) -> tuple[Sequence[LogEntry], int]:
        self.reads += 1
        self.after = after
        if self.fail_reads:
            raise Unavailable("down")
        return super().read(topic, shard, after, limit)

    def save_cursor(self, cursor: Cursor, acked: int, handed_out: int) -> None:
        meddle, self.before_save = self.before_save, lambda: None
        meddle()
        if self.fail_saves:
            raise Unavailable("down")
        self.saved.append((acked, handed_out))
        super().save_cursor(cursor, acked, handed_out)


class SilentLog(WatchedLog):
    """A log that cannot tell of anything."""

    capabilities = frozenset[str]()

    def subscribe_topic(self, topic: str, shard: Shard, signal: Signal) -> Unsubscribe:
        return lambda: None


@pytest.fixture
def log() -> WatchedLog:
    return WatchedLog()


def opened(log: WatchedLog, count: int = 0, *, prefetch: int = 10) -> LogStreamer:
    streamer = LogStreamer(log, prefetch=prefetch)
    streamer.new_sender("topic").send([event(f"k{i}") for i in range(count)])
    return streamer


# --- what it costs -------------------------------------------------------------------------------------------------


def test_the_log_is_read_ahead(log: WatchedLog) -> None:
    receiver = opened(log, 100).new_receiver("topic", "consumer")
    for _ in range(100):
        receiver.recv(CancelToken())
    assert log.reads == 10


def test_the_mark_costs_a_write_for_each_window(log: WatchedLog) -> None:
    receiver = opened(log, 100).new_receiver("topic", "consumer")
    for _ in range(100):
        receiver.recv(CancelToken())
    assert len(log.saved) <= 10
    assert all(acked == 0 for acked, _ in log.saved), "ES-9"


def test_an_ack_carries_the_mark_along(log: WatchedLog) -> None:
    receiver = opened(log, 100).new_receiver("topic", "consumer")
    for _ in range(100):
        receiver.recv(CancelToken())[0].ack()
    assert len(log.saved) == 101, "one for the first mark, then one for each ack"
    log.saved.clear()


def test_a_trickle_costs_a_write_for_each_window(log: WatchedLog) -> None:
    streamer = opened(log)
    receiver = streamer.new_receiver("topic", "consumer")
    for i in range(100):
        streamer.new_sender("topic").send([event(f"k{i}")])
        receiver.recv(CancelToken())
    assert len(log.saved) <= 10


def test_a_repeated_ack_costs_nothing(log: WatchedLog) -> None:
    got = drain(opened(log, 5).new_receiver("topic", "consumer"))
    got[-1].ack()
    before = len(log.saved)
    for delivery in got:
        delivery.ack()
    assert len(log.saved) == before


def test_a_wait_looks_at_nothing(log: WatchedLog) -> None:
    """P9"""
    streamer = opened(log)
    receiver = streamer.new_receiver("topic", "consumer", poll_interval=0.001)
    assert receiver.recv(CancelToken(), timeout=0.1) == []
    assert log.reads <= 2
    waiting = InThread(lambda: keys(receiver.recv(CancelToken())))
    eventually(lambda: log.reads >= 2)
    streamer.new_sender("other").send([event("x", topic="other")])
    streamer.new_sender("topic").send([event("y")])
    assert waiting.join().result == ["y"]
    assert log.reads <= 4


def test_a_log_that_does_not_tell_is_polled() -> None:
    log = SilentLog()
    streamer = LogStreamer(log, poll_interval=0.01)
    assert streamer.capabilities == frozenset()
    assert lag(streamer) is None
    assert notify(streamer) is None
    with pytest.raises(NotImplementedError):
        streamer.pending("topic", "consumer")
    receiver = streamer.new_receiver("topic", "consumer", poll_interval=5)
    waiting = InThread(lambda: keys(receiver.recv(CancelToken())))
    eventually(lambda: log.reads > 3)
    log.append("topic", [event("a")])
    assert waiting.join().result == ["a"]


def test_a_shorter_poll_interval_is_heeded() -> None:
    log = SilentLog()
    receiver = LogStreamer(log, poll_interval=100).new_receiver("topic", "consumer", poll_interval=0.01)
    waiting = InThread(lambda: keys(receiver.recv(CancelToken())))
    eventually(lambda: log.reads > 3)
    receiver.close()
    assert isinstance(waiting.join().error, Closed)


def test_all_that_is_there_is_handed_out(log: WatchedLog) -> None:
    streamer = opened(log, 13)
    receiver = streamer.new_receiver("topic", "consumer")
    assert len(receiver.recv(CancelToken(), limit=4)) == 4
    assert len(receiver.recv(CancelToken(), limit=50)) == 9
    streamer.new_sender("topic").send([event(f"more{i}") for i in range(50)])
    assert len(receiver.recv(CancelToken(), limit=35)) == 35


def test_prefetch_is_at_least_1(log: WatchedLog) -> None:
    with pytest.raises(InvalidInput, match="prefetch"):
        LogStreamer(log, prefetch=0)


# --- what it stores ------------------------------------------------------------------------------------------------


def test_the_mark_is_stored_before_anything_beyond_it_is_handed_out(log: WatchedLog) -> None:
    """ES-17: whenever the process dies."""
    receiver = opened(log, 60).new_receiver("topic", "consumer")
    handed_out = 0
    while handed_out < 60:
        handed_out += len(receiver.recv(CancelToken(), limit=7))
        assert log.saved[-1][1] >= handed_out


def test_a_close_takes_the_mark_back(log: WatchedLog) -> None:
    receiver = opened(log, 60).new_receiver("topic", "consumer")
    got = receiver.recv(CancelToken(), limit=7)
    got[2].ack()
    receiver.close()
    assert log.saved[-1] == (3, 7)
    got[4].ack()
    assert log.saved[-1] == (5, 7)


def test_a_close_between_mark_and_hand_out_wins(log: WatchedLog) -> None:
    receiver = opened(log, 60).new_receiver("topic", "consumer")
    log.before_save = receiver.close
    with pytest.raises(Closed):
        receiver.recv(CancelToken(), limit=7)
    assert log.saved[-1] == (0, 0)


def test_the_last_of_racing_writers_has_the_newest_progress(log: WatchedLog) -> None:
    receiver = opened(log, 60, prefetch=100).new_receiver("topic", "consumer")
    got = receiver.recv(CancelToken(), limit=60)
    log.before_save = got[40].ack  # while the earlier ack is on its way
    got[10].ack()
    assert log.saved[-1][0] == 41


def test_a_close_survives_a_log_that_is_down(log: WatchedLog) -> None:
    receiver = opened(log, 60).new_receiver("topic", "consumer")
    receiver.recv(CancelToken(), limit=7)
    log.fail_saves = True
    receiver.close()


def test_a_failing_log_is_no_empty_log(log: WatchedLog) -> None:
    """GN-9"""
    receiver = opened(log, 5).new_receiver("topic", "consumer")
    log.fail_reads = True
    with pytest.raises(Unavailable):
        receiver.recv(CancelToken(), timeout=0)
    log.fail_reads = False
    log.fail_saves = True
    with pytest.raises(Unavailable):
        receiver.recv(CancelToken(), timeout=0)
    log.fail_saves = False
    got = drain(receiver)
    assert len(got) == 5
    assert log.saved[0][1] >= 5, "the mark that could not be stored before"
    log.fail_saves = True
    with pytest.raises(Unavailable):
        got[-1].ack()


def test_an_ack_that_failed_can_be_made_again(log: WatchedLog) -> None:
    streamer = opened(log, 5)
    receiver = streamer.new_receiver("topic", "consumer")
    got = drain(receiver)
    log.fail_saves = True
    with pytest.raises(Unavailable):
        got[-1].ack()
    log.fail_saves = False
    got[-1].ack()
    assert drain(streamer.new_receiver("topic", "consumer")) == []


def test_a_shard_passes_over_what_others_own(log: WatchedLog) -> None:
    """What belongs to other shards is not kept from being trimmed by one that has nothing to acknowledge."""
    names = [name for name in (f"k{i}" for i in range(200)) if not Shard(1, 2).owns(name)]
    streamer = opened(log)
    receiver = streamer.new_receiver("topic", "consumer", shard=Shard(1, 2))
    streamer.new_sender("topic").send([event(name) for name in names])
    assert receiver.recv(CancelToken(), timeout=0) == []
    assert log.saved == [(len(names), 0)]
    assert receiver.recv(CancelToken(), timeout=0) == []
    assert log.after == len(names), "and does not look at it again"


def test_an_ack_passes_over_what_others_own(log: WatchedLog) -> None:
    own = next(f"k{i}" for i in range(200) if Shard(1, 2).owns(f"k{i}"))
    other = next(f"k{i}" for i in range(200) if not Shard(1, 2).owns(f"k{i}"))
    streamer = opened(log)
    receiver = streamer.new_receiver("topic", "consumer", shard=Shard(1, 2))
    streamer.new_sender("topic").send([event(name) for name in (own, own, other, other)])
    got = drain(receiver)
    got[0].ack()
    assert log.saved[-1][0] == 1
    got[1].ack()
    assert log.saved[-1][0] == 4


def test_closing_a_streamer_closes_what_it_opened(log: WatchedLog) -> None:
    streamer = opened(log)
    receivers = [streamer.new_receiver("topic", name) for name in ("a", "b")]
    streamer.close()
    for receiver in receivers:
        with pytest.raises(Closed):
            receiver.recv(CancelToken(), timeout=0)
    with pytest.raises(Closed):
        log.cursors()
