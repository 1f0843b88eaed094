"""An event streamer over any log that can append, read after a position, and keep positions.

A topic is a log: its entries have rising positions. A receiver is a name with a *cursor*, the position up to which
all was acknowledged; so a log needs no queue for each receiver, and a new one may start whenever it likes.

                         acked        handed out           looked
    position  1 ────────────┼───────────────┼─────────────────┼──────────► head
                 done, may   in somebody's   prefetched, in     not read yet
                 be trimmed  hands           the buffer

Acknowledging moves `acked`, and nothing else does: what was handed out and not acknowledged comes again to the next
receiver of that name. That one has to know which of it may have been handed out before, since a run that killed its
process must not kill the next one too. So the cursor has a second position, the *mark*: before an entry beyond the
mark is handed out, a mark ahead of it, by one prefetch window, is stored. The mark costs a write for each window,
not for each entry, and even that is saved where an acknowledgement, which is a write anyway, carries it along.
`close` takes it back to what was really handed out; after a crash at most one window is taken for redelivered that
is not.

Each shard of a name has its own cursor. How many shards there are is the name's *layout*; a cursor carries the
generation of its layout, and a log ignores the progress of a retired one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from datetime import datetime

from ...cancel import CancelToken
from ...clock import SYSTEM, Clock, Runtime, Signal
from ...errors import Closed, InvalidInput, Unavailable
from ...event import WHOLE, Event, Shard
from ...protocols import Cursor, Delivery, EventLog, LogEntry, ReceiverInfo, Unsubscribe, lag
from .guard import Guard

PASSED_ON = frozenset({"notify", "lag"})
"""The capabilities that a streamer has if its log has them."""


class LogDelivery:
    """One event in somebody's hands."""

    __slots__ = ("_receiver", "event", "position", "redelivered")

    def __init__(self, receiver: LogReceiver, entry: LogEntry, redelivered: bool) -> None:
        self._receiver = receiver
        self.event = entry.event
        self.position = entry.position
        self.redelivered = redelivered

    def ack(self) -> None:
        """Acknowledge all that the receiver has handed out, up to this one."""
        self._receiver.acknowledge(self.position)


