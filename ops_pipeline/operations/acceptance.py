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
# So many changes of the trading state are looked at for a halt that was lifted.
LOOKED_BACK = 1_000


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
    """Set HALTED where these verdicts name a duplicate execution, unless it is.

    Once for the same duplicates: the ledger keeps them for ever, and a person has resumed since.
    """
    doubled = [each for each in found if each.name == DUPLICATES and not each.is_normal]
    if not doubled or dispatch.read_trading_state(connection) == HALTED:
        return
    named = sorted(doubled[0].observed["recommendation_ids"])
    reason = f"duplicate executions: recommendations {', '.join(map(str, named))}"
    changes = dispatch.trading_state_changes(connection, LOOKED_BACK)
    if (FOUND_BY, reason) not in {(change.changed_by, change.reason) for change in changes}:
        dispatch.set_trading_state(connection, HALTED, FOUND_BY, reason)
