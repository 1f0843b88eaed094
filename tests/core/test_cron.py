"""Cron specifications: the fields, the days, the zones, and what is refused."""

from __future__ import annotations

import sys
import zoneinfo
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from itertools import islice

import pytest

from workflow.cron import Cron
from workflow.errors import InvalidInput

UTC = timezone.utc


def at(text: str) -> datetime:
    """The instant in UTC, as in `2024-03-10 02:30`."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def times(spec: str, after: str, count: int, zone: str = "UTC") -> list[str]:
    """The next instants in UTC, as text."""

    def walk() -> Iterator[str]:
        cron, instant = Cron.parse(spec, zone), at(after)
        while True:
            instant = cron.next(instant)
            yield instant.strftime("%Y-%m-%d %H:%M")

    return list(islice(walk(), count))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("* * * * *", ["2024-05-15 10:08", "2024-05-15 10:09"]),
        ("*/15 * * * *", ["2024-05-15 10:15", "2024-05-15 10:30"]),
        ("1-30/2 * * * *", ["2024-05-15 10:09", "2024-05-15 10:11"]),
        ("5/15 * * * *", ["2024-05-15 10:20", "2024-05-15 10:35"]),
        ("50/15 * * * *", ["2024-05-15 10:50", "2024-05-15 11:50"]),
        ("3,59 23 * * *", ["2024-05-15 23:03", "2024-05-15 23:59"]),
        ("0 9-17/4 * * *", ["2024-05-15 13:00", "2024-05-15 17:00"]),
        ("0 0 1 */6 *", ["2024-07-01 00:00", "2025-01-01 00:00"]),
        ("0 0 31 * *", ["2024-05-31 00:00", "2024-07-31 00:00"]),
        ("0 0 29 2 *", ["2028-02-29 00:00", "2032-02-29 00:00"]),
        ("0 0 1 feb-Apr *", ["2025-02-01 00:00", "2025-03-01 00:00"]),
        ("0 0 1 DEC,jan *", ["2024-12-01 00:00", "2025-01-01 00:00"]),
        ("0 0 * * MON-fri/2", ["2024-05-17 00:00", "2024-05-20 00:00"]),
        ("0 0 * * 7", ["2024-05-19 00:00", "2024-05-26 00:00"]),
        ("0 0 * * 0", ["2024-05-19 00:00", "2024-05-26 00:00"]),
        ("0 0 * * 6-7", ["2024-05-18 00:00", "2024-05-19 00:00"]),
        ("0 0 * * SAT-SUN", ["2024-05-18 00:00", "2024-05-19 00:00"]),
        ("  0\t0  1 1   * ", ["2025-01-01 00:00", "2026-01-01 00:00"]),
        ("@hourly", ["2024-05-15 11:00", "2024-05-15 12:00"]),
        ("@daily", ["2024-05-16 00:00", "2024-05-17 00:00"]),
        ("@midnight", ["2024-05-16 00:00", "2024-05-17 00:00"]),
        ("@weekly", ["2024-05-19 00:00", "2024-05-26 00:00"]),
        ("@monthly", ["2024-06-01 00:00", "2024-07-01 00:00"]),
        ("@yearly", ["2025-01-01 00:00", "2026-01-01 00:00"]),
        ("@Annually", ["2025-01-01 00:00", "2026-01-01 00:00"]),
    ],
)
def test_the_next_times_of_a_spec(spec: str, expected: list[str]) -> None:
    assert times(spec, "2024-05-15 10:07", 2) == expected  # a Wednesday


def test_next_is_strictly_after() -> None:
    cron = Cron.parse("30 10 * * *")
    assert cron.next(at("2024-05-15 10:29:59.999999")) == at("2024-05-15 10:30")
    assert cron.next(at("2024-05-15 10:30")) == at("2024-05-16 10:30")
    assert cron.next(at("2024-05-15 10:30:00.000001")) == at("2024-05-16 10:30")


def test_next_takes_any_zone_and_answers_in_utc() -> None:
    after = datetime(2024, 5, 15, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
    found = Cron.parse("@daily").next(after)
    assert found == at("2024-05-17")
    assert found.tzinfo is UTC


def test_29_february_is_found_across_a_century_without_leap_day() -> None:
    assert times("0 0 29 2 *", "2096-03-01 00:00", 1) == ["2104-02-29 00:00"]


# --- the two day fields ---------------------------------------------------------------------------------------------


def test_two_restricted_day_fields_mean_either() -> None:
    assert times("0 0 13 * FRI", "2024-09-01 00:00", 3) == ["2024-09-06 00:00", "2024-09-13 00:00", "2024-09-20 00:00"]
    assert times("0 0 13 * FRI", "2024-10-12 00:00", 1) == ["2024-10-13 00:00"]  # a Sunday


def test_a_day_field_that_starts_with_a_star_must_fit_as_well() -> None:
    assert times("0 0 */2 * MON", "2024-05-01 00:00", 2) == ["2024-05-13 00:00", "2024-05-27 00:00"]
    assert times("0 0 29 2 */7", "2024-01-01 00:00", 2) == ["2032-02-29 00:00", "2060-02-29 00:00"]


def test_a_weekday_rescues_a_day_that_never_comes() -> None:
    assert times("0 0 30 2 MON", "2024-02-01 00:00", 2) == ["2024-02-05 00:00", "2024-02-12 00:00"]


# --- time zones -----------------------------------------------------------------------------------------------------


def test_a_slot_that_does_not_exist_runs_at_the_next_minute_that_does() -> None:
    new_york = "America/New_York"  # 2024-03-10: 02:00 EST, which is 07:00 UTC, becomes 03:00 EDT
    assert times("30 2 * * *", "2024-03-09 12:00", 2, new_york) == ["2024-03-10 07:00", "2024-03-11 06:30"]


def test_slots_that_meet_at_the_end_of_a_gap_run_once() -> None:
    found = times("*/30 2-3 * * *", "2024-03-10 05:00", 3, "America/New_York")
    assert found == ["2024-03-10 07:00", "2024-03-10 07:30", "2024-03-11 06:00"]


def test_a_slot_that_comes_twice_runs_the_first_time() -> None:
    new_york = "America/New_York"  # 2024-11-03: 02:00 EDT, which is 06:00 UTC, becomes 01:00 EST
    assert times("30 1 * * *", "2024-11-02 12:00", 2, new_york) == ["2024-11-03 05:30", "2024-11-04 06:30"]
    assert times("30 1 * * *", "2024-11-03 06:10", 1, new_york) == ["2024-11-04 06:30"]


def test_a_wildcard_is_silent_in_the_second_pass_too() -> None:
    found = times("*/30 * * * *", "2024-11-03 04:30", 4, "America/New_York")
    assert found == ["2024-11-03 05:00", "2024-11-03 05:30", "2024-11-03 07:00", "2024-11-03 07:30"]


def test_a_day_that_a_zone_skipped_runs_at_the_start_of_the_next() -> None:
    # Samoa went from the end of 29 December 2011, which is 10:00 UTC, to 31 December.
    assert times("0 12 * * *", "2011-12-29 22:00", 2, "Pacific/Apia") == ["2011-12-30 10:00", "2011-12-30 22:00"]


def test_a_shift_of_half_an_hour() -> None:
    # Lord Howe Island, 2024-10-06: 02:00 becomes 02:30, at 15:30 UTC of the day before.
    assert times("15 2 * * *", "2024-10-05 00:00", 1, "Australia/Lord_Howe") == ["2024-10-05 15:30"]


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        ("UTC", "UTC"),
        (UTC, "UTC"),
        (timezone(timedelta(hours=5, minutes=45), "NPT"), "UTC+05:45"),
        ("UTC-03:30", "UTC-03:30"),
        (zoneinfo.ZoneInfo("Asia/Kathmandu"), "Asia/Kathmandu"),
        ("Asia/Kathmandu", "Asia/Kathmandu"),
    ],
)
def test_a_cron_can_be_stored_and_rebuilt(zone: str | tzinfo, name: str) -> None:
    cron = Cron.parse("0  9 * * MON", zone)
    assert (cron.spec, cron.zone, str(cron)) == ("0 9 * * MON", name, f"0 9 * * MON {name}")
    rebuilt = Cron.parse(cron.spec, cron.zone)
    assert rebuilt == cron
    assert hash(rebuilt) == hash(cron)
    assert rebuilt.next(at("2024-05-15 10:07")) == cron.next(at("2024-05-15 10:07"))
    assert cron != Cron.parse("0 9 * * MON", "Europe/Paris")
    assert cron != Cron.parse("0 9 * * TUE", zone)


def test_a_fixed_offset() -> None:
    assert times("0 9 * * *", "2024-05-15 00:00", 1, "UTC+05:45") == ["2024-05-15 03:15"]
    assert times("0 9 * * *", "2024-05-15 00:00", 1, "UTC-03:30") == ["2024-05-15 12:30"]


class Nameless(tzinfo):
    """A zone of the caller's own."""

    def utcoffset(self, dt: datetime | None, /) -> timedelta:
        return timedelta(0)

    def dst(self, dt: datetime | None, /) -> timedelta:
        return timedelta(0)

    def tzname(self, dt: datetime | None, /) -> str:
        return "Nowhere"


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("60 * * * *", "field minute: '60': .*allowed are 0-59,"),
        ("* 24 * * *", "field hour: '24': .*allowed are 0-23,"),
        ("* * 0 * *", "field day-of-month: '0': .*allowed are 1-31,"),
        ("* * * 13 *", "field month: '13': .*allowed are 1-12 or JAN-DEC,"),
        ("* * * JANUARY *", "field month: 'JANUARY': "),
        ("* * * * 8", "field day-of-week: '8': .*allowed are 0-7 or SUN-SAT,"),
        ("* * * * 7-2", "field day-of-week: '7-2': the range is backwards"),
        ("30-10 * * * *", "field minute: '30-10': the range is backwards"),
        ("30-0 * * * *", "field minute: '30-0': the range is backwards"),
        ("*/0 * * * *", "field minute: '\\*/0': the step must be 1-60"),
        ("* */25 * * *", "field hour: '\\*/25': the step must be 1-24"),
        ("1,,2 * * * *", "field minute: '': "),
        ("*5 * * * *", "field minute: '\\*5': "),
        ("*-5 * * * *", "field minute: '\\*-5': "),
        ("1-2-3 * * * *", "field minute: '1-2-3': "),
        ("-1 * * * *", "field minute: '-1': "),
        ("1.5 * * * *", "field minute: '1.5': "),
        ("MON * * * *", "field minute: 'MON': "),
        ("\u0663 * * * *", "field minute: '\u0663': "),  # a digit, but not one of ours
        (f"{'9' * 5000} * * * *", "field minute: '9{5000}': "),
        ("* * L * *", "field day-of-month: 'L': "),
        ("* * * * 5#2", "field day-of-week: '5#2': "),
        ("0 0 30 2 *", "field day-of-month: '30' never comes in month '2'"),
        ("0 0 30,31 FEB *", "field day-of-month: '30,31' never comes in month 'FEB'"),
        ("0 0 31 4,6,9,11 *", "field day-of-month: '31' never comes in month '4,6,9,11'"),
        ("", "cron spec '': 0 fields; allowed are five \\(minute hour day-of-month month day-of-week\\)"),
        ("* * * *", "4 fields"),
        ("* * * * * *", "6 fields"),
        ("@reboot", "cron spec '@reboot': .* or one of @hourly @daily"),
    ],
)
def test_a_bad_spec_is_refused_with_its_field_and_what_is_allowed(spec: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Cron.parse(spec)


def test_a_naive_datetime_is_refused() -> None:
    with pytest.raises(InvalidInput, match="aware"):
        Cron.parse("@daily").next(datetime(2024, 1, 1))  # noqa: DTZ001 - being naive is the point


@pytest.mark.parametrize(
    "zone", ["Europe/Atlantis", "", "..", "../UTC", "/etc/localtime", "America", "a\0b", "UTC+25:00"]
)
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidInput, match="not known here; allowed are names such as Europe/Paris"):
        Cron.parse("@daily", zone)


def test_a_zone_without_a_name_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"give a name, a ZoneInfo or a datetime\.timezone"):
        Cron.parse("@daily", Nameless())


def test_a_machine_without_time_zone_data(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["tzdata", *sys.modules]:
        if name.split(".")[0] == "tzdata":
            monkeypatch.setitem(sys.modules, name, None)  # importing it fails, installed or not
    zoneinfo.ZoneInfo.clear_cache()
    zoneinfo.reset_tzpath(to=())
    try:
        with pytest.raises(InvalidInput, match="no time zone data; add tzdata"):
            Cron.parse("@daily", "Europe/Paris")
        assert Cron.parse("@daily", "UTC").next(at("2024-01-01")) == at("2024-01-02")
        assert Cron.parse("@daily", "UTC+02:00").next(at("2024-01-01")) == at("2024-01-01 22:00")
    finally:
        zoneinfo.reset_tzpath()


def test_the_end_of_the_calendar() -> None:
    with pytest.raises(InvalidInput, match="no time after"):
        Cron.parse("@yearly").next(at("9999-12-31 23:59"))
    with pytest.raises(InvalidInput, match="no time after"):
        Cron.parse("0 0 29 2 *", "Asia/Tokyo").next(at("9999-12-31 23:59"))
