"""`run --input`: each line of a file starts a run, and the runs are followed to their end.

A line is a JSON object:

    {"foreign_id": "order-1", "initial_value": {"amount": 100}, "start_at": "PAID", "idempotency_key": "2024-05-01/1"}

Only `foreign_id` is needed. The key of a line that has none is made of the file's name, the line's number and its text:
so the same file, fed again, starts nothing again and finds the runs that it started, wherever they are now; and a file
may grow meanwhile. A line that starts no run (it cannot be read, or its foreign id has an active run) is told and
counted, and is tried again with the next feeding.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import islice
from pathlib import Path
from typing import Any, cast

from ..engine import Workflow
from ..environment import Environment
from ..errors import InvalidInput, WorkflowError
from ..record import Record
from ..run_state import RunState
from ..trigger import Trigger
from .story import state_name

BATCH = 500
"""Lines that are triggered together."""
LOOK = 2000
"""Runs that are looked at together, at most."""
FIELDS = ("foreign_id", "initial_value", "start_at", "idempotency_key")


@dataclass(frozen=True)
class Line:
    """A line of the file: what to trigger, or why that cannot be done."""

    number: int
    asked: Trigger[Any, Any] | WorkflowError


@dataclass(frozen=True)
class Followed:
    """A run that a line started, now or in an earlier feeding."""

    line: int
    run_id: str


@dataclass
class Tally:
    """How far the runs of the file are."""

    lines: int = 0
    failed: int = 0
    """Lines that started no run."""
    ended: Counter[str] = field(default_factory=lambda: Counter())
    """How many runs ended, by how they did."""

    @property
    def all_completed(self) -> bool:
        return not self.failed and self.ended[state_name(RunState.COMPLETED)] == self.lines


def count_lines(path: Path) -> int:
    """How many lines of the file hold something."""
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


class Feed:
    """Feeds one file to one workflow, batch by batch. For one thread."""

    def __init__(self, workflow: Workflow[Any, Any], path: Path) -> None:
        self._workflow = workflow
        self._path = path
        self._running: deque[Followed] = deque()
        self.paused: dict[str, tuple[Followed, Record]] = {}
        """By run id, what was paused when it was last looked at."""
        self.tally = Tally()

    @property
    def running(self) -> int:
        """How many runs move, as far as is known."""
        return len(self._running)

    def batches(self) -> Iterator[Sequence[Line]]:
        """The lines of the file, some at a time."""
        with self._path.open("rb") as file:
            texts = ((number, text.strip()) for number, text in enumerate(file, 1))
            lines = (self._line(number, text) for number, text in texts if text)
            while batch := list(islice(lines, BATCH)):
                yield batch

    def _line(self, number: int, text: bytes) -> Line:
        try:
            return Line(number, request(text, self._workflow.environment, default_key(self._path, number, text)))
        except WorkflowError as error:
            return Line(number, error)

    def start(self, batch: Sequence[Line]) -> list[tuple[int, WorkflowError]]:
        """Start the runs of these lines, in one transaction. Returns the lines that started none, and why."""
        asked = [(line.number, line.asked) for line in batch if isinstance(line.asked, Trigger)]
        answers = self._workflow.trigger_many([trigger for _, trigger in asked])
        problems = [(line.number, line.asked) for line in batch if isinstance(line.asked, WorkflowError)]
        for (number, _), answer in zip(asked, answers, strict=True):
            if isinstance(answer, str):
                self._running.append(Followed(number, answer))
            else:
                problems.append((number, answer))
        self.tally.lines += len(batch)
        self.tally.failed += len(problems)
        return sorted(problems, key=lambda problem: problem[0])

    def look(self) -> list[tuple[Followed, Record | None]]:
        """See how far the runs are: some of those that move, or the paused ones if none does. Returns what ended."""
        if not self._running:
            self._running.extend(followed for followed, _ in self.paused.values())
        looked_at = [self._running.popleft() for _ in range(min(LOOK, len(self._running)))]
        records = self._workflow.adapters.record_store.lookup([followed.run_id for followed in looked_at])
        ended: list[tuple[Followed, Record | None]] = []
        for followed, record in zip(looked_at, records, strict=True):
            self.paused.pop(followed.run_id, None)
            if record is None or record.run_state.finished:
                self.tally.ended["deleted" if record is None else state_name(record.run_state)] += 1
                ended.append((followed, record))
            elif record.run_state is RunState.PAUSED:
                self.paused[followed.run_id] = (followed, record)
            else:
                self._running.append(followed)
        return ended


def default_key(path: Path, number: int, text: bytes) -> str:
    """The key of a line that has none."""
    return f"{path.name}:{number}:{hashlib.sha256(text).hexdigest()[:16]}"


def request(text: bytes, environment: Environment[Any, Any], default: str) -> Trigger[Any, Any]:
    """What a line asks for. Raises `InvalidInput` or `CodecError`, which tell what is wrong with it."""
    fields = _fields(text)
    value = None
    if "initial_value" in fields:
        value = environment.codec.decode(environment.object_type, json.dumps(fields["initial_value"]).encode())[0]
    key = fields.get("idempotency_key", default)
    if not isinstance(key, str):
        raise InvalidInput(f"the idempotency key is a {type(key).__name__}, not a text")
    start_at = None
    if "start_at" in fields:
        statuses = {status.name: status for status in cast("Iterable[IntEnum]", environment.status_type)}
        start_at = statuses.get(str(fields["start_at"]))
        if start_at is None:
            raise InvalidInput(f"there is no status {fields['start_at']!r}: start_at is one of {', '.join(statuses)}")
    return Trigger(fields.get("foreign_id", ""), value, start_at, key, by="run --input")


def _fields(text: bytes) -> dict[str, Any]:
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInput("no JSON object: a line is {...}, with a foreign_id")
    fields = cast("dict[str, Any]", found)
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise InvalidInput(f"unknown is {', '.join(unknown)}; a line may have {', '.join(FIELDS)}")
    return fields
