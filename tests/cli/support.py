"""Running the command line: in this process, or as a child that is watched and sent signals."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from workflow.cli import main

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 30.0
SHOP = "tests.cli.shop:shop"


def wait_until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE) -> None:
    """Return as soon as the condition holds; fail at the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come: {what}"
        threading.Event().wait(0.005)


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def values(self) -> list[dict[str, Any]]:
        """What it wrote with `--json`."""
        return [json.loads(line) for line in self.out.splitlines()]


class Cli:
    """The command line in this process, on one store."""

    def __init__(self, url: str, capture: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self._capture = capture

    def __call__(self, command: str, *arguments: str) -> Result:
        """Run a command on the store."""
        return self.bare(command, "--store", self.url, *arguments)

    def bare(self, *arguments: str) -> Result:
        """Run a command as it is given."""
        self._capture.readouterr()
        try:
            status = main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = self._capture.readouterr()
        return Result(status, out, err)


def environment(**more: str) -> dict[str, str]:
    """A child's environment: no store named, no colours asked for, this checkout on the path."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"} | more


class Child:
    """The command line as a process of its own, its output in files."""

    def __init__(self, folder: Path, *arguments: str, env: Mapping[str, str] | None = None, tty: bool = False) -> None:
        folder.mkdir(exist_ok=True)
        self._out, self._err = folder / "out", folder / "err"
        self._terminal: int | None = None
        command = [sys.executable, "-m", "workflow", *arguments]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            ends: tuple[Any, Any] = (out, err)
            if tty:
                self._terminal, theirs = pty.openpty()
                ends = (theirs, theirs)
            self.process = subprocess.Popen(
                command, cwd=folder, env=env or environment(), stdin=subprocess.DEVNULL, stdout=ends[0], stderr=ends[1]
            )
            if tty:
                os.close(ends[0])
                threading.Thread(target=self._copy, daemon=True).start()

    def _copy(self) -> None:
        """Take down what appears on the terminal."""
        assert self._terminal is not None
        with self._out.open("wb") as out:
            try:
                while seen := os.read(self._terminal, 65536):
                    out.write(seen)
                    out.flush()
            except OSError:
                pass  # on Linux, this is how a terminal says that the other end is closed
        os.close(self._terminal)
        self._terminal = None

    @property
    def out(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def wait_for(self, text: str) -> None:
        """Return when `text` was written, to stdout or stderr."""

        def seen() -> bool:
            if text in self.err or text in self.out:
                return True
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.out}{self.err}"
            return False

        wait_until(seen, text)

    def end(self) -> Result:
        """Wait for its end."""
        status = self.process.wait(DEADLINE)
        wait_until(lambda: self._terminal is None, "the end of the terminal's output")
        return Result(status, self.out, self.err)

    def kill(self) -> None:
        """At the end of a test, however it went."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)


@contextmanager
def child(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None, tty: bool = False
) -> Generator[Child, None, None]:
    """A child that is gone at the end of the block."""
    made = Child(folder, *arguments, env=env, tty=tty)
    try:
        yield made
    finally:
        made.kill()
