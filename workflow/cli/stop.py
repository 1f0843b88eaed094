"""Ctrl-C and SIGTERM: the first asks the command to stop, the second ends the process at once.

A handler runs in the middle of whatever the main thread does, so it must take no lock that this thread may hold. It
writes two plain attributes and raises the flag of a clock's signal, which is a bare lock used as a semaphore.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from ..clock import SYSTEM

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SLICE = None if os.name == "posix" else 0.5
"""Where a wait is not interrupted by signals, it comes up now and then to look."""


class Stop:
    """Whether somebody asked this process to stop. A `with` block of the main thread."""

    def __init__(self, said: bytes = b"", at_once: Callable[[], object] = lambda: None) -> None:
        self.number = 0
        """The signal that asked, 0 while nobody did."""
        self._said = said
        self._at_once = at_once
        self._flag = SYSTEM.clock.signal()
        self._former: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        return self.number != 0

    @property
    def status(self) -> int:
        """The exit status of a command that was stopped: as a shell gives it to one that the signal ended."""
        return 128 + self.number

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until somebody asks, at most `seconds`. True if somebody did."""
        while not self.asked:
            self._flag.wait(timeout=SLICE if seconds is None else seconds)
            if seconds is not None:
                break
        return self.asked

    def __enter__(self) -> Stop:
        for number in SIGNALS:
            self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self._at_once()
            os.write(2, b"\nstopped at once; what was in hand will be done again\n")
            os._exit(128 + number)
        self.number = number
        if self._said:
            os.write(2, self._said)  # not through sys.stderr, which this thread may be writing to
        self._flag.notify()
