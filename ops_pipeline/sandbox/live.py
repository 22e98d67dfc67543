"""The generated market as it unfolds: bars and news up to the present, and nothing after it."""

from collections.abc import Callable, Sequence
from datetime import date, datetime
from functools import lru_cache

from ops_pipeline.domain.bars import is_complete
from ops_pipeline.domain.session import Calendar
from ops_pipeline.domain.values import Bar, NewsEntry
from ops_pipeline.sandbox.market import DEFAULT_TICKERS, GeneratedMarket


class UnfoldingMarket:
    """Source of bars and of news; what lies after the present does not exist yet."""

    feed = "generated"

    def __init__(self, calendar: Calendar, now: Callable[[], datetime], seed: int = 7) -> None:
        self._calendar = calendar
        self._now = now
        market = GeneratedMarket(calendar, DEFAULT_TICKERS, seed)
        self._bars = lru_cache(maxsize=4)(market.bars)
        self._news = lru_cache(maxsize=4)(market.news)

    def fetch_bars(self, tickers: Sequence[str], start: datetime, end: datetime) -> list[Bar]:
        """Complete bars of these tickers with start <= minute < end, by minute and ticker."""
        now, wanted = self._now(), frozenset(tickers)
        return [
            bar
            for day in self._days(start, end)
            for bar in self._bars(day)
            if start <= bar.minute < end and bar.ticker in wanted and is_complete(bar, now)
        ]

    def fetch_news(self, start: datetime, end: datetime) -> list[NewsEntry]:
        """Entries published in [start, end) that are out by now, oldest first."""
        until = min(end, self._now())
        return [
            entry
            for day in self._days(start, end)
            for entry in self._news(day)
            if entry.published_at and start <= entry.published_at < until
        ]

    def _days(self, start: datetime, end: datetime) -> list[date]:
        first, last = self._calendar.day(start), self._calendar.day(end)
        return [session.day for session in self._calendar.between(first, last)]
