"""The runbook's sections as jobs: one each, of the same name, a dry run unless it is told."""

import json
from collections.abc import Sequence
from typing import Any

import dagster as dg
from dagster._core.storage.tags import MAX_RUNTIME_SECONDS_TAG

from ops_pipeline.defs.jobs import LANE
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.acceptance import Verdict
from ops_pipeline.engine.logs import told_events
from ops_pipeline.engine.watch import Watch
from ops_pipeline.operations.runbook.section import (
    Diagnosis,
    Fix,
    Outcome,
    Scene,
    Section,
    diagnose,
    fix,
)
from ops_pipeline.operations.runbook.sections import SECTIONS


class RunbookConfig(dg.Config):
    """What a section's job may be told: whether to do what it would."""

    apply: bool = False


@dg.op(name="runbook", description="Diagnose the section of this job, and mend it if told to.")
def work(
    context: dg.OpExecutionContext, config: RunbookConfig, pipeline: dg.ResourceParam[Pipeline]
) -> None:
    """One section: what it found and would change, or changed, as metadata.

    The run fails where a step of the fix does; checks may need the next tick to be normal.
    """
    section = next(one for one in SECTIONS if one.job_name == context.job_name)
    scene = Scene(
        settings=pipeline.settings,
        engine=pipeline.engine,
        who=f"run {context.run_id[:8]}",
        open_dagster=lambda: Watch(context.instance),
    )
    with told_events("ops_pipeline"):
        found = diagnose(section, scene)
        done = fix(section, scene, apply=config.apply)
    context.add_output_metadata(_metadata(found, done))
    failed = [step.what for step in done.steps if step.outcome is Outcome.FAILED]
    if failed:
        raise dg.Failure(f"{section.name}, {found.code}: {'; '.join(failed)} failed")


def runbook_job(section: Section) -> dg.JobDefinition:
    """The job of a section."""
    codes = " ".join(cause.code for cause in section.causes)

    @dg.job(
        name=section.job_name,
        description=f"{section.symptom} Finds {codes}. Changes nothing unless apply is true.",
        tags={LANE: "runbook", MAX_RUNTIME_SECONDS_TAG: "300"},
    )
    def job() -> None:
        work()

    return job


JOBS = [runbook_job(section) for section in SECTIONS]


def _metadata(found: Diagnosis, done: Fix) -> dict[str, Any]:
    evidence = {one.cause.code: dict(one.evidence) for one in found.found}
    plan = [[step.outcome.value, step.what, step.command] for step in done.steps]
    return {
        "diagnosis": found.code,
        "level": found.level.value,
        "evidence": _json(evidence),
        "plan": _json(plan),
        "verdicts": _json(_told(done.verdicts)),
        "applied": done.is_applied,
    }


def _told(verdicts: Sequence[Verdict]) -> dict[str, str]:
    return {one.name: f"{one.level.value}: {one.finding}" for one in verdicts}


def _json(value: Any) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.json(json.loads(json.dumps(value, default=str)))
