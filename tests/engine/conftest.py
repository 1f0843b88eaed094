"""Both embedded sets of adapters, for tests that must hold on each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import workflow
from workflow import Adapters

Make = Callable[[], Adapters]


@pytest.fixture(params=["memory", "sqlite"])
def adapters(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Adapters]:
    """A fresh set, closed at the end."""
    made = workflow.memory() if request.param == "memory" else workflow.sqlite(tmp_path / "store.db")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def open_sqlite(tmp_path: Path) -> Iterator[Make]:
    """Opens one SQLite file, any number of times."""
    opened: list[Adapters] = []

    def make() -> Adapters:
        opened.append(workflow.sqlite(tmp_path / "shared.db", lease_time=1.0))
        return opened[-1]

    try:
        yield make
    finally:
        for each in opened:
            each.close()
