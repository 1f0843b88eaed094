"""Who holds the roles when processes come, go, die and freeze; and that nothing is lost or doubled by it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from tests.processes.jobs import Job, role_count
from tests.processes.support import DEADLINE, Site, Worker, wait_for

SHARDS = 3
ROLES = role_count(SHARDS)
LEASE = 1.0
BOUND = 3 * LEASE
"""Seconds within which a dead process's roles are with another. One lease time, and a look or two before and after."""
SLACK = 6.0
"""Seconds for which a busy machine may leave a process without a processor."""
ENDLESS = 600.0
"""A lease time that no test waits for: what moves under it does not move because time is up."""


def serving(site: Site, count: int, lease_time: float = LEASE) -> list[Worker]:
    """So many processes, each with its share of the roles."""
    workers = [site.serve(lease_time=lease_time, shards=SHARDS) for _ in range(count)]
    wait_for_shares(workers)
    return workers


def wait_for_shares(workers: Sequence[Worker], seconds: float = DEADLINE) -> None:
    """Wait until they hold all roles, and none holds two more than another."""

    def shared() -> bool:
        counts: list[int] = [worker.ask("held") for worker in workers]
        return sum(counts) == ROLES and max(counts) - min(counts) <= 1

    wait_for(shared, f"a fair share of {ROLES} roles for each of {len(workers)}", seconds)


def test_the_roles_of_a_killed_process_move_within_the_bound(site: Site) -> None:
    first, second = serving(site, 2)
    run_ids = site.trigger(100, "before", Job(pace=0.005))
    site.wait_for_effects(50)
    first.kill()
    wait_for(lambda: second.ask("held") == ROLES, "all roles with the one that is left", BOUND + SLACK)
    site.assert_all_is_well(run_ids)


def test_a_frozen_process_loses_its_roles_and_does_no_harm_when_it_wakes(site: Site) -> None:
    workers = serving(site, 2)
    gate = site.folder / "open"
    run_ids = site.trigger(30, "gated", Job(gate=str(gate)))
    site.wait_for_effects(1)
    # It has a step in hand, which it will finish after the other one has done the work.
    frozen = next(worker for worker in workers if worker.pid == site.effects.read()[0].process)
    other = next(worker for worker in workers if worker is not frozen)
    freeze_outside_of_a_transaction(site, frozen)
    wait_for(lambda: other.ask("held") == ROLES, "all roles with the one that is awake", BOUND + SLACK)
    gate.touch()
    site.wait_for_ends()
    frozen.thaw()
    wait_for_shares(workers)
    run_ids += site.trigger(30, "after")
    site.assert_all_is_well(run_ids)
    frozen.stop()
    other.stop()


def freeze_outside_of_a_transaction(site: Site, worker: Worker) -> None:
    """Freeze it while it does not hold the lock of the file, under which nobody could do anything."""
    wf, number = site.jobs(), 0
    while True:
        worker.freeze()
        written = threading.Event()

        def write(foreign_id: str = f"lock-{number}", done: threading.Event = written) -> None:
            wf.cancel(wf.trigger(foreign_id))
            done.set()

        thread = threading.Thread(target=write)
        thread.start()
        if written.wait(2.0):
            thread.join()
            return
        worker.thaw()
        thread.join()
        number += 1


def test_a_process_that_froze_with_the_write_lock_holds_nobody_up_once_it_is_gone(site: Site) -> None:
    first, second = serving(site, 2)
    run_ids = site.trigger(50, "before", Job(pace=0.01))
    assert first.ask("lock") == "locked"
    first.freeze()
    threading.Event().wait(2 * LEASE)  # all wait for the lock, for longer than any lease lasts
    first.kill()
    wait_for(lambda: second.ask("held") == ROLES, "all roles with the one that is left", BOUND + SLACK)
    run_ids += site.trigger(20, "after")
    site.assert_all_is_well(run_ids)
    second.stop()


def test_who_stops_hands_over_and_who_joins_gets_a_share_at_once(site: Site) -> None:
    """No lease runs out here, so each of these moves is one that was agreed on."""
    first, second = serving(site, 2, ENDLESS)
    run_ids = site.trigger(100, "before", Job(pace=0.005))
    third = site.serve(lease_time=ENDLESS, shards=SHARDS)
    wait_for_shares([first, second, third])
    first.stop()
    wait_for_shares([second, third], BOUND + SLACK)
    second.stop()
    wait_for(lambda: third.ask("held") == ROLES, "all roles with the last one")
    site.assert_all_is_well(run_ids)
    third.stop()
