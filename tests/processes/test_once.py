"""The same thing, told by several processes at once, takes effect once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.processes.jobs import Stage, assert_done_once
from tests.processes.programs import counting
from tests.processes.support import Site, Worker
from workflow import RunState

PROCESSES, THREADS = 4, 4


@pytest.mark.parametrize("with_keys", [False, True], ids=["without keys", "with keys"])
def test_sixteen_threads_of_four_processes_start_one_run(site: Site, with_keys: bool) -> None:
    foreign_ids = [f"order-{number}" for number in range(10)]
    workers = [
        site.start("trigger_same", threads=THREADS, foreign_ids=foreign_ids, with_keys=with_keys)
        for _ in range(PROCESSES)
    ]
    told = _all_at_once(workers)
    wf = site.jobs()
    runs = {run.foreign_id: run.run_id for run in wf.list(limit=1000).items}
    assert len(wf.list(limit=1000).items) == len(foreign_ids)
    for foreign_id in foreign_ids:
        answers = Counter(answer for worker in told for name, answer in worker if name == foreign_id)
        if with_keys:
            assert answers == {runs[foreign_id]: PROCESSES * THREADS}
        else:
            assert answers == {runs[foreign_id]: 1, None: PROCESSES * THREADS - 1}
        assert [row.version for row in wf.history(runs[foreign_id])] == [1]


def test_a_callbacks_key_takes_effect_once(site: Site) -> None:
    wf = counting().build(site.open())
    run_id = wf.trigger("one", initial_value=[])
    keys = [f"key-{number}" for number in range(10)] + ["last"]
    workers = [site.start("callback_same", threads=THREADS, keys=keys) for _ in range(PROCESSES)]
    told = _all_at_once(workers)
    assert [answer for worker in told for answer in worker] == [True] * (PROCESSES * THREADS * len(keys))
    run = wf.get(run_id)
    assert run.status is Stage.DONE
    assert Counter(run.object) == Counter(keys)
    causes = Counter(row.cause for row in wf.history(run_id) if row.cause)
    assert len(causes) == len(keys)
    assert set(causes.values()) == {1}
    assert wf.callback("one", Stage.FIRST, b"key-0", idempotency_key="key-0")  # its run has ended: seen before


def test_a_connectors_event_takes_effect_once(site: Site) -> None:
    """Each process has the connector in another number of shards, so each holds roles, and all get all events."""
    wf = counting().build(site.open())
    events = 10
    workers = [site.start("connect_same", shards=shards, events=events) for shards in range(1, PROCESSES + 1)]
    _all_at_once(workers)
    runs = wf.list(limit=1000).items
    assert sorted(run.foreign_id for run in runs) == sorted(f"order-{number}" for number in range(events))
    for run in runs:
        assert run.object == ["first", "last"]
        assert run.run_state is RunState.COMPLETED
        assert [row.version for row in wf.history(run.run_id)] == [1, 2, 3]


def test_triggering_and_waiting_need_no_processes_of_their_own(site: Site) -> None:
    site.serve()
    run_ids, threads = site.start("trigger_and_wait", count=20).hear()
    assert threads == 1
    assert len(run_ids) == 20
    assert_done_once(site.jobs(), run_ids)


def _all_at_once(workers: list[Worker]) -> list[Any]:
    """Let them go when all are ready; what each tells at the end."""
    for worker in workers:
        assert worker.hear() == "ready"
    for worker in workers:
        worker.send("go")
    return [worker.hear() for worker in workers]
