"""Both embedded sets of adapters, for tests that must hold on each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import workflow
from workflow import Adapters
from workflow.testing import RecordingMetrics, VirtualClock, recording_metrics


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def metrics() -> RecordingMetrics:
    return recording_metrics()


def clock_of(request: pytest.FixtureRequest) -> VirtualClock | None:
    """The test's virtual clock, if it takes one; else its adapters live in real time."""
    return request.getfixturevalue("clock") if "clock" in request.fixturenames else None


@pytest.fixture(params=["memory", "sqlite"])
def adapters(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Adapters]:
    """A fresh set of each kind, closed at the end."""
    clock = clock_of(request)
    made = (
        workflow.memory(clock=clock)
        if request.param == "memory"
        else workflow.sqlite(tmp_path / "store.db", clock=clock)
    )
    yield made
    made.close()


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> Iterator[Adapters]:
    """A fresh set in memory, for what is the same on every set."""
    made = workflow.memory(clock=clock_of(request))
    yield made
    made.close()
