"""Asks the acceptance queries, and halts where one of them finds what must never be."""

from datetime import datetime

from sqlalchemy import Engine

from ops_pipeline.domain.acceptance import DUPLICATES, Ranges, Verdict
from ops_pipeline.domain.gates import HALTED
from ops_pipeline.domain.session import Calendar
from ops_pipeline.storage import dispatch
from ops_pipeline.storage.acceptance import verdicts

FOUND_BY = "acceptance"


def examine(engine: Engine, now: datetime, calendar: Calendar, ranges: Ranges) -> list[Verdict]:
    """The five verdicts; a duplicate execution sets HALTED in the transaction that finds it."""
    with engine.begin() as connection:
        found = verdicts(connection, now, calendar, ranges)
        doubled = next(verdict for verdict in found if verdict.name == DUPLICATES)
        if not doubled.is_normal and dispatch.read_trading_state(connection) != HALTED:
            reason = f"duplicate executions: {doubled.finding}"
            dispatch.set_trading_state(connection, HALTED, FOUND_BY, reason)
    return found
