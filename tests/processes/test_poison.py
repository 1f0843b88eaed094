"""A run that kills its process: it is tried again alone, more and more rarely, and at last paused; the others go on."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from tests.processes.jobs import Job, Stage, assert_done_once
from tests.processes.support import Site, Worker, wait_for
from workflow import RunState, Trigger
from workflow.testing import wait_for_state

TRIES = 3
INNOCENT = 40


def supervise(site: Site, worker: Worker, until: Callable[[], bool]) -> tuple[Worker, int]:
    """Start the worker again whenever it dies, until the condition holds. The last worker, and how many died."""
    deaths = 0
    holds = False

    def done() -> bool:
        nonlocal holds
        holds = until()
        return holds or worker.ended

    while not holds:
        wait_for(done)
        if worker.ended:
            deaths += 1
            worker = site.start_serving(lease_time=0.5, max_attempts=TRIES)
    return worker, deaths


def test_a_run_that_kills_its_process_is_paused_at_last_and_no_other_is(site: Site) -> None:
    wf = site.jobs()
    poison = site.folder / "poison"
    poison.touch()
    jobs: list[Trigger[Job, Stage]] = [Trigger(f"innocent-{number}", Job()) for number in range(INNOCENT)]
    jobs.insert(INNOCENT // 4, Trigger("poisoned", Job(poison=str(poison))))
    run_ids = [answer for answer in wf.trigger_many(jobs) if isinstance(answer, str)]
    poisoned = run_ids.pop(INNOCENT // 4)

    worker = site.start_serving(lease_time=0.5, max_attempts=TRIES)
    worker, deaths = supervise(site, worker, lambda: wf.get(poisoned).run_state is RunState.PAUSED)

    assert worker.hear() == "ready"
    # The first death is nobody's in particular; each later one is of a try of the poisoned run, which was alone.
    assert deaths == TRIES + 1
    rows = wf.history(poisoned)
    assert [row.attempt for row in rows] == [0, *range(1, TRIES + 1), TRIES]
    assert rows[-1].run_state is RunState.PAUSED
    assert rows[-1].reason == f"first may have ended its process {TRIES} times"
    began = [effect.at for effect in site.effects.read() if effect.run_id == poisoned]
    assert len(began) == deaths
    gaps = [after - before for before, after in itertools.pairwise(began)]
    assert all(gap >= 0.1 * 2**tried for tried, gap in enumerate(gaps[1:])), gaps

    for run_id in run_ids:
        wait_for_state(wf, run_id, RunState.COMPLETED, timeout=60.0)
    assert_done_once(wf, run_ids)
    # A suspect that another reader had in hand may be blamed too, but no death blames more than one.
    blamed = [row for run_id in run_ids for row in wf.history(run_id) if row.attempt > 1]
    assert len(blamed) <= deaths

    poison.unlink()
    wf.resume(poisoned, by="ann", reason="cured")
    wf.await_status("poisoned", poisoned, Stage.DONE, timeout=60.0)
    worker.stop()
    assert len({effect.key for effect in site.effects.read() if effect.run_id == poisoned}) == 2
