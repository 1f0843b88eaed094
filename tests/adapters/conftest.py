"""The storages that the shared tests run on: each set of adapters is to pass the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from workflow.adapters.memory import MemoryStorage, memory
from workflow.adapters.sqlite import sqlite
from workflow.clock import Clock
from workflow.protocols import Adapters


@dataclass
class Backend:
    """One storage, and the handles that a test opened on it."""

    name: str
    folder: Path
    storage: MemoryStorage = field(default_factory=MemoryStorage)
    opened: list[Adapters] = field(default_factory=list[Adapters])

    def open(self, *, clock: Clock | None = None, lease_time: float = 5.0) -> Adapters:
        """Another handle. It is closed at the end of the test, if not before."""
        if self.name == "memory":
            handle = memory(storage=self.storage, clock=clock, lease_time=lease_time)
        else:
            handle = sqlite(self.folder / "shared.db", synchronous="OFF", clock=clock, lease_time=lease_time)
        self.opened.append(handle)
        return handle


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    made = Backend(request.param, tmp_path)
    yield made
    for handle in made.opened:
        handle.close()


@pytest.fixture
def handle(backend: Backend) -> Adapters:
    """One handle on a new storage."""
    return backend.open()
