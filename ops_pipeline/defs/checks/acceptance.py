"""The catalogue of checks, as asset checks: one function for each asset that has some."""

from collections.abc import Collection, Iterator
from datetime import datetime

import dagster as dg

from ops_pipeline.defs.checks.results import evaluation_of, result_of
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.acceptance import Verdict
from ops_pipeline.domain.checks import CHECKS
from ops_pipeline.domain.errors import NotRunning
from ops_pipeline.operations.acceptance import examine

ASSETS = {check.name: check.asset for check in CHECKS}
KEYS = [dg.AssetCheckKey(dg.AssetKey(asset), name) for name, asset in ASSETS.items()]


def acceptance_checks() -> list[dg.AssetChecksDefinition]:
    """The checks of each asset."""
    return [_of(asset) for asset in dict.fromkeys(ASSETS.values())]


def evaluate(
    pipeline: Pipeline, now: datetime, names: Collection[str]
) -> list[dg.AssetCheckEvaluation]:
    """What these checks say at an instant; a duplicate halts trading."""
    is_live = pipeline.mode.is_live
    found = examine(pipeline.engine, now, pipeline.calendar, is_live=is_live, names=names)
    return [_evaluation(verdict) for verdict in found]


def _evaluation(verdict: Verdict) -> dg.AssetCheckEvaluation:
    metadata = {
        "expected": verdict.expected,
        "observed": verdict.observed,
    }
    return evaluation_of(ASSETS[verdict.name], verdict, metadata)


def _of(asset: str) -> dg.AssetChecksDefinition:
    own = [check for check in CHECKS if check.asset == asset]
    specs = [dg.AssetCheckSpec(c.name, asset=asset, description=c.says) for c in own]

    @dg.multi_asset_check(specs=specs, name=f"acceptance_of_{asset}")
    def acceptance(
        context: dg.AssetCheckExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.AssetCheckResult]:
        """Ask the queries of the pipeline's present."""
        try:
            now = pipeline.now()
        except NotRunning as error:
            found = [_evaluation(check.silent(str(error))) for check in own]
        else:
            found = evaluate(pipeline, now, [check.name for check in own])
        yield from map(result_of, found)

    return acceptance
