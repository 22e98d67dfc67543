"""What a trial left behind, read by somebody who trusts nothing: queue, ledger, orders, broker."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from ops_pipeline.domain.gates import OPEN
from ops_pipeline.domain.orders import client_order_id
from ops_pipeline.proofs.chaos.scene import CROWD_POSITIONS, CROWD_USD, EXPECTED, Expected
from ops_pipeline.storage import orders
from ops_pipeline.storage.dispatch import ACCOUNT

# The name that trials give to the mode in the ids of their orders.
CHAOS = "chaos"
_ROWS = """
select
    row.id,
    row.ticker,
    row.intent,
    row.status,
    row.failure_reason,
    row.claim_epoch,
    (
        select count(*) from dispatch_executions as made
        where made.recommendation_id = row.id
    ) as executions,
    (
        select count(*) from dispatch_executions as made
        where made.recommendation_id = row.id and made.claim_epoch <> row.claim_epoch
    ) as misattributed,
    exists (
        select 1 from dispatch_executions as made
        where made.recommendation_id = row.id and made.simulated_ts >= row.expires_at
    ) as decided_late,
    (
        select sum(made.notional) from dispatch_executions as made
        where made.recommendation_id = row.id
    ) as notional,
    placed.expires_at > row.expires_at as outlives,
    placed.client_order_id,
    placed.state,
    placed.qty,
    placed.filled_qty
from dispatch_recommendations as row
left join order_intents as placed on placed.recommendation_id = row.id
where row.ts > (select min(ts) from dispatch_recommendations)
order by row.id
"""
_INTENTS = "select client_order_id from order_intents"
_ROGUE = """
insert into dispatch_executions
select (jsonb_populate_record(made, jsonb_build_object('execution_id', cast(:id as text)))).*
from dispatch_executions as made
order by made.written_at desc
limit 1
"""


@dataclass
class Counts:
    """What went wrong in a trial, or in many; all zero is what is promised."""

    duplicates: int = 0
    lost: int = 0
    unfinished: int = 0
    mismatched: int = 0
    orphans: int = 0
    over_limit: int = 0
    late: int = 0
    details: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing went wrong."""
        return not any(getattr(self, problem.name) for problem in fields(self))

    def add(self, other: "Counts") -> None:
        """Count another trial in."""
        for problem in fields(self):
            both = getattr(self, problem.name) + getattr(other, problem.name)
            setattr(self, problem.name, both)

    def note(self, problem: str, detail: str) -> None:
        """Count one thing that went wrong."""
        setattr(self, problem, getattr(self, problem) + 1)
        self.details.append(detail)


def open_rows(connection: Connection) -> int:
    """Recommendations that are neither decided nor expired."""
    statement = text(
        "select count(*) from dispatch_recommendations where status in ('PENDING', 'PROCESSING')"
    )
    return int(connection.execute(statement).scalar_one())


def open_orders(connection: Connection) -> int:
    """Orders whose fate is not known."""
    statement = text("select count(*) from order_intents where settled_at is null")
    return int(connection.execute(statement).scalar_one())


def unwritten(connection: Connection, at_broker: Mapping[str, int]) -> list[str]:
    """Orders at the broker of which nothing is on disk here."""
    written: set[str] = set(connection.execute(text(_INTENTS)).scalars())
    return sorted(set(at_broker) - written)


def expired(connection: Connection, present: datetime) -> set[str]:
    """Return the ids of orders that may not be handed over any more at an instant."""
    statement = text("select client_order_id from order_intents where expires_at <= :present")
    return set(connection.execute(statement, {"present": present}).scalars())


def waiting(connection: Connection) -> set[str]:
    """Return the ids of orders that nobody has taken yet to hand them over."""
    statement = text("select client_order_id from order_intents where tries = 0")
    return set(connection.execute(statement).scalars())


def examine(
    connection: Connection,
    at_broker: Mapping[str, int],
    *,
    with_broker: bool,
    may_expire: bool,
    limit: str = "",
) -> Counts:
    """Count what went wrong.

    Args:
        connection: a reader of the trial's database, when all is quiet.
        at_broker: the shares of each order that the broker has, by the client's id.
        with_broker: whether orders went there.
        may_expire: whether the clock jumped past the life of what waited.
        limit: the limit that was tight, and so refused some; empty for none.
    """
    rows = [dict(row) for row in connection.execute(text(_ROWS)).mappings()]
    counts, ours = Counts(), orders.installation(connection)
    for problem, detail in _problems(rows, at_broker, with_broker, may_expire):
        counts.note(problem, detail)
    for row in rows:
        wanted = client_order_id(ours, CHAOS, ACCOUNT, row["id"])
        if row["client_order_id"] not in (None, wanted):
            counts.note("mismatched", f"the order of {row['ticker']} has an id of its own")
    if limit:
        _hold_to_limits(counts, rows, limit)
    by_key = {(row["ticker"], row["intent"]): row for row in rows}
    for expected in EXPECTED:
        found = by_key.get((expected.ticker, expected.intent))
        if not (limit and found and (found["failure_reason"] or "").startswith("max_")):
            _compare(counts, expected, found, may_expire)
    return counts


