"""Fields of Alpaca's answers, each read strictly: what cannot be is refused by its name."""

from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from math import isfinite
from typing import Any

from ops_pipeline.domain.orders import OrderState

# What the database has room for.
MAX_SHARES = 2**31 - 1
# The longest of Alpaca's texts that are read here is an id of the client's.
MAX_TEXT = 128
SIDES = ("buy", "sell")
# Alpaca's words; where one means that it works on an order, a part may be filled already.
STATES = {
    "new": OrderState.ACKED,
    "accepted": OrderState.ACKED,
    "pending_new": OrderState.ACKED,
    "pending_review": OrderState.ACKED,
    "accepted_for_bidding": OrderState.ACKED,
    "held": OrderState.ACKED,
    "stopped": OrderState.ACKED,
    "calculated": OrderState.ACKED,
    "suspended": OrderState.ACKED,
    "pending_cancel": OrderState.ACKED,
    "pending_replace": OrderState.ACKED,
    "done_for_day": OrderState.ACKED,
    "partially_filled": OrderState.PARTIAL,
    "filled": OrderState.FILLED,
    "canceled": OrderState.CANCELED,
    "expired": OrderState.CANCELED,
    "rejected": OrderState.REJECTED,
}


class Unreadable(Exception):
    """A field of an answer is missing, or holds what it cannot hold; the text is its name."""


def text_of(fields: dict[str, Any], name: str) -> str:
    """A printable text.

    Raises:
        Unreadable: as all of these do, where the field cannot be what it has to be.
    """
    value = fields.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise Unreadable(name)
    return value


def symbol_of(fields: dict[str, Any]) -> str:
    """A symbol as Alpaca writes it of a position: an order for BTC/USD holds BTCUSD.

    Only pairs of currencies carry a slash; some answers name the class of an asset, some do not.
    """
    symbol = text_of(fields, "symbol")
    return symbol.replace("/", "") if fields.get("asset_class", "crypto") == "crypto" else symbol


def number_of(fields: dict[str, Any], name: str) -> Decimal:
    """A finite number, which Alpaca writes as text, and sometimes as a number."""
    value = fields.get(name)
    if isinstance(value, str | int | float):
        with suppress(ArithmeticError, ValueError):
            number = Decimal(str(value))
            if number.is_finite():
                return number
    raise Unreadable(name)


def float_of(number: Decimal, name: str) -> float:
    """The number as a float; what is finite as text may be too large for one."""
    value = float(number)
    if not isfinite(value):
        raise Unreadable(name)
    return value


def shares_of(fields: dict[str, Any], name: str) -> int:
    """A whole number of shares without sign."""
    number = number_of(fields, name)
    # The bounds first: of too large a number there is no remainder.
    if not 0 <= number <= MAX_SHARES or number % 1:
        raise Unreadable(name)
    return int(number)


def price_of(fields: dict[str, Any], name: str) -> float:
    """A price in USD."""
    price = float_of(number_of(fields, name), name)
    if price <= 0:
        raise Unreadable(name)
    return price


def time_of(fields: dict[str, Any], name: str) -> datetime:
    """An instant with a zone, in UTC."""
    with suppress(ValueError, OverflowError):
        at = datetime.fromisoformat(text_of(fields, name))
        if at.tzinfo:
            return at.astimezone(UTC)
    raise Unreadable(name)
