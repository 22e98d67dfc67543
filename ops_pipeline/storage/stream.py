"""What a broker told: frames as they came, orders by them, and who follows the account."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, RowMapping

from ops_pipeline.domain.adjustments import Adjustment
from ops_pipeline.domain.errors import Unsafe
from ops_pipeline.domain.orders import OrderState
from ops_pipeline.domain.session import NEW_YORK
from ops_pipeline.domain.stream import (
    ZERO,
    BrokerEvent,
    BrokerOrder,
    Difference,
    Holding,
    StreamHealth,
)
from ops_pipeline.storage.queries import as_rows, query

# No frame of an order is nearly as long.
LONGEST_FRAME = 65_536
# So long looks are kept; each one removes those that are older.
LOOKS_KEPT = timedelta(days=7)
SETTLED, UNSETTLED, FAILED = "SETTLED", "UNSETTLED", "FAILED"
APPLIED, REPEATED, UNREADABLE = "APPLIED", "REPEATED", "UNREADABLE"


class LeaseLost(Unsafe):
    """Another process follows the account by now."""


@dataclass(frozen=True)
class Lease:
    """The right to follow an account, until it runs out or is taken on."""

    account: str
    epoch: int


@dataclass(frozen=True)
class RawFrame:
    """A frame as it came, and when; what no text may hold is replaced."""

    raw: str | bytes
    received_at: datetime

    @property
    def text(self) -> str:
        """What is kept of it."""
        raw = self.raw if isinstance(self.raw, str) else self.raw.decode(errors="replace")
        kept = raw[:LONGEST_FRAME].replace("\x00", "\ufffd")
        # Half of a surrogate pair has no bytes.
        return kept.encode("utf-8", "replace").decode()

    @property
    def is_whole(self) -> bool:
        """Whether all of it is kept."""
        return len(self.raw) <= LONGEST_FRAME


@dataclass(frozen=True)
class KeptFrame:
    """A frame that was kept, and that nobody has looked at."""

    id: int
    body: str
    is_whole: bool


@dataclass(frozen=True)
class FrameVerdict:
    """What became of a frame."""

    frame_id: int
    outcome: str
    reason: str = ""


@dataclass(frozen=True)
class Since:
    """What the oldest open order, the newest order and the newest fill tell of the past."""

    oldest_open: datetime | None
    newest_order: datetime | None
    newest_fill: datetime | None


@dataclass(frozen=True)
class FrameCounts:
    """Frames by what became of them, and how late the slowest twentieth was applied, in seconds."""

    by_outcome: Mapping[str, int]
    lag_p95: float
    gaps: int


@dataclass(frozen=True)
class Looked:
    """A look at the whole account: why, what came of it, how long it took in milliseconds.

    `healed` are orders of which no frame had told so well.
    """

    looked_at: datetime
    why: str
    outcome: str
    took_ms: int
    orders: int = 0
    fills: int = 0
    healed: int = 0
    differences: int = 0
    reason: str = ""


@dataclass(frozen=True)
class TickerSums:
    """Shares of a ticker: held before the first look, by orders, adjusted, as the broker says."""

    ticker: str
    before_qty: Decimal
    ours_qty: Decimal
    others_qty: Decimal
    adjusted_qty: Decimal
    broker_qty: Decimal

    @property
    def by_orders(self) -> Decimal:
        """What all orders and adjustments come to."""
        return self.before_qty + self.ours_qty + self.others_qty + self.adjusted_qty


@dataclass(frozen=True)
class OpenOrder:
    """An order that is open at the broker or with us; None on the side that has no such order."""

    client_order_id: str
    ticker: str
    side: str
    qty: Decimal
    broker_state: str | None
    broker_filled_qty: Decimal | None
    our_state: str | None
    our_filled_qty: int | None


@dataclass(frozen=True)
class Gap:
    """A fill of which a request told before any frame."""

    at: datetime
    ticker: str
    broker_order_id: str
    filled_qty: Decimal
    healed_at: datetime


def take_lease(
    connection: Connection, account: str, holder: str, code_version: str, seconds: float
) -> Lease | None:
    """Follow an account for so long; None where another process does."""
    row = connection.execute(
        query("stream", "take_lease"),
        {"account": account, "holder": holder, "code_version": code_version, "seconds": seconds},
    ).first()
    return Lease(account, row[0]) if row else None


def lease_holder(connection: Connection, account: str) -> tuple[str, float] | None:
    """Who follows an account, and for how many seconds more without a sign of life."""
    row = connection.execute(query("stream", "lease_holder"), {"account": account}).first()
    return (row[0], float(row[1])) if row else None


def keep_lease(
    connection: Connection,
    lease: Lease,
    seconds: float,
    *,
    connected_at: datetime | None,
    alive_at: datetime | None,
    reason: str,
) -> None:
    """Follow for so much longer, and say how it goes.

    Raises:
        LeaseLost: another process follows the account.
    """
    kept = connection.execute(
        query("stream", "keep_lease"),
        {
            **_named(lease),
            "seconds": seconds,
            "connected_at": connected_at,
            "alive_at": alive_at,
            "reason": reason,
        },
    )
    if kept.rowcount != 1:
        raise _lost(lease)


def leave_lease(connection: Connection, lease: Lease, reason: str) -> None:
    """Follow no longer; nothing where another process does already."""
    connection.execute(query("stream", "leave_lease"), {**_named(lease), "reason": reason})


def require_lease(connection: Connection, lease: Lease) -> None:
    """Go on only while nobody else follows the account, and keep it so until the commit.

    Two transactions that call it wait for each other, so that neither undoes what the other tells.

    Raises:
        LeaseLost: somebody does.
    """
    if connection.execute(query("stream", "require_lease"), _named(lease)).first() is None:
        raise _lost(lease)


def keep_pass(
    connection: Connection,
    lease: Lease,
    at: datetime,
    found: Sequence[Difference],
    broker_account: str = "",
) -> None:
    """Keep what a look at the whole account has found."""
    rows = [
        {
            "ticker": one.ticker,
            "by_orders": f"{one.by_orders:f}",
            "by_broker": f"{one.by_broker:f}",
            "explanation": one.explanation,
        }
        for one in found
    ]
    parameters = {
        **_named(lease),
        "passed_at": at,
        "differences": json.dumps(rows),
        "broker_account": broker_account,
    }
    connection.execute(query("stream", "keep_pass"), parameters)


def read_health(connection: Connection, account: str) -> StreamHealth | None:
    """How the process that follows an account is; None where it never was."""
    row = connection.execute(query("stream", "health"), {"account": account}).mappings().first()
    if row is None:
        return None
    found = tuple(
        Difference(
            one["ticker"],
            Decimal(one["by_orders"]),
            Decimal(one["by_broker"]),
            one["explanation"],
        )
        for one in row["differences"]
    )
    times = {name: _in_utc(row[name]) for name in ("connected_at", "alive_at", "passed_at")}
    return StreamHealth(**{**row, **times, "differences": found})


def insert_frames(connection: Connection, account: str, frames: Sequence[RawFrame]) -> None:
    """Keep frames as they came."""
    connection.execute(
        query("stream", "insert_frames"),
        {
            "account": account,
            "received_at": [frame.received_at for frame in frames],
            "body": [frame.text for frame in frames],
            "bytes": [len(frame.raw) for frame in frames],
            "is_whole": [frame.is_whole for frame in frames],
        },
    )


def received_frames(connection: Connection, account: str, at_most: int) -> list[KeptFrame]:
    """Frames that nobody has looked at, oldest first."""
    parameters = {"account": account, "at_most": at_most}
    rows = connection.execute(query("stream", "received_frames"), parameters)
    return [KeptFrame(row[0], row[1], row[2]) for row in rows]


def close_frames(connection: Connection, verdicts: Sequence[FrameVerdict]) -> None:
    """Keep what became of frames."""
    connection.execute(
        query("stream", "close_frames"),
        {
            "id": [one.frame_id for one in verdicts],
            "outcome": [one.outcome for one in verdicts],
            "reason": [one.reason for one in verdicts],
        },
    )


def insert_events(
    connection: Connection, account: str, events: Mapping[str, tuple[BrokerEvent, int | None]]
) -> set[str]:
    """Keep events by their keys, each with the frame that told of it, if one did.

    Returns:
        The keys that no frame had told before.
    """
    rows = [
        {
            "event_key": key,
            "event": event.name,
            "broker_order_id": event.broker_order_id,
            "ticker": event.ticker,
            "side": event.side,
            "qty": event.quantity,
            "price": event.price,
            "filled_qty": event.filled_quantity,
            "at": event.at,
            "frame_id": frame_id,
        }
        for key, (event, frame_id) in events.items()
    ]
    if not rows:
        return set()
    parameters = {"account": account, "rows": as_rows(rows)}
    return {row[0] for row in connection.execute(query("stream", "insert_events"), parameters)}


def orders_of(connection: Connection, account: str, ids: Iterable[str]) -> dict[str, BrokerOrder]:
    """What is known of orders by their ids, held until the transaction ends."""
    parameters = {"account": account, "ids": sorted(set(ids))}
    rows = connection.execute(query("stream", "orders_of"), parameters).mappings()
    return {row["broker_order_id"]: _order(row) for row in rows}


def put_orders(connection: Connection, account: str, orders: Iterable[BrokerOrder]) -> None:
    """Keep what is known of orders now."""
    rows = [
        {
            "broker_order_id": order.broker_order_id,
            "client_order_id": order.client_order_id,
            "ticker": order.ticker,
            "side": order.side,
            "qty": order.quantity,
            "state": order.state.value,
            "filled_qty": order.filled_quantity,
            "filled_price": order.filled_price,
            "created_at": order.created_at,
            "told_at": order.told_at,
            "reason": order.reason,
        }
        for order in orders
    ]
    if rows:
        parameters = {"account": account, "rows": as_rows(rows)}
        connection.execute(query("stream", "put_orders"), parameters)


def moved_since(connection: Connection, account: str, since: datetime) -> set[str]:
    """Tickers of the orders of which something new was told since an instant."""
    rows = connection.execute(query("stream", "moved_since"), {"account": account, "since": since})
    return {row[0] for row in rows}


def all_orders(connection: Connection, account: str) -> list[BrokerOrder]:
    """Everything that is known of an account's orders, oldest first."""
    rows = connection.execute(query("stream", "all_orders"), {"account": account}).mappings()
    return [_order(row) for row in rows]