class LogReceiver:
    """One shard of one topic for one name. One thread receives; any thread acknowledges or closes."""

    def __init__(
        self, streamer: LogStreamer, cursor: Cursor, clock: Clock, *, prefetch: int, poll_interval: float | None
    ) -> None:
        self._streamer = streamer
        self._log = streamer.log
        self._cursor = cursor
        self._clock = clock
        self._prefetch = prefetch
        self._poll_interval = poll_interval
        self._guard = Guard(f"receiver {cursor.name!r} of topic {cursor.topic!r}")
        # What lies up to here may have been handed out by an earlier receiver. A mark beyond the head that we found
        # says nothing of what was sent after that.
        self._redelivered_up_to = min(cursor.handed_out, cursor.head)

        self._lock = threading.Lock()  # guards all below, for moments: never held over a call of the log or a wait
        self._buffer: deque[LogEntry] = deque()
        self._looked = cursor.acked
        self._handed_out = cursor.acked
        self._stored = (cursor.acked, cursor.handed_out)  # acked and mark, as the log has them
        self._progress = self._stored  # the same, as it is to have them

        self._news: Signal = clock.signal()
        self._unsubscribe = self._log.subscribe_topic(cursor.topic, cursor.shard, self._news)

    def recv(self, cancel: CancelToken, *, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        """What is there, up to `limit`; waits for the first one, and returns [] after `timeout` seconds (0 polls)."""
        if limit < 1:
            raise InvalidInput(f"limit={limit}: at least 1 is wanted")
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        while True:
            self._guard.check()
            cancel.raise_if_cancelled()
            if len(self._buffer) < limit:
                self._fetch(max(limit, self._prefetch))
            if self._buffer:
                return self._hand_out(limit)
            left = None if deadline is None else deadline - self._clock.monotonic()
            if left is not None and left <= 0:
                return []
            self._news.wait(cancel, _earlier(left, self._poll_interval))

    def acknowledge(self, position: int) -> None:
        """Store that all up to this position is done with. Works after `close` too: the work was done, after all."""
        with self._lock:
            acked, mark = self._progress
            if position > acked:
                if position == self._handed_out and not self._buffer:
                    position = self._looked  # in between there is nothing of this shard
                if not self._guard.closed:
                    mark = max(mark, self._handed_out + self._prefetch)
                self._progress = (position, mark)
        self._save()

    def close(self) -> None:
        """Let the name go, and take the mark back to what was really handed out. Acknowledges nothing."""
        if not self._guard.close():
            return
        self._unsubscribe()
        self._news.notify()  # whoever receives finds it closed
        self._streamer.forget(self)
        with self._lock:
            self._progress = (self._progress[0], max(self._handed_out, self._redelivered_up_to))
        try:
            self._save()
        except (Closed, Unavailable):
            return  # the mark stays where it is: a window of what comes next is taken for redelivered, and no more

    def _fetch(self, limit: int) -> None:
        """Read on from where the last look ended."""
        entries, looked = self._log.read(self._cursor.topic, self._cursor.shard, self._looked, limit)
        with self._lock:
            self._buffer.extend(entries)
            self._looked = max(self._looked, looked)
            acked, mark = self._progress
            idle = not self._buffer and acked >= self._handed_out
            if not idle or looked - acked < self._prefetch:
                return
            # All of it belongs to other shards, which may have acknowledged it: do not keep it from being trimmed.
            self._progress = (looked, mark)
        self._save()

    def _hand_out(self, limit: int) -> list[Delivery]:
        """Give out the first of what is in the buffer, once the mark is ahead of it."""
        with self._lock:
            count = min(limit, len(self._buffer))
            last = self._buffer[count - 1].position
            acked, mark = self._progress
            if mark < last:
                self._progress = (acked, max(self._buffer[-1].position, last + self._prefetch))
        self._save()
        with self._lock:
            self._guard.check()  # whoever closed it meanwhile has taken the mark back
            taken = [self._buffer.popleft() for _ in range(count)]
            self._handed_out = last
        until = self._redelivered_up_to
        return [LogDelivery(self, entry, entry.position <= until) for entry in taken]

    def _save(self) -> None:
        """Store the progress, if the log does not have it. Whoever of several threads ends last stores the newest."""
        while (progress := self._progress) != self._stored:
            self._log.save_cursor(self._cursor, *progress)
            self._stored = progress


class LogSender:
    """Appends to one topic."""

    def __init__(self, log: EventLog, topic: str) -> None:
        self._log = log
        self._topic = topic
        self._guard = Guard(f"sender of topic {topic!r}")

    def send(self, events: Sequence[Event]) -> None:
        """Returns when they are durable."""
        self._guard.check()
        self._log.append(self._topic, events)

    def close(self) -> None:
        """There is nothing to let go of."""
        self._guard.close()


class LogStreamer:
    """An `EventStreamer` over `log`, which it closes with itself.

    `prefetch` is how many entries a receiver reads ahead. `poll_interval` is the longest time, in seconds, after which
    news is found in a log that does not tell of it.
    """

    def __init__(
        self, log: EventLog, runtime: Runtime = SYSTEM, *, prefetch: int = 100, poll_interval: float = 0.5
    ) -> None:
        if prefetch < 1:
            raise InvalidInput(f"prefetch={prefetch}: at least 1 is wanted")
        self.log = log
        self._clock = runtime.clock
        self._prefetch = prefetch
        self._poll_interval = poll_interval
        self._guard = Guard("the event streamer")
        self._lock = threading.Lock()
        self._receivers: set[LogReceiver] = set()

    @property
    def capabilities(self) -> frozenset[str]:
        return self.log.capabilities & PASSED_ON

    def new_sender(self, topic: str) -> LogSender:
        self._guard.check()
        return LogSender(self.log, topic)

    def new_receiver(
        self, topic: str, name: str, *, shard: Shard = WHOLE, poll_interval: float | None = None
    ) -> LogReceiver:
        """Open the receiver of this name. Its cursor is stored before this returns."""
        self._guard.check()
        cursor = self.log.open_cursor(topic, name, shard)
        told = "notify" in self.capabilities
        longest = None if told else _earlier(self._poll_interval, poll_interval)
        receiver = LogReceiver(self, cursor, self._clock, prefetch=self._prefetch, poll_interval=longest)
        with self._lock:
            self._receivers.add(receiver)
        if self._guard.closed:  # while we were at it: `close` may have missed it
            receiver.close()
            self._guard.check()
        return receiver

    def receivers(self) -> Sequence[ReceiverInfo]:
        self._guard.check()
        return self.log.cursors()

    def forget_receiver(self, topic: str, name: str) -> None:
        self._guard.check()
        self.log.forget(topic, name)

    def forget(self, receiver: LogReceiver) -> None:
        """A receiver was closed."""
        with self._lock:
            self._receivers.discard(receiver)

    def close(self) -> None:
        """Close every receiver, then the log. In a forked child there is nothing to do."""
        if not self._guard.close() or self._guard.forked:
            return
        with self._lock:
            receivers = list(self._receivers)
        for receiver in receivers:
            receiver.close()
        self.log.close()

    # --- capabilities, where the log has them ----------------------------------------------------------------------

    def subscribe(self, kind: str, name: str, signal: Signal) -> Unsubscribe:
        """`notify`: tell of every entry of the topic `name`."""
        self._guard.check()
        if kind != "topic":
            raise InvalidInput(f"a streamer tells of topics, not of {kind!r}")
        return self.log.subscribe_topic(name, WHOLE, signal)

    def pending(self, topic: str, name: str) -> tuple[int, datetime | None]:
        """`lag`: how many events the name has not acknowledged, and since when the oldest is there."""
        self._guard.check()
        counting = lag(self.log)
        if counting is None:
            raise NotImplementedError("this log does not count what is pending")
        return counting.pending(topic, name)


def _earlier(first: float | None, second: float | None) -> float | None:
    """The shorter of two times, None being the longest."""
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)
