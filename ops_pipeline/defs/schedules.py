"""What runs when: data each minute, the dispatcher when rows wait, checks beside them."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    MAX_RUNTIME_SECONDS_TAG,
)
from sqlalchemy import Connection

from ops_pipeline.defs import control, stream
from ops_pipeline.defs.checks import acceptance, machine, quarantine
from ops_pipeline.defs.jobs import (
    LANE,
    acceptance_job,
    dispatch_job,
    lookahead_job,
    minute_job,
    retention_job,
    slo_job,
)
from ops_pipeline.defs.partitions import partition_key
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.checks import FRESH
from ops_pipeline.domain.machine import Clocks
from ops_pipeline.domain.session import MINUTE, newest_closed_minute
from ops_pipeline.domain.slo import FIRST_LOOK, session_to_measure
from ops_pipeline.domain.stages import DATA_STAGES, DISPATCH, Stage
from ops_pipeline.local.machine import read_clocks
from ops_pipeline.settings import Mode
from ops_pipeline.storage.dispatch import is_waiting
from ops_pipeline.storage.knowledge import clock, finished_minutes
from ops_pipeline.storage.services import switches
from ops_pipeline.storage.slo import is_unmeasured

REPLAY = dg.SkipReason("replay: the driver is the clock")
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
# A gap of more minutes than this is a backfill's work: a tick must not take the whole day's time.
CATCH_UP = 390
# Seconds after which a tick holds up those after it for nothing; more for each minute caught up.
HANGS_AFTER = 180
# So often a check says the same again.
REPEATED_SECONDS = 300


@dg.schedule(
    job=minute_job,
    cron_schedule="* * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Ask each minute for every minute of this session that is missing, as one run.",
)
def minute_schedule(
    context: dg.ScheduleEvaluationContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.RunRequest | dg.SkipReason:
    """Ask for every minute of this session that a service has missed, as one run."""
    if not pipeline.mode.is_live:
        return REPLAY
    if _is_busy(context.instance, "minute"):
        return dg.SkipReason("the run before is not done; the next tick catches up")
    with pipeline.engine.connect() as connection:
        now = pipeline.now()
        enabled = _enabled(connection, now, DATA_STAGES)
        missed = _missed_minutes(connection, pipeline, enabled, now)
    if not enabled or not missed:
        return dg.SkipReason("every data service is off" if not enabled else "nothing to do")
    return dg.RunRequest(
        asset_selection=[dg.AssetKey(name) for name in enabled],
        # Checks have runs of their own; left open, all checks of these assets would come along.
        asset_check_keys=[],
        tags={
            ASSET_PARTITION_RANGE_START_TAG: partition_key(missed[0], pipeline.calendar),
            ASSET_PARTITION_RANGE_END_TAG: partition_key(missed[-1], pipeline.calendar),
            "ops/mode": pipeline.mode.value,
            MAX_RUNTIME_SECONDS_TAG: str(HANGS_AFTER + 2 * len(missed)),
        },
    )


@dg.sensor(
    job=dispatch_job,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Start the dispatcher when a recommendation waits, and once a minute.",
)
def dispatch_sensor(
    context: dg.SensorEvaluationContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.RunRequest | dg.SkipReason:
    """Start the dispatcher when rows wait and none is at work; once a minute also without rows."""
    if not pipeline.mode.is_live:
        return REPLAY
    if _is_busy(context.instance, "dispatch"):
        return dg.SkipReason("a dispatcher run is at work")
    now = pipeline.now()
    with pipeline.engine.connect() as connection:
        if not _enabled(connection, now, [DISPATCH]):
            return dg.SkipReason("the dispatcher is switched off")
        waiting = is_waiting(connection, orders_move=pipeline.calendar.at(now) is not None)
    minute = newest_closed_minute(now).isoformat()
    if not waiting and context.cursor == minute:
        return dg.SkipReason("no recommendation waits")
    context.update_cursor(minute)
    # A key of its own for each request: what is executed once is the database's to say.
    return dg.RunRequest(run_key=now.isoformat(), tags={"ops/mode": pipeline.mode.value})


@dg.sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Report whether the bars are fresh, and which tickers wait for a person.",
)
def bars_sensor(
    context: dg.SensorEvaluationContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.SensorResult | dg.SkipReason:
    """Report the checks of the bars when one changes, and every five minutes; no run is needed.

    So they go on when runs fail, are stuck or were never started.
    """
    if not pipeline.mode.is_live:
        return REPLAY
    now = pipeline.now()
    fresh = acceptance.evaluate(pipeline, now, [FRESH])
    evaluations = [*fresh, quarantine.evaluate(pipeline, now)]
    verdicts = [str(evaluation.passed) for evaluation in evaluations]
    said = " ".join([*verdicts, str(int(now.timestamp()) // REPEATED_SECONDS)])
    if context.cursor == said:
        return dg.SkipReason("; ".join(str(each.description) for each in evaluations))
    return dg.SensorResult(asset_events=evaluations, cursor=said)


@dg.sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Report a sleep, a jump of the clock, and a disk that fills up.",
)
def machine_sensor(
    context: dg.SensorEvaluationContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.SensorResult | dg.SkipReason:
    """Notice a sleep, a jump of the clock, a disk that fills up, and report that; no run is needed.

    The cursor holds the clocks of the last look, so that a daemon that was down sees it as well.
    """
    if not pipeline.mode.is_live:
        return REPLAY
    at = clock()
    clocks = read_clocks(at)
    seen = json.loads(context.cursor) if context.cursor else {}
    if seen:
        machine.notice(pipeline, Clocks(**seen["clocks"]), clocks, at)
    evaluations = machine.evaluate(pipeline, at)
    said = "; ".join(str(each.description) for each in evaluations if not each.passed)
    told_at = seen.get("told_at", 0.0)
    is_news = said != seen.get("said") or clocks.wall - told_at >= REPEATED_SECONDS
    cursor = {
        "clocks": clocks.__dict__,
        "said": said,
        "told_at": clocks.wall if is_news else told_at,
    }
    return dg.SensorResult(
        asset_events=evaluations if is_news else [],
        skip_reason=said or "the machine is well",
        cursor=json.dumps(cursor),
    )


@dg.sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Report whether the account is followed, and what came of it.",
)
def stream_sensor(
    context: dg.SensorEvaluationContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.SensorResult | dg.SkipReason:
    """Report the checks of the trade stream when one changes, and all of it every five minutes."""
    if not pipeline.mode.is_followed:
        return dg.SkipReason(stream.NOT_FOLLOWED)
    now = pipeline.now()
    evaluations = stream.evaluate(stream.read(pipeline), now)
    verdicts = " ".join(str(evaluation.passed) for evaluation in evaluations)
    turn = str(int(now.timestamp() / stream.TOLD.total_seconds()))
    if context.cursor == f"{verdicts} {turn}":
        return dg.SkipReason("; ".join(str(each.description) for each in evaluations))
    events: list[Any] = [*evaluations]
    if not context.cursor or not context.cursor.endswith(f" {turn}"):
        events += stream.told(pipeline, now, is_live=evaluations[0].passed)
    return dg.SensorResult(asset_events=events, cursor=f"{verdicts} {turn}")


@dg.sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Record what was changed by hand, end what was set for a time, tell switches.",
)
def control_sensor(
    context: dg.SensorEvaluationContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.SensorResult | dg.SkipReason:
    """Find changed settings, also while the dispatcher is off, and show them with the switches."""
    if not pipeline.mode.is_live:
        return REPLAY
    news, cursor, said = control.look(pipeline, context.cursor)
    return dg.SensorResult(asset_events=news, cursor=cursor, skip_reason=None if news else said)


def _live_schedule(
    name: str, job: UnresolvedAssetJobDefinition, cron_schedule: str, description: str
) -> dg.ScheduleDefinition:
    """A schedule that runs a job as it is, in live modes only."""

    @dg.schedule(
        name=name,
        job=job,
        cron_schedule=cron_schedule,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )
    def schedule(
        context: dg.ScheduleEvaluationContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> dg.RunRequest | dg.SkipReason:
        if not pipeline.mode.is_live:
            return REPLAY
        return dg.RunRequest(tags={"ops/mode": pipeline.mode.value})

    return schedule


acceptance_schedule = _live_schedule(
    "acceptance_schedule",
    acceptance_job,
    "*/5 * * * *",
    "Ask the acceptance queries every five minutes.",
)
lookahead_schedule = _live_schedule(
    "lookahead_schedule",
    lookahead_job,
    "30 21 * * *",
    "Prove the newest session once a day, after the close.",
)
retention_schedule = _live_schedule(
    "retention_schedule",
    retention_job,
    "15 5 * * *",
    "Remove once a day, at night, what is kept for some days only.",
)


@dg.schedule(
    job=slo_job,
    cron_schedule="5 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Measure a session five minutes after its close.",
)
def slo_schedule(
    context: dg.ScheduleEvaluationContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.RunRequest | dg.SkipReason:
    """Measure a session five minutes after its close; in the sandbox, which has none, each hour.

    One that was slept through is measured in the first hour that is not.
    """
    if not pipeline.mode.is_live:
        return REPLAY
    # The tick's own hour: one that comes late still measures the session that it was for.
    at = context.scheduled_execution_time
    session = session_to_measure(pipeline.calendar, at)
    has_just_closed = session.closes_at <= at < session.closes_at + FIRST_LOOK
    if pipeline.mode is not Mode.SANDBOX and not has_just_closed:
        session = session if session.closes_at <= at else pipeline.calendar.before(session.day)
        with pipeline.engine.connect() as connection:
            if not is_unmeasured(connection, session):
                return dg.SkipReason("no session has closed in the last hour")
    return dg.RunRequest(
        run_config={"ops": {"pipeline_slo": {"config": {"session": session.day.isoformat()}}}},
        tags={"ops/mode": pipeline.mode.value},
    )


def _is_busy(instance: dg.DagsterInstance, lane: str) -> bool:
    unfinished = dg.RunsFilter(tags={LANE: lane}, statuses=UNFINISHED)
    return instance.get_runs_count(unfinished) > 0


def _enabled(connection: Connection, now: datetime, stages: Iterable[Stage]) -> list[str]:
    on = {switch.stage for switch in switches(connection, now) if switch.is_enabled}
    return [stage.name for stage in stages if stage in on]


def _missed_minutes(
    connection: Connection, pipeline: Pipeline, stages: list[str], now: datetime
) -> list[datetime]:
    """The minutes since the newest one that all these stages have finished.

    They reach back into the session before, so that a tick left out at the close is made up for.
    """
    newest = newest_closed_minute(now)
    today = pipeline.calendar.day(newest)
    sessions = [pipeline.calendar.before(today), pipeline.calendar.on(today)]
    minutes = [m for session in sessions if session for m in session.minutes() if m <= newest]
    if not stages or not minutes:
        return []
    done = finished_minutes(connection, stages, minutes[0], newest + MINUTE)
    if not done:
        return [newest] if minutes[-1] == newest else []
    return [minute for minute in minutes if minute > max(done)][-CATCH_UP:]