def sums(connection: Connection, account: str) -> dict[str, Decimal]:
    """Shares by ticker that orders come to, with what was held before the first of them."""
    return {
        row[0]: row[1] for row in connection.execute(query("stream", "sums"), {"account": account})
    }


def insert_adjustments(
    connection: Connection, account: str, made: Iterable[Adjustment], at: datetime
) -> None:
    """Keep what changed the account without an order."""
    for one in made:
        lot = one.lot
        row = {
            "account": account,
            "ticker": one.ticker,
            "kind": one.kind,
            "qty": one.quantity,
            "ledger_qty": one.ledger_quantity,
            "split_ratio": one.split_ratio,
            "price": lot.average_price if lot else None,
            "stop_loss_price": lot.stop_price if lot else None,
            "take_profit_price": lot.target_price if lot else None,
            "max_hold_minutes": lot.max_hold_minutes if lot else None,
            "by_orders": one.difference.by_orders,
            "by_broker": one.difference.by_broker,
            "activity_ids": list(one.activity_ids),
            "broker_order_id": one.broker_order_id,
            "adjusted_by": one.adjusted_by,
            "reason": one.reason,
            "adjusted_at": at,
            "session_date": at.astimezone(NEW_YORK).date(),
        }
        connection.execute(query("stream", "insert_adjustment"), row)


