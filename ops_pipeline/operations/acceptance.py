"""Asks the checks, and halts where one of them finds what must never be."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, Engine

from ops_pipeline.domain.acceptance import DUPLICATES, Verdict
from ops_pipeline.domain.checks import NAMES, ORDERS
from ops_pipeline.domain.gates import HALTED
from ops_pipeline.domain.session import Calendar
from ops_pipeline.storage import dispatch
from ops_pipeline.storage.acceptance import verdicts

FOUND_BY = "acceptance"
# So many changes of the trading state are looked at for a halt that was lifted.
LOOKED_BACK = 1_000
# What must never be there twice: where a verdict has its ids, and what they are.
HALTING = {
    DUPLICATES: ("recommendation_ids", "duplicate executions: recommendations"),
    ORDERS: ("client_order_ids", "duplicate orders at the broker:"),
}


def examine(
    engine: Engine,
    now: datetime,
    calendar: Calendar,
    *,
    is_live: bool,
    names: Collection[str] = NAMES,
) -> list[Verdict]:
    """The verdicts; a duplicate sets HALTED in the transaction that finds it."""
    with engine.begin() as connection:
        found = verdicts(connection, now, calendar, is_live=is_live, names=names)
        halt_at_duplicates(connection, found)
    return found


def halt_at_duplicates(connection: Connection, found: Collection[Verdict]) -> None:
    """Set HALTED where these verdicts name a duplicate execution or order, unless it is.

    Once for the same duplicates: the ledger keeps them for ever, and a person has resumed since.
    """
    reasons = [_reason(each) for each in found if each.name in HALTING and not each.is_normal]
    if not reasons or dispatch.read_trading_state(connection) == HALTED:
        return
    changes = dispatch.trading_state_changes(connection, LOOKED_BACK)
    known = {change.reason for change in changes if change.changed_by == FOUND_BY}
    new = next((reason for reason in reasons if reason not in known), None)
    if new:
        dispatch.set_trading_state(connection, HALTED, FOUND_BY, new)


def _reason(doubled: Verdict) -> str:
    key, called = HALTING[doubled.name]
    return f"{called} {', '.join(map(str, sorted(doubled.observed[key])))}"
