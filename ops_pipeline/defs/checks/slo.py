"""The limits of the minute loop, as checks of what was measured last."""

from collections.abc import Iterator

import dagster as dg

from ops_pipeline.defs.checks.results import evaluation_of, result_of
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.defs.slo import KEY
from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.slo import (
    GROWTH,
    IN_A_REPLAY,
    LATE,
    NAMES,
    PROMPT,
    SKIPPED,
    measurement_is_due,
    verdicts,
)
from ops_pipeline.settings import slo_rules_of
from ops_pipeline.storage import slo
from ops_pipeline.storage.acceptance import expected_from

DESCRIPTIONS = {
    PROMPT: "Signals follow soon on the settling of their minute, at p95.",
    SKIPPED: "Every minute that was due was taken in its own turn.",
    LATE: "The signals of a minute are there before the next one settles.",
    GROWTH: "A day adds no more to Dagster's event log than is allowed for.",
}
SPECS = [dg.AssetCheckSpec(name, asset=KEY, description=DESCRIPTIONS[name]) for name in NAMES]


@dg.multi_asset_check(specs=SPECS, name="slo_limits")
def slo_limits(
    context: dg.AssetCheckExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> Iterator[dg.AssetCheckResult]:
    """Hold the session that was measured last against the limits, once one was due."""
    if not pipeline.mode.is_live:
        for name in NAMES:
            yield _result(Verdict(name, Level.NOT_APPLICABLE, IN_A_REPLAY))
        return
    with pipeline.engine.connect() as connection:
        measured = slo.read(connection)
        since = expected_from(connection)
    is_due = measurement_is_due(pipeline.calendar, since, pipeline.now())
    session = measured.session_date.isoformat() if measured else "none"
    for verdict in verdicts(measured, slo_rules_of(pipeline.settings), is_due=is_due):
        yield _result(verdict, session)


def _result(verdict: Verdict, session: str = "none") -> dg.AssetCheckResult:
    said = {"session": session, "expected": verdict.expected, **verdict.observed}
    return result_of(evaluation_of(KEY, verdict, said))