def first_looked_at(connection: Connection, account: str) -> datetime | None:
    """When the account was asked for first; None where that is not kept."""
    asked = query("stream", "first_looked_at")
    return _in_utc(connection.execute(asked, {"account": account}).scalar())


def counted_activities(connection: Connection, account: str) -> set[str]:
    """The ids of the activities that were counted already."""
    return set(
        connection.execute(query("stream", "counted_activities"), {"account": account}).scalars()
    )


def busted(connection: Connection, account: str) -> dict[str, Decimal]:
    """Signed shares by which orders were adjusted, by the broker's order id."""
    rows = connection.execute(query("stream", "busted"), {"account": account})
    return {row[0]: row[1] for row in rows}


def last_accepted(connection: Connection, account: str, ticker: str) -> tuple[str, datetime] | None:
    """Who accepted a difference of a ticker last, and when."""
    parameters = {"account": account, "ticker": ticker}
    row = connection.execute(query("stream", "last_accepted"), parameters).first()
    return (row[0], row[1].astimezone(UTC)) if row else None


def lock_followed(connection: Connection, account: str) -> None:
    """Let nobody join anything to the account until the transaction ends."""
    connection.execute(query("stream", "lock_followed"), {"account": account})


def broker_price(connection: Connection, account: str, ticker: str) -> Decimal:
    """What the broker says that a share of a ticker cost; 0 where it says nothing."""
    parameters = {"account": account, "ticker": ticker}
    found = connection.execute(query("stream", "broker_price"), parameters).scalar()
    return Decimal(found or 0)


