"""What a run of the dispatcher knows: read once, kept true as its own orders fill."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

from sqlalchemy import Connection

from ops_pipeline.dispatcher.brokers import Broker, SimulatedBroker, stream_allows
from ops_pipeline.domain.execution import Book, Order, closing_order, may_fill, size_order
from ops_pipeline.domain.gates import CLOSE, Snapshot, number
from ops_pipeline.domain.session import Calendar, Session
from ops_pipeline.domain.stream import Holding, stricter
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.domain.values import Bar
from ops_pipeline.storage import bars, dispatch, execution, quarantine, stream
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
    # What the account holds besides: it counts, and is never traded.
    external: Mapping[str, Holding] = field(default_factory=dict)
    # Why the stream allows less than the operator; empty where it does not.
    stream_reason: str = ""
    # How far the database's clock is ahead of this process's.
    clock_skew_seconds: float = 0.0

    @cached_property
    def marks(self) -> dict[str, float]:
        """The newest price of each ticker that is known."""
        return {ticker: bar.close for ticker, bar in self.bars.items()}

    @property
    def open_tickers(self) -> frozenset[str]:
        """All that is held, by whomever it was decided."""
        return frozenset({*self.book.tickers, *self.external})

    @property
    def exposure_usd(self) -> float:
        """What all that is held is worth, long or short."""
        others = (
            abs(float(held.quantity)) * self.marks.get(ticker, float(held.price))
            for ticker, held in self.external.items()
        )
        return self.book.exposure_usd + sum(others)


def read_account(
    connection: Connection,
    now: datetime,
    calendar: Calendar,
    tickers: Sequence[str] = (),
    broker: Broker | None = None,
) -> Account:
    """The account at an instant, with the newest bars of these tickers and of all that is held.

    Of a broker's account, what it holds besides is with it, and the trading state is the stricter
    of the operator's and of what the trade stream allows.
    """
    broker = broker or SimulatedBroker()
    # Before the fills: what is being taken out of the ledger counts on both sides rather than none.
    external = {} if broker.fills_at_once else stream.external(connection, dispatch.ACCOUNT)
    fills = execution.live_fills(connection, calendar.day(now))
    wanted = sorted({*tickers, *external, *(fill.ticker for fill in fills)})
    allowed, stream_reason = stream_allows(connection, broker, now)
    return Account(
        now=now,
        trading_state=stricter(dispatch.read_trading_state(connection), allowed),
        session=calendar.at(now),
        book=Book(fills),
        bars=bars.newest_bars(connection, wanted, now) if wanted else {},
        quarantined=quarantine.quarantined(connection, now),
        external=external,
        stream_reason=stream_reason,
    )


def size(
    owned: Owned, account: Account, config: DispatcherConfig, *, fills_at_once: bool
) -> Order | None:
    """The order that a recommendation asks for; None where an input is unknown or no number."""
    recommendation = owned.recommendation
    bar, held = account.bars.get(recommendation.ticker), account.book.held(recommendation.ticker)
    volatility = (owned.features or {}).get("recent_vol")
    if recommendation.action not in SIDES:
        return None
    if recommendation.intent == CLOSE:
        if fills_at_once and not may_fill(bar, recommendation.ts, account.now, config):
            return None
        return _closing_order(recommendation.ticker, account, config)
    if bar is None:
        return None
    if volatility is not None and number(volatility) is None:
        return None
    return size_order(
        SIDES[recommendation.action],
        bar.close,
        volatility,
        held,
        account.exposure_usd,
        config,
    )


def _closing_order(ticker: str, account: Account, config: DispatcherConfig) -> Order | None:
    """Close what is held; without a bar the broker's price is expected to be what was paid."""
    held, position = account.book.closable(ticker), account.book.positions.get(ticker)
    if not held or position is None:
        return None
    bar = account.bars.get(ticker)
    price = bar.close if bar else position.average_price
    return closing_order(replace(position, quantity=held), price, config)


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
        open_tickers=account.open_tickers | {ticker},
        exposure_usd=account.exposure_usd,
        order_quantity=order.quantity if order else None,
        order_notional_usd=_added_notional(order, held),
        held_quantity=_closable(ticker, account) if recommendation.intent == CLOSE else held,
        ticker_executions=book.opened[ticker, day],
        minutes_since_execution=_minutes_since(traded_at, account.now),
        has_executed=traded_at is not None,
        clock_skew_seconds=account.clock_skew_seconds,
    )


def _closable(ticker: str, account: Account) -> int | None:
    """Return what may be closed; of a quarantined ticker the number of shares may be wrong."""
    return None if ticker in account.quarantined else account.book.closable(ticker)


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
