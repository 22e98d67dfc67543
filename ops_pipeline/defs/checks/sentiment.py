"""The stories are scored, in production by a model, and speak of the universe."""

from collections.abc import Iterator

import dagster as dg

from ops_pipeline.defs.checks.results import evaluation_of, result_of
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.acceptance import Verdict
from ops_pipeline.domain.sentiment import (
    COVERED,
    FOR_PRODUCTION,
    LINKED,
    SCORED,
    SCORED_WITHIN,
    linked_verdict,
    model_verdict,
    scored_verdict,
)
from ops_pipeline.domain.stages import SENTIMENT
from ops_pipeline.settings import Mode
from ops_pipeline.storage.sentiment import backlog, coverage

PRODUCTION = (Mode.SIMULATED, Mode.ALPACA_PAPER)
SPECS = [
    dg.AssetCheckSpec(
        SCORED,
        asset=SENTIMENT.name,
        description="The stories of the last day are scored, and no text was given up.",
    ),
    dg.AssetCheckSpec(
        LINKED,
        asset=SENTIMENT.name,
        description="The stories of the last day speak of tickers of the universe.",
    ),
    dg.AssetCheckSpec(
        FOR_PRODUCTION,
        asset=SENTIMENT.name,
        description="Where real prices are traded on, a model scores, and no word list.",
    ),
]


@dg.multi_asset_check(specs=SPECS, name="sentiment_checks")
def sentiment_checks(
    context: dg.AssetCheckExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> Iterator[dg.AssetCheckResult]:
    """What became of the stories, and who reads them."""
    model, now = pipeline.classifier.model, pipeline.now()
    with pipeline.engine.connect() as connection:
        found = coverage(connection, model, now - COVERED, now - SCORED_WITHIN)
        rest = backlog(connection, model)
    yield _result(scored_verdict(found.stories, found.scored, **rest.__dict__))
    yield _result(linked_verdict(found.stories, found.linked))
    yield _result(model_verdict(model, is_production=pipeline.mode in PRODUCTION))


def _result(verdict: Verdict) -> dg.AssetCheckResult:
    return result_of(evaluation_of(SENTIMENT.name, verdict, verdict.observed))
