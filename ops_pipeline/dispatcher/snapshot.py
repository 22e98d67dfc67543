"""What a run of the dispatcher knows: read once, kept true as its own orders fill."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from sqlalchemy import Connection

from ops_pipeline.domain.execution import Book, Order, book, closing_order, size_order
from ops_pipeline.domain.gates import CLOSE, OPEN, Snapshot
from ops_pipeline.domain.session import Calendar, Session
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.domain.values import Bar, Fill, Recommendation
from ops_pipeline.storage import bars, dispatch, execution, quarantine
from ops_pipeline.storage.dispatch import Owned

SIDES = {"BUY": 1, "SELL": -1}


@dataclass(frozen=True)
class Account:
    """The ledger and the market as they stand at one instant."""

    now: datetime
    trading_state: str
    session: Session | None
    fills: tuple[Fill, ...]
    bars: Mapping[str, Bar]
    quarantined: frozenset[str]

    @cached_property
    def book(self) -> Book:
        """Positions and profit of the fills."""
        return book(self.fills)

    def with_fill(self, fill: Fill) -> "Account":
        """The account after one more fill."""
        return replace(self, fills=(*self.fills, fill))


def read_account(
    connection: Connection, now: datetime, calendar: Calendar, tickers: Sequence[str] = ()
) -> Account:
    """The account at an instant, with the newest bars of these tickers and of all that is held."""
    fills = tuple(execution.live_fills(connection, calendar.day(now)))
    wanted = sorted({*tickers, *(fill.ticker for fill in fills)})
    return Account(
        now=now,
        trading_state=dispatch.read_trading_state(connection),
        session=calendar.at(now),
        fills=fills,
        bars=bars.newest_bars(connection, wanted, now) if wanted else {},
        quarantined=quarantine.quarantined(connection, now),
    )


def size(owned: Owned, account: Account, config: DispatcherConfig) -> Order | None:
    """The order that a recommendation asks for; None where price or position is unknown."""
    recommendation = owned.recommendation
    bar = account.bars.get(recommendation.ticker)
    position = account.book.positions.get(recommendation.ticker)
    if bar is None or recommendation.action not in SIDES:
        return None
    if recommendation.intent == CLOSE:
        return closing_order(position, bar.close, config) if position else None
    return size_order(
        SIDES[recommendation.action],
        bar.close,
        (owned.features or {}).get("recent_vol"),
        position.quantity if position else 0,
        account.book.exposure_usd,
        config,
    )


def snapshot(
    owned: Owned, account: Account, order: Order | None, config: DispatcherConfig
) -> Snapshot:
    """All that the gates may know of one recommendation."""
    recommendation, held = owned.recommendation, account.book
    ticker = recommendation.ticker
    bar, position = account.bars.get(ticker), held.positions.get(ticker)
    marks = {name: known.close for name, known in account.bars.items()}
    day = account.session.day if account.session else owned.session_date
    mine = [fill for fill in account.fills if fill.ticker == ticker]
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
        session_pnl_usd=held.session_pnl(day, marks),
        open_tickers=_tickers_after(held, recommendation, position is not None),
        exposure_usd=held.exposure_usd,
        order_quantity=order.quantity if order else None,
        order_notional_usd=_added_notional(order, position.quantity if position else 0),
        held_quantity=position.quantity if position else 0,
        ticker_executions=sum(f.intent == OPEN and f.session_date == day for f in mine),
        minutes_since_execution=_minutes_since(mine, account.now),
        has_executed=bool(mine),
    )


def _feature_bar_at(owned: Owned) -> datetime | None:
    text = (owned.features or {}).get("ts")
    return datetime.fromisoformat(text) if text else None


def _tickers_after(
    held: Book,
    recommendation: Recommendation,
    is_held: bool,  # noqa: FBT001
) -> frozenset[str]:
    # A ticker that is held already needs no further place.
    return frozenset(held.positions) | (frozenset() if is_held else {recommendation.ticker})


def _added_notional(order: Order | None, held_quantity: int) -> float | None:
    if order is None:
        return None
    return 0.0 if order.quantity * held_quantity < 0 else order.notional


def _minutes_since(fills: Sequence[Fill], now: datetime) -> float | None:
    return (now - fills[-1].at).total_seconds() / 60 if fills else None
