"""What everything that serves one workflow shares: its definition, its adapters, its seams.

One value, made by `build` and handed to each process, so that no process takes a dozen parameters and none reaches for
a global. It also has the two ends of the codec, since every process that loads a record decodes it in the same way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import IntEnum
from typing import Any, Generic, NamedTuple, cast

from .clock import Clock, Runtime
from .errors import CodecError, InvalidInput
from .graph import Graph
from .protocols import Adapters, Codec, Logger, Metrics, Tracer
from .record import Record
from .run import O, RunView, S
from .run_state import RunState

_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,58}[a-z0-9])?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_EARLIEST = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LATEST = datetime(2200, 1, 1, tzinfo=timezone.utc)
_ERROR_LIMIT = 8000


def check_name(what: str, name: str) -> str:
    """`name`, if it may name a workflow, hook, connector or timer; else raise `InvalidInput`."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{what} {name!r}: a name has 1 to 60 of a-z, 0-9, '_' and '-', and begins and ends with a letter or digit"
        )
    return name


def check_text(what: str, text: str, longest: int, shortest: int = 0) -> str:
    """`text`, if every store can keep it; else raise `InvalidInput`."""
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        raise InvalidInput(f"{what} is a {type(text).__name__}, not a str")
    if not shortest <= len(text) <= longest:
        raise InvalidInput(f"{what} has {len(text)} characters: {shortest} to {longest} are possible")
    if "\0" in text or not (text.isascii() or _SURROGATE.search(text) is None):
        raise InvalidInput(f"{what} holds a NUL or a lone surrogate, which no store can keep")
    return text


def check_instant(what: str, instant: datetime) -> datetime:
    """`instant` in UTC, if it is aware and every store can keep it; else raise `InvalidInput`."""
    if instant.tzinfo is None:
        raise InvalidInput(f"{what} {instant} has no time zone: use datetime.now(timezone.utc) or the like")
    if not _EARLIEST <= instant <= _LATEST:
        raise InvalidInput(f"{what} {instant} lies outside 1970 to 2200")
    return instant.astimezone(timezone.utc)


class Fault(NamedTuple):
    """An exception of the user's code, as far as it is kept."""

    type: str
    place: str
    """File, line and function, without folders: it goes into the history."""
    text: str
    """May hold personal data: it goes onto the record alone."""

    @classmethod
    def of(cls, error: BaseException) -> Fault:
        """What to keep of `error`. Its place is where it was raised; a codec's error names the path in the object."""
        return cls(type(error).__name__, _place_of(error), trace_of(error))


def trace_of(error: BaseException) -> str:
    """The end of the error's traceback, as text that every store can keep. It may hold personal data."""
    import traceback  # late: it costs milliseconds, and most runs raise nothing

    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))[-_ERROR_LIMIT:]
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")


def frames_of(error: BaseException) -> str:
    """Where the error came from, without its words: for logs."""
    import traceback  # late, as above

    return "".join(traceback.format_tb(error.__traceback__))[-_ERROR_LIMIT:]


def _place_of(error: BaseException) -> str:
    if isinstance(error, CodecError):
        return error.path
    frame = error.__traceback__
    if frame is None:
        return ""
    while frame.tb_next is not None:
        frame = frame.tb_next
    code = frame.tb_frame.f_code
    return f"{os.path.basename(code.co_filename)}:{frame.tb_lineno} {code.co_name}"


@dataclass(frozen=True, eq=False)
class Environment(Generic[O, S]):
    """Everything that the processes of one built workflow share. Thread-safe, as its parts are."""

    workflow_name: str
    object_type: type[O]
    status_type: type[S]
    graph: Graph
    adapters: Adapters
    codec: Codec
    runtime: Runtime
    logger: Logger
    metrics: Metrics
    tracer: Tracer
    instance: str
    """Names this built workflow among all instances, in the history and in logs."""
    new_write_id: Callable[[], str]
    region: str = ""

    @property
    def clock(self) -> Clock:
        return self.runtime.clock

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return self.runtime.clock.now()

    def decode(self, record: Record) -> tuple[O, object]:
        """The record's object, and what `encode` needs to write back what this code does not know."""
        value: tuple[O, object] = self.codec.decode(self.object_type, record.object)
        return value

    def encode(self, value: O, carry: object = None) -> bytes:
        return self.codec.encode(self.object_type, value, carry)

    def status(self, number: int) -> S:
        """The user's status, or one made up for a number that the enum does not have (an older definition's)."""
        try:
            return self.status_type(number)
        except ValueError:
            make_enum: Any = IntEnum
            unknown: S = make_enum("UnknownStatus", {f"UNKNOWN_{number}": number})(number)
            return unknown

    def view(self, record: Record) -> RunView[O, S]:
        """The record for the user to read. Its object is decoded when it is looked at."""
        return RunView(status=self.status(record.status), record=record, decode=self._object)

    def _object(self, record: Record) -> O:
        erased: Any = None
        if record.run_state is RunState.DATA_DELETED and not record.object:
            return cast("O", erased)
        return self.decode(record)[0]

    def skipped(self, reason: str, process: str) -> None:
        """Count something that was not acted on: nothing is dropped without a reason."""
        self.metrics.count("workflow_skipped_total", workflow=self.workflow_name, process=process, reason=reason)
