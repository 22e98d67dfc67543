"""Asks the checks, and halts where one of them finds what must never be."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, Engine

from ops_pipeline.domain.acceptance import DUPLICATES, Verdict
from ops_pipeline.domain.checks import NAMES
from ops_pipeline.domain.gates import HALTED
from ops_pipeline.domain.session import Calendar
from ops_pipeline.storage import dispatch
from ops_pipeline.storage.acceptance import verdicts

FOUND_BY = "acceptance"


def examine(
    engine: Engine,
    now: datetime,
    calendar: Calendar,
    *,
    is_live: bool,
    names: Collection[str] = NAMES,
) -> list[Verdict]:
    """The verdicts; a duplicate execution sets HALTED in the transaction that finds it."""
    with engine.begin() as connection:
        found = verdicts(connection, now, calendar, is_live=is_live, names=names)
        halt_at_duplicates(connection, found)
    return found


def halt_at_duplicates(connection: Connection, found: Collection[Verdict]) -> None:
    """Set HALTED where these verdicts name a duplicate execution, unless it is."""
    doubled = [each for each in found if each.name == DUPLICATES and not each.is_normal]
    if doubled and dispatch.read_trading_state(connection) != HALTED:
        reason = f"duplicate executions: {doubled[0].finding}"
        dispatch.set_trading_state(connection, HALTED, FOUND_BY, reason)
