"""Measures what a day would cost on AWS."""

from datetime import date, datetime, timedelta

from sqlalchemy import Connection, Engine

from ops_pipeline.domain.cost import CostLine, day_cost
from ops_pipeline.settings import Settings, prices_of
from ops_pipeline.storage import cost


def measured(
    connection: Connection, dagster: Connection, settings: Settings, day: date, now: datetime
) -> list[CostLine]:
    """A day's cost up to the present, or what was kept of it once Dagster's log is thinned.

    Args:
        connection: the pipeline's database.
        dagster: Dagster's database.
        settings: whose prices, and whether an account is followed.
        day: of the exchange; nothing of a day to come.
        now: the present.

    Raises:
        BadConfiguration: a price cannot be used; the message says why.
    """
    start = settings.mode.calendar.day_starts_at(day)
    if start > now:
        return []
    end = settings.mode.calendar.day_starts_at(day + timedelta(days=1))
    used = cost.used(dagster, start, min(end, now))
    kept = [] if used else cost.read(connection, day)
    if kept:
        return kept
    usd = prices_of(settings)
    logged = cost.logged_bytes(connection, day)
    return day_cost(used, logged, usd, is_followed=settings.mode.is_followed)


def measure_and_keep(
    engine: Engine, dagster: Engine, settings: Settings, day: date, now: datetime
) -> float:
    """Measure a day's cost in place of what was kept of it; its sum in USD."""
    with engine.begin() as connection, dagster.connect() as events:
        lines = measured(connection, events, settings, day, now)
        cost.replace(connection, day, lines, now)
    return sum(line.usd for line in lines)
