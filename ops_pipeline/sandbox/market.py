"""A generated stock market: bars and news that are a pure function of seed, tickers and day."""

import html
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from ops_pipeline.domain.session import MINUTE, Calendar, Session
from ops_pipeline.domain.values import Bar, NewsEntry

DEFAULT_TICKERS = ("AAPL", "MSFT", "TSLA", "GOOGL", "AMZN", "META", "NVDA")
GENERAL_FEED = "generated/markets"

# Name and price level; a ticker that is not here is called by its symbol.
_KNOWN = {
    "AAPL": ("Apple", 228.0),
    "MSFT": ("Microsoft", 415.0),
    "TSLA": ("Tesla", 330.0),
    "GOOGL": ("Alphabet", 185.0),
    "AMZN": ("Amazon", 225.0),
    "META": ("Meta Platforms", 690.0),
    "NVDA": ("Nvidia", 132.0),
}
_NEWS_STARTS = timedelta(hours=4)
_SHOCK_MINUTES = 10
_MINUTES_PER_TREND = 130
_CYCLES = ((11, 0.015), (29, 0.04), (83, 0.07))

_Texts = tuple[tuple[str, ...], tuple[str, ...]]

_SHOCK: Mapping[int, _Texts] = {
    1: (
        (
            "{who} wins huge order, best quarterly profit in years",
            "{who} posts excellent results with strong profit growth of {pct}%",
            "Analysts praise outstanding quarter at {who}, shares gain {pct}%",
            "{who} delivers impressive growth and a great outlook, profit up {pct}%",
            "Great success for {who}: strong demand lifts profit to a record",
            "{who} tops every forecast with superb sales and excellent margins",
            "Confident {who} raises outlook after amazing sales, shares gain {pct}%",
            "Strong beat at {who}: perfect quarter, best growth in the industry",
        ),
        (
            "The results were excellent & the outlook is strong, analysts said.",
            "Investors celebrate a great quarter with strong gains in every segment.",
            "Management is confident and sees strong growth and higher profit.",
        ),
    ),
    -1: (
        (
            "{who} shares crash {pct}% after fraud probe and heavy losses",
            "{who} warns of terrible quarter with losses worse than feared",
            "Disaster at {who}: failed launch brings heavy loss",
            "{who} hit by fraud accusations, shares fall {pct}% in panic",
            "Investors flee {who} after awful loss and weak outlook",
            "{who} suffers worst loss in years as crisis deepens",
            "Regulator accuses {who} of fraud, threatens severe penalties",
            "{who} cuts guidance: terrible demand, heavy losses, shares down {pct}%",
        ),
        (
            "The loss was worse than feared & analysts warn of further trouble.",
            "Investors fear a severe crisis after the terrible report.",
            "Management admits failure and warns of losses and weak demand.",
        ),
    ),
}

_BACKGROUND: Mapping[int, _Texts] = {
    1: (
        (
            "{who} shares rise {pct}% as demand improves",
            "{who} raised to buy on growth outlook",
            "{who} signs welcome supply contract worth ${num} million",
            "Orders in Asia support {who}",
            "{who} expands partnership, analysts optimistic",
            "{who} reports {pct}% growth in services",
            "New product from {who} gets good reviews",
            "{who} lifts dividend by {pct}%, investors pleased",
        ),
        (
            "Demand improved in all regions & margins rose.",
            "The broker's note calls the prospects good.",
            "Sales grew by {pct}% from a year ago.",
        ),
    ),
    -1: (
        (
            "{who} shares drop {pct}% on weak demand",
            "{who} cut to sell as growth worries rise",
            "{who} faces lawsuit, may lose ${num} million",
            "Supply problems delay orders at {who}",
            "{who} reports loss in its hardware unit",
            "Analysts worry about slowing sales at {who}",
            "{who} recalls {num} thousand units over defect",
            "Outage hurts customers of {who}",
        ),
        (
            "Demand was weak in two regions & margins fell.",
            "The broker's note warns of weaker demand and lower prices.",
            "Sales fell by {pct}% from a year ago.",
        ),
    ),
    0: (
        (
            "{who} to report quarterly results next week",
            "{who} names new head of its logistics unit",
            "{who} to speak at industry conference",
            "What the options market says about {who}",
            "{who} files {num}-page annual report",
            "{who} opens office with {num} employees",
            "How {who} compares with its peers",
            "{who} schedules its annual meeting",
            "Three charts to watch before the bell",
        ),
        (
            "The company published the date & the agenda on its site.",
            "The plan stays as it is, a spokesperson said.",
            'Trading volume was "in line" with the average.',
        ),
    ),
}

