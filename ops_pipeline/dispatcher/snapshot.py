"""What a run of the dispatcher knows: read once, kept true as its own orders fill."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from sqlalchemy import Connection

from ops_pipeline.domain.execution import Book, Order, closing_order, size_order
from ops_pipeline.domain.gates import CLOSE, Snapshot, number
from ops_pipeline.domain.session import Calendar, Session
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.domain.values import Bar
from ops_pipeline.storage import bars, dispatch, execution, quarantine
from ops_pipeline.storage.dispatch import Owned

SIDES = {"BUY": 1, "SELL": -1}


@dataclass(frozen=True)
class Account:
    """The ledger and the market as they stand at one instant; the book grows with each fill."""

    now: datetime
    trading_state: str
    session: Session | None
    book: Book
    bars: Mapping[str, Bar]
    quarantined: frozenset[str]

    @cached_property
    def marks(self) -> dict[str, float]:
        """The newest price of each ticker that is known."""
        return {ticker: bar.close for ticker, bar in self.bars.items()}


def read_account(
    connection: Connection, now: datetime, calendar: Calendar, tickers: Sequence[str] = ()
) -> Account:
    """The account at an instant, with the newest bars of these tickers and of all that is held."""
    fills = execution.live_fills(connection, calendar.day(now))
    wanted = sorted({*tickers, *(fill.ticker for fill in fills)})
    return Account(
        now=now,
        trading_state=dispatch.read_trading_state(connection),
        session=calendar.at(now),
        book=Book(fills),
        bars=bars.newest_bars(connection, wanted, now) if wanted else {},
        quarantined=quarantine.quarantined(connection, now),
    )


def size(owned: Owned, account: Account, config: DispatcherConfig) -> Order | None:
    """The order that a recommendation asks for; None where an input is unknown or no number."""
    recommendation = owned.recommendation
    bar, held = account.bars.get(recommendation.ticker), account.book.held(recommendation.ticker)
    volatility = (owned.features or {}).get("recent_vol")
    if bar is None or recommendation.action not in SIDES:
        return None
    if recommendation.intent == CLOSE:
        position = account.book.positions.get(recommendation.ticker)
        return (
            closing_order(replace(position, quantity=held), bar.close, config)
            if held and position
            else None
        )
    if volatility is not None and number(volatility) is None:
        return None
    return size_order(
        SIDES[recommendation.action],
        bar.close,
        volatility,
        held,
        account.book.exposure_usd,
        config,
    )


def snapshot(
    owned: Owned, account: Account, order: Order | None, config: DispatcherConfig
) -> Snapshot:
    """All that the gates may know of one recommendation."""
    recommendation, book = owned.recommendation, account.book
    ticker = recommendation.ticker
    bar, held = account.bars.get(ticker), book.held(ticker)
    day = account.session.day if account.session else owned.session_date
    traded_at = book.traded_at.get(ticker)
    return Snapshot(
        now=account.now,
        ts=recommendation.ts,
        ticker=ticker,
        action=recommendation.action,
        instrument_type=recommendation.instrument_type,
        intent=recommendation.intent,
        confidence=recommendation.confidence,
        trading_state=account.trading_state,
        session=account.session,
        is_quarantined=ticker in account.quarantined,
        bar_minute=bar.minute if bar else None,
        feature_bar_at=_feature_bar_at(owned),
        session_pnl_usd=book.session_pnl(day, account.marks),
        open_tickers=book.tickers | {ticker},
        exposure_usd=book.exposure_usd,
        order_quantity=order.quantity if order else None,
        order_notional_usd=_added_notional(order, held),
        held_quantity=held,
        ticker_executions=book.opened[ticker, day],
        minutes_since_execution=_minutes_since(traded_at, account.now),
        has_executed=traded_at is not None,
    )


def _feature_bar_at(owned: Owned) -> datetime | None:
    try:
        return datetime.fromisoformat((owned.features or {})["ts"])
    except (KeyError, TypeError, ValueError):
        return None


def _added_notional(order: Order | None, held_quantity: int) -> float | None:
    if order is None:
        return None
    return 0.0 if order.quantity * held_quantity < 0 else order.notional


def _minutes_since(since: datetime | None, now: datetime) -> float | None:
    return (now - since).total_seconds() / 60 if since else None
