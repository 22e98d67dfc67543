"""The catalogue of checks, as asset checks: one function for each asset that has some."""

from collections.abc import Iterator

import dagster as dg

from ops_pipeline.defs.checks.results import evaluation_of, result_of
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.checks import CHECKS, Check
from ops_pipeline.operations.acceptance import examine

KEYS = [dg.AssetCheckKey(dg.AssetKey(check.asset), check.name) for check in CHECKS]


def acceptance_checks() -> list[dg.AssetChecksDefinition]:
    """The checks of each asset."""
    assets = dict.fromkeys(check.asset for check in CHECKS)
    return [_of(asset, [check for check in CHECKS if check.asset == asset]) for asset in assets]


def _of(asset: str, checks: list[Check]) -> dg.AssetChecksDefinition:
    names = [check.name for check in checks]
    specs = [dg.AssetCheckSpec(c.name, asset=asset, description=c.says) for c in checks]

    @dg.multi_asset_check(specs=specs, name=f"acceptance_of_{asset}")
    def acceptance(
        context: dg.AssetCheckExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.AssetCheckResult]:
        """Ask the queries of the pipeline's present; a duplicate execution halts trading."""
        for verdict in examine(
            pipeline.engine,
            pipeline.now(),
            pipeline.calendar,
            is_live=pipeline.mode.is_live,
            names=names,
        ):
            said = {
                "level": verdict.level.value,
                "expected": verdict.expected,
                "observed": verdict.observed,
            }
            yield result_of(evaluation_of(asset, verdict, said))

    return acceptance
