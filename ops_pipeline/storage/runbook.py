"""What the runbook's sections ask the database, and the few things that they mend in it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from ops_pipeline.storage.queries import query

# What makes the ledger one; as migrations 8, 12 and 14 have them.
GUARDS = (
    "dispatch_executions_append_only",
    "dispatch_executions_no_truncate",
    "dispatch_executions_pair",
    "dispatch_recommendations_guard",
    "dispatch_recommendations_pair",
    "dispatch_recommendations_stay",
)
# A pool that works has used each of its sessions within this.
IDLE_SECONDS = 600.0


@dataclass(frozen=True)
class ClosedRow:
    """A recommendation to open that was decided, and what it was decided on."""

    status: str
    failure_reason: str | None
    action: str
    instrument_type: str
    confidence: float


@dataclass(frozen=True)
class Waiting:
    """Rows that wait: how many, since when the oldest does, how many are too old to trade."""

    count: int
    oldest: datetime | None
    expired: int


@dataclass(frozen=True)
class Held:
    """Rows that a run holds: how many, since when, and of how many the lease has run out."""

    count: int
    oldest: datetime | None
    overdue: int


@dataclass(frozen=True)
class Pull:
    """A run of the dispatcher, and how many rows it might have claimed."""

    started_at: datetime
    finished_at: datetime | None
    pulled_count: int
    simulated_count: int
    skipped_count: int
    run_limit: int | None


@dataclass(frozen=True)
class Sessions:
    """Sessions of the server, how many there may be, and how many lie idle for long."""

    count: int
    max_count: int
    idle: int


def skip_reasons(connection: Connection, since: datetime, now: datetime) -> dict[str, int]:
    """How often recommendations were skipped for which reason, the most frequent first."""
    found = connection.execute(query("runbook", "skip_reasons"), {"since": since, "now": now})
    return {row[0]: row[1] for row in found}


def closed_since(connection: Connection, since: datetime, now: datetime) -> list[ClosedRow]:
    """The newest thousand recommendations to open that were decided, newest first."""
    known = {"since": since, "now": now}
    rows = connection.execute(query("runbook", "closed_since"), known).mappings()
    return [ClosedRow(**row) for row in rows]


def waiting(connection: Connection, now: datetime) -> Waiting:
    """What waits in the queue."""
    row = connection.execute(query("runbook", "waiting"), {"now": now}).mappings().one()
    return Waiting(**row)


def held(connection: Connection) -> Held:
    """What is in PROCESSING, by the server's clock."""
    return Held(**connection.execute(query("runbook", "held")).mappings().one())


def newest_pulls(connection: Connection) -> list[Pull]:
    """The newest ten runs of the dispatcher, newest first."""
    rows = connection.execute(query("runbook", "newest_pulls")).mappings()
    return [Pull(**row) for row in rows]


def duplicates(connection: Connection) -> list[dict[str, Any]]:
    """Recommendations with more than one execution, and what tells a race from a repetition."""
    return [dict(row) for row in connection.execute(query("runbook", "duplicates")).mappings()]


def executions_are_unique(connection: Connection) -> bool:
    """Whether the server itself refuses a second execution of a recommendation."""
    named = {"table": "dispatch_executions", "column": "recommendation_id"}
    return bool(connection.execute(query("runbook", "has_unique"), named).scalar_one())


def guards_missing(connection: Connection) -> list[str]:
    """The triggers of queue and ledger that are gone or switched off."""
    found = connection.execute(query("runbook", "triggers"))
    fires = {row[0]: row[1] for row in found}
    off = {name for name, is_on in fires.items() if not is_on}
    return sorted({*off, *(name for name in GUARDS if name not in fires)})


def make_executions_unique(connection: Connection) -> None:
    """Put the constraint back; no row is touched, and a duplicate makes the server refuse."""
    connection.execute(query("runbook", "add_unique_execution"))


def switch_guards_on(connection: Connection) -> None:
    """Let the triggers that are there fire again."""
    connection.execute(query("runbook", "guard_executions"))
    connection.execute(query("runbook", "guard_recommendations"))


def tables(connection: Connection) -> list[str]:
    """The tables of the pipeline, with their schemas."""
    return list(connection.execute(query("runbook", "tables")).scalars())


def sessions(connection: Connection) -> Sessions:
    """How full the server is."""
    parameters = {"idle_seconds": IDLE_SECONDS}
    row = connection.execute(query("runbook", "connections"), parameters).mappings().one()
    return Sessions(**row)


def end_idle_sessions(connection: Connection) -> None:
    """End this user's sessions that have been idle for ten minutes."""
    connection.execute(query("runbook", "end_idle"), {"idle_seconds": IDLE_SECONDS}).all()
