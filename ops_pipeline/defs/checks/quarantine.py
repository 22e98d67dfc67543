"""No ticker is in quarantine: one that is waits for a person, and is not traded meanwhile."""

from datetime import datetime

import dagster as dg

from ops_pipeline.defs.checks.results import result_of
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.markdown import markdown_table
from ops_pipeline.storage.quarantine import Quarantine, open_quarantines

NAME = "no_ticker_is_quarantined"


@dg.asset_check(asset="bars", name=NAME, description="No ticker waits for a person to look at it.")
def no_ticker_is_quarantined(pipeline: dg.ResourceParam[Pipeline]) -> dg.AssetCheckResult:
    """Name the tickers in quarantine."""
    return result_of(evaluate(pipeline, pipeline.now()))


def evaluate(pipeline: Pipeline, now: datetime) -> dg.AssetCheckEvaluation:
    """What the check says at an instant."""
    with pipeline.engine.connect() as connection:
        found = [each for each in open_quarantines(connection) if each.available_at <= now]
    tickers = sorted({each.ticker for each in found})
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("bars"),
        check_name=NAME,
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"not traded: {', '.join(tickers)}" if found else "none is",
        metadata={
            "tickers": len(tickers),
            "causes": dg.MetadataValue.md(_table(found)),
            "release": 'ops-pipeline universe release TICKER --because "..."',
        },
    )


def _table(found: list[Quarantine]) -> str:
    rows = [(q.ticker, q.cause, f"{q.observed:.4g}", str(q.session_date)) for q in found]
    return markdown_table(("ticker", "cause", "observed", "session"), rows)
