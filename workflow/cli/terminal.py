"""Writing for people on a terminal, and for programs.

What a command found goes to stdout: as text, or with `--json` as one JSON object a line. All else (notes, progress,
errors) goes to stderr. Colours are used only on a terminal, and not if NO_COLOR is set (https://no-color.org).

Names and reasons come from the store, so from anybody: `clean` takes the control characters out of them, which could
otherwise play with the reader's terminal.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TextIO

PROGRAM = f"{'python' if os.name == 'nt' else 'python3'} -m {__name__.rpartition('.cli.')[0]}"
"""What to type. A vendored copy has another name."""
COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))
ROWS_TOGETHER = 500
"""How many rows of a long table share the widths of its columns."""


class Terminal:
    """Where a command writes."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._held = ""  # the progress line that is on the screen now
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # an old terminal's encoding is no reason to fail

    # --- lines -----------------------------------------------------------------------------------------------------

    def say(self, text: str = "") -> None:
        """A line of the answer, for people: with `--json` it goes out of the way, to stderr."""
        print(text, file=sys.stderr if self.as_json else sys.stdout)

    def give(self, values: Mapping[str, object]) -> None:
        """A line of the answer, for programs."""
        print(json.dumps(values))

    def flush(self) -> None:
        """Let whoever watches see what was said and given: not every line of a long listing needs that."""
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """A line that is no part of the answer."""
        held, self._held = self._held, ""
        print(f"\r\x1b[K{text}" if held else text, file=sys.stderr, flush=True)
        if held:
            self.hold(held)

    def hold(self, text: str) -> None:
        """Show a line on stderr that the next one overwrites. Only for a terminal: see `can_move`."""
        self._held = text
        print(f"\r\x1b[K{clip(text, columns() - 1)}", end="", file=sys.stderr, flush=True)

    def let_go(self) -> None:
        """End the line that is held."""
        if self._held:
            self._held = ""
            print(file=sys.stderr, flush=True)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Rows in aligned columns, as they come: a long table is never in memory as a whole."""
        left, first = iter(rows), True
        while chunk := list(islice(left, ROWS_TOGETHER)):
            for line in aligned([head, *chunk]) if first else aligned([head, *chunk])[1:]:
                self.say(line if not first else self.paint(line, "bold"))
                first = False

    # --- looks -----------------------------------------------------------------------------------------------------

    def paint(self, text: str, colour: str) -> str:
        """`text` in a colour, or as it is where colours are not wanted."""
        if not colour or not self._colours():
            return text
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"

    def _colours(self) -> bool:
        return not os.environ.get("NO_COLOR") and can_move(sys.stderr if self.as_json else sys.stdout)


class Block:
    """Lines on stdout that are written over each other: a small live picture."""

    def __init__(self) -> None:
        self._shown: list[str] = []

    def show(self, lines: list[str]) -> None:
        """Put these lines, always as many, in the place of the ones before."""
        if lines != self._shown:
            up = f"\x1b[{len(self._shown)}F" if self._shown else ""
            print(up + "\n".join(f"{line}\x1b[K" for line in lines), flush=True)
            self._shown = lines


def can_move(stream: TextIO) -> bool:
    """Whether the stream is a terminal on which text can be written over and coloured."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def columns() -> int:
    return shutil.get_terminal_size().columns or 80  # a terminal that does not know its size says 0


def lines_of_screen() -> int:
    return shutil.get_terminal_size().lines or 24


# --- text -----------------------------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """`text` on one line, every control character written out."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def width_of(text: str) -> int:
    """How many columns the text takes."""
    return sum(_columns_of(character) for character in text)


def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clip(text: str, width: int) -> str:
    """As much of the text as fits, with an ellipsis if that is not all."""
    if width_of(text) <= width:
        return text
    while text and width_of(text) > width - 1:
        text = text[:-1]
    return f"{text}…"


def aligned(rows: Sequence[Sequence[str]], gap: str = "  ") -> list[str]:
    """One line for each row, its cells in columns as wide as they need."""
    widths = [max(width_of(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [gap.join(cell + " " * (width - width_of(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows]  # fmt: skip


def indented(text: str, by: str = "  ") -> Iterator[str]:
    """Each line of the text behind an indent, cleaned."""
    return (f"{by}{clean(line)}" for line in text.splitlines())


# --- time -----------------------------------------------------------------------------------------------------------


def span(seconds: float) -> str:
    """A length of time, as in `0.25 s`, `1.2 s`, `12 s`, `5 min`, `3 h`, `2 d`."""
    for unit, name in UNITS:
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    decimals = 0 if seconds >= 10 else 1 if seconds >= 1 else 2
    return f"{seconds:.{decimals}f} s"


def relative(instant: datetime, now: datetime) -> str:
    """An instant as people say it, as in `5 min ago` and `in 2 h`."""
    seconds = (instant - now).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"
