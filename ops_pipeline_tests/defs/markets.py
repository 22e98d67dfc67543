"""Markets to play: generated days, and plain bars with one flaw each."""

import math
from collections.abc import Collection
from datetime import date, datetime
from functools import cache

from ops_pipeline.domain.session import Calendar, Session
from ops_pipeline.domain.values import Bar, NewsEntry
from ops_pipeline.sandbox.market import DEFAULT_TICKERS, GeneratedMarket
from ops_pipeline.settings import Mode


@cache
def generated(*days: date) -> tuple[list[Bar], list[NewsEntry]]:
    """The generated market of these days and of the session before."""
    calendar = Mode.REPLAY.calendar
    market = GeneratedMarket(calendar, DEFAULT_TICKERS)
    played = [calendar.before(days[0]).day, *days]
    bars = [bar for day in played for bar in market.bars(day)]
    return bars, [entry for day in played for entry in market.news(day)]


def plain(
    minutes: Collection[datetime],
    tickers: Collection[str] = ("AAPL", "MSFT"),
    *,
    volume: int | None = None,
    without: Collection[tuple[str, datetime]] = (),
) -> list[Bar]:
    """Bars in gentle waves, one for each ticker and minute that is not left out."""
    return [
        _bar(ticker, number, minute, volume)
        for number, minute in enumerate(sorted(minutes))
        for ticker in tickers
        if (ticker, minute) not in without
    ]


def _bar(ticker: str, number: int, minute: datetime, volume: int | None) -> Bar:
    phase = number / 7 + len(ticker) + ord(ticker[0])
    opens, close = (round(100 + 2 * math.sin(phase + step), 2) for step in (0, 0.1))
    traded = 1_000 + 37 * (number % 11) if volume is None else volume
    high, low = max(opens, close) + 0.05, min(opens, close) - 0.05
    return Bar(ticker, minute, opens, high, low, close, traded)


def warm_up(calendar: Calendar, session: Session, count: int) -> list[datetime]:
    """The last minutes of the session before."""
    return calendar.before(session.day).minutes()[-count:]
