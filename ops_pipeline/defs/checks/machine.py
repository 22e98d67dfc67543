"""The machine itself: its clock runs steadily, its disk has room."""

from collections.abc import Iterator
from datetime import datetime

import dagster as dg

from ops_pipeline.defs.checks.results import evaluation_of, result_of
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.defs.slo import KEY
from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.machine import (
    CLOCK,
    DISK,
    Clocks,
    clock_verdict,
    disk_verdict,
    events_between,
)
from ops_pipeline.local.machine import free_bytes
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.machine import insert_events, newest_event

IN_A_REPLAY = "a replay is not watched"
SPECS = [
    dg.AssetCheckSpec(
        CLOCK,
        asset=KEY,
        description="In the last hour the machine did not sleep, and its clock did not jump.",
    ),
    dg.AssetCheckSpec(DISK, asset=KEY, description="There is room where the databases lie."),
]


@dg.multi_asset_check(specs=SPECS, name="machine")
def machine(
    context: dg.AssetCheckExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> Iterator[dg.AssetCheckResult]:
    """What was seen of the machine last; a replay is not watched."""
    if not pipeline.mode.is_live:
        for spec in SPECS:
            verdict = Verdict(spec.name, Level.NOT_APPLICABLE, IN_A_REPLAY)
            yield result_of(evaluation_of(KEY, verdict, {}))
        return
    for evaluation in evaluate(pipeline, clock()):
        yield result_of(evaluation)


def evaluate(pipeline: Pipeline, now: datetime) -> list[dg.AssetCheckEvaluation]:
    """What both checks say at an instant."""
    with pipeline.engine.connect() as connection:
        newest = newest_event(connection)
    return [
        evaluation_of(KEY, verdict, verdict.observed)
        for verdict in (clock_verdict(newest, now), disk_verdict(free_bytes(pipeline.settings)))
    ]


def notice(pipeline: Pipeline, before: Clocks, now: Clocks, at: datetime) -> None:
    """Keep what happened to the machine between two readings of its clocks."""
    events = list(events_between(before, now, at))
    if events:
        with pipeline.engine.begin() as connection:
            insert_events(connection, events)
