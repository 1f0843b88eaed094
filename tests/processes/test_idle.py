"""Nothing to do costs nothing."""

from __future__ import annotations

import pytest

from tests.processes.support import Site, Worker


@pytest.mark.parametrize(("kind", "limit"), [("memory", 0.01), ("sqlite", 0.02)])
def test_ten_idle_workflows_take_next_to_no_processor_time(site: Site, kind: str, limit: float) -> None:
    """The least of a few windows counts: what else the machine does makes all that a process does more expensive."""
    worker = Worker("idle", path=site.path if kind == "sqlite" else "", seconds=5.0, windows=3, limit=limit)
    site.workers.append(worker)
    share = worker.hear()
    assert share < limit, f"{share:.2%} of a core"
