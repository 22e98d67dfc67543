"""The runbook's five acceptance queries, as asset checks of the executions."""

from collections.abc import Iterator

import dagster as dg

from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.acceptance import DUPLICATES, NAMES, Ranges, Verdict
from ops_pipeline.operations.acceptance import examine

SPECS = [
    dg.AssetCheckSpec(name, asset="executions", description=f"Acceptance query {number}: {name}")
    for number, name in enumerate(NAMES, start=1)
]


@dg.multi_asset_check(specs=SPECS, name="acceptance")
def acceptance(
    context: dg.AssetCheckExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> Iterator[dg.AssetCheckResult]:
    """Ask the five queries of the pipeline's present; a duplicate execution halts trading."""
    for verdict in examine(pipeline.engine, pipeline.now(), pipeline.calendar, Ranges()):
        yield check_result(verdict)


def check_result(verdict: Verdict) -> dg.AssetCheckResult:
    """A verdict as Dagster shows it: what was found, what was expected, and how bad it is."""
    worst = verdict.level.is_error or verdict.name == DUPLICATES
    return dg.AssetCheckResult(
        asset_key="executions",
        check_name=verdict.name,
        passed=verdict.is_normal,
        severity=dg.AssetCheckSeverity.ERROR if worst else dg.AssetCheckSeverity.WARN,
        description=verdict.finding,
        metadata={"expected": verdict.expected, "observed": verdict.observed},
    )
