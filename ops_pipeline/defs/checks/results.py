"""From a verdict to what Dagster keeps of a check, reported by a run or by a sensor."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from ops_pipeline.domain.acceptance import Verdict


def evaluation_of(
    asset: str, verdict: Verdict, metadata: Mapping[str, Any]
) -> dg.AssetCheckEvaluation:
    """A verdict about an asset: what was found, and how bad it is."""
    is_said = not verdict.is_silent or verdict.finding.startswith(verdict.level)
    severity = dg.AssetCheckSeverity.ERROR if verdict.level.is_error else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(asset),
        check_name=verdict.name,
        passed=verdict.is_normal,
        severity=severity,
        description=verdict.finding if is_said else f"{verdict.level}: {verdict.finding}",
        metadata={"level": verdict.level.value, **metadata},
    )


def result_of(evaluation: dg.AssetCheckEvaluation) -> dg.AssetCheckResult:
    """An evaluation as a run reports it; a sensor reports it as it is."""
    return dg.AssetCheckResult(
        asset_key=evaluation.asset_key,
        check_name=evaluation.check_name,
        passed=evaluation.passed,
        severity=evaluation.severity,
        description=evaluation.description,
        metadata=evaluation.metadata,
    )
