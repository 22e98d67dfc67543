"""A market that is lived through: what has begun can be seen, and nothing of what comes."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Protocol

from ops_pipeline.domain.session import MINUTE, ROUND_THE_CLOCK, Calendar, floor_minute
from ops_pipeline.domain.values import Bar, NewsEntry
from ops_pipeline.sandbox.market import DEFAULT_TICKERS, GeneratedMarket

Now = Callable[[], datetime]
_DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_GENERATED = len(DEFAULT_TICKERS)
_DAYS_OF_NEWS = 3
# Eight days of seven tickers are what one page of bars can show.
_DAYS_KEPT = 8


class LiveMarket(Protocol):
    """What the sandbox asks of a market."""

    @property
    def tickers(self) -> Sequence[str]:
        """All that is traded."""

    def bars(self, ticker: str, start: datetime, end: datetime) -> Iterator[Bar]:
        """Bars with start <= minute <= end, oldest first; the last may be of a running minute."""

    def news(self) -> list[NewsEntry]:
        """The entries of the last days that are out by now, oldest first."""


class UnfoldingMarket:
    """The generated market as it unfolds.

    Only the first seven tickers are generated. Each further one is a copy of one of them at a
    price and a volume of its own, because whole days of thousands of tickers would take minutes;
    news speak of the first seven only.
    """

    def __init__(
        self,
        now: Now,
        tickers: Sequence[str] = DEFAULT_TICKERS,
        seed: int = 7,
        calendar: Calendar | None = None,
    ) -> None:
        self.tickers = tuple(tickers)
        self._now = now
        self._places = {ticker: place for place, ticker in enumerate(self.tickers)}
        self._calendar = calendar or Calendar(ROUND_THE_CLOCK)
        self._market = GeneratedMarket(self._calendar, self.tickers[:_GENERATED], seed)
        self._day = lru_cache(maxsize=_DAYS_KEPT)(self._generate)
        self._news = lru_cache(maxsize=_DAYS_OF_NEWS + 1)(self._market.news)

    def bars(self, ticker: str, start: datetime, end: datetime) -> Iterator[Bar]:
        """Bars with start <= minute <= end, oldest first; the last may be of a running minute."""
        place = self._places.get(ticker)
        if place is None:
            return
        original = self._market.tickers[place % len(self._market.tickers)]
        for minute, bars in self._minutes(start, end):
            if bar := bars.get((original, minute)):
                yield bar if ticker == original else _copy(bar, ticker)

    def news(self) -> list[NewsEntry]:
        """The entries of the last days that are out by now, oldest first.

        An entry without a time is out with the one before it.
        """
        now = self._now()
        today = self._calendar.day(now)
        days = [today - number * _DAY for number in reversed(range(_DAYS_OF_NEWS))]
        found = list[NewsEntry]()
        for entry in (entry for day in days for entry in self._news(day)):
            if entry.published_at and entry.published_at > now:
                break
            found.append(entry)
        return found

    def _minutes(
        self, start: datetime, end: datetime
    ) -> Iterator[tuple[datetime, dict[tuple[str, datetime], Bar]]]:
        minute, last = floor_minute(start), min(end, self._now())
        minute += MINUTE if minute < start else timedelta(0)
        while minute <= last:
            yield minute, self._day(self._calendar.day(minute))
            minute += MINUTE

    def _generate(self, day: date) -> dict[tuple[str, datetime], Bar]:
        return {(bar.ticker, bar.minute): bar for bar in self._market.bars(day)}


class RestampedMarket:
    """One recorded day, played in a loop, so that every minute of any day has its bars.

    The minute that is played is the number of minutes since 1970 modulo those of the recording,
    from its first bar to its last; bars that it lacks stay absent. Its news come again with each
    round, with an identity of their own in each.

    Raises:
        ValueError: the recording holds no bars.
    """

    def __init__(self, bars: Sequence[Bar], now: Now, news: Sequence[NewsEntry] = ()) -> None:
        if not bars:
            raise ValueError("a recording needs at least one bar")
        self.tickers = tuple(sorted({bar.ticker for bar in bars}))
        self._now = now
        self._starts_at = min(bar.minute for bar in bars)
        self._length = max(bar.minute for bar in bars) - self._starts_at + MINUTE
        self._bars = {(bar.ticker, bar.minute - self._starts_at): bar for bar in bars}
        self._news = sorted(news, key=self._offset)

    def bars(self, ticker: str, start: datetime, end: datetime) -> Iterator[Bar]:
        """Bars with start <= minute <= end, oldest first; the last may be of a running minute."""
        if ticker not in self.tickers:
            return
        minute, last = floor_minute(start), min(end, self._now())
        minute += MINUTE if minute < start else timedelta(0)
        while minute <= last:
            if bar := self._bars.get((ticker, _since_epoch(minute) % self._length)):
                yield Bar(ticker, minute, bar.open, bar.high, bar.low, bar.close, bar.volume)
            minute += MINUTE

    def news(self) -> list[NewsEntry]:
        """The entries of this round and of the one before that are out by now, oldest first."""
        now = self._now()
        this = _since_epoch(now) // self._length
        entries = [self._restamped(e, turn) for turn in (this - 1, this) for e in self._news]
        return [e for e in entries if e.published_at is None or e.published_at <= now]

    def _offset(self, entry: NewsEntry) -> timedelta:
        # One without a time is out as soon as a round begins.
        return (
            (entry.published_at - self._starts_at) % self._length
            if entry.published_at
            else timedelta(0)
        )

    def _restamped(self, entry: NewsEntry, turn: int) -> NewsEntry:
        at = _EPOCH + turn * self._length + self._offset(entry)
        return NewsEntry(
            feed=entry.feed,
            entry_id=entry.entry_id and f"{entry.entry_id}-{turn}",
            title=entry.title,
            summary=entry.summary,
            link=entry.link and f"{entry.link}#{turn}",
            published_at=entry.published_at and at,
            tickers=entry.tickers,
        )


def _since_epoch(at: datetime) -> timedelta:
    return at - _EPOCH


def _copy(bar: Bar, ticker: str) -> Bar:
    """The same minute of another ticker: scaled, and so as consistent as the original."""
    share = zlib.crc32(ticker.encode()) / 2**32
    open_, high, low, close = (
        round(price * (0.25 + 1.5 * share), 2) for price in (bar.open, bar.high, bar.low, bar.close)
    )
    volume = int(bar.volume * (0.1 + 0.9 * share))
    return Bar(ticker, bar.minute, open_, high, low, close, volume)