def since(connection: Connection, account: str) -> Since:
    """From when on the broker has to be asked."""
    row = connection.execute(query("stream", "since"), {"account": account}).one()
    return Since(*(_in_utc(at) for at in row))


def put_positions(
    connection: Connection,
    account: str,
    holdings: Mapping[str, Holding],
    read_at: datetime,
    before: Mapping[str, Decimal] | None,
) -> None:
    """Keep what the account holds; of a first look, what it held before, too."""
    rows = [
        {
            "ticker": ticker,
            "before_qty": (before or {}).get(ticker, ZERO),
            "qty": holding.quantity,
            "price": holding.price,
        }
        for ticker, holding in holdings.items()
    ]
    parameters = {"account": account, "read_at": read_at}
    put = {**parameters, "rows": as_rows(rows), "is_first": before is not None}
    connection.execute(query("stream", "put_positions"), put)
    connection.execute(
        query("stream", "close_positions"), {**parameters, "tickers": list(holdings)}
    )


def forget_before(connection: Connection, account: str) -> None:
    """What was held before the first look was another account's."""
    connection.execute(query("stream", "forget_before"), {"account": account})


def external(connection: Connection, account: str) -> dict[str, Holding]:
    """What an account holds that this pipeline did not decide on, by ticker."""
    rows = connection.execute(query("stream", "external"), {"account": account})
    return {row[0]: Holding(row[1], row[2]) for row in rows}


def price_by_hand(
    connection: Connection, account: str, ticker: str, since: datetime
) -> float | None:
    """What somebody else paid or got last for a ticker since an instant; None where nobody did."""
    parameters = {"account": account, "ticker": ticker, "since": since}
    found = connection.execute(query("stream", "price_by_hand"), parameters).scalar()
    return float(found) if found else None


def frame_counts(
    connection: Connection, account: str, start: datetime, end: datetime
) -> FrameCounts:
    """What came within [start, end)."""
    parameters = {"account": account, "start": start, "end": end}
    rows = connection.execute(query("stream", "counts"), parameters).all()
    gaps: int = connection.execute(query("stream", "gaps"), parameters).scalar_one()
    applied = [float(row[2]) for row in rows if row[0] == APPLIED]
    return FrameCounts({row[0]: row[1] for row in rows}, max(applied, default=0.0), gaps)


def insert_look(connection: Connection, account: str, look: Looked) -> None:
    """Keep that the account was looked at; what is older than a week goes."""
    before = {"account": account, "before": look.looked_at - LOOKS_KEPT}
    connection.execute(query("stream", "forget_looks"), before)
    connection.execute(query("stream", "insert_look"), {"account": account, **look.__dict__})


def looks(connection: Connection, account: str, limit: int) -> list[Looked]:
    """The looks at an account, newest first."""
    rows = connection.execute(query("stream", "looks"), {"account": account, "limit": limit})
    return [Looked(**row) for row in rows.mappings()]


def by_ticker(connection: Connection, account: str) -> list[TickerSums]:
    """What an account's orders come to and what it holds, by ticker."""
    rows = connection.execute(query("stream", "by_ticker"), {"account": account})
    return [TickerSums(**row) for row in rows.mappings()]


def open_orders(connection: Connection, account: str) -> list[OpenOrder]:
    """Orders that are open at the broker or in our ledger."""
    rows = connection.execute(query("stream", "open_orders"), {"account": account})
    return [OpenOrder(**row) for row in rows.mappings()]


def told_by_request(connection: Connection, account: str, since: datetime, limit: int) -> list[Gap]:
    """Fills since an instant of which a request told first, newest first."""
    parameters = {"account": account, "since": since, "limit": limit}
    rows = connection.execute(query("stream", "told_by_request"), parameters)
    return [Gap(**row) for row in rows.mappings()]


def _order(row: RowMapping) -> BrokerOrder:
    return BrokerOrder(
        broker_order_id=row["broker_order_id"],
        client_order_id=row["client_order_id"],
        ticker=row["ticker"],
        side=row["side"],
        quantity=row["qty"],
        state=OrderState(row["state"]),
        filled_quantity=row["filled_qty"],
        filled_price=row["filled_price"],
        created_at=row["created_at"].astimezone(UTC),
        told_at=row["told_at"].astimezone(UTC),
        reason=row["reason"],
    )


def _in_utc(at: datetime | None) -> datetime | None:
    return at.astimezone(UTC) if at else None


def _named(lease: Lease) -> dict[str, object]:
    return {"account": lease.account, "epoch": lease.epoch}


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(
        f"another process follows account {lease.account}", "one is enough: end this one"
    )
