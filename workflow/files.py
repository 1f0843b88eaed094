"""A connector that reads JSON lines from a file, from where it was acknowledged, and follows the file as it grows.

    @b.connector("tickets", JsonLines("tickets.jsonl", key="case", id="id"))
    def feed(api: Api[Ticket, Status], event: ConnectorEvent) -> None: ...

The file is a log whose positions are byte offsets, so the same machinery that reads the engine's own logs
(`adapters.support.log_streamer`) hands out its lines. What is added here is how a line becomes an event, and where the
progress is kept: in small JSON files beside the input, or wherever `cursor` says, each written to a temporary file,
synced and renamed, so that a crash leaves the old one or the new one.

    tickets.jsonl.cursor.tickets           the layout: how many shards, since which generation, from where they started
    tickets.jsonl.cursor.tickets.2-of-3    one shard: acknowledged, perhaps handed out, a checksum of what is before it

Nothing is dropped in silence. A line whose id or key cannot be told is handed out all the same, with the header
`malformed`, for the connector's function to fail on, so that it is parked where people see it. A line that is not
complete yet is left for later. A file that was truncated or replaced is an error, since no position in it means
anything any more.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from zlib import crc32

from .adapters.support.log_streamer import LogStreamer
from .clock import Clock, Runtime, Signal, runtime_with
from .environment import check_text
from .errors import InvalidInput, Unavailable, WorkflowError
from .event import NO_HEADERS, ConnectorEvent, Event, Shard
from .protocols import ConnectorReceiver, Cursor, LogEntry, ReceiverInfo, Unsubscribe

Field = str | Callable[[Any], object]
"""The name of a field of a line's object, or a function of it."""

LONGEST_KEY = 255
TAIL = 64
"""So many bytes before a position are remembered by their checksum, to recognise the file by."""
PREFETCH = 1000
"""Lines that are read ahead: one pass over the file, and one write of the mark, for so many."""
NEVER = 3600.0
"""Seconds between two looks at a file that is not followed."""

T = TypeVar("T")


class SourceChanged(WorkflowError):
    """The file is not the one that the cursor was made for, or the cursor cannot be read. A person has to decide."""


class JsonLines:
    """A `Connector` over a file of JSON lines. Thread-safe; each line that is not blank is one event.

    `key`: the field that keeps its events in order, and that shards are made by; without one, the id. `id`: the field
    that names an event, and so makes its effects happen once; without one, the line's byte offset. Both may be
    functions of the line's object. The payload is the line as it stands, without its end.

    `cursor` is where progress is kept: the beginning of a path, by default the file's own with ".cursor". With `follow`
    the file may grow, and be missing at first; without, a last line without a line end counts as complete.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        key: Field | None = None,
        id: Field | None = None,
        cursor: str | os.PathLike[str] | None = None,
        follow: bool = True,
        poll_interval: float = 0.2,
        clock: Clock | None = None,
    ) -> None:
        if poll_interval <= 0:
            raise InvalidInput(f"poll_interval={poll_interval}: it is more than 0 seconds")
        self._runtime = runtime_with(clock)
        self._poll_interval = poll_interval if follow else NEVER
        base = Path(cursor if cursor is not None else f"{os.fspath(path)}.cursor")
        self._log = _FileLog(Path(path), base, _Lines(key, id), follow, self._runtime)

    def open(self, name: str, shard: Shard) -> ConnectorReceiver:
        """The receiver of this name and shard, from where it was acknowledged. Raises `SourceChanged`."""
        streamer = LogStreamer(self._log, self._runtime, prefetch=PREFETCH, poll_interval=self._poll_interval)
        # A streamer hands out what its log has for an event untouched: here, a connector's event.
        return cast("ConnectorReceiver", streamer.new_receiver(str(self._log.path), name, shard=shard))

    def caught_up(self, name: str) -> bool:
        """Whether the receivers of this name have acknowledged every line that is complete now."""
        return self._log.caught_up(name)


# --- lines ---------------------------------------------------------------------------------------------------------


class _Lines:
    """How a line becomes an event."""

    def __init__(self, key: Field | None, id: Field | None) -> None:
        self._key = key
        self._id = id

    def event(self, line: bytes, offset: int, runtime: Runtime) -> ConnectorEvent:
        """The event of the line that starts at `offset`."""
        name = key = str(offset)
        headers: Mapping[str, str] = NO_HEADERS
        try:
            fields = json.loads(line) if self._id or self._key else None
            if self._id is not None:
                name = key = _text_of("the id", self._id, fields)
            if self._key is not None:
                key = _text_of("the key", self._key, fields)
        except Exception as error:  # whatever is wrong with a line, it is one line's trouble, and is handed on
            headers = {"malformed": _complaint(error)}
        return ConnectorEvent(name, key, line, runtime.clock.now(), headers)


def _text_of(what: str, field: Field, fields: Any) -> str:
    value = field(fields) if callable(field) else fields[field]
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InvalidInput(f"{what} is a {type(value).__name__}")
    return check_text(what, str(value), LONGEST_KEY, 1)


def _complaint(error: Exception) -> str:
    """What is wrong with a line, without its text: only our own messages are known to have none of it."""
    told = f": {error}" if isinstance(error, InvalidInput) else ""
    return f"{type(error).__name__}{told}"


# --- progress ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Progress:
    """How far one shard is, in one generation of its name's layout."""

    generation: int = 1
    acked: int = 0
    handed_out: int = 0
    tail: int = 0
    """The checksum of what stands before `acked`."""


