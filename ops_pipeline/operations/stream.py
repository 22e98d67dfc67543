"""The reconciliation report of the trade stream: both sides, and what was done about gaps."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection

from ops_pipeline.domain.markdown import markdown_table, markdown_text
from ops_pipeline.domain.stream import StreamHealth, live_verdict, sums_verdict
from ops_pipeline.storage import stream as storage
from ops_pipeline.storage.stream import Gap, Looked, OpenOrder, TickerSums

HOUR = timedelta(hours=1)
LOOKS_SHOWN, GAPS_SHOWN = 20, 20


@dataclass(frozen=True)
class TickerReport:
    """Shares of a ticker: what all orders come to, what the broker says, and why they differ."""

    ticker: str
    before: Decimal
    ours: Decimal
    others: Decimal
    broker: Decimal
    difference: Decimal
    explanation: str


@dataclass(frozen=True)
class StreamReport:
    """All that a reconciliation knows at an instant; gaps are fills that a request told first."""

    at: datetime
    health: StreamHealth | None
    is_live: bool
    adds_up: bool
    said: str
    frames_last_hour: Mapping[str, int]
    lag_p95_seconds: float
    gaps_last_hour: int
    gaps: list[Gap]
    tickers: list[TickerReport]
    open_orders: list[OpenOrder]
    looks: list[Looked]

    @property
    def is_normal(self) -> bool:
        """Whether the account is followed and adds up."""
        return self.is_live and self.adds_up


def report(connection: Connection, account: str, now: datetime) -> StreamReport:
    """Set both sides of an account beside each other; nothing is asked of the broker for it."""
    health = storage.read_health(connection, account)
    counts = storage.frame_counts(connection, account, now - HOUR, now)
    live, sums = live_verdict(health, now), sums_verdict(health)
    explained = {one.ticker: one.explanation for one in health.differences} if health else {}
    return StreamReport(
        at=now,
        health=health,
        is_live=live.is_normal,
        adds_up=sums.is_normal,
        said=f"{live.finding}; {sums.finding}",
        frames_last_hour=counts.by_outcome,
        lag_p95_seconds=round(counts.lag_p95, 3),
        gaps_last_hour=counts.gaps,
        gaps=storage.told_by_request(connection, account, now - HOUR, GAPS_SHOWN),
        tickers=[_ticker(one, explained) for one in storage.by_ticker(connection, account)],
        open_orders=storage.open_orders(connection, account),
        looks=storage.looks(connection, account, LOOKS_SHOWN),
    )


def _ticker(sums: TickerSums, explained: Mapping[str, str]) -> TickerReport:
    return TickerReport(
        sums.ticker,
        sums.before_qty,
        sums.ours_qty,
        sums.others_qty,
        sums.broker_qty,
        sums.difference,
        _why(sums, explained),
    )


def _why(sums: TickerSums, explained: Mapping[str, str]) -> str:
    if not sums.difference:
        return ""
    if sums.ticker in explained:
        return explained[sums.ticker] or "not explained"
    return "an order moved since the last look"


def markdown(found: StreamReport) -> str:
    """The table by ticker, as Dagster shows it."""
    head = ("ticker", "before", "ours", "others", "broker", "difference", "explanation")
    rows = [
        (
            one.ticker,
            *(f"{n:f}" for n in (one.before, one.ours, one.others, one.broker, one.difference)),
            one.explanation,
        )
        for one in found.tickers
    ]
    return f"{markdown_text(found.said)}\n\n{markdown_table(head, rows)}"
