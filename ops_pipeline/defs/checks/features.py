"""dbt's tests of the newest sessions' features, as asset checks."""

from collections.abc import Iterator

import dagster as dg

from ops_pipeline.defs import dbt
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.settings import Settings
from ops_pipeline.storage.knowledge import newest_stage_minutes

# So many that a backfill of a month is tested whole.
SESSIONS = 30
PASSED, NOTHING_YET = "pass", "no features yet"


def features_checks(settings: Settings) -> dg.AssetChecksDefinition:
    """One check for each dbt test of the project."""
    names = dbt.test_names(settings)

    @dg.multi_asset_check(
        specs=[dg.AssetCheckSpec(name, asset="features") for name in names], name="features_tests"
    )
    def features_tests(
        context: dg.AssetCheckExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.AssetCheckResult]:
        """Run dbt's tests over the newest sessions that have features."""
        with pipeline.engine.connect() as connection:
            progress = newest_stage_minutes(connection).get("features")
        if progress is None:
            # Whether there should be some is another check's question.
            yield from (_result(name, NOTHING_YET) for name in names)
            return
        first = pipeline.calendar.back(pipeline.calendar.day(progress.minute), SESSIONS)
        end = progress.minute + MINUTE
        window = dbt.window_vars(first.opens_at, end, pipeline.classifier.model)
        nodes = dbt.run(pipeline.settings, "test", window)
        for name in names:
            yield _result(name, nodes[name].status if name in nodes else "did not run")

    return features_tests


def _result(name: str, status: str) -> dg.AssetCheckResult:
    """What dbt found; a test that it did not come to is a lesser fault than one that failed."""
    is_found = status in ("fail", "error", "warn")
    return dg.AssetCheckResult(
        asset_key="features",
        check_name=name,
        passed=status in (PASSED, NOTHING_YET),
        severity=dg.AssetCheckSeverity.ERROR if is_found else dg.AssetCheckSeverity.WARN,
        description=status,
        metadata={"dbt": status},
    )
