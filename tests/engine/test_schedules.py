"""Runs that start by the calendar: each slot once, whatever the filter, the time zone and the number of instances."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import IntEnum
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest

import workflow
from workflow import Adapters, Builder, InvalidInput, Outcome, Retry, Run, RunState, Workflow
from workflow.adapters.memory import MemoryStorage
from workflow.testing import START, Faulty, RecordingMetrics, VirtualClock

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


class Stage(IntEnum):
    NEW = 1
    DONE = 2


@dataclass
class Report:
    title: str = "daily"


Engine = Workflow[Report, Stage]


def quick() -> Builder[Report, Stage]:
    """Runs that end at once."""
    builder = Builder("reports", Report, Stage)
    builder.defaults(retry=Retry(initial=1, jitter=False, max_attempts=3))

    @builder.step(Stage.NEW)
    def write(run: Run[Report, Stage]) -> Literal[Stage.DONE]:
        return Stage.DONE

    return builder


def slow() -> Builder[Report, Stage]:
    """Runs that end when they are told to."""
    builder = Builder("reports", Report, Stage)

    @builder.callback(Stage.NEW)
    def end(run: Run[Report, Stage], payload: bytes) -> Literal[Stage.DONE] | Outcome:
        return Stage.DONE

    return builder


def starts(wf: Engine, foreign_id: str | None = None) -> list[datetime]:
    """When runs were started, in order."""
    return [view.created_at for view in wf.list(limit=1000, foreign_id=foreign_id).items]


def slots(*hours: float) -> list[datetime]:
    return [START + timedelta(hours=each) for each in hours]


def test_each_slot_starts_one_run_at_its_own_time(adapters: Adapters, clock: VirtualClock) -> None:
    wf = quick().build(adapters, clock=clock)
    with wf:
        wf.schedule("report", "*/20 * * * *", initial_value=Report("hourly"))
        clock.settle()
        clock.advance(2 * HOUR)
    assert starts(wf) == [START + n * 20 * MINUTE for n in range(1, 7)]
    assert {view.object.title for view in wf.list().items} == {"hourly"}
    assert {view.run_state for view in wf.list().items} == {RunState.COMPLETED}
    first = wf.list().items[0]
    assert wf.history(first.run_id)[0].by == "schedule"


def test_a_filter_chooses_among_the_slots(memory: Adapters, clock: VirtualClock, metrics: RecordingMetrics) -> None:
    wf = quick().build(memory, clock=clock, metrics=metrics)
    with wf:
        wf.schedule("report", "0 * * * *", filter=lambda slot: slot.hour % 3 == 0)
        clock.settle()
        clock.advance(9 * HOUR)
    assert starts(wf) == slots(3, 6, 9)
    assert metrics.skipped == {"filtered": 6}


def test_a_slot_that_meets_an_active_run_is_skipped_and_counted(
    memory: Adapters, clock: VirtualClock, metrics: RecordingMetrics
) -> None:
    wf = slow().build(memory, clock=clock, metrics=metrics)
    with wf:
        wf.schedule("report", "0 * * * *")
        clock.settle()
        clock.advance(3.5 * HOUR)
        assert starts(wf) == slots(1)
        assert metrics.skipped == {"run-in-progress": 2}
        (item,) = wf.items().items
        assert (item.error_type, item.due_at) == ("RunInProgress", START + 4 * HOUR), "recorded on the schedule too"
        wf.callback("report", Stage.NEW)
        clock.advance(HOUR)
    assert starts(wf) == slots(1, 4)


def test_catching_up_waits_for_the_end_of_the_run_and_makes_up_each_slot(
    memory: Adapters, clock: VirtualClock, metrics: RecordingMetrics
) -> None:
    wf = slow().build(memory, clock=clock, metrics=metrics)
    with wf:
        wf.schedule("report", "0 * * * *", catch_up=True)
        clock.settle()
        clock.advance(3.5 * HOUR)
        assert starts(wf) == slots(1)
        for expected in (2, 3, 3):
            wf.callback("report", Stage.NEW)
            clock.advance(MINUTE)
            assert len(starts(wf)) == expected
        assert metrics.skipped == {}
        clock.advance(HOUR)
        assert len(starts(wf)) == 4
    causes = [wf.history(view.run_id)[0].cause for view in wf.list().items]
    assert [cause.rpartition("/")[2] for cause in causes] == [slot.isoformat() for slot in slots(1, 2, 3, 4)]


@pytest.mark.parametrize(("catch_up", "expected"), [(False, [1, 5.5, 6]), (True, [1, 5.5, 5.5, 5.5, 5.5, 6])])
def test_slots_that_passed_while_no_process_ran(
    catch_up: bool, expected: list[float], tmp_path: Path, clock: VirtualClock
) -> None:
    path = tmp_path / "store.db"
    adapters = workflow.sqlite(path, clock=clock)
    with quick().build(adapters, clock=clock) as wf:
        wf.schedule("report", "0 * * * *", catch_up=catch_up)
        clock.settle()
        clock.advance(1.5 * HOUR)
    adapters.close()
    clock.advance(4 * HOUR)
    adapters = workflow.sqlite(path, clock=clock)
    with quick().build(adapters, clock=clock) as wf:
        clock.settle()
        clock.advance(0.6 * HOUR)
        found = [round((start - START) / HOUR, 2) for start in starts(wf)]
    adapters.close()
    assert [round(each, 1) for each in found] == expected


def test_two_instances_start_each_slot_once(clock: VirtualClock) -> None:
    storage = MemoryStorage()
    sets = [workflow.memory(clock=clock, storage=storage) for _ in range(2)]
    engines = [quick().build(each, clock=clock) for each in sets]
    for engine in engines:
        engine.run()
    for engine in engines:
        engine.schedule("report", "*/10 * * * *")
        engine.schedule("other", "*/15 * * * *")
    clock.settle()
    clock.advance(HOUR)
    engines[0].stop()
    clock.advance(HOUR)
    engines[1].stop()
    assert starts(engines[0], "report") == [START + n * 10 * MINUTE for n in range(1, 13)]
    assert starts(engines[0], "other") == [START + n * 15 * MINUTE for n in range(1, 9)]
    assert len(engines[0].items().items) == 2, "one item each, though both set them"
    for each in sets:
        each.close()


def test_a_slot_is_triggered_once_though_the_answer_was_lost(memory: Adapters, clock: VirtualClock) -> None:
    faults = Faulty(memory, clock)
    wf = quick().build(faults.adapters, clock=clock)
    with wf:
        wf.schedule("report", "0 * * * *")
        clock.settle()
        faults.fail("timeout_store.reschedule", times=3)  # triggered, and not moved on
        faults.fail("record_store.store", times=6, after_effect=True)
        clock.advance(3 * HOUR)
    assert [(start - START) // HOUR for start in starts(wf)] == [1, 2, 3]


def test_setting_a_schedule_again_replaces_it(memory: Adapters, clock: VirtualClock) -> None:
    wf = quick().build(memory, clock=clock)
    with wf:
        wf.schedule("report", "0 * * * *")
        wf.schedule("report", "0 * * * *")
        assert len(wf.items().items) == 1
        clock.settle()
        clock.advance(1.5 * HOUR)
        wf.schedule("report", "45 * * * *", initial_value=Report("new"))
        clock.advance(HOUR)
        assert len(wf.items().items) == 1
    assert starts(wf) == slots(1, 1.75)
    assert [view.object.title for view in wf.list().items] == ["daily", "new"]


def test_a_filter_that_fails_skips_its_slot_and_not_the_schedule(
    memory: Adapters, clock: VirtualClock, metrics: RecordingMetrics
) -> None:
    asked: Counter[datetime] = Counter()

    def keep(slot: datetime) -> bool:
        asked[slot] += 1
        if slot == START + 2 * HOUR:
            raise ValueError("the calendar is down")
        return True

    wf = quick().build(memory, clock=clock, metrics=metrics)
    with wf:
        wf.schedule("report", "0 * * * *", filter=keep)
        wf.schedule("other", "0 * * * *")
        clock.settle()
        clock.advance(4.5 * HOUR)
    assert starts(wf, "report") == slots(1, 3, 4)
    assert starts(wf, "other") == slots(1, 2, 3, 4)
    assert asked == {START + 1 * HOUR: 1, START + 2 * HOUR: 3, START + 3 * HOUR: 1, START + 4 * HOUR: 1}
    assert metrics.skipped == {"slot-failed": 1}


def test_a_schedule_whose_object_cannot_be_read_holds_up_no_other(
    memory: Adapters, clock: VirtualClock, metrics: RecordingMetrics
) -> None:
    @dataclass
    class Renamed:
        title: int = 0

    old = quick().build(memory, clock=clock)
    old.schedule("report", "0 * * * *", initial_value=Report("no number"))
    builder = Builder("reports", Renamed, Stage)
    builder.defaults(retry=Retry(initial=1, jitter=False, max_attempts=3))
    builder.add_step(Stage.NEW, lambda run: Stage.DONE, Stage.DONE)
    wf = builder.build(memory, clock=clock, metrics=metrics)
    with wf:
        wf.schedule("other", "0 * * * *")
        clock.settle()
        clock.advance(2.5 * HOUR)
    assert [view.foreign_id for view in wf.list().items] == ["other", "other"]
    assert metrics.skipped == {"slot-failed": 2}
    assert {item.error_type for item in wf.items().items} == {"", "CodecError"}


def test_a_process_without_the_filter_leaves_the_slot_to_one_that_has_it(clock: VirtualClock) -> None:
    storage = MemoryStorage()
    sets = [workflow.memory(clock=clock, storage=storage) for _ in range(2)]
    first, second = (quick().build(each, clock=clock) for each in sets)
    with first:
        first.schedule("report", "0 * * * *", filter=lambda slot: True)
        clock.settle()
    with second:
        clock.settle()
        clock.advance(1.5 * HOUR)
        assert starts(second) == []
        second.schedule("report", "0 * * * *", filter=lambda slot: True)
        clock.advance(HOUR)
    causes = [second.history(view.run_id)[0].cause for view in second.list().items]
    assert [cause.rpartition("/")[2] for cause in causes] == [slot.isoformat() for slot in slots(1, 2)]
    for each in sets:
        each.close()


def _has_zones() -> bool:
    try:
        ZoneInfo("Europe/Berlin")
    except ZoneInfoNotFoundError:
        return False
    return True


@pytest.mark.skipif(not _has_zones(), reason="this machine has no time zone data")
@pytest.mark.parametrize(
    ("begin", "expected"),
    [
        # on March 31 the clocks go from 02:00 to 03:00: the slot runs at the next minute that exists
        (datetime(2024, 3, 30, 12, tzinfo=timezone.utc), ["03-31 01:00", "04-01 00:30", "04-02 00:30"]),
        # on October 27 the hour from 02:00 comes twice: the slot runs once, the first time
        (datetime(2024, 10, 26, 12, tzinfo=timezone.utc), ["10-27 00:30", "10-28 01:30", "10-29 01:30"]),
    ],
)
def test_a_time_zone_changes_its_clocks(begin: datetime, expected: list[str]) -> None:
    clock = VirtualClock(begin)
    memory = workflow.memory(clock=clock)
    wf = quick().build(memory, clock=clock)
    with wf:
        wf.schedule("report", "30 2 * * *", zone="Europe/Berlin")
        clock.settle()
        for _ in range(3):
            clock.advance(24 * HOUR)
    assert [f"{start:%m-%d %H:%M}" for start in starts(wf)] == expected
    memory.close()


@pytest.mark.parametrize(
    ("foreign_id", "spec", "zone"),
    [
        ("report", "61 * * * *", "UTC"),
        ("report", "* * * *", "UTC"),
        ("report", "0 0 30 2 *", "UTC"),
        ("report", "0 * * * *", "Europe/Atlantis"),
        ("", "0 * * * *", "UTC"),
    ],
)
def test_what_cannot_be_scheduled_is_refused_at_once(
    foreign_id: str, spec: str, zone: str, memory: Adapters, clock: VirtualClock
) -> None:
    wf = quick().build(memory, clock=clock)
    with pytest.raises(InvalidInput, match=r"."):
        wf.schedule(foreign_id, spec, zone=zone)
    assert wf.items().items == ()
