"""What one session came to, counted from its rows."""

from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection

from ops_pipeline.domain.stages import DATA_STAGES
from ops_pipeline.storage.queries import query


@dataclass(frozen=True)
class Outcome:
    """How many recommendations ended in the same way."""

    intent: str
    action: str
    status: str
    failure_reason: str | None
    rows_count: int


def rows_of_session(
    connection: Connection, session_date: date, since: datetime, until: datetime
) -> dict[str, int]:
    """Count each stage's rows of a session, in the stages' order; news: known in (since, until]."""
    parameters = {"session_date": session_date, "since": since, "until": until}
    rows = connection.execute(query("summary", "rows_of_session"), parameters)
    counts = {row[0]: row[1] for row in rows}
    return {stage.name: counts[stage.name] for stage in DATA_STAGES}


def outcomes_of_session(connection: Connection, session_date: date) -> list[Outcome]:
    """What became of a session's recommendations, the most frequent first."""
    rows = connection.execute(
        query("summary", "outcomes_of_session"), {"session_date": session_date}
    ).mappings()
    return [Outcome(**row) for row in rows]


def closes_of_session(connection: Connection, session_date: date) -> dict[str, float]:
    """The last close of each ticker in a session."""
    rows = connection.execute(query("summary", "closes_of_session"), {"session_date": session_date})
    return {row[0]: row[1] for row in rows}
