"""The life of an adapter's handle: open, then closed; and unusable in a forked child.

A child process that goes on with its parent's connections would corrupt both. So each handle remembers the process that
made it, and each call begins with `check()`.
"""

from __future__ import annotations

import os
import threading

from ...errors import Closed, Forked


class Guard:
    """Says whether the handle `what` may still be used. Thread-safe."""

    __slots__ = ("_closed", "_lock", "_pid", "what")

    def __init__(self, what: str) -> None:
        self.what = what
        self._pid = os.getpid()
        self._closed = False
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise `Closed` or `Forked` if the handle may not be used."""
        if self._closed:
            raise Closed(f"{self.what} was closed")
        if os.getpid() != self._pid:
            raise Forked(f"{self.what} was opened before a fork: open a new one in the child process")

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def forked(self) -> bool:
        """Whether this is another process than the one that opened the handle."""
        return os.getpid() != self._pid

    def close(self) -> bool:
        """Mark it closed. True for the first caller alone, who does the closing."""
        with self._lock:
            first, self._closed = not self._closed, True
        return first
