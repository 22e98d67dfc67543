"""What a broker tells of an account, in whatever order and as often as it likes, and its health.

Everything told is put together by `joined`, to which neither order nor repetition matter, so that
what is known depends on what was told alone. An order's quantity that is filled so far counts, not
the fills one by one: a fill of which no frame came is in the next one's sum.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.gates import ACTIVE, HALTED, REDUCING
from ops_pipeline.domain.orders import OrderState

ZERO = Decimal(0)
BUY = "buy"
FILLS = frozenset({"fill", "partial_fill"})
# So long a stream may be away before nothing new is begun without it.
DOWN_AFTER = timedelta(seconds=30)
# So long nobody may have asked whether frames told everything.
UNASKED_AFTER = timedelta(minutes=5)
IS_LIVE = "stream_is_live"
ADDS_UP = "account_adds_up"
# The later in this list, the more is known. What is over stays over, and to be filled is most.
_KNOWN = (
    OrderState.ACKED,
    OrderState.PARTIAL,
    OrderState.REJECTED,
    OrderState.CANCELED,
    OrderState.FILLED,
)
_STRICTNESS = (ACTIVE, REDUCING, HALTED)


@dataclass(frozen=True)
class BrokerOrder:
    """An order as its broker tells of it; quantities in shares without sign, prices in USD.

    The price is the average of what is filled. An order for an amount of money has no quantity of
    its own; then `quantity` is what is filled.
    """

    broker_order_id: str
    client_order_id: str
    ticker: str
    side: str
    quantity: Decimal
    state: OrderState
    filled_quantity: Decimal
    filled_price: Decimal | None
    created_at: datetime
    told_at: datetime
    reason: str = ""

    @property
    def signed(self) -> Decimal:
        """What it has changed of the position, in shares."""
        return self.filled_quantity if self.side == BUY else -self.filled_quantity


@dataclass(frozen=True)
class BrokerEvent:
    """Something that happened to an order; the key is the same each time that it is told.

    `filled_quantity` is what is filled of the order after it; quantity and price are of a fill.
    """

    key: str
    name: str
    broker_order_id: str
    ticker: str
    side: str
    filled_quantity: Decimal
    at: datetime
    quantity: Decimal | None = None
    price: Decimal | None = None


@dataclass(frozen=True)
class Holding:
    """What an account holds of a ticker: shares with their sign, the average price in USD."""

    quantity: Decimal
    price: Decimal


@dataclass(frozen=True)
class Difference:
    """A ticker of which the account holds another quantity than its orders come to."""

    ticker: str
    by_orders: Decimal
    by_broker: Decimal
    explanation: str

    @property
    def is_explained(self) -> bool:
        """Whether it is known why."""
        return bool(self.explanation)


@dataclass(frozen=True)
class StreamHealth:
    """How the process that follows the account is; None where it never was."""

    holder: str
    code_version: str
    is_held: bool
    connected_at: datetime | None
    alive_at: datetime | None
    passed_at: datetime | None
    reason: str
    differences: tuple[Difference, ...] = ()
    broker_account: str = ""


def joined(known: BrokerOrder | None, told: BrokerOrder) -> BrokerOrder:
    """What is known of an order after one more telling; the order of tellings does not matter."""
    if known is None:
        return told
    by_state = max(known, told, key=lambda one: (_KNOWN.index(one.state), one.reason))
    by_fill = max(known, told, key=lambda one: (one.filled_quantity, one.filled_price or ZERO))
    return replace(
        known,
        quantity=max(known.quantity, told.quantity),
        state=by_state.state,
        reason=by_state.reason,
        filled_quantity=by_fill.filled_quantity,
        filled_price=by_fill.filled_price,
        told_at=max(known.told_at, told.told_at),
    )


def positions(
    orders: Iterable[BrokerOrder], before: Mapping[str, Decimal] | None = None
) -> dict[str, Decimal]:
    """Shares by ticker after these orders, those that are zero left out."""
    found: defaultdict[str, Decimal] = defaultdict(Decimal, before or {})
    for order in orders:
        found[order.ticker] += order.signed
    return {ticker: quantity for ticker, quantity in sorted(found.items()) if quantity}


def differences(
    by_orders: Mapping[str, Decimal],
    by_broker: Mapping[str, Decimal],
    moving: Iterable[str],
) -> list[Difference]:
    """Where both disagree; that an order moved while they were read explains it."""
    in_flight = frozenset(moving)
    tickers = sorted({*by_orders, *by_broker})
    pairs = ((t, by_orders.get(t, ZERO), by_broker.get(t, ZERO)) for t in tickers)
    return [
        Difference(ticker, ours, theirs, "an order moved meanwhile" if ticker in in_flight else "")
        for ticker, ours, theirs in pairs
        if ours != theirs
    ]


def stream_state(health: StreamHealth | None, now: datetime) -> tuple[str, str]:
    """The trading state that the stream allows, and why it allows no more."""
    if health is None:
        return REDUCING, "the trade stream was never started"
    if not health.is_held:
        return REDUCING, "nobody follows the trade stream"
    alive_at = health.alive_at
    if alive_at is None or now - alive_at > DOWN_AFTER:
        silent = f"for {round((now - alive_at).total_seconds())} s" if alive_at else "so far"
        return REDUCING, f"the trade stream is silent {silent}"
    if health.passed_at is None:
        return REDUCING, "the account was not asked yet what it holds"
    if now - health.passed_at > UNASKED_AFTER:
        minutes = (now - health.passed_at).total_seconds() / 60
        return REDUCING, f"the account could not be asked for {minutes:.0f} min"
    return ACTIVE, ""


def stricter(one: str, other: str) -> str:
    """The stricter of two trading states; one that is unknown is the strictest."""
    known = [state for state in (one, other) if state in _STRICTNESS]
    return max(known, key=_STRICTNESS.index) if len(known) == 2 else HALTED


def live_verdict(health: StreamHealth | None, now: datetime) -> Verdict:
    """Whether the account is followed: heard, and asked now and then whether that was all."""
    _, reason = stream_state(health, now)
    level = Level.HIGH if reason else Level.NORMAL
    lag = health.alive_at and (now - health.alive_at).total_seconds() if health else None
    observed = {"seconds_silent": lag} if lag is not None else {}
    limit = f"heard within {DOWN_AFTER.total_seconds():g} s"
    return Verdict(IS_LIVE, level, reason or "followed", observed, limit)


def sums_verdict(health: StreamHealth | None) -> Verdict:
    """Whether the account holds what its orders come to."""
    if health is None or health.passed_at is None:
        unknown = "not measured yet: the account was not asked what it holds"
        return Verdict(ADDS_UP, Level.UNMEASURED, unknown, {}, "equal")
    found = health.differences
    unexplained = [one for one in found if not one.is_explained]
    told = "; ".join(
        f"{one.ticker}: {one.by_broker:f} held, {one.by_orders:f} by its orders"
        for one in unexplained
    )
    observed = {"differences": len(found), "unexplained": len(unexplained)}
    level = Level.CRITICAL if unexplained else Level.NORMAL
    return Verdict(ADDS_UP, level, told or "positions are what orders come to", observed, "equal")
