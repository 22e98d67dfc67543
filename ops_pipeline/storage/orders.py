"""Orders at a broker: decided with their recommendation, then sent and followed, claim by claim."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, RowMapping

from ops_pipeline.domain.orders import OrderReport, OrderState, OrderTicket
from ops_pipeline.domain.values import Recommendation
from ops_pipeline.storage.queries import as_rows, query


@dataclass(frozen=True)
class DecidedOrder:
    """An order that is decided, and not yet handed over; once it has expired it never is."""

    recommendation: Recommendation
    ticket: OrderTicket
    expires_at: datetime


@dataclass(frozen=True)
class TakenOrder:
    """An order that this process alone may hand over or ask about; `epoch` is its claim.

    `since_posted` is in seconds of the server's clock, since the order was last handed over.
    """

    recommendation_id: int
    epoch: int
    ticket: OrderTicket
    state: OrderState
    broker_order_id: str | None
    filled_quantity: int
    filled_price: float | None
    filled_at: datetime | None
    reason: str
    expires_at: datetime
    tries: int
    not_found: int
    since_posted: float

    @property
    def known(self) -> OrderReport:
        """What is known of it so far."""
        return OrderReport(
            ticket=self.ticket,
            broker_order_id=self.broker_order_id or "",
            state=self.state,
            filled_quantity=self.filled_quantity,
            filled_price=self.filled_price,
            filled_at=self.filled_at,
            reason=self.reason,
        )


@dataclass(frozen=True)
class PlacedOrder:
    """An order as a person looks at it; quantities in shares, the price is the average in USD."""

    client_order_id: str
    broker_order_id: str | None
    state: str
    side: str
    quantity: int
    filled_quantity: int
    filled_price: float | None
    filled_at: datetime | None
    tries: int
    reason: str


def installation(connection: Connection) -> UUID:
    """What makes the order ids of this database its own."""
    found: UUID = connection.execute(query("orders", "installation")).scalar_one()
    return found


def insert_orders(
    connection: Connection, decided: Sequence[DecidedOrder], account: str, now: datetime
) -> None:
    """Decide orders, in the transaction that closes their recommendations."""
    rows = [
        {
            "recommendation_id": each.recommendation.id,
            "client_order_id": each.ticket.client_order_id,
            "account": account,
            "ticker": each.ticket.ticker,
            "intent": each.recommendation.intent,
            "side": each.ticket.side,
            "qty": each.ticket.quantity,
            "expires_at": each.expires_at,
            "decided_at": now,
        }
        for each in decided
    ]
    if rows:
        connection.execute(query("orders", "insert_orders"), {"rows": as_rows(rows)})


def take_ready(
    connection: Connection, now: datetime, *, closing_only: bool = False
) -> TakenOrder | None:
    """The next order to hand over, marked as handed over; None where none may be."""
    return _taken(connection, "take_ready", {"now": now, "closing_only": closing_only})


def take_again(
    connection: Connection, order: TakenOrder, now: datetime, *, closing_only: bool = False
) -> TakenOrder | None:
    """The same order to hand over once more; None where it may not be, or has changed hands."""
    return _taken(
        connection,
        "take_again",
        {
            "recommendation_id": order.recommendation_id,
            "epoch": order.epoch,
            "now": now,
            "closing_only": closing_only,
        },
    )


def server_clock(connection: Connection) -> datetime:
    """The present of the server, by which orders are taken."""
    found: datetime = connection.execute(query("orders", "server_clock")).scalar_one()
    return found


def take_open(
    connection: Connection, pass_began: datetime, *, sending_seconds: float, asking_seconds: float
) -> TakenOrder | None:
    """The next order to ask the broker about; None where no question is due.

    Args:
        connection: a transaction of its own.
        pass_began: an order that was asked about since then is not asked about again.
        sending_seconds: for so long an order that is being sent is left to its sender.
        asking_seconds: the same order is asked about no more often than this.
    """
    parameters = {
        "pass_began": pass_began,
        "sending_seconds": sending_seconds,
        "asking_seconds": asking_seconds,
    }
    return _taken(connection, "take_open", parameters)


def take_denied(
    connection: Connection, *, asking_seconds: float, watched_seconds: float
) -> TakenOrder | None:
    """The next order that the broker denied and that may turn up after all; None where none is due.

    It is asked about every `asking_seconds`, and until `watched_seconds` after it was given up.
    """
    parameters = {"asking_seconds": asking_seconds, "watched_seconds": watched_seconds}
    return _taken(connection, "take_denied", parameters)


def take_told(connection: Connection, client_order_id: str) -> TakenOrder | None:
    """The order of which the broker has told, whoever asks about it; None where it is not ours."""
    return _taken(connection, "take_told", {"client_order_id": client_order_id})


def record(
    connection: Connection, order: TakenOrder, report: OrderReport, *, not_found: int = 0
) -> bool:
    """Keep what was learnt of an order; False where it was taken by another one meanwhile."""
    parameters = {
        "recommendation_id": order.recommendation_id,
        "epoch": order.epoch,
        "state": report.state.value,
        "broker_order_id": report.broker_order_id or None,
        "filled_qty": report.filled_quantity,
        "filled_price": report.filled_price,
        "filled_at": report.filled_at,
        "reason": report.reason,
        "not_found": not_found,
        "is_final": report.state.is_final,
    }
    return connection.execute(query("orders", "record"), parameters).rowcount == 1


def give_up_unsent(connection: Connection, now: datetime) -> int:
    """Close orders that were never handed over and are too old for it now. Returns how many."""
    return connection.execute(query("orders", "give_up_unsent"), {"now": now}).rowcount


def state_counts(connection: Connection) -> dict[str, int]:
    """How many orders stand where."""
    return {row[0]: row[1] for row in connection.execute(query("orders", "state_counts"))}


def order_of(connection: Connection, recommendation_id: int) -> PlacedOrder | None:
    """The order of a recommendation and what is known of it; None where it has none."""
    wanted = {"recommendation_id": recommendation_id}
    row = connection.execute(query("orders", "order_of"), wanted).mappings().first()
    if row is None:
        return None
    filled_at = row["filled_at"].astimezone(UTC) if row["filled_at"] else None
    return PlacedOrder(**{**row, "filled_at": filled_at})


def _taken(connection: Connection, name: str, parameters: dict[str, Any]) -> TakenOrder | None:
    row = connection.execute(query("orders", name), parameters).mappings().first()
    return _order(row) if row else None


def _order(row: RowMapping) -> TakenOrder:
    return TakenOrder(
        recommendation_id=row["recommendation_id"],
        epoch=row["epoch"],
        ticket=OrderTicket(row["client_order_id"], row["ticker"], row["side"], row["qty"]),
        state=OrderState(row["state"]),
        broker_order_id=row["broker_order_id"],
        filled_quantity=row["filled_qty"],
        filled_price=row["filled_price"],
        filled_at=row["filled_at"].astimezone(UTC) if row["filled_at"] else None,
        reason=row["reason"],
        expires_at=row["expires_at"].astimezone(UTC),
        tries=row["tries"],
        not_found=row["not_found"],
        since_posted=(row["asked_at"] - row["posted_at"]).total_seconds(),
    )
