"""Faults of the dispatcher itself, planted to see that they are found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection

from ops_pipeline.dispatcher import brokers
from ops_pipeline.dispatcher import orders as desk
from ops_pipeline.dispatcher.brokers import PaperBroker
from ops_pipeline.proofs.chaos.plan import (
    CROWDED,
    SUBMIT,
    UNSENT,
    UNSENT_OCCURRENCE,
    Fault,
    Moment,
    Point,
)
from ops_pipeline.storage import orders, queries
from ops_pipeline.storage.execution import Execution
from ops_pipeline.storage.orders import TakenOrder

NO_FENCE, NO_UNIQUE_INDEX = "no fence", "no unique index"
ONE_EXECUTION = "dispatch_executions_recommendation_id_key"
NO_LOCK, LATE, RANDOM_ID = "account lock removed", "late hand-over", "random client id"
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
    occurrence: int = 1


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


def _no_lock() -> None:
    """The account is not locked while its orders are decided."""
    found = queries.texts("dispatch")
    found["lock_account"] = _without(found["lock_account"], "for no key update")


def _late() -> None:
    """An order is handed over however old it is."""
    found = queries.texts("orders")
    found["take_ready"] = _without(found["take_ready"], " and ready.expires_at > :now")


def _random_id() -> None:
    """An order has an id that says nothing of its recommendation."""
    vars(brokers)["client_order_id"] = lambda *_: f"op1-{uuid4().hex}"


# Promises that no trial tests, and planted defects that none would see, each with the reason.
NOT_TESTED = {
    "claim without SKIP LOCKED": "a dispatcher waits for another one's claim instead of passing it"
    " by: slower, and safe, because a claim counts by its epoch",
    "limits per ticker and session, and the daily loss": "decided under the same account lock as"
    " the limits on positions and exposure, which are tested",
    "a process that stands still between its last look at the clock and the request": "no look at"
    " a clock can exclude it; the order is late by that pause",
    "a broker that takes an id twice": "assumed not to happen within an order's five minutes",
    "lost or damaged disks": "a committed transaction is taken to be on disk",
}
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
    NO_LOCK: Defect((), _no_lock, CROWDED, Fault.CROWD, ("over_limit",)),
    LATE: Defect((), _late, UNSENT, Fault.FORWARD, ("late",), UNSENT_OCCURRENCE),
    RANDOM_ID: Defect(
        (), _random_id, Point("orders.record", Moment.COMMITTED), Fault.KILL, ("mismatched",)
    ),
}


def plant(name: str) -> None:
    """Plant a defect in this process; nothing for an empty name."""
    if name:
        DEFECTS[name].plant()
