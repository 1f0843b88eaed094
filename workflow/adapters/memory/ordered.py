"""Two orders that the stores keep their items in: by when they are due, and by when they were made.

Neither locks anything: their owner does.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from datetime import datetime
from typing import Generic, TypeVar

T = TypeVar("T")


class Agenda:
    """Ids by (instant, id)."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[tuple[datetime, str]] = []

    def add(self, at: datetime, name: str) -> None:
        """Put `name` down for `at`."""
        entries = self._entries
        if not entries or entries[-1] < (at, name):  # what is made later is mostly due later
            entries.append((at, name))
        else:
            insort(entries, (at, name))

    def remove(self, at: datetime, name: str) -> None:
        """Take it off again; it must be there."""
        place = bisect_left(self._entries, (at, name))
        assert self._entries[place] == (at, name)
        del self._entries[place]

    def until(self, now: datetime) -> Iterator[str]:
        """Those due at `now`, the earliest first."""
        for at, name in self._entries:
            if at > now:
                return
            yield name


class Roll(Generic[T]):
    """Items by the number that they got when they were made; numbers rise."""

    __slots__ = ("_items", "_numbers")

    def __init__(self) -> None:
        self._items: dict[int, T] = {}
        self._numbers: list[int] = []  # ascending; may have some that were removed

    def add(self, number: int, item: T) -> None:
        """Add an item under a number above all so far."""
        self._items[number] = item
        self._numbers.append(number)

    def remove(self, number: int) -> None:
        """Remove the item. Its number is left out, and swept away with others when they have become many."""
        del self._items[number]
        if len(self._numbers) > 2 * len(self._items) + 100:
            self._numbers = list(self._items)

    def has(self, number: int) -> bool:
        """Whether there is an item of this number."""
        return number in self._items

    def walk(self, after: int | None = None, *, backwards: bool = False) -> Iterator[tuple[int, T]]:
        """The items from that number on, exclusive, in either direction. Nothing may change meanwhile."""
        numbers = self._numbers
        if backwards:
            end = len(numbers) if after is None else bisect_left(numbers, after)
            places = range(end - 1, -1, -1)
        else:
            places = range(0 if after is None else bisect_right(numbers, after), len(numbers))
        for place in places:
            number = numbers[place]
            item = self._items.get(number)
            if item is not None:
                yield number, item
