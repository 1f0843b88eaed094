"""How things are said: texts, times, tables, and histories in words."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from workflow import RunState, Transition
from workflow.cli.story import Kind, story
from workflow.cli.terminal import aligned, clean, clip, relative, span, width_of

NOW = datetime(2024, 5, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0.00 s"), (0.256, "0.26 s"), (3.21, "3.2 s"), (42, "42 s"), (90, "2 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_spans(seconds: float, said: str) -> None:
    assert span(seconds) == said


@pytest.mark.parametrize(("seconds", "said"), [(0.5, "now"), (-90, "2 min ago"), (7200, "in 2 h")])
def test_instants(seconds: float, said: str) -> None:
    assert relative(NOW + timedelta(seconds=seconds), NOW) == said


def test_text_is_clipped_and_aligned_by_what_it_takes_on_the_screen() -> None:
    assert width_of("日本e\u0301") == 5
    assert clip("abcdef", 6) == "abcdef"
    assert clip("abcdefg", 6) == "abcde…"
    assert clip("日本語", 5) == "日本…"
    assert aligned([("日本", "x"), ("a", "y")]) == ["日本  x", "a     y"]


def test_control_characters_are_written_out() -> None:
    assert clean("a\tb\x1b[0m\u202eé✓") == "a\\tb\\x1b[0m\\u202eé✓"


def row(version: int, status: int, state: RunState = RunState.RUNNING, **fields: object) -> Transition:
    values: dict[str, object] = {"run_id": "r", "write_id": "w", "at": NOW} | fields
    return Transition(version=version, status=status, run_state=state, **values)  # type: ignore[arg-type] # fields by their names


HISTORY = [
    (row(1, 1, by="mia"), Kind.STARTED, "started in S1 by mia"),
    (row(2, 1, error_type="E", error_place="a.py:1 f", attempt=1), Kind.FAILED, "attempt 1 failed: E at a.py:1 f"),
    (row(3, 1, attempt=2), Kind.FAILED, "attempt 2 may have ended its process"),
    (row(4, 1, attempt=2, by="mia", reason="now"), Kind.HASTENED, "tried again at once by mia: now"),
    (row(5, 1), Kind.STAYED, "stays in S1"),
    (row(6, 2), Kind.ENTERED, "→ S2"),
    (row(7, 2, cause="timer/r/6/remind"), Kind.STAYED, "stays in S2 (timer remind)"),
    (row(8, 2, RunState.PAUSED, reason="look"), Kind.PAUSED, "paused: look"),
    (row(9, 2, by="mia"), Kind.RESUMED, "resumed by mia"),
    (row(10, 3, cause="callback/f/2/key", by="bank"), Kind.ENTERED, "→ S3 (callback by bank)"),
    (row(11, 4, cause="connector/log/7/callback/f/0"), Kind.ENTERED, "→ S4 (connector log)"),
    (row(12, 4, RunState.CANCELLED, by="mia", cause="operator/x"), Kind.CANCELLED, "cancelled by mia"),
    (row(13, 4, RunState.DATA_DELETION_REQUESTED), Kind.ERASED, "its data is to be deleted"),
    (row(14, 4, RunState.DATA_DELETED), Kind.ERASED, "its data was deleted"),
]


def test_a_history_in_words() -> None:
    told = list(story((each for each, _, _ in HISTORY), lambda status: f"S{status}"))
    assert [(each.kind, each.text) for each in told] == [(kind, text) for _, kind, text in HISTORY]


def test_the_end_of_a_run_in_words() -> None:
    rows = [row(1, 1), row(2, 2, RunState.COMPLETED)]
    assert [each.text for each in story(rows, str)] == ["started in 1", "→ 2, completed"]
