"""How the minute loop has done as an asset: a session's phases as numbers that the UI draws."""

from datetime import date
from typing import Any

import dagster as dg

from ops_pipeline.defs.declare import NEWEST_MINUTE
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.session import Session
from ops_pipeline.domain.slo import IN_A_REPLAY, MEGABYTE, Measurement, session_to_measure
from ops_pipeline.operations import cost
from ops_pipeline.operations.slo import measure_and_keep
from ops_pipeline.storage.engine import opened

KEY = "pipeline_slo"


class SloConfig(dg.Config):
    """Which session to measure; without one, the newest that has been open for an hour."""

    session: str | None = None


@dg.asset(
    name=KEY,
    group_name="slo",
    deps=[dg.AssetDep("signals", partition_mapping=NEWEST_MINUTE), "executions"],
    description="How fast the minutes of a session were, which of them were missed, and what they"
    " took on disk. Measuring a session again replaces what is kept of it.",
)
def pipeline_slo(
    context: dg.AssetExecutionContext, config: SloConfig, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult[Any]:
    """Measure one session, and keep it."""
    if not pipeline.mode.is_live:
        return dg.MaterializeResult(metadata={"measured": IN_A_REPLAY})
    session, settings = _session(config, pipeline), pipeline.settings
    with opened(settings, settings.dagster_database) as dagster:
        measured = measure_and_keep(
            pipeline.engine, dagster, pipeline.calendar, session, pipeline.timing, pipeline.now()
        )
        usd = cost.measure_and_keep(pipeline.engine, dagster, settings, session.day, pipeline.now())
    return dg.MaterializeResult(metadata={**_metadata(measured), "cost_usd": round(usd, 4)})


def _session(config: SloConfig, pipeline: Pipeline) -> Session:
    if config.session is None:
        return session_to_measure(pipeline.calendar, pipeline.now())
    try:
        session = pipeline.calendar.on(date.fromisoformat(config.session))
    except ValueError:
        session = None
    if session is None:
        raise BadInput(f"{config.session} is no session")
    return session


def _metadata(measured: Measurement) -> dict[str, Any]:
    """Each number by itself, because only those are drawn; what is not known is left out."""
    turns, growth = measured.turns, measured.growth
    told: dict[str, Any] = {
        "session": measured.session_date.isoformat(),
        "minutes": turns.minutes,
        "minutes_skipped": turns.skipped,
        "minutes_late": turns.late,
        "event_log_mb": _megabytes(growth.event_log_bytes),
        "event_log_mb_per_day": _megabytes(growth.event_log_growth_bytes),
        "database_mb": _megabytes(growth.database_bytes),
        "database_mb_per_day": _megabytes(growth.database_growth_bytes),
    }
    for phase in measured.phases:
        told[f"{phase.phase}_count"] = phase.count
        for name, seconds in phase.__dict__.items():
            if name.endswith("_seconds"):
                told[f"{phase.phase}_{name}"] = None if seconds is None else round(seconds, 3)
    return {name: value for name, value in told.items() if value is not None}


def _megabytes(count: int | None) -> float | None:
    return None if count is None else round(count / MEGABYTE, 1)
