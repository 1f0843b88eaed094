"""Cron against references that are slow and obvious: a hand that walks over every minute, a finger over every day.

The references share no code with `workflow.cron` and no idea either. For the minutes, a clock hangs on the wall and a
mark is kept at the latest time that it ever showed. Whenever it shows a later one, all the slots between are due. That
alone gives both rules of summer time: putting the clock forward passes many slots at once, putting it back passes none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from workflow.cron import Cron

UTC = timezone.utc
MINUTE = timedelta(minutes=1)
MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]

HORIZON = timedelta(days=3)
SHIFTS = [  # zone, and the UTC minute near which its clock is changed
    ("America/New_York", datetime(2024, 3, 10, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2024, 11, 3, 6, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2025, 3, 30, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2025, 10, 26, 1, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2024, 4, 6, 15, tzinfo=UTC)),  # half an hour
    ("Australia/Lord_Howe", datetime(2024, 10, 5, 15, 30, tzinfo=UTC)),
    ("Antarctica/Troll", datetime(2024, 10, 27, 1, tzinfo=UTC)),  # two hours
    ("America/St_Johns", datetime(2006, 10, 29, 2, 31, tzinfo=UTC)),  # at one minute past midnight
    ("Asia/Kathmandu", datetime(1985, 12, 31, 18, 30, tzinfo=UTC)),  # a quarter of an hour, once
    ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),  # a whole day, skipped
    ("Pacific/Kwajalein", datetime(1969, 9, 30, 13, tzinfo=UTC)),  # nearly a day, twice
]


@dataclass(frozen=True)
class Field:
    """A field's text, and the numbers that it was made to mean."""

    text: str
    numbers: frozenset[int]


@st.composite
def items(draw: st.DrawFn, first: int, last: int, names: list[str]) -> Field:
    """One item of a field: a number or name, a range of them, or all, with or without a step."""

    def written(number: int) -> str:
        spellings = [str(number), f"{number:02}"]
        if names:
            name = names[number - first]
            spellings += [name, name.lower()]
        return draw(st.sampled_from(spellings))

    numbers = range(first, last + 1)
    low = draw(st.sampled_from(numbers))
    high = draw(st.integers(low, last))
    step = draw(st.integers(1, len(numbers)))
    made = {
        "one": (written(low), {low}),
        "open": (f"{written(low)}/{step}", {n for n in numbers if n >= low and (n - low) % step == 0}),
        "range": (f"{written(low)}-{written(high)}", {n for n in numbers if low <= n <= high}),
        "steps": (
            f"{written(low)}-{written(high)}/{step}",
            {n for n in numbers if low <= n <= high and (n - low) % step == 0},
        ),
        "all": ("*", set(numbers)),
        "all-steps": (f"*/{step}", {n for n in numbers if (n - first) % step == 0}),
    }
    text, meant = made[draw(st.sampled_from(sorted(made)))]
    return Field(text, frozenset(meant))


def fields(first: int, last: int, names: list[str] | None = None) -> st.SearchStrategy[Field]:
    lists = st.lists(items(first, last, names or []), min_size=1, max_size=3)
    return lists.map(
        lambda parts: Field(",".join(part.text for part in parts), frozenset[int]().union(*(p.numbers for p in parts)))
    )


@dataclass(frozen=True)
class Spec:
    minute: Field
    hour: Field
    day: Field
    month: Field
    weekday: Field

    def __str__(self) -> str:
        return " ".join(part.text for part in (self.minute, self.hour, self.day, self.month, self.weekday))

    def either_day(self) -> bool:
        return not self.day.text.startswith("*") and not self.weekday.text.startswith("*")

    def has_day(self, day: date) -> bool:
        if day.month not in self.month.numbers:
            return False
        answers = day.day in self.day.numbers, (day.weekday() + 1) % 7 in self.weekday.numbers
        return any(answers) if self.either_day() else all(answers)

    def has(self, slot: datetime) -> bool:
        return slot.minute in self.minute.numbers and slot.hour in self.hour.numbers and self.has_day(slot.date())

    def is_possible(self) -> bool:
        leap_year = (date(2024, 1, 1) + timedelta(days=n) for n in range(366))
        return self.either_day() or any(
            day.month in self.month.numbers and day.day in self.day.numbers for day in leap_year
        )


ANY = Field("*", frozenset(range(60)))
specs = st.builds(
    Spec, fields(0, 59), fields(0, 23), fields(1, 31), fields(1, 12, MONTHS), fields(0, 6, WEEKDAYS)
).filter(Spec.is_possible)
dense_specs = st.builds(Spec, fields(0, 59), fields(0, 23), st.just(ANY), st.just(ANY), st.just(ANY))
moments = st.datetimes(datetime(1975, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - as it wants


def walk(spec: Spec, zone: str, after: datetime) -> datetime | None:
    """The reference: look at the wall clock every minute. None if nothing is due before the horizon."""
    wall_clock = ZoneInfo(zone)

    def shown(instant: datetime) -> datetime:
        return instant.astimezone(wall_clock).replace(tzinfo=None)

    instant = after.replace(second=0, microsecond=0) - timedelta(days=2)  # long enough for any second pass to be over
    mark = shown(instant)
    while instant < after + HORIZON:
        instant += MINUTE
        is_due = False
        while mark < shown(instant):
            mark += MINUTE
            is_due = is_due or spec.has(mark)
        if is_due and instant > after:
            return instant
    return None


@settings(deadline=None, max_examples=150)
@given(
    spec=dense_specs | specs,
    shift=st.sampled_from(SHIFTS),
    distance=st.timedeltas(timedelta(hours=-30), timedelta(hours=30)),
)
def test_next_is_what_a_walk_over_every_minute_finds(
    spec: Spec, shift: tuple[str, datetime], distance: timedelta
) -> None:
    zone, change = shift
    after = change + distance
    found = Cron.parse(str(spec), zone).next(after)
    expected = walk(spec, zone, after)
    if expected is None:
        assert found > after + HORIZON
    else:
        assert found == expected


@settings(deadline=None)
@given(spec=specs, after=moments)
def test_the_day_is_what_a_walk_over_every_day_finds(spec: Spec, after: datetime) -> None:
    found = Cron.parse(str(spec)).next(after)
    assert spec.has(found)
    day = after.date()
    if not any(after < slot for slot in slots_of(spec, day)):
        day += timedelta(days=1)
        while not spec.has_day(day):
            day += timedelta(days=1)
    assert found == min(slot for slot in slots_of(spec, day) if slot > after)


def slots_of(spec: Spec, day: date) -> list[datetime]:
    if not spec.has_day(day):
        return []
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return [
        midnight + timedelta(hours=hour, minutes=minute) for hour in spec.hour.numbers for minute in spec.minute.numbers
    ]


@settings(deadline=None)
@given(spec=dense_specs | specs, shift=st.sampled_from(SHIFTS), distance=st.timedeltas(-HORIZON, HORIZON))
def test_times_only_grow_and_none_lies_between_two(
    spec: Spec, shift: tuple[str, datetime], distance: timedelta
) -> None:
    zone, change = shift
    cron = Cron.parse(str(spec), zone)
    earlier = change + distance
    for _ in range(5):
        later = cron.next(earlier)
        assert later > earlier
        assert cron.next(later - timedelta(microseconds=1)) == later
        assert cron.next(earlier + (later - earlier) / 2) == later
        earlier = later


@given(spec=specs)
def test_a_cron_is_rebuilt_from_its_text(spec: Spec) -> None:
    cron = Cron.parse(str(spec), "Europe/Paris")
    assert Cron.parse(cron.spec, cron.zone) == cron
