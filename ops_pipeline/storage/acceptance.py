"""The runbook's five queries, asked of the pipeline's present."""

from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, TextClause, text

from ops_pipeline.domain import acceptance
from ops_pipeline.domain.acceptance import Ranges, Row, Verdict
from ops_pipeline.domain.session import Calendar
from ops_pipeline.storage.queries import query, texts


@cache
def _as_of(name: str) -> TextClause:
    # The runbook's own text; only what it calls the present is the pipeline's.
    runbook = texts("acceptance")[name].rstrip(";")
    at = "cast(:now as timestamptz)"
    today = "cast(:today as timestamptz)"
    return text(runbook.replace("NOW()", at).replace("CURRENT_DATE", today))


def _ask(connection: Connection, name: str, parameters: dict[str, Any]) -> list[Row]:
    statement = _as_of(name)
    needed = {key: parameters[key] for key in statement.compile().params}
    return [dict(row) for row in connection.execute(statement, needed).mappings()]


def verdicts(
    connection: Connection, now: datetime, calendar: Calendar, ranges: Ranges
) -> list[Verdict]:
    """The five verdicts at an instant, in the runbook's order."""
    day = calendar.day(now)
    present = {"now": now, "today": calendar.day_starts_at(day)}

    def ask(name: str) -> list[Row]:
        return _ask(connection, name, present)

    return [
        acceptance.backlog_state(ask(acceptance.BACKLOG), ranges),
        acceptance.stuck_processing(ask(acceptance.STUCK), ranges),
        acceptance.duplicate_executions(ask(acceptance.DUPLICATES), ranges),
        acceptance.recent_dispatcher_runs(
            ask(acceptance.RUNS), ranges, now, is_open=calendar.at(now) is not None
        ),
        acceptance.execution_volume(
            ask(acceptance.VOLUME),
            ranges,
            last_24_hours=_executions_since(connection, _a_trading_day_ago(now, calendar), now),
        ),
    ]


def _a_trading_day_ago(now: datetime, calendar: Calendar) -> datetime:
    # Twenty-four hours of a weekend hold no trading: the day before is the session before.
    return calendar.before(calendar.day(now)).opens_at


def _executions_since(connection: Connection, since: datetime, now: datetime) -> int | None:
    first_run = connection.execute(query("acceptance", "first_run")).scalar()
    if first_run is None or first_run > since:
        return None
    parameters = {"since": since, "now": now}
    return int(connection.execute(query("acceptance", "executions_since"), parameters).scalar_one())
