"""Waiting for what the engine does on its own threads, with a deadline, and a failure that tells the run's story.

The deadlines here are in real time: a test that fails should do so soon, whatever its clock says. None of them sets a
virtual clock forward; a test does that itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from ..clock import SystemClock
from ..engine import Workflow
from ..errors import CodecError, RunNotFound
from ..event import Timeout
from ..process import ProcessState
from ..record import Transition
from ..run import O, RunView, S
from ..run_state import RunState

DEADLINE = 10.0
"""Real seconds that a wait lasts, unless the test says otherwise."""
FIRST_LOOK, LONGEST_LOOK = 0.001, 0.02
"""Real seconds between two looks at a condition, at first and later."""

REAL = SystemClock()


def eventually(
    condition: Callable[[], object], *, timeout: float = DEADLINE, message: str | Callable[[], str] = ""
) -> None:
    """Return once `condition` holds. Fails after `timeout` real seconds, with `message`."""
    end = REAL.monotonic() + timeout
    pause = FIRST_LOOK
    while not condition():
        if REAL.monotonic() >= end:
            told = message() if callable(message) else message
            raise AssertionError(told or f"{_name_of(condition)} did not come to hold within {timeout:g} s")
        REAL.signal().wait(timeout=pause)
        pause = min(2 * pause, LONGEST_LOOK)


def wait_for_status(wf: Workflow[O, S], run_id: str, status: S, *, timeout: float = DEADLINE) -> RunView[O, S]:
    """Wait until the run is, or was, in `status`; returns it as it is then. Fails with the run's history."""
    _wait(wf, run_id, lambda: _has_been_in(wf, run_id, int(status)), f"did not reach {status.name}", timeout)
    return wf.get(run_id)


def wait_for_state(wf: Workflow[O, S], run_id: str, run_state: RunState, *, timeout: float = DEADLINE) -> RunView[O, S]:
    """Wait until the run is in `run_state`; returns it as it is then. Fails with the run's history."""
    _wait(wf, run_id, lambda: wf.get(run_id).run_state is run_state, f"is not {run_state.name}", timeout)
    return wf.get(run_id)


def _wait(wf: Workflow[Any, Any], run_id: str, condition: Callable[[], bool], what: str, timeout: float) -> None:
    eventually(condition, timeout=timeout, message=lambda: story(wf, run_id, f"{what} within {timeout:g} s"))


def _has_been_in(wf: Workflow[Any, Any], run_id: str, status: int) -> bool:
    return wf.get(run_id).record.status == status or any(row.status == status for row in wf.history(run_id))


def _name_of(condition: Callable[[], object]) -> str:
    name = getattr(condition, "__name__", type(condition).__name__)
    return "the condition" if name == "<lambda>" else name


# --- the story of a run --------------------------------------------------------------------------------------------


def story(wf: Workflow[Any, Any], run_id: str, what: str) -> str:
    """Where the run is, how it came there, what failed and what is still to come, for a person to read."""
    try:
        view = wf.get(run_id)
    except RunNotFound as error:
        return str(error)
    where = f"{view.run_state.name} in {view.status.name}, version {view.version}, attempt {view.attempt}"
    parts = [
        f"run {run_id} of {view.foreign_id!r} {what}: it is {where}, due at {view.available_at}",
        f"object: {_object_of(view)}",
        _table("history", _HISTORY, [_told(wf, row) for row in wf.history(run_id)]),
        _table("items", _ITEMS, [_listed(item) for item in wf.items(run_id).items]),
    ]
    if view.error:
        parts.append(f"error:\n{_indented(view.error.splitlines())}")
    idle = [role for role, state in wf.states().items() if state is not ProcessState.RUNNING]
    if idle:
        parts.append(f"roles that this instance does not run: {', '.join(idle)}")
    return "\n".join(parts)


_HISTORY = ("version", "at", "status", "run state", "attempt", "error", "by", "reason", "cause")
_ITEMS = ("kind", "name", "status", "due", "attempt", "error")


def _object_of(view: RunView[Any, Any]) -> str:
    try:
        return repr(view.object)
    except CodecError as error:
        return f"cannot be read: {error}"


def _told(wf: Workflow[Any, Any], row: Transition) -> Sequence[object]:
    status = wf.definition().names.get(row.status, row.status)
    error = f"{row.error_type} at {row.error_place}" if row.error_type else ""
    return (row.version, row.at, status, row.run_state.name, row.attempt, error, row.by, row.reason, row.cause)


def _listed(item: Timeout) -> Sequence[object]:
    return (item.kind, item.name, item.status or "", item.due_at or "held", item.attempt, item.error_type)


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return f"{title}: none"
    cells = [header, *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return f"{title}:\n{_indented(lines)}"


def _cell(value: object) -> str:
    return value.isoformat(" ") if isinstance(value, datetime) else str(value)


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)
