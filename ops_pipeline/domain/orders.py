"""An order at a broker: its states, what may follow what, and the id that it carries there."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

CLIENT_ID_PREFIX = "op1-"


class OrderState(StrEnum):
    """Where an order stands, as far as is known.

    READY: decided, not sent. SENT: handed over, or on its way. UNKNOWN: the answer was no answer,
    and the broker has to be asked. ACKED, PARTIAL: the broker works on it. The others are final;
    ABSENT means that the broker never had it.
    """

    READY = "READY"
    SENT = "SENT"
    UNKNOWN = "UNKNOWN"
    ACKED = "ACKED"
    PARTIAL = "PARTIAL"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    REJECTED = "REJECTED"
    ABSENT = "ABSENT"

    @property
    def is_final(self) -> bool:
        """Whether nothing is expected to follow."""
        return self in FINAL


FINAL = frozenset({OrderState.FILLED, OrderState.CANCELED, OrderState.REJECTED, OrderState.ABSENT})


_OUT = (OrderState.SENT, OrderState.UNKNOWN)
_ENDS = (OrderState.FILLED, OrderState.CANCELED)
MOVES = frozenset(
    {
        (OrderState.READY, OrderState.SENT),
        (OrderState.READY, OrderState.ABSENT),
        (OrderState.SENT, OrderState.UNKNOWN),
        (OrderState.UNKNOWN, OrderState.SENT),
        *((out, each) for out in _OUT for each in (OrderState.ACKED, OrderState.PARTIAL, *FINAL)),
        *((OrderState.ACKED, each) for each in (OrderState.PARTIAL, OrderState.REJECTED, *_ENDS)),
        *((OrderState.PARTIAL, each) for each in _ENDS),
        # An order that the broker denied, and has after all.
        *((OrderState.ABSENT, each) for each in (OrderState.ACKED, OrderState.PARTIAL, *_ENDS)),
    }
)


def is_legal(before: OrderState, after: OrderState) -> bool:
    """Whether an order may go from one state to the other; to stay is legal."""
    return before is after or (before, after) in MOVES


@dataclass(frozen=True)
class OrderTicket:
    """What the broker is asked for: a market order for the day, in whole shares."""

    client_order_id: str
    ticker: str
    side: str
    quantity: int


@dataclass(frozen=True)
class OrderReport:
    """What the broker says of one order; prices in USD, quantities in shares without sign."""

    ticket: OrderTicket
    broker_order_id: str
    state: OrderState
    filled_quantity: int = 0
    filled_price: float | None = None
    filled_at: datetime | None = None
    reason: str = ""


@dataclass(frozen=True)
class BrokerAccount:
    """An account as its broker tells of it."""

    number: str
    equity_usd: float
    is_blocked: bool


class OrderRefused(Exception):
    """The broker has said no, for good: there is no such order there."""


class OrderUnknown(Exception):
    """Nobody knows whether the broker has the order: it has to be asked."""


def client_order_id(installation: UUID, mode: str, account: str, recommendation_id: int) -> str:
    """The id of a recommendation's order: the same one for each try, and nobody else's.

    The installation is part of it, because a database that was made anew counts from 1 again.
    """
    text = f"{installation}|{mode}|{account}|{recommendation_id}"
    return CLIENT_ID_PREFIX + hashlib.sha256(text.encode()).hexdigest()[:32]


def learnt(known: OrderReport, told: OrderReport) -> OrderReport:
    """What is known of an order after one more report; an older report changes nothing."""
    is_older = told.filled_quantity < known.filled_quantity or not is_legal(known.state, told.state)
    return known if is_older else told
