"""Sizes, prices, positions and exits: arithmetic that never rounds in the trader's favour."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal

from ops_pipeline.domain.gates import ADJUST, CLOSE, OPEN
from ops_pipeline.domain.session import MINUTE, Session
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.domain.values import Bar, Fill, Position

BASIS_POINT = 1e-4
OVERNIGHT, FLATTEN = "overnight", "flatten"
FIRST_RETRY, LONGEST_RETRY = timedelta(seconds=15), timedelta(minutes=5)
CENT, SUB_CENT = Decimal("0.01"), Decimal("0.0001")


def round_to_tick(price: float, side: int = 0) -> float:
    """A price on the exchange's grid: 0.01 from 1 USD on, 0.0001 below.

    Args:
        price: a positive price in USD.
        side: +1 for a buyer and -1 for a seller round against the trader; 0 rounds to the nearest.
    """
    tick = CENT if price >= 1 else SUB_CENT
    rounding = {1: ROUND_CEILING, -1: ROUND_FLOOR}.get(side, ROUND_HALF_UP)
    # repr() keeps 200.1 at 200.1; the binary value would round a buyer up one tick too far.
    rounded = Decimal(repr(round(price, 9))).quantize(tick, rounding=rounding)
    return float(max(rounded, SUB_CENT))


def fill_price(close: float, side: int, config: DispatcherConfig) -> float:
    """The simulated price of a market order: the bar's close, slipped against the trader."""
    return round_to_tick(close * (1 + side * config.slippage_bps * BASIS_POINT), side)


def stop_distance(price: float, recent_vol: float | None, config: DispatcherConfig) -> float:
    """How far the stop lies from the price, in USD.

    `stop_loss_vol_mult` times the 1-minute volatility, scaled to the stop's horizon by the square
    root of time, and never less than `min_stop_distance` of the price.
    """
    volatility = recent_vol if recent_vol and math.isfinite(recent_vol) else 0.0
    scaled = config.stop_loss_vol_mult * volatility * math.sqrt(config.stop_horizon_minutes)
    return max(scaled, config.min_stop_distance) * price


@dataclass(frozen=True)
class Order:
    """A sized order; quantity is signed like the side."""

    quantity: int
    price: float
    stop_price: float | None
    target_price: float | None

    @property
    def notional(self) -> float:
        """What the order costs, without sign."""
        return abs(self.quantity) * self.price


def size_order(
    side: int,
    close: float,
    recent_vol: float | None,
    held: int,
    exposure_usd: float,
    config: DispatcherConfig,
) -> Order:
    """An opening order, floored to whole shares so that no cap is passed by rounding.

    A sale against an open long reduces that long and is never larger than it.
    """
    price = fill_price(close, side, config)
    distance = stop_distance(price, recent_vol, config)
    room = config.max_notional_exposure * config.equity_usd - exposure_usd
    shares = min(
        config.limits.risk_per_trade * config.equity_usd / distance,
        config.max_notional_per_trade * config.equity_usd / price,
        math.inf if side * held < 0 else room / price,
    )
    quantity = max(math.floor(shares), 0)
    if side * held < 0:
        return Order(side * min(quantity, abs(held)), price, None, None)
    reward = distance * config.take_profit_risk_reward
    return Order(
        side * quantity,
        price,
        round_to_tick(price - side * distance),
        round_to_tick(price + side * reward),
    )


def closing_order(position: Position, close: float, config: DispatcherConfig) -> Order:
    """The order that brings a position to nothing."""
    side = -1 if position.quantity > 0 else 1
    return Order(-position.quantity, fill_price(close, side, config), None, None)


def may_fill(bar: Bar | None, asked_at: datetime, now: datetime, config: DispatcherConfig) -> bool:
    """Return True if the simulation may fill a closing order at this bar.

    The bar is as fresh as an opening order needs it, or it ended after the order was asked for.
    """
    if bar is None:
        return False
    ended_at = bar.minute + MINUTE
    is_fresh = now - ended_at <= timedelta(seconds=config.max_bar_age_seconds)
    return ended_at <= now and (is_fresh or ended_at > asked_at)


@dataclass(frozen=True)
class Closing:
    """Attempts to close a position: the first reason but flatten, failed orders, the newest one."""

    exit: str | None
    failures: int
    last_at: datetime

    def retry_at(self, closes_at: datetime) -> datetime:
        """Return the time of the next attempt: 15 s after the last one, then 30 s, up to 5 min.

        The wait is at most half of what is left of the session, so that one more attempt fits in.
        """
        if not self.failures:
            return self.last_at
        wait = min(FIRST_RETRY * int(2 ** min(self.failures - 1, 10)), LONGEST_RETRY)
        left = max((closes_at - self.last_at) / 2, FIRST_RETRY)
        return self.last_at + min(wait, left)

    def is_due(self, now: datetime, closes_at: datetime) -> bool:
        """Return True if the next attempt is due; a clock that was set back holds up none."""
        return not self.last_at <= now < self.retry_at(closes_at)


def closed_by_hand(held: int, others: Decimal) -> int:
    """Shares of ours that somebody else has closed, signed like what he traded.

    One account cannot be long for us and short for others: what stands against ours has closed it.
    Parts of a share are left, they are not ours.

    Args:
        held: what the ledger holds of a ticker.
        others: what others hold of it in the same account.
    """
    if held * others >= 0:
        return 0
    return int(max(others, Decimal(-held)) if held > 0 else min(others, Decimal(-held)))


