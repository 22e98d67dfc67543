import csv
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import exchange_calendars
import pytest

from ops_pipeline.domain.session import (
    MINUTE,
    Calendar,
    Timing,
    both_zones,
    floor_minute,
    newest_closed_minute,
)
from ops_pipeline_tests.builders import DAY, OPENS_AT, SESSION

XNYS = Calendar("XNYS")
ROUND_THE_CLOCK = Calendar("24/7")
HALF_DAY = date(2025, 11, 28)
SATURDAY = date(2025, 2, 15)
HOLIDAYS = [
    date(2025, 1, 1),
    date(2025, 1, 9),
    date(2025, 1, 20),
    date(2025, 4, 18),
    date(2025, 7, 4),
    date(2025, 11, 27),
    date(2025, 12, 25),
    date(2022, 12, 31),
    date(2023, 1, 1),
]


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(("day", "minutes"), [(DAY, 390), (HALF_DAY, 210)])
def test_a_session_has_its_minutes(day: date, minutes: int) -> None:
    session = XNYS.on(day)
    assert session is not None
    assert len(session.minutes()) == minutes


def test_minutes_go_from_the_open_to_the_minute_before_the_close() -> None:
    minutes = SESSION.minutes()
    assert (minutes[0], minutes[-1]) == (SESSION.opens_at, SESSION.closes_at - MINUTE)


def test_a_half_day_closes_at_one() -> None:
    session = XNYS.on(HALF_DAY)
    assert session is not None
    assert session.closes_at == utc(2025, 11, 28, 18)


@pytest.mark.parametrize("day", [*HOLIDAYS, SATURDAY, SATURDAY + timedelta(days=1)], ids=str)
def test_on_when_the_exchange_rests_then_none(day: date) -> None:
    assert XNYS.on(day) is None


@pytest.mark.parametrize(
    ("day", "hour"),
    [
        (date(2025, 3, 7), 14),
        (date(2025, 3, 10), 13),
        (date(2025, 10, 31), 13),
        (date(2025, 11, 3), 14),
    ],
    ids=str,
)
def test_on_when_clocks_change_then_the_open_moves_in_utc(day: date, hour: int) -> None:
    session = XNYS.on(day)
    assert session is not None
    assert session.opens_at == utc(day.year, day.month, day.day, hour, 30)


def test_on_gives_plain_utc() -> None:
    session = XNYS.on(DAY)
    assert session is not None
    assert type(session.opens_at) is datetime
    assert session.opens_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("instant", "is_open"),
    [
        (SESSION.opens_at - timedelta(microseconds=1), False),
        (SESSION.opens_at, True),
        (SESSION.closes_at - timedelta(microseconds=1), True),
        (SESSION.closes_at, False),
        (utc(2025, 2, 15, 17), False),
        (utc(2025, 7, 4, 17), False),
    ],
    ids=str,
)
def test_at_finds_the_session_that_is_open(
    instant: datetime,
    is_open: bool,  # noqa: FBT001
) -> None:
    assert (XNYS.at(instant) is not None) is is_open


def test_at_when_the_instant_has_another_zone_then_the_same_session() -> None:
    tokyo = timezone(timedelta(hours=9))
    assert XNYS.at(SESSION.opens_at.astimezone(tokyo)) == SESSION


@pytest.mark.parametrize(
    ("instant", "day"),
    [
        (utc(2025, 2, 13, 4, 59), DAY),
        (utc(2025, 2, 13, 5, 0), DAY + timedelta(days=1)),
        (utc(2025, 7, 2, 3, 59), date(2025, 7, 1)),
    ],
    ids=str,
)
def test_day_is_the_date_in_new_york(instant: datetime, day: date) -> None:
    assert XNYS.day(instant) == day


@pytest.mark.parametrize(
    ("calendar", "day", "start"),
    [
        (XNYS, DAY, utc(2025, 2, 12, 5)),
        (XNYS, date(2025, 7, 1), utc(2025, 7, 1, 4)),
        (ROUND_THE_CLOCK, DAY, utc(2025, 2, 12)),
    ],
    ids=["winter", "summer", "round the clock"],
)
def test_day_starts_at_the_exchanges_midnight(
    calendar: Calendar, day: date, start: datetime
) -> None:
    assert calendar.day_starts_at(day) == start


@pytest.mark.parametrize(
    ("day", "before", "after"),
    [
        (DAY, date(2025, 2, 11), date(2025, 2, 13)),
        (SATURDAY, date(2025, 2, 14), date(2025, 2, 18)),
        (date(2025, 1, 1), date(2024, 12, 31), date(2025, 1, 2)),
        (date(2025, 1, 2), date(2024, 12, 31), date(2025, 1, 3)),
        (date(2024, 12, 31), date(2024, 12, 30), date(2025, 1, 2)),
    ],
    ids=str,
)
def test_before_and_after_are_the_sessions_beside_a_day(
    day: date, before: date, after: date
) -> None:
    assert (XNYS.before(day).day, XNYS.after(day).day) == (before, after)


