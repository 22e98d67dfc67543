"""A paper account: orders, their fills, cash and positions; plain logic without a network.

Amounts are Decimals of USD and of shares. An order moves one step each time that `work` is called:
it is accepted, then new, then filled at the newest price in one or two parts.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ops_pipeline.domain.values import Bar
from ops_pipeline.sandbox.live import Now

ZERO = Decimal(0)
REJECTED_PREFIX = "REJ"
_CENT = Decimal("0.01")
ACCEPTED, NEW, PARTLY, FILLED = "accepted", "new", "partially_filled", "filled"
CANCELED, REJECTED = "canceled", "rejected"
# Accepted to new, new to partly filled, partly filled to filled.
STEPS = 3
OPEN_STATUSES = frozenset({ACCEPTED, NEW, PARTLY})


class Refused(Exception):
    """The broker does not do what it is asked; the status is that of HTTP, the code Alpaca's."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Ticket(BaseModel):
    """An order as it is asked for: market or limit, for the day or until canceled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str
    qty: Decimal = Field(gt=0, decimal_places=9, max_digits=24)
    side: Literal["buy", "sell"]
    type: Literal["market", "limit"]
    time_in_force: Literal["day", "gtc"]
    limit_price: Decimal | None = Field(None, gt=0, decimal_places=9, max_digits=24)
    client_order_id: str | None = Field(None, min_length=1, max_length=128)
    order_class: Literal["", "simple"] = "simple"
    extended_hours: bool = False
    position_intent: str | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.type == "limit") != (self.limit_price is not None):
            raise ValueError(f"{self.type} orders and limit_price do not fit")
        if self.limit_price and self.limit_price >= 1 and self.limit_price % _CENT:
            raise ValueError("sub-penny increment does not fulfill minimum pricing criteria")
        if self.qty % 1 and self.time_in_force != "day":
            raise ValueError("fractional orders must be DAY orders")
        return self

    @property
    def sign(self) -> int:
        """1 where shares come in, -1 where they go out."""
        return 1 if self.side == "buy" else -1


@dataclass(frozen=True)
class Order:
    """An order as it stands."""

    id: UUID
    client_order_id: str
    ticket: Ticket
    status: str
    created_at: datetime
    updated_at: datetime
    filled: Decimal = ZERO
    paid: Decimal = ZERO

    @property
    def leaves(self) -> Decimal:
        """Shares that are still to be filled."""
        return self.ticket.qty - self.filled

    @property
    def is_open(self) -> bool:
        """Whether it may still be filled."""
        return self.status in OPEN_STATUSES


@dataclass(frozen=True)
class Position:
    """What is held of one symbol; the quantity is signed, the price is the average at entry."""

    symbol: str
    quantity: Decimal
    average_price: Decimal

    def after(self, quantity: Decimal, price: Decimal) -> "Position":
        """The position after so many more shares (signed) at this price."""
        held = self.quantity + quantity
        if self.quantity * quantity >= 0:
            cost = self.quantity * self.average_price + quantity * price
            return replace(self, quantity=held, average_price=cost / held)
        is_turned = held * self.quantity < 0
        return replace(
            self, quantity=held, average_price=price if is_turned else self.average_price
        )


@dataclass(frozen=True)
class Event:
    """Something that happened to an order; a fill tells its part of it and what is held then."""

    name: str
    order: Order
    at: datetime
    execution_id: UUID
    quantity: Decimal = ZERO
    price: Decimal = ZERO
    position_quantity: Decimal = ZERO

    @property
    def is_fill(self) -> bool:
        """Whether shares changed hands."""
        return self.quantity > 0


@dataclass
class Broker:
    """One account; it is told the newest bar of a symbol, and tells its listeners of each event."""

    newest: Callable[[str], Bar | None]
    is_known: Callable[[str], bool]
    now: Now
    seed: int = 7
    cash: Decimal = Decimal(100_000)
    shorting: bool = False
    orders: dict[UUID, Order] = field(default_factory=dict)
    positions: dict[str, Position] = field(default_factory=dict)
    fills: list[Event] = field(default_factory=list)
    listeners: list[Callable[[Event], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # An account that begins later is another one, and so are its orders.
        begun = f"{self.seed}/{self.now().isoformat()}/ids"
        self._ids = random.Random(begun)  # noqa: S311 - a reproducible account
        self._parts = random.Random(f"{self.seed}/parts")  # noqa: S311 - a reproducible account
        self._by_client_id = dict[str, UUID]()
        self.account_id = self._new_id()

    def submit(self, ticket: Ticket) -> Order:
        """Take an order.

        Raises:
            Refused: the symbol is unknown, the client's id is taken, or the account does not
                allow it.
        """
        if not self.is_known(ticket.symbol) and not _is_doomed(ticket):
            raise Refused(422, 42210000, f'asset "{ticket.symbol}" not found')
        if ticket.client_order_id in self._by_client_id:
            raise Refused(422, 40010001, "client_order_id must be unique")
        self._require_shares(ticket)
        self._require_cash(ticket)
        order_id, now = self._new_id(), self.now()
        order = Order(order_id, ticket.client_order_id or str(order_id), ticket, ACCEPTED, now, now)
        self._by_client_id[order.client_order_id] = order_id
        self.orders[order_id] = order
        return order

    def cancel(self, order_id: UUID) -> None:
        """Cancel what is left of an order.

        Raises:
            Refused: there is no such order, or it is no longer open.
        """
        order = self.order(order_id)
        if not order.is_open:
            raise Refused(422, 42210000, f'order is already in "{order.status}" state')
        self._turn(order, CANCELED, CANCELED)

    def order(self, order_id: UUID) -> Order:
        """The order with this id.

        Raises:
            Refused: there is none.
        """
        if order := self.orders.get(order_id):
            return order
        raise Refused(404, 40410000, f"order not found for {order_id}")

    def order_of_client(self, client_order_id: str) -> Order:
        """The order with this id of the client's.

        Raises:
            Refused: there is none.
        """
        if order_id := self._by_client_id.get(client_order_id):
            return self.orders[order_id]
        raise Refused(404, 40410000, f"order not found for {client_order_id}")

    def position(self, symbol: str) -> Position:
        """What is held of this symbol.

        Raises:
            Refused: nothing is.
        """
        if position := self.positions.get(symbol):
            return position
        raise Refused(404, 40410000, "position does not exist")

    def open_orders(self) -> list[Order]:
        """Orders that may still be filled, oldest first."""
        return [order for order in self.orders.values() if order.is_open]

    def price(self, symbol: str) -> Decimal | None:
        """The newest price in USD; none where nothing trades."""
        bar = self.newest(symbol)
        return Decimal(str(bar.close)) if bar else None

    def value(self, position: Position) -> Decimal:
        """What a position is worth in USD, negative for a short one."""
        return position.quantity * (self.price(position.symbol) or position.average_price)

    def buying_power(self) -> Decimal:
        """Cash that nothing binds: open orders bind theirs, and a short its value twice."""
        # Twice, because what a short sale brought in is part of the cash.
        shorts = sum((min(ZERO, self.value(p)) for p in self.positions.values()), ZERO)
        return self.cash + 2 * shorts - self._bound()

    def work(self) -> None:
        """Move each open order by one step."""
        for order in self.open_orders():
            if order.status != ACCEPTED:
                self._execute(order)
            elif _is_doomed(order.ticket):
                self._turn(order, REJECTED, REJECTED)
            else:
                self._turn(order, NEW, NEW)

    def _require_shares(self, ticket: Ticket) -> None:
        if ticket.sign > 0 or self.shorting or _is_doomed(ticket) or not self._opening(ticket):
            return
        if ticket.symbol not in self.positions:
            raise Refused(403, 40310000, "account is not allowed to short")
        raise Refused(403, 40310000, "insufficient qty available for order")

    def _require_cash(self, ticket: Ticket) -> None:
        opens = self._opening(ticket)
        if opens and opens * self._expected_price(ticket) > self.buying_power():
            raise Refused(403, 40310000, "insufficient buying power")

    def _opening(self, ticket: Ticket) -> Decimal:
        """How many of the shares would open a position rather than close one."""
        same = [
            order.leaves
            for order in self.open_orders()
            if (order.ticket.symbol, order.ticket.side) == (ticket.symbol, ticket.side)
        ]
        return max(ZERO, ticket.qty - max(ZERO, self._closable(ticket) - sum(same, ZERO)))

    def _closable(self, ticket: Ticket) -> Decimal:
        position = self.positions.get(ticket.symbol)
        return max(ZERO, -ticket.sign * position.quantity) if position else ZERO

    def _bound(self) -> Decimal:
        bound, closable = ZERO, dict[tuple[str, str], Decimal]()
        for order in self.open_orders():
            side = order.ticket.symbol, order.ticket.side
            left = closable.get(side, self._closable(order.ticket))
            closing = min(left, order.leaves)
            closable[side] = left - closing
            bound += (order.leaves - closing) * self._expected_price(order.ticket)
        return bound

    def _expected_price(self, ticket: Ticket) -> Decimal:
        return ticket.limit_price or self.price(ticket.symbol) or ZERO

    def _execute(self, order: Order) -> None:
        bar = self.newest(order.ticket.symbol)
        price = _fill_price(order.ticket, bar) if bar else None
        if price is None:
            return
        quantity = self._part(order)
        signed = order.ticket.sign * quantity
        self.cash -= signed * price
        held = self._hold(order.ticket.symbol, signed, price)
        is_whole = quantity == order.leaves
        order = replace(order, filled=order.filled + quantity, paid=order.paid + quantity * price)
        status, name = (FILLED, "fill") if is_whole else (PARTLY, "partial_fill")
        self._turn(order, status, name, (quantity, price, held))

    def _part(self, order: Order) -> Decimal:
        if order.filled or order.ticket.qty < 2 or self._parts.random() < 0.5:
            return order.leaves
        return Decimal(self._parts.randint(1, int(order.ticket.qty / 2)))

    def _hold(self, symbol: str, signed: Decimal, price: Decimal) -> Decimal:
        position = self.positions.get(symbol, Position(symbol, ZERO, ZERO)).after(signed, price)
        if position.quantity:
            self.positions[symbol] = position
        else:
            del self.positions[symbol]
        return position.quantity

    def _turn(
        self,
        order: Order,
        status: str,
        name: str,
        fill: tuple[Decimal, Decimal, Decimal] = (ZERO, ZERO, ZERO),
    ) -> None:
        order = replace(order, status=status, updated_at=self.now())
        self.orders[order.id] = order
        event = Event(name, order, order.updated_at, self._new_id(), *fill)
        if event.is_fill:
            self.fills.append(event)
        for listener in self.listeners:
            listener(event)

    def _new_id(self) -> UUID:
        return UUID(int=self._ids.getrandbits(128), version=4)


def _is_doomed(ticket: Ticket) -> bool:
    return ticket.symbol.startswith(REJECTED_PREFIX)


def _fill_price(ticket: Ticket, bar: Bar) -> Decimal | None:
    """The price at which an order is filled; none where the bar does not reach its limit."""
    close, limit = Decimal(str(bar.close)), ticket.limit_price
    if limit is None:
        return close
    if ticket.sign > 0:
        return min(limit, close) if Decimal(str(bar.low)) <= limit else None
    return max(limit, close) if Decimal(str(bar.high)) >= limit else None