class Book:
    """What the fills of one account add up to, by average price; told of them in time order.

    Attributes:
        positions: what is held, by ticker.
        realised_usd: profit of closed parts, by session.
        working: orders of which a part may still be filled.
        traded_at: when a ticker was last traded.
        opened: opening executions, by ticker and session.
    """

    def __init__(self, fills: Iterable[Fill] = ()) -> None:
        self.positions: dict[str, Position] = {}
        self.realised_usd: dict[date, float] = {}
        self.working: list[Fill] = []
        self.traded_at: dict[str, datetime] = {}
        self.opened: Counter[tuple[str, date]] = Counter()
        self._exposure_usd: float | None = None
        for fill in fills:
            self.add(fill)

    def add(self, fill: Fill) -> None:
        """One more fill, or an order that may become one."""
        self._exposure_usd = None
        if fill.split_ratio:
            self._split(fill, fill.split_ratio)
            return
        if fill.intent != ADJUST:
            self.traded_at[fill.ticker] = fill.at
        if fill.intent == OPEN:
            self.opened[fill.ticker, fill.session_date] += 1
        if fill.working:
            self.working.append(fill)
        if not fill.quantity:
            return
        position, profit = _apply(self.positions.pop(fill.ticker, None), fill)
        day = fill.session_date
        self.realised_usd[day] = self.realised_usd.get(day, 0.0) + profit
        if position:
            self.positions[fill.ticker] = position

    def _split(self, fill: Fill, ratio: float) -> None:
        """Scale a lot: its cost stays, its price, stop and target are per new share."""
        before = self.positions.pop(fill.ticker, None)
        quantity = before.quantity + fill.quantity if before else 0
        if before and quantity * before.quantity > 0:
            self.positions[fill.ticker] = replace(
                before,
                quantity=quantity,
                average_price=before.notional / abs(quantity),
                stop_price=before.stop_price and round_to_tick(before.stop_price / ratio),
                target_price=before.target_price and round_to_tick(before.target_price / ratio),
            )

    @property
    def exposure_usd(self) -> float:
        """The cost of all open positions, and of what opening orders may still add to them."""
        # Added up anew after each fill: a running sum would depend on how it was reached.
        if self._exposure_usd is None:
            held = sum(position.notional for position in self.positions.values())
            working = (abs(f.working) * f.price for f in self.working if f.intent == OPEN)
            self._exposure_usd = held + sum(working)
        return self._exposure_usd

    @property
    def tickers(self) -> frozenset[str]:
        """Tickers that are held, or that an opening order may still add."""
        return frozenset(self.positions) | {f.ticker for f in self.working if f.intent == OPEN}

    def held(self, ticker: str) -> int:
        """Shares held of a ticker, signed, less what orders that work against them may take."""
        position = self.positions.get(ticker)
        quantity = position.quantity if position else 0
        against = sum(
            f.working for f in self.working if f.ticker == ticker and f.working * quantity < 0
        )
        return quantity + against

    def closable(self, ticker: str) -> int:
        """Return the shares that a new order may close: none while a closing order is at work."""
        is_at_work = any(f.ticker == ticker and f.intent == CLOSE for f in self.working)
        return 0 if is_at_work else self.held(ticker)

    def session_pnl(self, day: date, marks: Mapping[str, float]) -> float | None:
        """Realised profit of the day plus open positions at their marks; None without a mark."""
        if not self.positions.keys() <= marks.keys():
            return None
        open_profit = sum(
            position.quantity * (marks[ticker] - position.average_price)
            for ticker, position in self.positions.items()
        )
        return self.realised_usd.get(day, 0.0) + open_profit


def _apply(position: Position | None, fill: Fill) -> tuple[Position | None, float]:
    if position is None:
        return _opened(fill, fill.quantity), 0.0
    if position.quantity * fill.quantity > 0:
        return _added(position, fill), 0.0
    closed = min(abs(fill.quantity), abs(position.quantity))
    direction = 1 if position.quantity > 0 else -1
    profit = closed * direction * (fill.price - position.average_price)
    rest = position.quantity + fill.quantity
    if rest == 0:
        return None, profit
    if rest * direction > 0:
        return replace(position, quantity=rest), profit
    return _opened(fill, rest), profit


def _opened(fill: Fill, quantity: int) -> Position:
    return Position(
        ticker=fill.ticker,
        quantity=quantity,
        average_price=fill.price,
        opened_at=fill.at,
        session_date=fill.session_date,
        stop_price=fill.stop_price,
        target_price=fill.target_price,
        max_hold_minutes=fill.max_hold_minutes,
    )


def _added(position: Position, fill: Fill) -> Position:
    total = position.quantity + fill.quantity
    cost = position.quantity * position.average_price + fill.quantity * fill.price
    return replace(
        position,
        quantity=total,
        average_price=cost / total,
        stop_price=fill.stop_price or position.stop_price,
        target_price=fill.target_price or position.target_price,
    )


def exit_reason(
    position: Position,
    bar: Bar | None,
    session: Session | None,
    now: datetime,
    config: DispatcherConfig,
) -> str | None:
    """Why a position should be closed now; None to keep it.

    Stop and target are judged by the close of a bar that ended after the position was opened,
    since that close is also what the order is filled at.
    """
    if session is None:
        return None
    if position.session_date != session.day:
        return OVERNIGHT
    if now >= session.closes_at - config.flat_before_close_minutes * MINUTE:
        return "flat_before_close"
    if position.max_hold_minutes is not None and now - position.opened_at >= timedelta(
        minutes=position.max_hold_minutes
    ):
        return "max_hold"
    if bar is None or bar.minute + MINUTE <= position.opened_at:
        return None
    return _price_exit(position, bar.close)


def _price_exit(position: Position, close: float) -> str | None:
    direction = 1 if position.quantity > 0 else -1
    if position.stop_price is not None and direction * (close - position.stop_price) <= 0:
        return "stop"
    if position.target_price is not None and direction * (close - position.target_price) >= 0:
        return "target"
    return None
