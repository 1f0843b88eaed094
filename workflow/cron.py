"""When does a cron specification fire next?

Five fields, `minute hour day-of-month month day-of-week`, say which minutes of the clock on the wall are meant: the
*slots*. Finding the next one goes in two steps, which know nothing of each other:

- `_Calendar` finds the next slot on a wall clock that never jumps. It moves by field (to the next month, day, hour,
  minute that is named), so that a slot eight years away costs no more than a few hundred comparisons.
- `_instant` tells when the wall clock of a time zone shows that slot. A slot that does not exist, since the clock was
  put forward over it, runs at the next minute that does. One that comes twice, since the clock was put back, runs once:
  the first time.

That rule holds for every specification, `*/30 * * * *` too: in the hour that comes twice it runs at :00 and :30 of the
first pass only, and is silent for the second. Whoever wants every half hour of real time asks for the zone UTC.

    item   *   5   JAN   1-5   MON-FRI   */15   1-30/2   5/15 (from 5 to the end)
    field  item, or several with commas
    macro  @hourly @daily @midnight @weekly @monthly @yearly @annually

Weekdays count from Sunday, 0 or 7. When both day fields are restricted, a day that fits either is meant. A field that
starts with `*` is not restricted, and then a day must fit both: `*/2` for the day and MON mean odd Mondays.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from math import ceil
from typing import NamedTuple

from .clock import UTC
from .errors import InvalidInput

_MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)
_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

_ITEM = re.compile(r"(?:\*|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>\d{1,2}))?", re.ASCII)
_FIXED_OFFSET = re.compile(r"UTC(?P<sign>[+-])(?P<hours>[01]\d|2[0-3]):(?P<minutes>[0-5]\d)", re.ASCII)


@dataclass(frozen=True)
class Cron:
    """A parsed specification in its time zone. Make one with `Cron.parse`.

    Store `spec` and `zone`, and parse them again: the result is equal.
    """

    spec: str
    zone: str
    """A name such as `Europe/Paris`, `UTC` or `UTC+02:00`."""
    _calendar: _Calendar = field(repr=False, compare=False)
    _tzinfo: tzinfo = field(repr=False, compare=False)

    @classmethod
    def parse(cls, spec: str, zone: str | tzinfo = "UTC") -> Cron:
        """The cron of this specification. Raises `InvalidInput`, which names the field and what it allows."""
        words = spec.split()
        zone_name = zone if isinstance(zone, str) else _zone_name(zone)
        return cls(" ".join(words), zone_name, _Calendar.parse(words), _load_zone(zone_name))

    def next(self, after: datetime) -> datetime:
        """The first instant strictly after this one, aware and in UTC. Raises `InvalidInput` if `after` is naive."""
        if after.utcoffset() is None:
            raise InvalidInput(f"cron needs an aware datetime, as in datetime.now(timezone.utc), not the naive {after}")
        try:
            return self._first_after(after.astimezone(UTC))
        except (OverflowError, ValueError) as error:  # datetime ends with the year 9999
            raise InvalidInput(f"cron {str(self)!r} has no time after {after} that a datetime can hold") from error

    def _first_after(self, after: datetime) -> datetime:
        slot = _wall_clock(after, self._tzinfo).replace(second=0, microsecond=0)
        while True:
            slot = self._calendar.first_from(slot + _MINUTE)
            instant = _instant(slot, self._tzinfo)
            if instant > after:  # else the wall clock is in its second pass over this slot
                return instant

    def __str__(self) -> str:
        return f"{self.spec} {self.zone}"


# --- fields --------------------------------------------------------------------------------------------------------


class _Field(NamedTuple):
    """One of the five: its name, its numbers from first to last, and the names of these numbers if they have some."""

    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()
    alias: int | None = None
    """A number past the last that means the first again: 7 is Sunday."""

    def values(self, text: str) -> frozenset[int]:
        """The numbers that this text names."""
        numbers = (number for item in text.split(",") for number in self._range(item))
        return frozenset(self.first if number == self.alias else number for number in numbers)

    def _range(self, item: str) -> range:
        match = _ITEM.fullmatch(item)
        if match is None:
            raise self._refusal(item)
        step = int(match["step"] or 1)
        if not 1 <= step <= self.last - self.first + 1:
            raise self._refusal(item, f"the step must be 1-{self.last - self.first + 1}")
        if match["low"] is None:
            return range(self.first, self.last + 1, step)
        low = self._number(match["low"], item)
        if match["high"] is None:
            high = max(low, self.last) if match["step"] else low
        else:
            high = self._number(match["high"], item)
            if high == self.first < low and self.alias is not None:  # FRI-SUN: Sunday ends a week, too
                high = self.alias
        if high < low:
            raise self._refusal(item, "the range is backwards")
        return range(low, high + 1, step)

    def _number(self, text: str, item: str) -> int:
        if text.upper() in self.names:
            return self.first + self.names.index(text.upper())
        # the length is checked first, since int() takes no text of thousands of digits
        if text.isdigit() and len(text) <= 2 and self.first <= int(text) <= (self.alias or self.last):
            return int(text)
        raise self._refusal(item)

    def _refusal(self, item: str, problem: str = "not understood") -> InvalidInput:
        allowed = f"{self.first}-{self.alias or self.last}"
        if self.names:
            allowed += f" or {self.names[0]}-{self.names[-1]}"
        return InvalidInput(
            f"cron field {self.name}: {item!r}: {problem}; allowed are {allowed}, "
            "ranges (low-high), lists (a,b), steps (*/n, low-high/n, low/n) and *"
        )


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day-of-month", 1, 31),
    _Field("month", 1, 12, ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")),
    _Field("day-of-week", 0, 6, ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), alias=7),
)


# --- slots on a wall clock that never jumps ------------------------------------------------------------------------


class _Calendar(NamedTuple):
    """The slots of a specification, with no thought of time zones: all datetimes here are naive."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: tuple[int, ...]
    weekdays: frozenset[int]
    either_day: bool
    """Both day fields are restricted, so a day that fits one of them is enough."""

    @classmethod
    def parse(cls, words: list[str]) -> _Calendar:
        """The calendar of the five fields, or of the macro."""
        texts = _expand(words)
        minutes, hours, days, months, weekdays = (
            cron_field.values(text) for cron_field, text in zip(_FIELDS, texts, strict=True)
        )
        either_day = not (texts[2].startswith("*") or texts[4].startswith("*"))
        if not either_day and min(days) > max(_LONGEST_MONTHS[month - 1] for month in months):
            raise InvalidInput(
                f"cron field day-of-month: {texts[2]!r} never comes in month {texts[3]!r}; "
                "allowed are days that one of the months has"
            )
        # No other set is empty: in 400 years, after which the calendar repeats, 29 February falls on each weekday.
        return cls(tuple(sorted(minutes)), tuple(sorted(hours)), days, tuple(sorted(months)), weekdays, either_day)

    def first_from(self, start: datetime) -> datetime:
        """The first slot at this minute or later."""
        day = self._first_day_from(start.date())
        if day == start.date():
            for hour in self.hours[bisect_left(self.hours, start.hour) :]:
                earliest = start.minute if hour == start.hour else 0
                position = bisect_left(self.minutes, earliest)
                if position < len(self.minutes):
                    return datetime.combine(day, time(hour, self.minutes[position]))
            day = self._first_day_from(day + _DAY)
        return datetime.combine(day, time(self.hours[0], self.minutes[0]))

    def _first_day_from(self, day: date) -> date:
        while not self._has(day):
            if day.month in self.months:
                day += _DAY
                continue
            later = self.months[bisect_left(self.months, day.month) :]
            day = date(day.year, later[0], 1) if later else date(day.year + 1, self.months[0], 1)
        return day

    def _has(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        fits_month, fits_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return fits_month or fits_week if self.either_day else fits_month and fits_week


def _expand(words: list[str]) -> list[str]:
    """The five fields, a macro spelled out."""
    if len(words) == 1 and words[0].lower() in _MACROS:
        return _MACROS[words[0].lower()].split()
    if len(words) != len(_FIELDS):
        raise InvalidInput(
            f"cron spec {' '.join(words)!r}: {len(words)} fields; allowed are five "
            f"({' '.join(cron_field.name for cron_field in _FIELDS)}) or one of {' '.join(_MACROS)}"
        )
    return words


# --- from slots to instants ----------------------------------------------------------------------------------------


def _wall_clock(instant: datetime, zone: tzinfo) -> datetime:
    """What the clock on the wall shows, naive."""
    return instant.astimezone(zone).replace(tzinfo=None)


def _instant(slot: datetime, zone: tzinfo) -> datetime:
    """When the wall clock shows this slot for the first time; if it never does, the next minute that it does show."""
    instant = slot.replace(tzinfo=zone).astimezone(UTC)
    shown = _wall_clock(instant, zone)
    if shown == slot:
        return instant

    # For a slot in a gap, zoneinfo answers as if the clock had not been put forward: too late by the gap's length.
    def exists(minutes: int) -> bool:
        later = slot + minutes * _MINUTE
        return _wall_clock(later.replace(tzinfo=zone).astimezone(UTC), zone) == later

    wait = bisect_left(range(ceil((shown - slot) / _MINUTE)), True, key=exists)
    return (slot + wait * _MINUTE).replace(tzinfo=zone).astimezone(UTC)


def _zone_name(zone: tzinfo) -> str:
    """The name by which `_load_zone` finds an equal zone again."""
    if isinstance(zone, timezone):
        return timezone(zone.utcoffset(None)).tzname(None)  # the offset's own name, not one that a caller gave it
    key = getattr(zone, "key", None)  # what a ZoneInfo has
    if isinstance(key, str):
        return key
    raise InvalidInput(f"cron cannot store the time zone {zone!r}: give a name, a ZoneInfo or a datetime.timezone")


def _load_zone(name: str) -> tzinfo:
    if name == "UTC":  # needs no time zone data
        return UTC
    if fixed := _FIXED_OFFSET.fullmatch(name):
        offset = timedelta(hours=int(fixed["hours"]), minutes=int(fixed["minutes"]))
        return timezone(-offset if fixed["sign"] == "-" else offset)
    return _load_named_zone(name)


def _load_named_zone(name: str) -> tzinfo:
    import zoneinfo  # late: it costs milliseconds, and few schedules need more than UTC

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        if zoneinfo.available_timezones():
            problem = "it is not known here; allowed are names such as Europe/Paris, UTC and UTC+02:00"
        else:
            problem = "this machine has no time zone data; add tzdata, the system's or Python's, or use UTC"
        raise InvalidInput(f"cron time zone {name!r}: {problem}") from error