_GENERAL: _Texts = (
    (
        "Stocks little changed before inflation report",
        "Treasury yields move {pct} basis points in quiet trading",
        "Markets gain as investors grow optimistic about rates",
        "Futures slip on worries about tariffs",
        "Oil settles near ${num} a barrel",
        "Central bank minutes show a divided committee",
        "Factory orders rise {pct}% in the month",
        "Weak retail sales hurt consumer shares",
        "Dollar steady while traders wait for payrolls",
        "Small caps lead a broad market rally",
    ),
    (
        "Volume was near its thirty-day average & breadth was mixed.",
        "Traders await the next release of the week.",
        "The index moved by {pct}% at most during the day.",
    ),
)


@dataclass(frozen=True)
class _Event:
    """Something that moves one ticker from its start, counted in minutes of the session."""

    ticker: str
    start: int
    length: int
    move: float

    def minutes(self, count: int) -> range:
        return range(self.start, min(self.start + self.length, count))

    def covers(self, ticker: str, index: int) -> bool:
        return ticker == self.ticker and self.start <= index < self.start + self.length


@dataclass(frozen=True)
class _Plan:
    """What is special about one day."""

    halt: _Event
    shock: _Event
    silent: tuple[str, int]
    missing: frozenset[tuple[str, int]]

    def lacks(self, ticker: str, index: int) -> bool:
        return (ticker, index) in self.missing or self.halt.covers(ticker, index)


@dataclass(frozen=True)
class _Story:
    """One story before a feed carries it."""

    number: int
    ticker: str | None
    title: str
    summary: str
    link: str
    at: datetime

    def entry(self, *, in_own_feed: bool, delay: timedelta = timedelta(0)) -> NewsEntry:
        own = self.ticker if in_own_feed else None
        return NewsEntry(
            feed=f"generated/{own}" if own else GENERAL_FEED,
            entry_id=f"{own}-{self.at:%Y%m%d}-{self.number:03}" if own else self.link,
            title=self.title,
            summary=self.summary,
            link=self.link,
            published_at=self.at + delay,
            tickers=(own,) if own else (),
        )


