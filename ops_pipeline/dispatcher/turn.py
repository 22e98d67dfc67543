"""One dispatcher at a time: who has the turn works until nothing is left to do."""

from datetime import datetime
from uuid import uuid4

from sqlalchemy import Engine

from ops_pipeline.dispatcher.run import Desk, RunReport, run_once
from ops_pipeline.storage import dispatch, knowledge, orders

LEASE = "dispatcher"
# A holder that died lets the next one in after this; each step of a live one renews it.
LEASE_SECONDS = 60.0


def take_turn(desk: Desk, lease_seconds: float = LEASE_SECONDS) -> list[RunReport]:
    """Follow orders and decide recommendations until nothing is left to do.

    Args:
        desk: where and under which settings.
        lease_seconds: how long the turn of a dispatcher that died is kept from the next one.

    Returns:
        What each run did; nothing where another dispatcher has the turn.
    """
    holder, reports = uuid4(), list[RunReport]()

    def has_turn() -> bool:
        with desk.engine.begin() as connection:
            return dispatch.take_lease(connection, LEASE, holder, lease_seconds)

    try:
        while has_turn():
            desk.broker.follow(desk.engine, lambda: _now(desk), has_turn)
            if reports and reports[-1].is_idle:
                break
            reports.append(run_once(desk))
    finally:
        with desk.engine.begin() as connection:
            dispatch.end_lease(connection, LEASE, holder)
    return reports


def sweep(engine: Engine, now: datetime) -> None:
    """Close what is too old and give back what a dead run holds, where no run can be."""
    with engine.begin() as connection:
        dispatch.abandon_runs(connection, now)
        dispatch.release_stuck(connection)
        dispatch.expire(connection, now)
        orders.give_up_unsent(connection, now)


def _now(desk: Desk) -> datetime:
    with desk.engine.connect() as connection:
        return knowledge.read_now(connection, desk.mode)
