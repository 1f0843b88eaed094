"""Waiting for a status while the run moves on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from tests.engine.orders import Status, order_builder
from workflow import Adapters, Record
from workflow.protocols import RecordStore


class Overtaken:
    """A record store on which something happens right after the first look-up."""

    def __init__(self, store: RecordStore, meanwhile: Callable[[], object]) -> None:
        self._store = store
        self._meanwhile: Callable[[], object] | None = meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def lookup(self, run_ids: Sequence[str]) -> list[Record | None]:
        records = self._store.lookup(run_ids)
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return records


def test_a_run_that_arrives_between_record_and_history_is_shown_where_it_arrived(adapters: Adapters) -> None:
    wf = order_builder().build(adapters)
    run_id = wf.trigger("a", start_at=Status.PAID)
    wf.pause(run_id)
    wf.resume(run_id)  # so that there is a history to look at

    def deliver() -> None:
        with wf:
            wf.await_status("a", run_id, Status.DELIVERED, timeout=20)

    store = cast("RecordStore", Overtaken(adapters.record_store, deliver))
    watching = order_builder().build(adapters.replace(record_store=store))
    run = watching.await_status("a", run_id, Status.DELIVERED, timeout=20)
    assert run.status is Status.DELIVERED
    assert run.object.log == ["deliver"]
