"""How long it takes to fetch and keep the bars of a minute, for universes of any size."""

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from benchmarks.measure.throughput import settle
from ops_pipeline.clients.alpaca_bars import CHUNK, AlpacaBars
from ops_pipeline.clients.alpaca_http import RateBudget
from ops_pipeline.clients.live import access_of
from ops_pipeline.clients.universe import tickers_of
from ops_pipeline.defs.assets.bars import OVERLAP
from ops_pipeline.defs.resources import Pipeline, bar_known_at
from ops_pipeline.defs.tick import tick
from ops_pipeline.domain.session import MINUTE, newest_closed_minute
from ops_pipeline.domain.stages import BARS
from ops_pipeline.local.ports import port_is_free
from ops_pipeline.local.processes import wait_until
from ops_pipeline.sandbox.live import UnfoldingMarket
from ops_pipeline.sandbox.market import DEFAULT_TICKERS
from ops_pipeline.sandbox.server import serve
from ops_pipeline.sandbox.world import SandboxWorld
from ops_pipeline.settings import Settings
from ops_pipeline.storage.bars import insert_bars, mark_answered
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.universe import replace_universe

START_SECONDS = 30
# One request for each ticker is what one would write first; more of them would take minutes.
NAIVE_AT_MOST = 500
UNLIMITED = 1_000_000


@dataclass(frozen=True)
class Measured:
    """One minute's bars: asked, fetched, checked and kept; the naive way asks ticker by ticker."""

    tickers: int
    requests: int
    bytes: int
    bars: int
    seconds: float
    fetch_seconds: float
    naive_tickers: int
    naive_fetch_seconds: float

    @property
    def ratio(self) -> float:
        """How many times longer the naive way takes to fetch the bars of one ticker."""
        naive = self.naive_fetch_seconds / self.naive_tickers
        return naive / (self.fetch_seconds / self.tickers)


def symbols(count: int) -> list[str]:
    """So many symbols: the default ones, then made ones."""
    made = (f"B{number:04}" for number in range(count))
    return [*DEFAULT_TICKERS, *made][:count]


def track(settings: Settings, count: int) -> None:
    """Make these tickers the universe of a scratch."""
    with opened(settings) as engine, engine.begin() as connection:
        replace_universe(connection, tickers_of(symbols(count)))


def put_history(settings: Settings, count: int, first: datetime, last: datetime) -> None:
    """The bars of these minutes, both included, as if each had come when it was settled.

    They are those that a sandbox of so many tickers serves; nothing else is made of the minutes.
    """
    pipeline, tickers = Pipeline(settings), symbols(count)
    market = UnfoldingMarket(clock, tickers)
    pairs = list(pipeline.calendar.minutes_between(first, last + MINUTE))
    days = {minute: session.day for session, minute in pairs}
    sessions = dict.fromkeys(session for session, _ in pairs)
    before = pipeline.calendar.before(pairs[0][0].day)
    for at in range(0, count, CHUNK):
        part = tickers[at : at + CHUNK]
        with pipeline.engine.begin() as connection:
            insert_bars(
                connection,
                [bar for ticker in part for bar in market.bars(ticker, first, last)],
                days,
                lambda bar: bar_known_at(bar.minute),
                feed=pipeline.market.bars.feed,
                origin=pipeline.market.origin,
            )
            mark_answered(connection, part, [before, *sessions], last + MINUTE)
    settle(pipeline.engine)
    pipeline.engine.dispose()


@contextmanager
def sandbox_of(count: int, port: int) -> Iterator[None]:
    """A sandbox of so many tickers in a process of its own, so that it does not slow the client."""
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=_serve, args=(count, port), daemon=True)
    server.start()
    try:
        wait_until(lambda: not port_is_free(port), START_SECONDS, "the sandbox did not answer")
        yield
    finally:
        server.kill()
        server.join()


def measure(settings: Settings, count: int) -> Measured:
    """Fetch and keep the newest closed minute of so many tickers, as a live tick does.

    The settings are those of a scratch in sandbox mode, with a sandbox of these tickers.
    """
    tickers, pipeline = symbols(count), Pipeline(settings)
    minute = newest_closed_minute(clock())
    session = pipeline.calendar.at(minute)
    assert session is not None  # noqa: S101 - the sandbox never closes
    before = pipeline.calendar.before(session.day)
    with pipeline.engine.begin() as connection:
        replace_universe(connection, tickers_of(tickers))
        mark_answered(connection, tickers, [before, session], minute)
    # The server generates its day on the first request; that is not what is measured.
    pipeline.market.bars.fetch_bars(tickers[:1], minute, minute + MINUTE)
    naive = tickers[:NAIVE_AT_MOST]
    fetch_seconds = _timed_fetch(settings, tickers, minute, CHUNK)
    naive_seconds = _timed_fetch(settings, naive, minute, 1)
    started = time.monotonic()
    said = tick(pipeline, minute, minute, [BARS])[BARS.name]
    seconds = time.monotonic() - started
    pipeline.engine.dispose()
    return Measured(
        tickers=count,
        requests=int(str(said["requests"])),
        bytes=int(str(said["bytes"])),
        bars=int(str(said["rows"])),
        seconds=seconds,
        fetch_seconds=fetch_seconds,
        naive_tickers=len(naive),
        naive_fetch_seconds=naive_seconds,
    )


def _timed_fetch(settings: Settings, tickers: Sequence[str], minute: datetime, chunk: int) -> float:
    source = AlpacaBars(access_of(settings), clock, chunk=chunk, budget=RateBudget(UNLIMITED))
    started = time.monotonic()
    found = source.fetch_bars(tickers, minute - OVERLAP, minute + MINUTE)
    assert not found.unanswered, found.unanswered  # noqa: S101 - a measure of failures is none
    return time.monotonic() - started


def _serve(count: int, port: int) -> None:
    market = UnfoldingMarket(clock, symbols(count))
    serve(SandboxWorld(market, clock, requests_per_minute=UNLIMITED), port)
