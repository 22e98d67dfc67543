"""What makes a bar usable."""

import math
import re
from collections.abc import Iterable
from datetime import datetime

from ops_pipeline.domain.session import MINUTE, Session
from ops_pipeline.domain.values import Bar

TICKER_PATTERN = re.compile(r"[A-Z][A-Z0-9]{0,5}([.-][A-Z0-9]{1,3})?")
# Where Yahoo and others write another sign before the class of a share, Alpaca writes a dot.
_CLASS_SIGN = re.compile(r"-(?=[A-Z0-9]{1,3}$)|/(?=[A-Z]{1,2}$)")
MAX_PRICE = 10_000_000.0
# Prices of a minute hardly ever lie further apart, or from the close before; such a bar is kept.
FAR_OFF = 1.2
# A minute to become complete, one to be fetched, and one to be late.
FRESH_SECONDS = 180


def is_ticker(text: str) -> bool:
    """Whether a text can be the symbol of a US stock."""
    return TICKER_PATTERN.fullmatch(text) is not None


def canonical_ticker(text: str) -> str:
    """Return a symbol as Alpaca writes it: BRK-B and BRK/B are BRK.B."""
    return _CLASS_SIGN.sub(".", text, count=1)


def fault(bar: Bar) -> str | None:
    """Why a bar cannot be used; None where it can."""
    prices = (bar.open, bar.high, bar.low, bar.close)
    if not is_ticker(bar.ticker):
        return "ticker"
    if not all(math.isfinite(price) and 0 < price <= MAX_PRICE for price in prices):
        return "price"
    if bar.high < max(bar.open, bar.close, bar.low) or bar.low > min(bar.open, bar.close):
        return "high_low"
    if bar.volume < 0:
        return "volume"
    if bar.minute.tzinfo is None or bar.minute.second or bar.minute.microsecond:
        return "minute"
    return None


def far_off(bars: Iterable[Bar]) -> list[Bar]:
    """Return the bars that range too far, or lie too far from the bar of their day before.

    The bars come in the order of their minutes.
    """
    before: dict[str, Bar] = {}
    found: list[Bar] = []
    for bar in bars:
        last = before.get(bar.ticker, bar)
        close = last.close if last.minute.date() == bar.minute.date() else bar.close
        if max(bar.high, close) > FAR_OFF * min(bar.low, close):
            found.append(bar)
        before[bar.ticker] = bar
    return found


def age_seconds(newest: datetime | None, session: Session, now: datetime) -> float:
    """How long ago the newest bar of a session ended, or the session opened without one."""
    since = max(newest + MINUTE, session.opens_at) if newest else session.opens_at
    return (now - since).total_seconds()


def is_complete(bar: Bar, now: datetime) -> bool:
    """Whether the bar's minute has ended."""
    return bar.minute + MINUTE <= now


def split_faulty(bars: Iterable[Bar]) -> tuple[list[Bar], dict[str, int]]:
    """The usable bars, and how many of the others had which fault."""
    usable: list[Bar] = []
    faults: dict[str, int] = {}
    for bar in bars:
        if (found := fault(bar)) is None:
            usable.append(bar)
        else:
            faults[found] = faults.get(found, 0) + 1
    return usable, faults
