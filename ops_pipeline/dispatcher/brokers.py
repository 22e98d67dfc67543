"""Who executes: a simulation that fills at once, or a paper account that is asked to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from sqlalchemy import Connection, Engine

from ops_pipeline.clients.protocols import OrderGateway
from ops_pipeline.dispatcher.orders import Pace, follow
from ops_pipeline.domain.dispatch import Status
from ops_pipeline.domain.gates import ACTIVE
from ops_pipeline.domain.orders import OrderTicket, client_order_id
from ops_pipeline.domain.stream import stream_state
from ops_pipeline.domain.values import Recommendation
from ops_pipeline.settings import Mode
from ops_pipeline.storage import orders, stream
from ops_pipeline.storage.dispatch import ACCOUNT
from ops_pipeline.storage.execution import ALPACA_PAPER, SIMULATED, Execution
from ops_pipeline.storage.knowledge import clock_skew_seconds
from ops_pipeline.storage.orders import DecidedOrder


class Broker(Protocol):
    """Who executes what has passed every gate.

    Attributes:
        status: what a recommendation becomes by it.
        execution_mode: how the ledger calls its executions.
        fills_at_once: whether an execution is a fill, or an order that may become one.
        needs_stream: whether nothing new is begun while nobody follows the account.
    """

    status: Status
    execution_mode: str
    fills_at_once: bool

    @property
    def needs_stream(self) -> bool:
        """Whether nothing new is begun while nobody follows the account."""

    def place(
        self, connection: Connection, made: Sequence[Execution], now: datetime, until: datetime
    ) -> None:
        """Decide orders, in the transaction that closes their recommendations.

        None of them is handed over later than its recommendation expires, or after `until`.
        """

    def follow(
        self, engine: Engine, now: Callable[[], datetime], is_still_ours: Callable[[], bool]
    ) -> None:
        """Hand over what is decided, and ask about what is out, for as long as it is ours to do."""


class SimulatedBroker:
    """Fills at once, at the price of the newest complete bar; there is nothing to follow."""

    status = Status.SIMULATED
    execution_mode = SIMULATED
    fills_at_once = True
    needs_stream = False

    def place(
        self, connection: Connection, made: Sequence[Execution], now: datetime, until: datetime
    ) -> None:
        """Nothing: the execution is the fill."""

    def follow(
        self, engine: Engine, now: Callable[[], datetime], is_still_ours: Callable[[], bool]
    ) -> None:
        """Nothing: nothing is out."""


@dataclass(frozen=True)
class PaperBroker:
    """Asks a paper account; whatever it answers, nothing is ever simulated instead."""

    gateway: OrderGateway
    mode: str
    pace: Pace = field(default_factory=Pace)
    needs_stream: bool = False
    # Clocks that differ by more hand over closing orders only; None does not compare them.
    max_clock_skew_seconds: float | None = None
    status = Status.EXECUTED
    execution_mode = ALPACA_PAPER
    fills_at_once = False

    def place(
        self, connection: Connection, made: Sequence[Execution], now: datetime, until: datetime
    ) -> None:
        """Write down the orders; they are handed over once this is on disk."""
        if not made:
            return
        ours = orders.installation(connection)
        decided = [
            DecidedOrder(
                each.recommendation,
                self._ticket(ours, each.recommendation, each),
                # After the close a broker would keep it for the next open.
                min(each.recommendation.expires_at, until),
            )
            for each in made
        ]
        orders.insert_orders(connection, decided, ACCOUNT, now)

    def _ticket(
        self, ours: UUID, recommendation: Recommendation, execution: Execution
    ) -> OrderTicket:
        quantity = execution.order.quantity
        return OrderTicket(
            client_order_id=client_order_id(ours, self.mode, ACCOUNT, recommendation.id),
            ticker=recommendation.ticker,
            side="buy" if quantity > 0 else "sell",
            quantity=abs(quantity),
        )

    def follow(
        self, engine: Engine, now: Callable[[], datetime], is_still_ours: Callable[[], bool]
    ) -> None:
        """Ask about what is out, then hand over what is ready."""
        follow(
            engine,
            self.gateway,
            now,
            self.pace,
            is_still_ours,
            lambda connection: (
                stream_allows(connection, self, now())[0] == ACTIVE
                and self._clocks_agree(connection)
            ),
        )

    def _clocks_agree(self, connection: Connection) -> bool:
        limit = self.max_clock_skew_seconds
        return limit is None or abs(clock_skew_seconds(connection, Mode(self.mode))) <= limit


def stream_allows(connection: Connection, broker: Broker, now: datetime) -> tuple[str, str]:
    """The trading state that the stream allows, and why no more; all where it is not needed."""
    if not broker.needs_stream:
        return ACTIVE, ""
    return stream_state(stream.read_health(connection, ACCOUNT), now)