class GeneratedMarket:
    """Bars and news of any day, always the same for the same seed, tickers and calendar.

    Every day has flaws and one news shock, so that whatever reads it meets them daily.
    """

    def __init__(self, calendar: Calendar, tickers: Sequence[str], seed: int = 7) -> None:
        if not tickers:
            raise ValueError("a market needs at least one ticker")
        self.calendar = calendar
        self.tickers = tuple(tickers)
        self.seed = seed

    def bars(self, day: date) -> list[Bar]:
        """All bars of this day's session, ordered by minute and ticker; none on a closed day."""
        session = self.calendar.on(day)
        if session is None:
            return []
        plan = self._plan(session)
        found = [bar for ticker in self.tickers for bar in self._bars_of(ticker, session, plan)]
        return sorted(found, key=lambda bar: (bar.minute, bar.ticker))

    def news(self, day: date) -> list[NewsEntry]:
        """The news of a trading day from the early morning to the close; none on a closed day.

        Ordered by time of publication; the entry that has none comes last.
        """
        session = self.calendar.on(day)
        if session is None:
            return []
        entries = self._background(session) + self._shock_news(session)
        return sorted(entries, key=lambda entry: _publication_order(entry, session))

    def _rng(self, *parts: object) -> random.Random:
        name = "/".join(str(part) for part in (self.seed, *parts))
        return random.Random(name)  # noqa: S311 - a reproducible market, not cryptography

    def _plan(self, session: Session) -> _Plan:
        rng, count = self._rng("plan", session.day), len(session.minutes())
        # One on each side of the silent minute, so that no two overlap.
        zones = [(0.22, 0.36), (0.55, 0.75)]
        halt_zone, shock_zone = zones if rng.random() < 0.5 else zones[::-1]
        halt = self._event(rng, _within(rng, count, halt_zone), _integer(rng, 10, 15), 0.006, 0.012)
        start = _within(rng, count, shock_zone)
        shock = self._event(rng, start, _SHOCK_MINUTES, 0.015, 0.025)
        candidates = [ticker for ticker in self.tickers if ticker != halt.ticker] or self.tickers
        silent = (_pick(rng, candidates), _within(rng, count, (0.46, 0.54)))
        missing = {
            (_pick(rng, self.tickers), _integer(rng, 1, count - 2))
            for _ in range(_integer(rng, 2, 4))
        }
        return _Plan(halt, shock, silent, frozenset(missing - {silent}))

    def _event(
        self, rng: random.Random, start: int, length: int, least: float, most: float
    ) -> _Event:
        move = _sign(rng) * (least + (most - least) * rng.random())
        return _Event(_pick(rng, self.tickers), start, length, move)

    def _level(self, ticker: str, day: date) -> float:
        """The close of this day: slow cycles around the ticker's anchor."""
        rng = self._rng("level", ticker)
        anchor = _KNOWN[ticker][1] if ticker in _KNOWN else 20 + 380 * rng.random()
        # Weekends do not move the level, or Mondays would move three times as much.
        elapsed = (day.toordinal() - 1) // 7 * 5 + min(day.weekday() + 1, 5)
        # fsum, because the rounding of sum differs between versions of the language.
        drift = math.fsum(
            size * math.sin(2 * math.pi * (elapsed / period + rng.random()))
            for period, size in _CYCLES
        )
        noise = self._rng("level", ticker, day).gauss(0, 0.004)
        return round(anchor * math.exp(drift + noise), 2)

    def _bars_of(self, ticker: str, session: Session, plan: _Plan) -> list[Bar]:
        day, minutes = session.day, session.minutes()
        prices = self._path(ticker, len(minutes), day, plan)
        volumes = self._volumes(ticker, len(minutes), day, plan)
        rng, bars = self._rng("wick", ticker, day), list[Bar]()
        for index, minute in enumerate(minutes):
            wick = abs(rng.gauss(0, 0.0003)), abs(rng.gauss(0, 0.0003))
            if plan.lacks(ticker, index):
                continue
            if (ticker, index) == plan.silent:
                price = bars[-1].close
                bars.append(Bar(ticker, minute, price, price, price, price, 0))
            else:
                edges = prices[index], prices[index + 1]
                bars.append(_traded(ticker, minute, edges, wick, volumes[index]))
        return bars

    def _path(self, ticker: str, count: int, day: date, plan: _Plan) -> list[float]:
        """Prices at the edges of the minutes: a bridge from the open to the day's level."""
        opened, closed = self._open(ticker, day), self._level(ticker, day)
        steps = self._steps(ticker, count, day, plan)
        correction = (math.log(closed / opened) - math.fsum(steps)) / count
        prices, log_price = [opened], math.log(opened)
        for step in steps:
            log_price += step + correction
            prices.append(round(math.exp(log_price), 2))
        return prices

    def _open(self, ticker: str, day: date) -> float:
        rng = self._rng("gap", ticker, day)
        gap = _sign(rng) * (0.001 + 0.007 * rng.random())
        return round(self._level(ticker, self.calendar.before(day).day) * (1 + gap), 2)

    def _steps(self, ticker: str, count: int, day: date, plan: _Plan) -> list[float]:
        rng = self._rng("steps", ticker, day)
        spread = 0.0005 + 0.00015 * rng.random()
        steps = [
            rng.gauss(0, spread * (0.85 + 0.15 * _busyness(index, count))) for index in range(count)
        ]
        for trend in self._trends(ticker, count, day):
            for index in trend.minutes(count):
                steps[index] += trend.move
        _strike(steps, ticker, plan)
        return steps

    def _trends(self, ticker: str, count: int, day: date) -> list[_Event]:
        """Short runs in one direction; their move is that of each minute."""
        rng = self._rng("trends", ticker, day)
        return [
            _Event(
                ticker,
                _integer(rng, 0, count - 10),
                _integer(rng, 10, 30),
                _sign(rng) * (0.0004 + 0.0007 * rng.random()),
            )
            for _ in range(round(count / _MINUTES_PER_TREND))
        ]

    def _volumes(self, ticker: str, count: int, day: date, plan: _Plan) -> list[int]:
        usual = 8_000 + 60_000 * self._rng("volume", ticker).random()
        rng = self._rng("volume", ticker, day)
        volumes = [usual * _busyness(index, count) * _noise(rng) for index in range(count)]
        for trend in self._trends(ticker, count, day):
            for index in trend.minutes(count):
                volumes[index] *= 1 + (index - trend.start) / trend.length
        if ticker == plan.shock.ticker:
            for index in plan.shock.minutes(count):
                volumes[index] *= 3 + 3 * rng.random()
        return [max(1, int(volume)) for volume in volumes]

    def _background(self, session: Session) -> list[NewsEntry]:
        rng = self._rng("news", session.day)
        entries = list[NewsEntry]()
        for number in range(_integer(rng, 36, 56)):
            entries += self._carried(self._story(session, rng, number), rng)
        half = len(entries) // 2
        again = entries[_integer(rng, half, len(entries) - 1)]
        entries.append(_repeated(again, session, timedelta(minutes=_integer(rng, 5, 40))))
        undated = _integer(rng, 0, half - 1)
        entries[undated] = replace(entries[undated], published_at=None)
        return entries

    def _carried(self, story: _Story, rng: random.Random) -> list[NewsEntry]:
        """The story in one feed, and sometimes in a second one some seconds later."""
        in_own_feed = rng.random() < 0.6
        entries = [story.entry(in_own_feed=in_own_feed)]
        # The first story always has its twin, so that each day has at least one.
        if story.ticker and (story.number == 0 or rng.random() < 0.18):
            delay = timedelta(seconds=_integer(rng, 1, 50))
            entries.append(story.entry(in_own_feed=not in_own_feed, delay=delay))
        return entries

    def _story(self, session: Session, rng: random.Random, number: int) -> _Story:
        at = self._instant(session, rng)
        if number and rng.random() < 0.25:
            return _write(_GENERAL, rng, number, None, at, session.day)
        mood = (1, 1, -1, -1, 0, 0, 0)[_integer(rng, 0, 6)]
        return _write(_BACKGROUND[mood], rng, number, _pick(rng, self.tickers), at, session.day)

    def _instant(self, session: Session, rng: random.Random) -> datetime:
        morning = self.calendar.day_starts_at(session.day) + _NEWS_STARTS
        early = min(morning, session.opens_at)
        start = session.opens_at if rng.random() < 0.7 else early
        seconds = int((session.closes_at - MINUTE - start).total_seconds() * rng.random())
        return start + timedelta(seconds=seconds)

    def _shock_news(self, session: Session) -> list[NewsEntry]:
        shock, rng = self._plan(session).shock, self._rng("shock", session.day)
        titles, summaries = _SHOCK[1 if shock.move > 0 else -1]
        count, first = _integer(rng, 5, 7), _integer(rng, 0, len(titles) - 1)
        entries = list[NewsEntry]()
        for number in range(count):
            # Squared, because most reports of an event come right after the first.
            lag = rng.random() ** 2 if number else 0.0
            delay = timedelta(seconds=int(10 + 560 * lag))
            at = session.opens_at + shock.start * MINUTE + delay
            texts = ((titles[(first + number) % len(titles)],), summaries)
            story = _write(texts, rng, 900 + number, shock.ticker, at, session.day)
            entries.append(story.entry(in_own_feed=number % 3 != 2))
        return entries


