"""Every execution can be explained: what it stands on is there, down to each story."""

from collections.abc import Sequence
from datetime import date, datetime

import dagster as dg

from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.markdown import markdown_table
from ops_pipeline.domain.session import Calendar
from ops_pipeline.storage.explain import Unresolved, count_executions, unresolved_links

SESSIONS = 30
NAMED, LISTED = 3, 20


@dg.asset_check(
    asset="executions",
    name="every_execution_explained",
    description=f"Every link of the executions of the last {SESSIONS} sessions leads somewhere.",
)
def every_execution_explained(pipeline: dg.ResourceParam[Pipeline]) -> dg.AssetCheckResult:
    """Count the links of the last sessions' executions that lead nowhere."""
    first, last = window(pipeline.calendar, pipeline.now())
    with pipeline.engine.connect() as connection:
        executions = count_executions(connection, first, last)
        lost = unresolved_links(connection, first, last)
    return dg.AssetCheckResult(
        passed=not lost,
        severity=dg.AssetCheckSeverity.ERROR,
        description=_finding(executions, lost),
        metadata={
            "executions": executions,
            "unresolved": len(lost),
            "first_session": first.isoformat(),
            "last_session": last.isoformat(),
            "missing": dg.MetadataValue.md(_table(lost)),
        },
    )


def window(calendar: Calendar, now: datetime) -> tuple[date, date]:
    """The first and the last day of the sessions that are looked at: the present's is the last."""
    today = calendar.day(now)
    last = today if calendar.on(today) else calendar.before(today).day
    return calendar.back(last, SESSIONS - 1).day, last


def _finding(executions: int, lost: Sequence[Unresolved]) -> str:
    found = f"{executions} executions, {len(lost)} links unresolved"
    named = ", ".join(f"{link.link} {link.missing}" for link in lost[:NAMED])
    return f"{found}: {named}" if named else found


def _table(lost: Sequence[Unresolved]) -> str:
    rows = [(link.execution_id, link.ticker, link.link, link.missing) for link in lost[:LISTED]]
    return markdown_table(("execution", "ticker", "link", "missing"), rows)
