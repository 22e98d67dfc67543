"""Faults of the dispatcher itself, planted to see that they are found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from ops_pipeline.dispatcher import orders as desk
from ops_pipeline.dispatcher.brokers import PaperBroker
from ops_pipeline.proofs.chaos.plan import SUBMIT, Fault, Moment, Point
from ops_pipeline.storage import orders, queries
from ops_pipeline.storage.execution import Execution
from ops_pipeline.storage.orders import TakenOrder

NO_FENCE, NO_UNIQUE_INDEX = "no fence", "no unique index"
ONE_EXECUTION = "dispatch_executions_recommendation_id_key"
ORDER_FIRST, BLIND_REAPER = "order before intent", "reaper blind to the broker"


@dataclass(frozen=True)
class Defect:
    """How the database is weakened for a defect, what is planted, and what that has to show.

    It is looked for where it must show first: one fault at one point of the same plan.
    """

    statements: tuple[str, ...]
    plant: Callable[[], None]
    point: Point
    fault: Fault
    shows: tuple[str, ...]


def _no_fence() -> None:
    """The claim is no longer asked for when a row is closed: the shape of the older system."""
    found = queries.texts("dispatch")
    found["finish"] = _without(
        found["finish"], " and held.lease_until is not null and held.claim_epoch = decided.epoch"
    )
    found["owned"] = _without(
        _without(found["owned"], " and held.claim_epoch = claim.epoch"),
        "where held.status = 'PROCESSING'",
    )


def _without(statement: str, what: str) -> str:
    assert what in statement, what  # noqa: S101 - a defect that is not planted proves nothing
    return statement.replace(what, "")


def _order_first() -> None:
    """The order is sent before the intent is on disk."""
    place = PaperBroker.place

    def send_first(
        self: PaperBroker,
        connection: Connection,
        made: Sequence[Execution],
        now: datetime,
        until: datetime,
    ) -> None:
        ours = orders.installation(connection)
        for each in made:
            self.gateway.submit(self._ticket(ours, each.recommendation, each))
        place(self, connection, made, now, until)

    PaperBroker.place = send_first  # type: ignore[method-assign]


def _blind_reaper() -> None:
    """What has no outcome is sent again, under a new id, and the broker is not asked."""

    def send_again(self: Any, order: TakenOrder) -> None:
        ticket = replace(
            order.ticket, client_order_id=f"{order.ticket.client_order_id}-{order.epoch}"
        )
        self.gateway.submit(ticket)

    desk._OrderDesk._ask = send_again  # type: ignore[method-assign]  # noqa: SLF001


DEFECTS = {
    NO_FENCE: Defect(
        (
            "drop trigger dispatch_recommendations_guard on dispatch_recommendations",
            "drop trigger dispatch_recommendations_pair on dispatch_recommendations",
            "drop trigger dispatch_executions_pair on dispatch_executions",
            "drop trigger dispatch_recommendations_attempts on dispatch_recommendations",
        ),
        _no_fence,
        Point("dispatch.claim", Moment.COMMITTED),
        Fault.ZOMBIE,
        ("mismatched", "duplicates"),
    ),
    NO_UNIQUE_INDEX: Defect(
        ("alter table dispatch_executions drop constraint " + ONE_EXECUTION,),
        lambda: None,
        Point("dispatch.finish_run", Moment.COMMITTED),
        Fault.KILL,
        ("duplicates",),
    ),
    ORDER_FIRST: Defect(
        (), _order_first, Point("dispatch.finish_run", Moment.COMMITTING), Fault.KILL, ("orphans",)
    ),
    BLIND_REAPER: Defect((), _blind_reaper, Point(SUBMIT, Moment.AFTER), Fault.KILL, ("orphans",)),
}


def plant(name: str) -> None:
    """Plant a defect in this process; nothing for an empty name."""
    if name:
        DEFECTS[name].plant()
