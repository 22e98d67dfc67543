"""What Dagster alone knows becomes alerts, too: failed checks of assets, and failed runs.

What the watching process looks at itself is left to it, so that nothing is told twice.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.alerts import CHECKS, JOBS
from ops_pipeline.domain.checks import NAMES
from ops_pipeline.domain.machine import CLOCK, DISK
from ops_pipeline.domain.stream import ADDS_UP, IS_LIVE
from ops_pipeline.local.keeper import table_of
from ops_pipeline.operations.looks import Processes
from ops_pipeline.storage import alerts as storage
from ops_pipeline.storage.knowledge import clock

LOOKED_AT_ELSEWHERE = frozenset((*NAMES, CLOCK, DISK, IS_LIVE, ADDS_UP))
ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
# So many failures in a row are no accident.
IN_A_ROW = 3


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Turn failed checks and runs into alerts, and good ones into their end.",
)
def alerts_sensor(
    context: dg.SensorEvaluationContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.SkipReason:
    """Open and resolve alerts by the newest result of each check, and the newest runs of jobs."""
    if not pipeline.mode.is_live:
        return dg.SkipReason("replay: it is not watched")
    repository = context.repository_def
    if repository is None:
        return dg.SkipReason("no code location")
    keys = [
        key
        for key in sorted(repository.asset_graph.asset_check_keys)
        if key.name not in LOOKED_AT_ELSEWHERE
    ]
    names = sorted(name for name in repository.job_names if not name.startswith("__"))
    if Processes(table_of(pipeline.settings), []).are_starting(clock()):
        return dg.SkipReason("all of it was started a moment ago")
    checks, check_links = verdicts_of_checks(context.instance, keys)
    jobs, job_links = verdicts_of_jobs(context.instance, names)
    _observe(pipeline, clock(), CHECKS, checks, check_links)
    _observe(pipeline, clock(), JOBS, jobs, job_links)
    bad = [verdict.name for verdict in (*checks, *jobs) if not verdict.is_normal]
    return dg.SkipReason(f"bad: {', '.join(bad)}" if bad else "all checks and runs are good")


def verdicts_of_checks(
    instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]
) -> tuple[list[Verdict], dict[str, str]]:
    """What each check said last, and where it is shown; one that never ran says nothing."""
    newest = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    verdicts, links = [], {}
    for key, record in newest.items():
        evaluation = record.evaluation
        # While the next one runs, the one before still holds.
        if evaluation is None or record.status is AssetCheckExecutionRecordStatus.PLANNED:
            continue
        name = f"{key.asset_key.to_user_string()}/{key.name}"
        severe = evaluation.severity is dg.AssetCheckSeverity.ERROR
        level = Level.NORMAL if evaluation.passed else Level.HIGH if severe else Level.MEDIUM
        verdicts.append(
            Verdict(name, level, evaluation.description or "it failed", {}, "it passes")
        )
        links[name] = f"/assets/{'/'.join(key.asset_key.path)}?view=checks"
    return verdicts, links


def verdicts_of_jobs(
    instance: dg.DagsterInstance, names: Sequence[str]
) -> tuple[list[Verdict], dict[str, str]]:
    """How each job's newest runs ended: one failure is noted, several in a row are a fault."""
    verdicts, links = [], {}
    for name in names:
        runs = instance.get_runs(dg.RunsFilter(job_name=name, statuses=ENDED), limit=IN_A_ROW)
        if not runs:
            continue
        failed = [run.status is dg.DagsterRunStatus.FAILURE for run in runs]
        count = failed.index(False) if False in failed else len(failed)
        level = Level.HIGH if count >= IN_A_ROW else Level.LOW if count else Level.NORMAL
        finding = f"its last {count} runs failed" if count else "its last run ended well"
        verdicts.append(Verdict(name, level, finding, {}, "it ends well"))
        links[name] = f"/runs/{runs[0].run_id}"
    return verdicts, links


def _observe(
    pipeline: Pipeline,
    now: datetime,
    source: str,
    verdicts: Sequence[Verdict],
    links: Mapping[str, str],
) -> None:
    with pipeline.engine.begin() as connection:
        storage.observe(connection, now, source, verdicts, links)