def test_between_crosses_the_turn_of_the_year() -> None:
    days = [session.day for session in XNYS.between(date(2024, 12, 30), date(2025, 1, 3))]
    assert days == [
        date(2024, 12, 30),
        date(2024, 12, 31),
        date(2025, 1, 2),
        date(2025, 1, 3),
    ]


def test_between_when_the_last_day_is_before_the_first_then_empty() -> None:
    assert XNYS.between(DAY, DAY - timedelta(days=1)) == []


def minutes_of(start: datetime, end: datetime) -> Iterator[datetime]:
    return (minute for _, minute in XNYS.minutes_between(start, end))


def test_minutes_between_leaves_out_nights_weekends_and_holidays() -> None:
    start, end = utc(2025, 2, 14, 20, 58), utc(2025, 2, 18, 14, 32)
    assert list(minutes_of(start, end)) == [
        utc(2025, 2, 14, 20, 58),
        utc(2025, 2, 14, 20, 59),
        utc(2025, 2, 18, 14, 30),
        utc(2025, 2, 18, 14, 31),
    ]


def test_minutes_between_leaves_out_the_end() -> None:
    assert list(minutes_of(OPENS_AT, OPENS_AT + MINUTE)) == [OPENS_AT]


def test_minutes_between_begins_with_the_first_whole_minute() -> None:
    found = minutes_of(OPENS_AT + timedelta(seconds=1), OPENS_AT + 2 * MINUTE)
    assert list(found) == [OPENS_AT + MINUTE]


def test_minutes_between_names_the_session_of_each_minute() -> None:
    found = XNYS.minutes_between(OPENS_AT, OPENS_AT + MINUTE)
    assert list(found) == [(SESSION, OPENS_AT)]


def test_minutes_between_when_there_is_no_time_then_empty() -> None:
    assert list(minutes_of(OPENS_AT, OPENS_AT)) == []


def test_round_the_clock_a_session_is_the_utc_day() -> None:
    session = ROUND_THE_CLOCK.on(SATURDAY)
    assert session is not None
    assert (session.opens_at, session.closes_at) == (utc(2025, 2, 15), utc(2025, 2, 16))


def test_round_the_clock_is_open_at_midnight() -> None:
    session = ROUND_THE_CLOCK.at(utc(2025, 2, 16))
    assert session is not None
    assert session.day == date(2025, 2, 16)


@pytest.mark.slow
@pytest.mark.recorded
def test_sessions_are_those_of_the_recorded_calendar(recorded: Path) -> None:
    path = recorded / "calendar_nyse" / "nyse_sessions_2008_2026.csv"
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = [(r["session"], r["open_utc"], r["close_utc"], int(r["minutes"])) for r in rows]
    first, last = (date.fromisoformat(rows[n]["session"]) for n in (0, -1))
    found = [
        (
            session.day.isoformat(),
            f"{session.opens_at:%Y-%m-%dT%H:%M:%SZ}",
            f"{session.closes_at:%Y-%m-%dT%H:%M:%SZ}",
            len(session.minutes()),
        )
        for session in XNYS.between(first, last)
    ]
    assert found == expected


def test_as_of_is_the_end_of_the_minute_and_the_time_to_settle() -> None:
    assert Timing(settle_seconds=20).as_of(OPENS_AT) == OPENS_AT + timedelta(seconds=80)


@pytest.mark.parametrize("seconds", [0, 0.000001, 59.999999])
def test_floor_minute_is_the_start_of_the_minute(seconds: float) -> None:
    assert floor_minute(OPENS_AT + timedelta(seconds=seconds)) == OPENS_AT


@pytest.mark.parametrize("seconds", [60, 119.999999])
def test_newest_closed_minute_has_ended(seconds: float) -> None:
    assert newest_closed_minute(OPENS_AT + timedelta(seconds=seconds)) == OPENS_AT


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (utc(2025, 2, 12, 14, 30), "2025-02-12 09:30 ET (14:30 UTC)"),
        (utc(2025, 7, 1, 13, 30), "2025-07-01 09:30 ET (13:30 UTC)"),
        (utc(2025, 2, 13, 1, 0), "2025-02-12 20:00 ET (01:00 UTC)"),
    ],
    ids=str,
)
def test_both_zones_shows_new_york_first(instant: datetime, text: str) -> None:
    assert both_zones(instant) == text


@pytest.mark.parametrize("day", [SATURDAY, date(2024, 2, 29), date(2025, 12, 31)])
def test_the_market_that_never_closes_is_the_librarys(day: date) -> None:
    library = exchange_calendars.get_calendar("24/7", start="2024-01-01", end="2026-01-15")
    opens, closes = library.session_open_close(day.isoformat())
    session = ROUND_THE_CLOCK.on(day)
    assert session is not None
    assert (session.opens_at, session.closes_at) == (opens, closes)
