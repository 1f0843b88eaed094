"""A store with runs in it, for the commands that look and act."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.cli.shop import Order, Status, shop
from tests.cli.support import DEADLINE, Cli, wait_until
from workflow import RunState, Workflow, sqlite


@dataclass(frozen=True)
class Shop:
    """A workflow that was served once, and is not now; the run ids of its orders, by foreign id."""

    url: str
    workflow: Workflow[Order, Status]
    ids: dict[str, str]


def _is_paused(workflow: Workflow[Order, Status], run_id: str) -> bool:
    return workflow.get(run_id).run_state is RunState.PAUSED


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Shop]:
    """Of four orders one is done, one waits for its arrival, one was paused by its step, one by the engine."""
    file = tmp_path / "shop.db"
    adapters = sqlite(file)
    workflow = shop.build(adapters)
    asked = {"done": Order(5), "sent": Order(0), "asks": Order(7, ask=True), "fails": Order(-1)}
    try:
        with workflow:
            ids = {name: workflow.trigger(name, initial_value=order, by="test") for name, order in asked.items()}
            workflow.await_status("done", ids["done"], Status.DONE, timeout=DEADLINE)
            workflow.await_status("sent", ids["sent"], Status.SENT, timeout=DEADLINE)
            for name in ("asks", "fails"):
                wait_until(partial(_is_paused, workflow, ids[name]), f"{name} is paused")
            wait_until(lambda: bool(workflow.items(ids["sent"]).items), "the timer")
        yield Shop(f"sqlite:///{file}", workflow, ids)
    finally:
        adapters.close()


@pytest.fixture
def cli(served: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line on that store. The environment names none."""
    for name in ("WORKFLOW_ADAPTERS", "DATABASE_URL", "KAFKA_BROKERS"):
        monkeypatch.delenv(name, raising=False)
    return Cli(served.url, capsys)
