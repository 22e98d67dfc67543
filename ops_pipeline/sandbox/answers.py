"""The account, its orders and its positions in the vendor's words."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from ops_pipeline.sandbox.broker import (
    CANCELED,
    FILLED,
    REJECTED,
    ZERO,
    Broker,
    Event,
    Order,
    Position,
)

_SCALE = Decimal("0.000000001")


def order_answer(order: Order) -> dict[str, Any]:
    """An order; amounts are text."""
    ticket, ended = order.ticket, told(order.updated_at)
    ended_by = {FILLED: "filled_at", CANCELED: "canceled_at", REJECTED: "failed_at"}
    ends: dict[str, str | None] = dict.fromkeys(
        ("filled_at", "expired_at", "canceled_at", "failed_at", "replaced_at")
    )
    if order.status in ended_by:
        ends[ended_by[order.status]] = ended
    return {
        "id": str(order.id),
        "client_order_id": order.client_order_id,
        "created_at": told(order.created_at),
        "updated_at": ended,
        "submitted_at": told(order.created_at),
        **ends,
        "replaced_by": None,
        "replaces": None,
        "asset_id": asset_id(ticket.symbol),
        "symbol": ticket.symbol,
        "asset_class": "us_equity",
        "notional": None,
        "qty": amount(ticket.qty),
        "filled_qty": amount(order.filled),
        "filled_avg_price": amount(order.paid / order.filled) if order.filled else None,
        "order_class": "simple",
        "order_type": ticket.type,
        "type": ticket.type,
        "side": ticket.side,
        "time_in_force": ticket.time_in_force,
        "limit_price": amount(ticket.limit_price) if ticket.limit_price else None,
        "stop_price": None,
        "status": order.status,
        "extended_hours": ticket.extended_hours,
        "legs": None,
        "trail_percent": None,
        "trail_price": None,
        "hwm": None,
    }


def event_answer(event: Event) -> dict[str, Any]:
    """A trade update; a fill tells its price, its quantity and what is held then."""
    fill = {
        "price": amount(event.price),
        "qty": amount(event.quantity),
        "position_qty": amount(event.position_quantity),
    }
    return {
        "event": event.name,
        "execution_id": str(event.execution_id),
        "timestamp": told(event.at),
        **(fill if event.is_fill else {}),
        "order": order_answer(event.order),
    }


def activity_id(fill: Event) -> str:
    """The identity of a fill among the activities; it sorts by time."""
    return f"{fill.at:%Y%m%d%H%M%S}{fill.at.microsecond // 1000:03}::{fill.execution_id}"


def activity_answer(fill: Event, account_id: str) -> dict[str, Any]:
    """A fill among the account's activities."""
    order = fill.order
    return {
        "id": activity_id(fill),
        "account_id": account_id,
        "activity_type": "FILL",
        "transaction_time": told(fill.at),
        "type": fill.name,
        "price": amount(fill.price),
        "qty": amount(fill.quantity),
        "side": order.ticket.side,
        "symbol": order.ticket.symbol,
        "leaves_qty": amount(order.leaves),
        "cum_qty": amount(order.filled),
        "order_id": str(order.id),
        "order_status": order.status,
    }


def position_answer(broker: Broker, position: Position) -> dict[str, Any]:
    """A position at the newest price; a short one has a negative quantity and value."""
    price = broker.price(position.symbol) or position.average_price
    cost, value = position.quantity * position.average_price, position.quantity * price
    open_orders = (o for o in broker.open_orders() if o.ticket.symbol == position.symbol)
    bound = (o.leaves for o in open_orders if o.ticket.sign * position.quantity < 0)
    available = max(ZERO, abs(position.quantity) - sum(bound, ZERO))
    gain, ratio = amount(value - cost), amount((value - cost) / abs(cost))
    return {
        "asset_id": asset_id(position.symbol),
        "symbol": position.symbol,
        "exchange": "NASDAQ",
        "asset_class": "us_equity",
        "asset_marginable": True,
        "avg_entry_price": amount(position.average_price),
        "qty": amount(position.quantity),
        "qty_available": amount(available.copy_sign(position.quantity)),
        "side": "long" if position.quantity > 0 else "short",
        "market_value": amount(value),
        "cost_basis": amount(cost),
        "unrealized_pl": gain,
        "unrealized_plpc": ratio,
        "unrealized_intraday_pl": gain,
        "unrealized_intraday_plpc": ratio,
        "current_price": amount(price),
        "lastday_price": amount(price),
        "change_today": "0",
    }


def account_answer(broker: Broker, created_at: datetime) -> dict[str, Any]:
    """The account; equity is cash and the value of all positions."""
    values = [broker.value(position) for position in broker.positions.values()]
    long_value = sum((value for value in values if value > 0), ZERO)
    short_value = sum((value for value in values if value < 0), ZERO)
    equity, power = amount(broker.cash + long_value + short_value), amount(broker.buying_power())
    margin = amount(long_value - short_value)
    return {
        "id": str(broker.account_id),
        "account_number": "PA0SANDBOX",
        "status": "ACTIVE",
        "currency": "USD",
        "cash": amount(broker.cash),
        "equity": equity,
        "last_equity": equity,
        "portfolio_value": equity,
        "buying_power": power,
        "regt_buying_power": power,
        "non_marginable_buying_power": power,
        "long_market_value": amount(long_value),
        "short_market_value": amount(short_value),
        "initial_margin": margin,
        "maintenance_margin": margin,
        "multiplier": "1",
        "shorting_enabled": broker.shorting,
        "trading_blocked": False,
        "transfers_blocked": False,
        "account_blocked": False,
        "trade_suspended_by_user": False,
        "accrued_fees": "0",
        "created_at": told(created_at),
    }


def asset_id(symbol: str) -> str:
    """The identity of an asset; always the same for the same symbol."""
    return str(uuid5(NAMESPACE_DNS, f"{symbol}.sandbox.invalid"))


def amount(value: Decimal) -> str:
    """An amount as text, with at most nine places and no trailing zeros."""
    text = f"{value.quantize(_SCALE):f}"
    return text.rstrip("0").rstrip(".")


def told(at: datetime) -> str:
    """A time as text, in UTC."""
    return at.isoformat().replace("+00:00", "Z")