def _hold_to_limits(counts: Counts, rows: list[dict[str, Any]], limit: str) -> None:
    """Count what was opened beyond the limit that was tight."""
    opened = [row for row in rows if row["intent"] == OPEN and row["executions"]]
    usd = sum(row["notional"] for row in opened)
    if (len(opened) > CROWD_POSITIONS) if limit == "positions" else (usd > CROWD_USD):
        counts.note("over_limit", f"{len(opened)} positions were opened for {usd:.0f} USD")


def is_single(connection: Connection) -> bool:
    """Whether the database itself refuses a second execution; nothing is left of the try."""
    attempt = connection.begin_nested()
    try:
        connection.execute(text(_ROGUE), {"id": str(uuid4())})
    except IntegrityError:
        return True
    finally:
        attempt.rollback()
    return False


def _problems(
    rows: list[dict[str, Any]],
    at_broker: Mapping[str, int],
    with_broker: bool,  # noqa: FBT001
    may_expire: bool,  # noqa: FBT001
) -> Iterator[tuple[str, str]]:
    # A closing order that was too late is proposed again.
    keys = Counter(
        (row["ticker"], row["intent"])
        for row in rows
        if row["executions"] and row["state"] != "ABSENT"
    )
    for key, times in keys.items():
        if times > 1:
            yield "duplicates", f"{key} was executed {times} times"
    known = {row["client_order_id"] for row in rows}
    for order_id in sorted(set(at_broker) - known):
        yield "orphans", f"the broker has {order_id}, and nobody knows of it"
    for row in rows:
        yield from _problems_of_row(row, with_broker)
        if row["client_order_id"] is not None:
            shares = at_broker.get(row["client_order_id"])
            yield from _problems_of_order(row, shares, may_expire)


def _problems_of_row(
    row: dict[str, Any],
    with_broker: bool,  # noqa: FBT001
) -> Iterator[tuple[str, str]]:
    what = f"{row['ticker']} {row['intent']} is {row['status']}"
    is_executed = row["status"] in ("SIMULATED", "EXECUTED")
    if row["executions"] > 1:
        yield "duplicates", f"{what} with {row['executions']} executions"
    if row["decided_late"]:
        yield "late", f"{what}, and had expired before it was decided"
    if row["outlives"]:
        yield "late", f"the order of {what} outlives its recommendation"
    if row["misattributed"]:
        yield "mismatched", f"{what}, and was executed under another claim"
    if row["status"] in ("PENDING", "PROCESSING"):
        yield "mismatched", what
    if is_executed != (row["executions"] > 0):
        yield "mismatched", f"{what} with {row['executions']} executions"
    if (row["client_order_id"] is not None) != (is_executed and with_broker):
        yield "mismatched", f"{what} with order {row['client_order_id']}"


def _problems_of_order(
    row: dict[str, Any],
    shares: int | None,
    may_expire: bool,  # noqa: FBT001
) -> Iterator[tuple[str, str]]:
    is_filled = row["state"] == "FILLED" and shares == row["qty"] == row["filled_qty"]
    # One that was decided just before the clock jumped is too old to hand over.
    is_unsent = row["state"] == "ABSENT" and shares is None and may_expire
    if not (is_filled or is_unsent):
        what = f"{row['ticker']} {row['intent']}"
        yield (
            "mismatched",
            f"the order of {what} is {row['state']} of {row['qty']}, {shares} at the broker",
        )


def _compare(
    counts: Counts,
    expected: Expected,
    row: dict[str, Any] | None,
    may_expire: bool,  # noqa: FBT001
) -> None:
    what = f"{expected.ticker} {expected.intent}"
    is_executed = row is not None and row["executions"] > 0
    if is_executed and not expected.is_executed:
        counts.note("mismatched", f"{what} was executed against the gates")
    if not is_executed and expected.is_executed and not may_expire:
        reason = f"{row['status']}, {row['failure_reason']}" if row else "absent"
        counts.note("lost", f"{what} was not executed: {reason}")
