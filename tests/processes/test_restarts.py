"""Work that outlives its processes: under another number of shards, under other code, under repeated kills."""

from __future__ import annotations

import pytest

from tests.processes.jobs import Job
from tests.processes.support import Site, Worker, wait_for


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_every_run_arrives_under_one_seven_and_three_shards(site: Site, end: str) -> None:
    run_ids: list[str] = []
    for shards in (1, 7, 3):
        worker = site.serve(shards=shards, lease_time=0.5)
        done = len(site.effects.read())
        run_ids += site.trigger(100, f"under-{shards}", Job(pace=0.002))
        # Some runs are through, some in hand, most have not begun.
        site.wait_for_effects(done + 50)
        if shards == 3:
            site.wait_for_ends()
        if end == "stopped":
            worker.stop()
        else:
            worker.kill()
    site.assert_all_is_well(run_ids)


def test_three_kills_in_the_middle_of_a_load_lose_nothing_and_double_nothing(site: Site) -> None:
    def start() -> Worker:
        return site.serve(shards=2, lease_time=0.5)

    worker = start()
    run_ids = site.trigger(500, "load")
    for kill in range(1, 4):
        site.wait_for_effects(250 * kill)
        worker.kill()
        worker = start()
    site.wait_for_ends()
    worker.stop()
    site.assert_all_is_well(run_ids)
    # What was done twice was in hand at a kill, and the outside world can tell by its key.
    assert len({effect.key for effect in site.effects.read()}) == 2 * len(run_ids)


def test_old_and_new_code_side_by_side_lose_no_field(site: Site) -> None:
    """Both serve the same runs, each having its share of the roles; only the new one knows all fields."""
    old, new = site.start("serve_version", new=False), site.start("serve_version", new=True)
    assert [old.hear(), new.hear()] == ["ready", "ready"]
    wait_for(lambda: abs(old.ask("held") - new.ask("held")) <= 1 < old.ask("held"), "a share for both")
    told = new.ask("trigger")
    through_both = 0
    for number, (instances, steps, note, zip_code, tags) in enumerate(told):
        assert (note, zip_code, tags) == (f"note {number}", f"zip {number}", ["x", str(number)])
        assert sorted(steps) == ["a", "b", "c", "d"]
        through_both += {"old", "new"} <= set(instances)
    assert through_both > 0
    old.stop()
    new.stop()