@dataclass(frozen=True)
class _Layout:
    """How many shards a name has, and where those start that have no progress of their own yet."""

    total: int
    start: _Progress

    @property
    def generation(self) -> int:
        return self.start.generation


class _Cursors:
    """The progress of all names and shards, in files that begin with `base`."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def path(self, name: str, shard: Shard | None = None) -> Path:
        """The file of a name's layout, or of one shard."""
        part = f".{shard.index}-of-{shard.total}" if shard else ""
        return self._base.with_name(f"{self._base.name}.{name}{part}")

    def layout(self, name: str) -> _Layout | None:
        return _read(self.path(name), lambda fields: _Layout(fields["total"], _Progress(**fields["start"])))

    def progress(self, name: str, shard: Shard, layout: _Layout) -> _Progress:
        """The shard's own progress in this layout, else where the layout starts."""
        own = _read(self.path(name, shard), lambda fields: _Progress(**fields))
        return own if own is not None and own.generation == layout.generation else layout.start

    def save(self, name: str, shard: Shard, progress: _Progress) -> None:
        _write(self.path(name, shard), asdict(progress))

    def renew(self, name: str, before: _Layout | None, total: int) -> _Layout:
        """A new layout, which starts at the least progress of the one before and retires it."""
        if before is None:
            layout = _Layout(total, _Progress())
        else:
            shards = [Shard(index, before.total) for index in range(1, before.total + 1)]
            progress = [self.progress(name, shard, before) for shard in shards]
            least = min(progress, key=lambda each: each.acked)
            furthest = max(each.handed_out for each in progress)
            layout = _Layout(total, _Progress(before.generation + 1, least.acked, furthest, least.tail))
        _write(self.path(name), asdict(layout))
        return layout


def _read(path: Path, make: Callable[[Any], T]) -> T | None:
    try:
        return make(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"the cursor {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise SourceChanged(
            f"the cursor {path} cannot be read ({type(error).__name__}): delete it to start at the beginning"
        ) from error


