"""The graph of a workflow: which status leads to which.

Statuses are integers here; the enum is the user's. The graph answers what the engine asks: is this destination
declared, is that status the end of a run, can a run get from here to there. It is built once, is immutable, and its
answers are looked up in tables made at that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple


def _reachable(edges: Mapping[int, frozenset[int]], origin: int) -> frozenset[int]:
    """Every status that a path of one step or more leads to from `origin`."""
    found: set[int] = set()
    frontier = list(edges[origin])
    while frontier:
        status = frontier.pop()
        if status not in found:
            found.add(status)
            frontier.extend(edges[status])
    return frozenset(found)


class Graph(NamedTuple):
    """Statuses, the edges between them, and where a run starts. Make one with `Graph.of`."""

    start: int
    edges: Mapping[int, frozenset[int]]
    names: Mapping[int, str]
    """Each status's name, for people."""
    reaches: Mapping[int, frozenset[int]]
    """For each status, all that can come after it."""
    terminals: frozenset[int]
    """The statuses that nothing leads out of: a run that enters one is completed."""

    @classmethod
    def of(cls, start: int, edges: Iterable[tuple[int, int]], names: Mapping[int, str]) -> Graph:
        """The graph of these edges (from, to). A status in no edge is part of it if it is the start."""
        targets: dict[int, set[int]] = {start: set()}
        for origin, destination in edges:
            targets.setdefault(origin, set()).add(destination)
            targets.setdefault(destination, set())
        frozen = {origin: frozenset(targets[origin]) for origin in sorted(targets)}
        reaches = {origin: _reachable(frozen, origin) for origin in frozen}
        return cls(
            start,
            MappingProxyType(frozen),
            MappingProxyType(dict(names)),
            MappingProxyType(reaches),
            frozenset(origin for origin, destinations in frozen.items() if not destinations),
        )

    @property
    def statuses(self) -> tuple[int, ...]:
        """All statuses of the graph, ascending."""
        return tuple(self.edges)

    def leads(self, origin: int, destination: int) -> bool:
        """Whether the step from `origin` to `destination` is declared."""
        return destination in self.edges.get(origin, frozenset())

    def reachable(self, origin: int, destination: int) -> bool:
        """Whether a run at `origin` can still enter `destination`."""
        return destination in self.reaches.get(origin, frozenset())

    def name(self, status: int) -> str:
        """The status's name, or its number if it has none here."""
        return self.names.get(status, str(status))
