"""What days cost: measured of Dagster's steps, kept by day."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime

from sqlalchemy import Connection

from ops_pipeline.domain.cost import LEAST_SECONDS, CostLine, Usage
from ops_pipeline.domain.stages import SERVICES
from ops_pipeline.storage.queries import query
from ops_pipeline.storage.runs import steps_of


def used(dagster: Connection, start: datetime, end: datetime) -> list[Usage]:
    """What the services did within [start, end); asked of Dagster's database."""
    stages = {steps_of(stage)[0]: stage for stage in SERVICES}
    rows = dagster.execute(
        query("runs", "task_seconds"),
        {
            "steps": list(stages),
            "least": LEAST_SECONDS,
            "start": start.astimezone(UTC).replace(tzinfo=None),
            "end": end.astimezone(UTC).replace(tzinfo=None),
        },
    )
    return [Usage(stages[row[0]], row[1], float(row[2]), float(row[3])) for row in rows]


def logged_bytes(connection: Connection, day: date) -> int:
    """How much a session's logs grew; 0 where that was not measured."""
    found = connection.execute(query("cost", "logged_bytes"), {"day": day}).scalar()
    return max(0, int(found or 0))


def replace(
    connection: Connection, day: date, lines: Sequence[CostLine], measured_at: datetime
) -> None:
    """Keep a day's cost; what was kept of it before is replaced."""
    connection.execute(query("cost", "delete_lines"), {"day": day})
    rows = [{"day": day, "measured_at": measured_at, **asdict(line)} for line in lines]
    if rows:
        connection.execute(query("cost", "insert_line"), rows)


def read(connection: Connection, day: date) -> list[CostLine]:
    """A day's cost, the dearest first; nothing where it was not measured."""
    rows = connection.execute(query("cost", "lines"), {"day": day}).mappings()
    return [CostLine(**row) for row in rows]