def _write(
    texts: _Texts, rng: random.Random, number: int, ticker: str | None, at: datetime, day: date
) -> _Story:
    link = f"https://news.example/{day:%Y/%m/%d}/{number:03}"
    words = {
        "who": _called(ticker, rng) if ticker else "",
        "pct": f"{_integer(rng, 2, 9)}.{_integer(rng, 0, 9)}",
        "num": str(_integer(rng, 20, 900)),
    }
    title, summary = (_pick(rng, choices).format(**words) for choices in texts)
    if rng.random() < 0.35:
        summary = _markup(summary, link)
    return _Story(number, ticker, title, summary, link, at)


def _called(ticker: str, rng: random.Random) -> str:
    name = _KNOWN[ticker][0] if ticker in _KNOWN else ticker
    return (name, name, ticker, f"${ticker}")[_integer(rng, 0, 3)]


def _markup(text: str, link: str) -> str:
    return f'<p>{html.escape(text)}</p><p><a href="{link}">Read&nbsp;more &raquo;</a></p>'


def _repeated(entry: NewsEntry, session: Session, delay: timedelta) -> NewsEntry:
    if entry.published_at is None:
        return entry
    return replace(entry, published_at=min(entry.published_at + delay, session.closes_at))


def _publication_order(entry: NewsEntry, session: Session) -> tuple[bool, datetime, str, str]:
    at = entry.published_at or session.closes_at
    return entry.published_at is None, at, entry.feed, entry.entry_id


