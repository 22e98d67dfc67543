"""Valid records with one override each."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from ops_pipeline.domain.gates import ACTIVE, OPEN, Snapshot
from ops_pipeline.domain.orders import OrderState
from ops_pipeline.domain.session import Session
from ops_pipeline.domain.stream import BrokerEvent, BrokerOrder
from ops_pipeline.domain.values import Bar, FeatureRow, Fill, NewsEntry, Position

DAY = date(2025, 2, 12)
OPENS_AT = datetime(2025, 2, 12, 14, 30, tzinfo=UTC)
SESSION = Session(DAY, OPENS_AT, datetime(2025, 2, 12, 21, 0, tzinfo=UTC))
NOON = datetime(2025, 2, 12, 17, 0, tzinfo=UTC)


def at(minutes: float) -> datetime:
    """An instant so many minutes after the open."""
    return OPENS_AT + timedelta(minutes=minutes)


def a_bar(**changes: Any) -> Bar:
    """A bar of AAPL at noon UTC-5."""
    return replace(Bar("AAPL", NOON, 200.0, 200.5, 199.5, 200.0, 10_000), **changes)


def an_entry(**changes: Any) -> NewsEntry:
    """A story of one feed."""
    entry = NewsEntry(
        feed="wire",
        entry_id="1",
        title="Apple beats expectations",
        summary="Profit rises.",
        link="https://news.example/1",
        published_at=NOON,
    )
    return replace(entry, **changes)


def a_feature_row(**changes: Any) -> FeatureRow:
    """A clear bull setup with strong volume."""
    row = FeatureRow(
        ticker="AAPL",
        minute=NOON,
        bar_at=NOON,
        close=200.0,
        sma20=199.6,
        sma50=199.0,
        distance_sma20=0.002,
        distance_sma50=0.005,
        trend_state=1,
        recent_vol=0.0005,
        vol_ratio=1.0,
        volume_ratio=2.5,
        volume_surge=True,
    )
    return replace(row, **changes)


def a_snapshot(**changes: Any) -> Snapshot:
    """What passes every gate at the defaults."""
    snapshot = Snapshot(
        now=NOON + timedelta(seconds=80),
        ts=NOON + timedelta(seconds=80),
        ticker="AAPL",
        action="BUY",
        instrument_type="STOCK",
        intent=OPEN,
        confidence=0.8,
        trading_state=ACTIVE,
        session=SESSION,
        is_quarantined=False,
        bar_minute=NOON,
        feature_bar_at=NOON,
        session_pnl_usd=0.0,
        open_tickers=frozenset(),
        exposure_usd=0.0,
        order_quantity=10,
        order_notional_usd=2_000.0,
        held_quantity=0,
        ticker_executions=0,
        minutes_since_execution=None,
        has_executed=False,
    )
    return replace(snapshot, **changes)


def a_fill(quantity: int = 10, price: float = 200.0, **changes: Any) -> Fill:
    """An opening fill of AAPL at noon."""
    return replace(Fill("AAPL", NOON, DAY, quantity, price, OPEN), **changes)


def a_position(**changes: Any) -> Position:
    """A long of AAPL since noon, its stop 1 USD below and its target 2 USD above."""
    return replace(Position("AAPL", 10, 200.0, NOON, DAY, 199.0, 202.0, 240), **changes)


def a_broker_order(**changes: Any) -> BrokerOrder:
    """Ten shares of AAPL that a broker was asked for at noon, and works on."""
    order = BrokerOrder(
        broker_order_id="b-1",
        client_order_id="by-hand-1",
        ticker="AAPL",
        side="buy",
        quantity=Decimal(10),
        state=OrderState.ACKED,
        filled_quantity=Decimal(0),
        filled_price=None,
        created_at=NOON,
        told_at=NOON,
    )
    return replace(order, **changes)


def a_broker_event(**changes: Any) -> BrokerEvent:
    """A fill of four shares of that order for 200 USD each, a second after noon."""
    event = BrokerEvent(
        key="e-1",
        name="partial_fill",
        broker_order_id="b-1",
        ticker="AAPL",
        side="buy",
        filled_quantity=Decimal(4),
        at=NOON + timedelta(seconds=1),
        quantity=Decimal(4),
        price=Decimal(200),
    )
    return replace(event, **changes)
