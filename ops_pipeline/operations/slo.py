"""Measures how a session's minutes were taken, and keeps what it found."""

from datetime import datetime

from sqlalchemy import Engine

from ops_pipeline.domain.session import Calendar, Session, Timing
from ops_pipeline.domain.slo import Growth, Measurement, due_until, growth_of
from ops_pipeline.storage import slo


def measure_and_keep(
    engine: Engine,
    dagster: Engine,
    calendar: Calendar,
    session: Session,
    timing: Timing,
    now: datetime,
) -> Measurement:
    """Measure a session up to the present, in place of what was measured of it before.

    Args:
        engine: the pipeline's database.
        dagster: Dagster's database; only launches and the size of the event log are read there.
        calendar: the sessions that the growth is counted in.
        session: whose minutes; it may be going on.
        timing: when a minute is due.
        now: the present.
    """
    with engine.begin() as connection, dagster.connect() as events:
        until = due_until(session, timing, now)
        taken = slo.measure(connection, session, until, timing.settle_seconds)
        launched = slo.launches(events, taken.run_ids)
        since, growth = None, Growth()
        if slo.is_newest(connection, session.day):
            present = slo.sizes(connection, events, now)
            since = slo.sizes_since(connection, session.day) or present
            growth = growth_of(calendar, session, since, present)
        measured = Measurement(session.day, now, taken.turns, growth, (*taken.phases, launched))
        slo.replace(connection, measured, since)
        kept = slo.read(connection, session.day)
    assert kept is not None  # noqa: S101 - it was written in this transaction
    return kept