def _traded(
    ticker: str,
    minute: datetime,
    edges: tuple[float, float],
    wick: tuple[float, float],
    volume: int,
) -> Bar:
    high = round(max(edges) * (1 + wick[0]), 2)
    low = round(min(edges) * (1 - wick[1]), 2)
    return Bar(ticker, minute, edges[0], high, low, edges[1], volume)


def _strike(steps: list[float], ticker: str, plan: _Plan) -> None:
    # The usual noise is damped here, because it could cancel what the day promises.
    if ticker == plan.halt.ticker:
        for index in plan.halt.minutes(len(steps)):
            steps[index] = plan.halt.move / plan.halt.length
    if ticker == plan.shock.ticker:
        for index in plan.shock.minutes(len(steps)):
            steps[index] = 0.3 * steps[index] + plan.shock.move / plan.shock.length


def _busyness(index: int, count: int) -> float:
    """How busy a minute is: about 1 in the middle of the day, several times that at its ends."""
    place = (index + 0.5) / count
    return 1 + 2.2 * math.exp(-place / 0.07) + 1.8 * math.exp(-(1 - place) / 0.06)


def _noise(rng: random.Random) -> float:
    """Lognormal, with a rare surge on top."""
    surge = 1.4 + 2 * rng.random() if rng.random() < 0.03 else 1.0
    return surge * math.exp(rng.gauss(0, 0.38))


def _integer(rng: random.Random, least: int, most: int) -> int:
    return least + int((most - least + 1) * rng.random())


def _within(rng: random.Random, count: int, zone: tuple[float, float]) -> int:
    return _integer(rng, int(count * zone[0]), int(count * zone[1]))


def _pick(rng: random.Random, choices: Sequence[str]) -> str:
    return choices[int(len(choices) * rng.random())]


def _sign(rng: random.Random) -> int:
    return 1 if rng.random() < 0.5 else -1
