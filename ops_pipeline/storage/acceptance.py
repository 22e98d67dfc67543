"""The queries of the checks, asked of the pipeline's present."""

from collections.abc import Collection
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, TextClause, text

from ops_pipeline.domain.acceptance import Row, Verdict
from ops_pipeline.domain.checks import CHECKS, NAMES, Check
from ops_pipeline.domain.ranges import Present, present_at
from ops_pipeline.domain.session import Calendar
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.queries import texts

AT = "cast(:now as timestamptz)"
PRESENT = {
    "NOW()": AT,
    "CURRENT_DATE": "cast(:today as timestamptz)",
    "WHERE simulated_ts >=": f"WHERE simulated_ts <= {AT} AND simulated_ts >=",
    "FROM dispatcher_runs\nORDER": f"FROM dispatcher_runs\nWHERE started_at <= {AT}\nORDER",
}


@cache
def statement(name: str) -> str:
    """A query as it is asked: the runbook's text at the pipeline's present, and nothing after it.

    A replay may have played a later day before.
    """
    asked = texts("acceptance")[name].rpartition(";")[0]
    for runbook, ours in PRESENT.items():
        asked = asked.replace(runbook, ours)
    return asked


@cache
def _prepared(name: str) -> tuple[TextClause, tuple[str, ...]]:
    asked = text(f"/* acceptance.{name} */ {statement(name)}")
    return asked, tuple(asked.compile().params)


def verdicts(
    connection: Connection,
    now: datetime,
    calendar: Calendar,
    *,
    is_live: bool,
    names: Collection[str] = NAMES,
) -> list[Verdict]:
    """What each of these checks finds at an instant, in the catalogue's order.

    Args:
        connection: to the pipeline's database.
        now: the pipeline's present.
        calendar: whose sessions are traded.
        is_live: whether `now` is the clock's; a replay's past is not held against its clock.
        names: the checks that are asked; all of them by default.
    """
    present = read_present(connection, now, calendar, is_live=is_live)
    return [_verdict(connection, check, present) for check in CHECKS if check.name in names]


def read_present(
    connection: Connection, now: datetime, calendar: Calendar, *, is_live: bool
) -> Present:
    """Where an instant lies, what is tracked and which services are off."""
    found = _ask(connection, "installed", {})[0]
    off = _ask(connection, "services_off", {"now": now})
    return present_at(
        calendar,
        now,
        tickers=found["tickers"],
        off=frozenset(row["service"] for row in off),
        is_live=is_live,
        installed_at=found["installed_at"].astimezone(UTC),
        resumed_at=found["resumed_at"],
    )


def expected_from(connection: Connection) -> datetime:
    """When the pipeline was installed, or when an operator brought it up once more."""
    found = _ask(connection, "installed", {})[0]
    installed: datetime = found["installed_at"].astimezone(UTC)
    return max(installed, found["resumed_at"] or installed)


def installed_at(connection: Connection) -> datetime:
    """When the pipeline was installed."""
    found: datetime = _ask(connection, "installed", {})[0]["installed_at"]
    return found.astimezone(UTC)


def parameters(present: Present) -> dict[str, Any]:
    """What a query may name."""
    return {
        "now": present.now,
        "today": present.today,
        "day": present.session.day,
        "opens_at": present.session.opens_at,
        "closes_at": present.session.closes_at,
        "before": present.before.opens_at,
        "is_live": present.is_live,
    }


def _verdict(connection: Connection, check: Check, present: Present) -> Verdict:
    reason = check.silence(present)
    if reason is not None:
        return check.silent(reason)
    known = parameters(present) | {"clock": clock()}
    return check.verdict(present, *(_ask(connection, name, known) for name in check.asked))


def _ask(connection: Connection, name: str, known: dict[str, Any]) -> list[Row]:
    asked, needed = _prepared(name)
    rows = connection.execute(asked, {key: known[key] for key in needed})
    return [dict(row) for row in rows.mappings()]