def _write(path: Path, fields: Mapping[str, Any]) -> None:
    """Replace the file: a crash, or the loss of power, leaves the old one or the new one."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(fields, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise Unavailable(f"the cursor {path} cannot be written: {error.strerror}") from error


# --- the file as a log ---------------------------------------------------------------------------------------------


class _FileLog:
    """An `EventLog` over the file. A line's position is the offset of its end. Nothing can be appended. Thread-safe."""

    capabilities: frozenset[str] = frozenset()

    def __init__(self, path: Path, base: Path, lines: _Lines, follow: bool, runtime: Runtime) -> None:
        self.path = path
        self._cursors = _Cursors(base)
        self._lines = lines
        self._follow = follow
        self._runtime = runtime
        self._lock = threading.Lock()  # for the cursors' files, which several shards read and replace
        self._seen = (0, 0)  # the furthest offset that was read, and the checksum of what stands before it

    def read(self, topic: str, shard: Shard, after: int, limit: int) -> tuple[Sequence[LogEntry], int]:
        """At most `limit` lines of the shard from the offset `after` on, and the offset up to which all was seen."""
        entries: list[LogEntry] = []
        looked = after
        with self._open() as file:
            seen, tail = self._seen
            self._check(file, max(seen, after), tail if seen >= after else None)
            file.seek(after)
            while len(entries) < limit and (line := self._complete(file.readline())):
                start, looked = looked, looked + len(line)
                text = line.rstrip(b"\r\n")
                if not text or text.isspace():
                    continue
                event = self._lines.event(text, start, self._runtime)
                if shard.owns(event.key):
                    # Whoever opened the receiver knows that it hands out events of a connector, not of a run.
                    entries.append(LogEntry(looked, cast("Event", event)))
            if looked > seen:
                self._seen = (looked, _tail(file, looked))
        return entries, looked

    def open_cursor(self, topic: str, name: str, shard: Shard) -> Cursor:
        with self._lock, self._open() as file:
            layout = self._cursors.layout(name)
            if layout is None or layout.total != shard.total:
                layout = self._cursors.renew(name, layout, shard.total)
            progress = self._cursors.progress(name, shard, layout)
            self._check(file, progress.acked, progress.tail)
            head = file.seek(0, os.SEEK_END)
        return Cursor(topic, name, shard, layout.generation, progress.acked, progress.handed_out, head)

    def save_cursor(self, cursor: Cursor, acked: int, handed_out: int) -> None:
        with self._lock, self._open() as file:
            layout = self._cursors.layout(cursor.name)
            if layout is None or layout.generation != cursor.generation:
                return
            stored = self._cursors.progress(cursor.name, cursor.shard, layout)
            furthest = max(acked, stored.acked)
            tail = _tail(file, furthest)
            self._cursors.save(
                cursor.name, cursor.shard, _Progress(layout.generation, furthest, max(handed_out, furthest), tail)
            )

    def caught_up(self, name: str) -> bool:
        """Whether no shard of the name has a line before it."""
        with self._lock:
            layout = self._cursors.layout(name)
            if layout is None:
                return False  # nobody has begun
            shards = [Shard(index, layout.total) for index in range(1, layout.total + 1)]
            acked = [self._cursors.progress(name, shard, layout).acked for shard in shards]
        return not any(self.read("", shard, after, 1)[0] for shard, after in zip(shards, acked, strict=True))

    def subscribe_topic(self, topic: str, shard: Shard, signal: Signal) -> Unsubscribe:
        return lambda: None  # a file tells nobody that it grew: its receivers look

    def append(self, topic: str, events: Sequence[Event]) -> None:
        raise NotImplementedError("a file of events is only read")

    def cursors(self) -> Sequence[ReceiverInfo]:
        return ()

    def forget(self, topic: str, name: str) -> None:
        raise NotImplementedError("delete the cursor's files")

    def close(self) -> None:
        """Nothing is kept open."""

    @contextmanager
    def _open(self) -> Generator[BinaryIO]:
        try:
            file: BinaryIO = self.path.open("rb")
        except OSError as error:
            if not (self._follow and isinstance(error, FileNotFoundError)):
                raise Unavailable(f"{self.path} cannot be read: {error.strerror}") from error
            file = BytesIO()  # it may come yet
        with file:
            yield file

    def _check(self, file: BinaryIO, offset: int, tail: int | None) -> None:
        """Raise `SourceChanged` if what stands before `offset` is not what stood there, where that is known."""
        size = file.seek(0, os.SEEK_END)
        if size < offset:
            what = f"it has {size} bytes, and {offset} of it were read: it was truncated, removed, or replaced"
        elif tail is not None and _tail(file, offset) != tail:
            what = f"what stands before byte {offset} has changed: it was replaced"
        else:
            return
        raise SourceChanged(
            f"{self.path}: {what}. Put the old file back, or delete the cursor's files to start at the beginning"
        )

    def _complete(self, line: bytes) -> bytes:
        """The line, if whoever writes it has finished with it; else nothing."""
        return line if line.endswith(b"\n") or not self._follow else b""


def _tail(file: BinaryIO, offset: int) -> int:
    """The checksum of the last bytes before `offset`."""
    begin = max(0, offset - TAIL)
    file.seek(begin)
    return crc32(file.read(offset - begin))
