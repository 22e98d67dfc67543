"""The bars are fresh: what counts is the age of the data, never that something ran."""

from datetime import datetime

import dagster as dg

from ops_pipeline.defs.checks.results import result_of
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.bars import FRESH_SECONDS, age_seconds
from ops_pipeline.storage.bars import newest_minute

NAME = "bars_are_fresh"


@dg.asset_check(
    asset="bars",
    name=NAME,
    description=f"While the market is open, the newest bar ended at most {FRESH_SECONDS} s ago.",
)
def bars_are_fresh(pipeline: dg.ResourceParam[Pipeline]) -> dg.AssetCheckResult:
    """Compare the newest bar with the present."""
    return result_of(evaluate(pipeline, pipeline.now()))


def evaluate(pipeline: Pipeline, now: datetime) -> dg.AssetCheckEvaluation:
    """What the check says at an instant; it is silent while the market is closed."""
    session = pipeline.calendar.at(now)
    with pipeline.engine.connect() as connection:
        newest = newest_minute(connection, now)
    if session is None or not session.is_open(now):
        return _evaluation(passed=True, description="the market is closed", age=None)
    age = age_seconds(newest, session, now)
    description = f"the newest bar ended {age:.0f} s ago"
    return _evaluation(passed=age <= FRESH_SECONDS, description=description, age=age)


def _evaluation(*, passed: bool, description: str, age: float | None) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("bars"),
        check_name=NAME,
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=description,
        metadata={"limit_seconds": FRESH_SECONDS} | ({} if age is None else {"age_seconds": age}),
    )
