"""A broker in memory that does what its script says, and a desk that trades with it."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from ops_pipeline.dispatcher.brokers import PaperBroker
from ops_pipeline.dispatcher.orders import Pace
from ops_pipeline.dispatcher.run import Desk
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.domain.orders import (
    BrokerAccount,
    OrderRefused,
    OrderReport,
    OrderState,
    OrderTicket,
    OrderUnknown,
    client_order_id,
)
from ops_pipeline_tests.dispatcher.world import TS, World

FILL, ACCEPT, REFUSE, TAKEN = "fill", "accept", "refuse", "taken"
# The order is taken, and the answer is lost; the request is lost; it arrives when it is forgotten.
LOSE_ANSWER, LOSE_REQUEST, LATE = "lose answer", "lose request", "late"
BAD_KEY, BREAK = "bad key", "break"
PRICE = 201.0
PACE = Pace()


def nothing(_: OrderTicket) -> None:
    """What happens while a request is on its way, if nothing does."""


@dataclass
class FakeBroker:
    """Takes orders as Alpaca does: an id is taken once, whoever asks for it again.

    Attributes:
        script: what becomes of the next requests to take an order; all are filled after it.
        answers: errors that the next questions are answered with.
        on_submit: called while a request is on its way.
    """

    script: list[str] = field(default_factory=list)
    answers: list[Exception] = field(default_factory=list)
    on_submit: Callable[[OrderTicket], None] = nothing
    orders: dict[str, OrderReport] = field(default_factory=dict)
    posts: list[OrderTicket] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    on_the_way: list[OrderTicket] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def account(self) -> BrokerAccount:
        return BrokerAccount("PA1", 100_000.0, is_blocked=False)

    def submit(self, ticket: OrderTicket) -> OrderReport:
        with self.lock:
            self.posts.append(ticket)
            step = self.script.pop(0) if self.script else FILL
        self.on_submit(ticket)
        if step == REFUSE:
            raise OrderRefused("insufficient buying power (403)")
        if step == BAD_KEY:
            raise BadConfiguration("Alpaca refuses the key")
        if step == BREAK:
            raise ZeroDivisionError
        if step in (LOSE_REQUEST, LATE):
            self.on_the_way += [ticket] * (step == LATE)
            raise OrderUnknown("no answer within 13 s")
        report = self.take(ticket, is_filled=step == FILL)
        if step == LOSE_ANSWER:
            self.fill(ticket.client_order_id)
            raise OrderUnknown("no answer within 13 s")
        return report

    def find(self, client_order_id: str) -> OrderReport | None:
        with self.lock:
            self.asked.append(client_order_id)
            if self.answers:
                raise self.answers.pop(0)
            return self.orders.get(client_order_id)

    def take(self, ticket: OrderTicket, *, is_filled: bool = False) -> OrderReport:
        """Have this order from now on."""
        with self.lock:
            if ticket.client_order_id in self.orders:
                raise OrderUnknown("the id is taken (422)")
            number = f"b{len(self.orders)}-{ticket.client_order_id[-6:]}"
            report = OrderReport(ticket, number, OrderState.ACKED)
            self.orders[ticket.client_order_id] = report
        return self.fill(ticket.client_order_id) if is_filled else report

    def arrive(self) -> None:
        """What was on its way has come."""
        for ticket in self.on_the_way:
            self.take(ticket, is_filled=True)
        self.on_the_way.clear()

    def fill(self, order_id: str, quantity: int | None = None, price: float = PRICE) -> OrderReport:
        """Fill an order up to this quantity, or all of it."""
        ticket = self.orders[order_id].ticket
        filled = ticket.quantity if quantity is None else quantity
        state = OrderState.FILLED if filled == ticket.quantity else OrderState.PARTIAL
        return self.change(
            order_id, state=state, filled_quantity=filled, filled_price=price, filled_at=TS
        )

    def change(self, order_id: str, **changes: Any) -> OrderReport:
        """Let something become of an order."""
        with self.lock:
            self.orders[order_id] = replace(self.orders[order_id], **changes)
            return self.orders[order_id]

    @property
    def post_counts(self) -> Counter[str]:
        """How often each order was handed over."""
        return Counter(ticket.client_order_id for ticket in self.posts)


@dataclass
class Paper:
    """A world whose desk has a paper account."""

    world: World
    broker: FakeBroker = field(default_factory=FakeBroker)
    pace: Pace = PACE

    @property
    def desk(self) -> Desk:
        return replace(self.world.desk, broker=PaperBroker(self.broker, "replay", self.pace))

    def follow(self, now: datetime = TS, is_still_ours: Callable[[], bool] = lambda: True) -> None:
        """Hand over and ask, once."""
        self.desk.broker.follow(self.world.engine, lambda: now, is_still_ours)

    def pass_time(self, seconds: float) -> None:
        """Let so much of the server's time go by for all orders."""
        self.world.execute(
            "update order_intents set posted_at = posted_at - make_interval(secs => :seconds),"
            " asked_at = asked_at - make_interval(secs => :seconds),"
            " settled_at = settled_at - make_interval(secs => :seconds)",
            seconds=seconds,
        )

    def order(self, columns: str = "state, tries") -> tuple[Any, ...]:
        """Of the one order there is."""
        (found,) = self.orders(columns)
        return found

    def orders(self, columns: str = "state") -> list[tuple[Any, ...]]:
        """Of all orders, in the order of their recommendations."""
        return self.world.ask(f"select {columns} from order_intents order by recommendation_id")

    def order_id(self, recommendation_id: int) -> str:
        """The id that a recommendation's order has at the broker."""
        ours: UUID = self.world.ask("select id from installation")[0][0]
        return client_order_id(ours, "replay", "paper", recommendation_id)
