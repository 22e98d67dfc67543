"""The code location: the stages in the order of the flow, the jobs, and what runs when."""

import dagster as dg

from ops_pipeline.defs.alerts import alerts_sensor
from ops_pipeline.defs.assets import bars, features, news, sentiment, signals, watchlist
from ops_pipeline.defs.certificate import exactly_once_certificate
from ops_pipeline.defs.checks.acceptance import acceptance_checks
from ops_pipeline.defs.checks.explained import every_execution_explained
from ops_pipeline.defs.checks.features import features_checks
from ops_pipeline.defs.checks.lookahead import nothing_looks_ahead
from ops_pipeline.defs.checks.machine import machine
from ops_pipeline.defs.checks.overnight import no_position_is_held_overnight
from ops_pipeline.defs.checks.quarantine import no_ticker_is_quarantined
from ops_pipeline.defs.checks.sentiment import sentiment_is_by_a_model
from ops_pipeline.defs.checks.slo import slo_limits
from ops_pipeline.defs.control import control_assets
from ops_pipeline.defs.declare import data_asset, executions_asset, features_asset
from ops_pipeline.defs.jobs import (
    acceptance_job,
    dispatch_job,
    lookahead_job,
    minute_job,
    retention_job,
    slo_job,
)
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.defs.retention import retention
from ops_pipeline.defs.runbook import JOBS as RUNBOOK_JOBS
from ops_pipeline.defs.schedules import (
    acceptance_schedule,
    bars_sensor,
    control_sensor,
    dispatch_sensor,
    lookahead_schedule,
    machine_sensor,
    minute_schedule,
    retention_schedule,
    slo_schedule,
    stream_sensor,
)
from ops_pipeline.defs.slo import pipeline_slo
from ops_pipeline.defs.stream import stream_checks, trade_stream
from ops_pipeline.domain.stages import BARS, FEATURES, NEWS, SENTIMENT, SIGNALS, WATCHLIST
from ops_pipeline.environment import enter
from ops_pipeline.settings import Settings, load

SCHEDULES = [
    minute_schedule,
    acceptance_schedule,
    lookahead_schedule,
    slo_schedule,
    retention_schedule,
]
SENSORS = [
    dispatch_sensor,
    bars_sensor,
    machine_sensor,
    stream_sensor,
    control_sensor,
    alerts_sensor,
]


def build(settings: Settings) -> dg.Definitions:
    """Everything that Dagster knows of the pipeline, for one mode."""
    return dg.Definitions(
        assets=[
            data_asset(settings, NEWS, news.materialize),
            data_asset(settings, BARS, bars.materialize),
            data_asset(settings, SENTIMENT, sentiment.materialize, [NEWS]),
            features_asset(settings, features.materialize),
            data_asset(settings, WATCHLIST, watchlist.materialize, [FEATURES], reads_itself=True),
            data_asset(
                settings, SIGNALS, signals.materialize, [FEATURES, WATCHLIST], reads_itself=True
            ),
            executions_asset(settings, [SIGNALS]),
            exactly_once_certificate,
            trade_stream,
            *control_assets,
            pipeline_slo,
            retention,
        ],
        asset_checks=[
            *acceptance_checks(),
            no_ticker_is_quarantined,
            every_execution_explained,
            no_position_is_held_overnight,
            features_checks(settings),
            sentiment_is_by_a_model,
            nothing_looks_ahead,
            slo_limits,
            machine,
            stream_checks,
        ],
        jobs=[
            minute_job,
            dispatch_job,
            acceptance_job,
            lookahead_job,
            slo_job,
            retention_job,
            *RUNBOOK_JOBS,
        ],
        schedules=SCHEDULES,
        sensors=SENSORS,
        resources={"pipeline": Pipeline(settings)},
        # A process for each step would import everything six times a minute.
        executor=dg.in_process_executor,
    )


enter()
defs = build(load())
