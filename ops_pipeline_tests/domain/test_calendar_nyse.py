"""The calendar of the exchange agrees, both ways, with sessions and holidays that others list."""

import csv
from collections import Counter
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from ops_pipeline.domain.session import NEW_YORK, Calendar, Session

pytestmark = [pytest.mark.recorded, pytest.mark.slow]

FIRST, LAST = date(2008, 1, 1), date(2026, 12, 31)
SESSIONS, WHOLE_DAYS, HALF_DAYS = 4_780, 4_739, 41
# The list of holidays comes from another project than our calendar, and ends with this one.
LAST_HOLIDAY = date(2021, 7, 5)
FRIDAY = 4


@pytest.fixture(scope="module")
def ours() -> list[Session]:
    """Our sessions of the years that the file spans."""
    return Calendar("XNYS").between(FIRST, LAST)


@pytest.fixture
def rows(recorded: Path) -> list[dict[str, str]]:
    """The listed sessions."""
    path = recorded / "calendar_nyse" / "nyse_sessions_2008_2026.csv"
    with path.open(encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert len(found) == SESSIONS
    return found


@pytest.fixture
def holidays(recorded: Path) -> set[date]:
    """The listed days on which the exchange stayed closed, since 1928."""
    path = recorded / "calendar_nyse" / "original" / "nyse_all_full_day_holidays_since_1928.csv"
    found = {_american(line) for line in path.read_text(encoding="utf-8").split()}
    assert (len(found), max(found)) == (1_117, LAST_HOLIDAY)
    return found


def _american(text: str) -> date:
    month, day, year = map(int, text.split("/"))
    return date(year, month, day)


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_no_session_is_listed_that_is_not_ours_nor_the_other_way_round(
    ours: list[Session], rows: list[dict[str, str]]
) -> None:
    assert [session.day.isoformat() for session in ours] == [row["session"] for row in rows]


def test_every_listed_session_opens_and_closes_when_ours_does(
    ours: list[Session], rows: list[dict[str, str]]
) -> None:
    listed = [(row["session"], _utc(row["open_utc"]), _utc(row["close_utc"])) for row in rows]
    assert [(s.day.isoformat(), s.opens_at, s.closes_at) for s in ours] == listed


def test_every_listed_session_has_as_many_minutes_as_ours(
    ours: list[Session], rows: list[dict[str, str]]
) -> None:
    counts = [len(session.minutes()) for session in ours]
    assert counts == [int(row["minutes"]) for row in rows]
    assert Counter(counts) == {390: WHOLE_DAYS, 210: HALF_DAYS}
    assert [count == 210 for count in counts] == [row["early_close"] == "True" for row in rows]


def test_clocks_change_before_the_listed_sessions(
    ours: list[Session], rows: list[dict[str, str]]
) -> None:
    offsets = [session.opens_at.astimezone(NEW_YORK).utcoffset() for session in ours]
    assert offsets == [timedelta(hours=float(row["utc_offset_open_h"])) for row in rows]
    changed = [new != old for old, new in pairwise(offsets)]
    assert changed == [row["first_after_dst"] == "True" for row in rows[1:]]
    assert sum(changed) == 2 * 19


@pytest.mark.parametrize(
    ("first", "sessions"),
    [
        (FIRST, 3_400),
        # Farther back than any bars reach, and many calendars to build.
        pytest.param(date(1970, 1, 1), 12_992, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_sessions_are_all_weekdays_but_the_listed_holidays(
    first: date, sessions: int, holidays: set[date]
) -> None:
    days = [first + timedelta(days=n) for n in range((LAST_HOLIDAY - first).days + 1)]
    expected = [day for day in days if day.weekday() <= FRIDAY and day not in holidays]
    found = [session.day for session in Calendar("XNYS").between(first, LAST_HOLIDAY)]
    assert found == expected
    assert len(found) == sessions


def test_no_listed_holiday_is_a_session(ours: list[Session], holidays: set[date]) -> None:
    listed = {day for day in holidays if day >= FIRST}
    assert len(listed) == 125
    assert listed.isdisjoint(session.day for session in ours)
