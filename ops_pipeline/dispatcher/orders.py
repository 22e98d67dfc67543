"""Hands orders over and follows them to their end: on disk first, one claim for each question."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ops_pipeline.clients.protocols import OrderGateway
from ops_pipeline.dispatcher.outage import is_outage
from ops_pipeline.domain.gates import HALTED
from ops_pipeline.domain.orders import (
    OrderRefused,
    OrderReport,
    OrderState,
    OrderUnknown,
    learnt,
)
from ops_pipeline.storage import dispatch, orders
from ops_pipeline.storage.orders import TakenOrder

log = logging.getLogger(__name__)

# More than that waits for the next run, so that a run ends.
AT_ONCE = 100
DENIALS = 2
TOO_LATE = "not handed over in time"


@dataclass(frozen=True)
class Pace:
    """How patient the dispatcher is with a broker, in seconds.

    Attributes:
        sending: for so long an order is left to the process that is handing it over; longer than
            a request may take.
        asking: the same order is asked about no more often.
        patience: for so long one pass goes on to ask; decisions do not wait for a slow broker.
        horizon: so long after it was handed over an order may still turn up.
        asking_denied: an order that the broker denied is asked about no more often.
        watching_denied: and for so long.
    """

    sending: float = 20.0
    asking: float = 5.0
    patience: float = 20.0
    horizon: float = 30.0
    asking_denied: float = 300.0
    watching_denied: float = 86_400.0


def follow(
    engine: Engine,
    gateway: OrderGateway,
    now: Callable[[], datetime],
    pace: Pace,
    is_still_ours: Callable[[], bool],
    may_open: Callable[[Connection], bool] = lambda _: True,
) -> None:
    """Hand over closing orders, ask about each order that is out, hand over all that are ready.

    Each order is taken and kept in transactions of its own; the requests stand between them. While
    nothing may be opened, closing orders are handed over alone. An order that cannot be kept holds
    up no other.

    Raises:
        OperatorError: the broker refuses the key; what is out stays UNKNOWN until it is asked.
    """
    with engine.begin() as connection:
        given_up = orders.give_up_unsent(connection, now())
        began = orders.server_clock(connection)
    desk = _OrderDesk(engine, gateway, now, pace, may_open, began)
    asks_until = time.monotonic() + pace.patience
    if given_up:
        log.warning("orders_not_handed_over", extra={"data": {"count": given_up}})
    for step in (desk.send_closing, desk.ask_next, desk.ask_next_denied, desk.send_next):
        asks = step in (desk.ask_next, desk.ask_next_denied)
        for _ in range(AT_ONCE):
            if not is_still_ours():
                return
            if (asks and time.monotonic() > asks_until) or not step():
                break


@dataclass(frozen=True)
class _OrderDesk:
    engine: Engine
    gateway: OrderGateway
    now: Callable[[], datetime]
    pace: Pace
    may_open: Callable[[Connection], bool]
    began: datetime

    def ask_next(self) -> bool:
        """Ask about one order; False where no question is due."""
        with self.engine.begin() as connection:
            order = orders.take_open(
                connection,
                self.began,
                sending_seconds=self.pace.sending,
                asking_seconds=self.pace.asking,
            )
        if order:
            self._ask(order)
        return order is not None

    def ask_next_denied(self) -> bool:
        """Ask once more about an order that the broker denied; False where none is due."""
        with self.engine.begin() as connection:
            order = orders.take_denied(
                connection,
                asking_seconds=self.pace.asking_denied,
                watched_seconds=self.pace.watching_denied,
            )
        if order is None:
            return False
        try:
            found = self.gateway.find(order.ticket.client_order_id)
        except OrderUnknown:
            return True
        if found:
            log.error("order_turned_up", extra={"data": _named(order)})
            self._keep(order, found)
        return True

    def send_closing(self) -> bool:
        """Hand over one order that closes; False where there is none."""
        return self._send_next(closing_only=True)

    def send_next(self) -> bool:
        """Hand over one order; False where none may be."""
        return self._send_next(closing_only=False)

    def _send_next(self, *, closing_only: bool) -> bool:
        with self.engine.begin() as connection:
            closing_only = closing_only or not self.may_open(connection)
            order = orders.take_ready(connection, self.now(), closing_only=closing_only)
        if order:
            self._send(order)
        return order is not None

    def _ask(self, order: TakenOrder) -> None:
        try:
            found = self.gateway.find(order.ticket.client_order_id)
        except OrderUnknown as error:
            reason = order.reason if order.reason == _other(order) else str(error)
            self._keep(order, replace(order.known, reason=reason))
            return
        if found:
            self._keep(order, found)
        elif order.state is OrderState.UNKNOWN:
            self._denied(order)
        else:
            log.error("order_denied", extra={"data": _named(order)})

    def _denied(self, order: TakenOrder) -> None:
        """The broker does not have it: hand it over again while it is fresh, give it up after."""
        now, denials = self.now(), order.not_found + 1
        with self.engine.begin() as connection:
            if order.expires_at > now:
                closing_only = not self.may_open(connection)
                again = orders.take_again(connection, order, now, closing_only=closing_only)
            else:
                again = None
                is_over = denials >= DENIALS and order.since_posted >= self.pace.horizon
                state = OrderState.ABSENT if is_over else OrderState.UNKNOWN
                report = replace(order.known, state=state, reason="the broker does not have it")
                orders.record(connection, order, report, not_found=denials)
        if again:
            self._send(again)

    def _send(self, order: TakenOrder) -> None:
        unknown = replace(order.known, state=OrderState.UNKNOWN)
        if order.expires_at <= self.now():
            # The process stood still since it took the order. An earlier try may have arrived.
            state = OrderState.ABSENT if order.tries == 1 else OrderState.UNKNOWN
            self._keep(order, replace(unknown, state=state, reason=TOO_LATE))
            return
        try:
            report = self.gateway.submit(order.ticket)
        except OrderRefused as error:
            report = self._refused(order, str(error))
        except OrderUnknown as error:
            report = replace(unknown, reason=str(error))
        except Exception:
            # Whatever went wrong, the broker may have it.
            self._keep(order, replace(unknown, reason="handing it over broke off"))
            raise
        self._keep(order, report)

    def _refused(self, order: TakenOrder, reason: str) -> OrderReport:
        """What a refusal means: of a second try, that the first one may have been taken."""
        rejected = replace(order.known, state=OrderState.REJECTED, reason=reason)
        if order.tries == 1:
            return rejected
        try:
            # The shares or the cash that are missing may be bound by the first one.
            return self.gateway.find(order.ticket.client_order_id) or rejected
        except OrderUnknown:
            return replace(rejected, state=OrderState.UNKNOWN)

    def _keep(self, order: TakenOrder, report: OrderReport) -> None:
        try:
            with self.engine.begin() as connection:
                if report.ticket != order.ticket:
                    report = self._stop(connection, order, report)
                report = learnt(order.known, report)
                is_kept = orders.record(connection, order, report)
        except DBAPIError as error:
            if is_outage(error):
                raise
            log.exception("order_not_kept", extra={"data": _named(order)})
            return
        if not is_kept:
            log.warning("order_taken_over", extra={"data": _named(order)})
        elif report.state is not order.state:
            data = {**_named(order), "state": report.state.value, "reason": report.reason}
            log.info("order_moved", extra={"data": data})

    def _stop(self, connection: Connection, order: TakenOrder, other: OrderReport) -> OrderReport:
        """Halt, once: what the broker has under this id is not what was decided.

        Nothing of it is taken for ours. Once it is over, so is ours.
        """
        reason = _other(order)
        if order.reason != reason:
            log.critical("trading_halted", extra={"data": {**_named(order), "reason": reason}})
            dispatch.set_trading_state(connection, HALTED, "dispatcher", reason)
        state = OrderState.UNKNOWN if order.state is OrderState.SENT else order.state
        if other.state.is_final:
            was_there = state in (OrderState.ACKED, OrderState.PARTIAL)
            state = OrderState.CANCELED if was_there else OrderState.ABSENT
        return replace(order.known, state=state, reason=reason)


def _other(order: TakenOrder) -> str:
    return f"the broker has another order under the id {order.ticket.client_order_id}"


def _named(order: TakenOrder) -> dict[str, object]:
    return {
        "recommendation_id": order.recommendation_id,
        "ticker": order.ticket.ticker,
        "client_order_id": order.ticket.client_order_id,
    }
