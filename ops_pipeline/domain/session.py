"""The market's days and minutes: which minutes trade, and when a minute is decided.

A minute is named by its start: minute M covers [M, M + 60 s).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
NEW_YORK = ZoneInfo("America/New_York")
ROUND_THE_CLOCK = "24/7"


@dataclass(frozen=True)
class Session:
    """One trading day; it is open in [opens_at, closes_at), both UTC."""

    day: date
    opens_at: datetime
    closes_at: datetime

    def minutes(self) -> list[datetime]:
        """The session's minutes in order: 390 on a whole day of XNYS, 210 on a half day."""
        count = (self.closes_at - self.opens_at) // MINUTE
        return [self.opens_at + number * MINUTE for number in range(count)]

    def is_open(self, at: datetime) -> bool:
        """Whether the session is open at this instant."""
        return self.opens_at <= at < self.closes_at


class Calendar:
    """Sessions of one exchange: XNYS, or the 24/7 calendar whose session is the UTC day."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.zone = ZoneInfo("UTC") if name == ROUND_THE_CLOCK else NEW_YORK

    def on(self, day: date) -> Session | None:
        """The session of this day; None on a weekend or a holiday."""
        return _session(self.name, day)

    def at(self, instant: datetime) -> Session | None:
        """The session that is open at this instant."""
        session = self.on(self.day(instant))
        return session if session and session.is_open(instant) else None

    def day(self, instant: datetime) -> date:
        """The date that this instant has where the exchange stands."""
        return instant.astimezone(self.zone).date()

    def day_starts_at(self, day: date) -> datetime:
        """Midnight at the exchange, in UTC."""
        return datetime(day.year, day.month, day.day, tzinfo=self.zone).astimezone(UTC)

    def before(self, day: date) -> Session:
        """The last session before this day."""
        return self._step(day, -1)

    def after(self, day: date) -> Session:
        """The first session after this day."""
        return self._step(day, 1)

    def newest_over(self, instant: datetime) -> Session:
        """Return the newest session that has closed by an instant."""
        session = self.on(self.day(instant))
        if session and session.closes_at <= instant:
            return session
        return self.before(self.day(instant))

    def back(self, day: date, count: int) -> Session:
        """The session that lies this many sessions before a day."""
        session = self.before(day)
        for _ in range(count - 1):
            session = self.before(session.day)
        return session

    def minutes_back(self, minute: datetime, count: int) -> datetime:
        """Return the minute that lies this many minutes of trading before a session minute."""
        session, back = self.on(self.day(minute)), minute - count * MINUTE
        while session and back < session.opens_at:
            missing = session.opens_at - back
            session = self.before(session.day)
            back = session.closes_at - missing
        return back

    def between(self, first: date, last: date) -> list[Session]:
        """The sessions from the first day to the last one, both included."""
        days = ((first + timedelta(days=n)) for n in range((last - first).days + 1))
        return [session for day in days if (session := self.on(day))]

    def minutes_between(self, start: datetime, end: datetime) -> Iterator[tuple[Session, datetime]]:
        """The session minutes in [start, end), in order, each with its session."""
        for session in self.between(self.day(start), self.day(end)):
            for minute in session.minutes():
                if start <= minute < end:
                    yield session, minute

    def _step(self, day: date, step: int) -> Session:
        moved = day + timedelta(days=step)
        while (session := self.on(moved)) is None:
            moved += timedelta(days=step)
        return session


@lru_cache(maxsize=4096)
def _session(name: str, day: date) -> Session | None:
    if name == ROUND_THE_CLOCK:
        # No need to ask the library, whose import takes longer than a look at the status may.
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return Session(day, midnight, midnight + timedelta(days=1))
    calendar = _exchange(name, day.year)
    if not calendar.is_session(day.isoformat()):
        return None
    opens, closes = calendar.session_open_close(day.isoformat())
    return Session(
        day, opens.to_pydatetime().astimezone(UTC), closes.to_pydatetime().astimezone(UTC)
    )


@lru_cache(maxsize=64)
def _exchange(name: str, year: int) -> Any:
    # Not before it is asked for: it brings pandas, which a process that keeps others does not need.
    import exchange_calendars

    # Built year by year: a library calendar of twenty years takes longer than a status page may.
    # Its bounds are sessions, so it begins and ends beyond the turn of the year.
    return exchange_calendars.get_calendar(name, start=f"{year - 1}-12-15", end=f"{year + 1}-01-15")


@dataclass(frozen=True)
class Timing:
    """When a minute may be decided, counted from its end."""

    settle_seconds: int = 20
    deadline_seconds: int = 45

    def deadline(self, minute: datetime) -> datetime:
        """When bars and news of this minute have come, or count as missing."""
        return minute + MINUTE + timedelta(seconds=self.deadline_seconds)

    def as_of(self, minute: datetime) -> datetime:
        """The nominal instant at which this minute is decided."""
        return minute + MINUTE + timedelta(seconds=self.settle_seconds)


def floor_minute(instant: datetime) -> datetime:
    """The start of the minute that this instant lies in."""
    return instant.replace(second=0, microsecond=0)


def newest_closed_minute(now: datetime) -> datetime:
    """The newest minute that has ended."""
    return floor_minute(now) - MINUTE


def both_zones(instant: datetime) -> str:
    """An instant as operators read it: New York first, then UTC."""
    local = instant.astimezone(NEW_YORK)
    return f"{local:%Y-%m-%d %H:%M} ET ({instant.astimezone(UTC):%H:%M} UTC)"
