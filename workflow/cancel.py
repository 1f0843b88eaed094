"""Cancellation: one token tells any number of waits and functions that they should end.

A token goes from live to cancelled once and stays so. Whoever waits subscribes a function to it (a signal's `notify`)
and looks at `cancelled` when woken; whoever works looks at `cancelled` now and then. Tokens form chains: a child is
cancelled with its parent, and leaves the parent when its `with` block ends, so that a long-lived parent keeps nothing
of short-lived children.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType

from .errors import Cancelled


class CancelToken:
    """Says that something should end, and why. Every method may be called from any thread."""

    __slots__ = ("_leave", "_lock", "_reason", "_subscribers")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._subscribers: dict[object, Callable[[], object]] = {}
        self._leave: tuple[Callable[[], None], ...] = ()

    @property
    def cancelled(self) -> bool:
        """True from the first `cancel` on, for ever."""
        return self._reason is not None

    @property
    def reason(self) -> str:
        """Why, in the words of the first `cancel`; empty while the token is live."""
        return self._reason or ""

    def cancel(self, reason: str = "cancelled") -> None:
        """Cancel, and call each subscriber once, on this thread. Later calls change nothing."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            subscribers, self._subscribers = list(self._subscribers.values()), {}
        for subscriber in subscribers:
            subscriber()

    def subscribe(self, subscriber: Callable[[], object]) -> Callable[[], None]:
        """Call `subscriber` on cancellation, at once if that is past. Returns the function that unsubscribes it."""
        key = object()
        with self._lock:
            live = self._reason is None
            if live:
                self._subscribers[key] = subscriber
        if not live:
            subscriber()
        return partial(self._unsubscribe, key)

    def _unsubscribe(self, key: object) -> None:
        with self._lock:
            self._subscribers.pop(key, None)

    def raise_if_cancelled(self) -> None:
        """Raise `Cancelled` if the token is cancelled."""
        if self._reason is not None:
            raise Cancelled(self._reason)

    @classmethod
    def child_of(cls, *parents: CancelToken) -> CancelToken:
        """A token that is cancelled with the first of `parents`. Use it in a `with` block, which detaches it."""
        child = cls()
        child._leave = tuple(parent.subscribe(partial(child._follow, parent)) for parent in parents)
        return child

    def _follow(self, parent: CancelToken) -> None:
        self.cancel(parent.reason)

    def detach(self) -> None:
        """Leave the parents: they keep nothing of this token any more."""
        for leave in self._leave:
            leave()

    def __enter__(self) -> CancelToken:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()
