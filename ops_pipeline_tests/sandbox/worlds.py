"""Sandboxes with a present that is moved by hand, and alpaca-py's clients for them."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from alpaca.data.enums import DataFeed
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.requests import StockBarsRequest
from alpaca.data.timeframe import TimeFrame
from alpaca.trading.client import TradingClient

from ops_pipeline.domain.values import Bar
from ops_pipeline.sandbox.live import LiveMarket, RestampedMarket, UnfoldingMarket
from ops_pipeline.sandbox.world import SandboxWorld
from ops_pipeline_tests.sandbox.served import CONTROL

NOW = datetime(2025, 3, 11, 15, 30, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ACCESS = ("sandbox-key", "sandbox-secret")
# One for all, because each takes a tenth of a second to make.
WEB = httpx.Client(
    trust_env=False, headers=CONTROL, limits=httpx.Limits(max_keepalive_connections=0)
)
HEADERS = {"APCA-API-KEY-ID": ACCESS[0], "APCA-API-SECRET-KEY": ACCESS[1]}


class Clock:
    """A present that is moved by hand."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def a_world(
    clock: Clock | None = None, market: LiveMarket | None = None, **how: Any
) -> SandboxWorld:
    """A generated market whose orders are filled at once, and in which much may be asked."""
    clock = clock or Clock()
    options: dict[str, Any] = {"requests_per_minute": 10_000, "fill_seconds": 0.03, **how}
    return SandboxWorld(market or UnfoldingMarket(clock), clock, **options)


def flat_market(clock: Clock, prices: Iterable[tuple[str, float]]) -> RestampedMarket:
    """A market in which each ticker always has the same price."""
    return RestampedMarket(
        [Bar(t, NOW.replace(second=0), p, p, p, p, 1_000) for t, p in prices], clock
    )


def trader(url: str) -> TradingClient:
    """An unmodified client of the trading host."""
    return TradingClient(*ACCESS, paper=True, url_override=url)


def ask_bars(url: str, symbols: list[str], start: datetime, end: datetime, **how: Any) -> Any:
    """Bars by symbol, as an unmodified client reads them."""
    client = StockHistoricalDataClient(*ACCESS, url_override=url)
    query: dict[str, Any] = {"timeframe": TimeFrame.Minute, "feed": DataFeed.IEX, **how}
    request = StockBarsRequest(symbol_or_symbols=symbols, start=start, end=end, **query)
    return client.get_stock_bars(request).data
