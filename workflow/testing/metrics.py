"""Metrics that keep what they are told, so that a test can look at it."""

from __future__ import annotations

import threading


class RecordingMetrics:
    """A `Metrics` for tests. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self._gauges: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self._observed: dict[str, list[float]] = {}

    # what the engine calls

    def count(self, name: str, value: float = 1, **labels: str) -> None:
        key = (name, frozenset(labels.items()))
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + value

    def gauge(self, name: str, value: float, **labels: str) -> None:
        with self._lock:
            self._gauges[name, frozenset(labels.items())] = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        with self._lock:
            self._observed.setdefault(name, []).append(value)

    # what a test asks

    def total(self, name: str, **labels: str) -> float:
        """The sum of a counter, over all of its series that have these labels."""
        wanted = set(labels.items())
        with self._lock:
            return sum(value for (known, has), value in self._counts.items() if known == name and wanted <= has)

    def by(self, label: str, name: str) -> dict[str, float]:
        """A counter's sums for each value of one label."""
        sums: dict[str, float] = {}
        with self._lock:
            for (known, has), value in self._counts.items():
                if known == name and label in dict(has):
                    told = dict(has)[label]
                    sums[told] = sums.get(told, 0) + value
        return sums

    @property
    def skipped(self) -> dict[str, float]:
        """How much was not acted on, by reason."""
        return self.by("reason", "workflow_skipped_total")

    def last(self, name: str, **labels: str) -> float | None:
        """The last value of a gauge that has these labels."""
        wanted = set(labels.items())
        with self._lock:
            found = [value for (known, has), value in self._gauges.items() if known == name and wanted <= has]
        return found[-1] if found else None

    def observations(self, name: str) -> list[float]:
        with self._lock:
            return list(self._observed.get(name, ()))


def recording_metrics() -> RecordingMetrics:
    """Metrics that keep their figures: `build(…, metrics=recording_metrics())`."""
    return RecordingMetrics()
