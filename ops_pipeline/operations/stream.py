"""The reconciliation report of the trade stream: both sides, and what was done about gaps."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection

from ops_pipeline.dispatcher.told import lots_of
from ops_pipeline.domain.adjustments import ACCEPTED, Adjustment, looks_like_split, split_of
from ops_pipeline.domain.errors import Unsafe
from ops_pipeline.domain.markdown import markdown_table, markdown_text
from ops_pipeline.domain.session import both_zones
from ops_pipeline.domain.stream import (
    Difference,
    StreamHealth,
    live_verdict,
    stream_state,
    sums_verdict,
)
from ops_pipeline.storage import dispatch
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
    adjusted: Decimal
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
        sums.adjusted_qty,
        sums.broker_qty,
        sums.broker_qty - sums.by_orders,
        _why(sums, explained),
    )


def _why(sums: TickerSums, explained: Mapping[str, str]) -> str:
    if sums.broker_qty == sums.by_orders:
        return ""
    if sums.ticker in explained:
        return explained[sums.ticker] or "not explained"
    return "an order moved since the last look"


def accept(
    connection: Connection,
    account: str,
    ticker: str,
    now: datetime,
    *,
    who: str,
    reason: str,
    is_split: bool | None = None,
) -> Adjustment:
    """Accept the difference that the last look found of a ticker, as a row of its own.

    Args:
        connection: whose transaction; undone, it was a dry run.
        account: whose difference.
        ticker: as the report writes it.
        now: the present.
        who: the operator.
        reason: why.
        is_split: whether the ledger's lot is scaled; None: if the broker's cost says so.

    Raises:
        Unsafe: the account is not followed, an order is at work, or there is nothing to accept.
    """
    storage.lock_followed(connection, account)
    dispatch.lock_account(connection, account)
    found = _difference(connection, account, ticker, now)
    lot = lots_of(connection, now).get(ticker)
    plain = Adjustment(ACCEPTED, found, reason, who)
    if is_split is None:
        price = storage.broker_price(connection, account, ticker)
        is_split = looks_like_split(found, price, lot)
    made = split_of(plain, lot) if is_split else plain
    storage.insert_adjustments(connection, account, [made], now)
    return made


def _difference(connection: Connection, account: str, ticker: str, now: datetime) -> Difference:
    """Return what the last look found of a ticker and nothing explains."""
    health = storage.read_health(connection, account)
    _, silent = stream_state(health, now)
    if silent or health is None:
        raise Unsafe(f"{silent}: what the account holds is not known", "run: ops-pipeline up")
    orders = [one for one in storage.open_orders(connection, account) if one.ticker == ticker]
    if orders:
        at_work = f"order {orders[0].client_order_id} of {ticker} is at work"
        raise Unsafe(at_work, "wait until it has ended, or cancel it at the broker")
    sums = {one.ticker: one for one in storage.by_ticker(connection, account)}.get(ticker)
    if sums is None or sums.broker_qty == sums.by_orders:
        last = storage.last_accepted(connection, account, ticker)
        known = f"; {last[0]} accepted it at {both_zones(last[1])}" if last else ""
        raise Unsafe(
            f"nothing to accept: {ticker} adds up{known}", "run: ops-pipeline trade-stream --report"
        )
    seen = [one for one in health.differences if one.ticker == ticker and not one.is_explained]
    if not seen or (seen[0].by_orders, seen[0].by_broker) != (sums.by_orders, sums.broker_qty):
        raise Unsafe(f"{ticker} moved since the last look", "try again in half a minute")
    return seen[0]


def markdown(found: StreamReport) -> str:
    """The table by ticker, as Dagster shows it."""
    head = ("ticker", "before", "ours", "others", "adjusted", "broker", "difference", "explanation")
    rows = [
        (
            one.ticker,
            *(f"{n:f}" for n in (one.before, one.ours, one.others, one.adjusted, one.broker)),
            f"{one.difference:f}",
            one.explanation,
        )
        for one in found.tickers
    ]
    return f"{markdown_text(found.said)}\n\n{markdown_table(head, rows)}"
