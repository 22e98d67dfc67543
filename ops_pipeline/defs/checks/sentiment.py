"""In production a model reads the stories; whether they are read is in the catalogue."""

import dagster as dg

from ops_pipeline.defs.checks.results import evaluation_of, result_of
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.sentiment import FOR_PRODUCTION, model_verdict
from ops_pipeline.domain.stages import SENTIMENT
from ops_pipeline.settings import Mode

PRODUCTION = (Mode.SIMULATED, Mode.ALPACA_PAPER)


@dg.asset_check(
    asset=SENTIMENT.name,
    name=FOR_PRODUCTION,
    description="Where real prices are traded on, a model scores, and no word list.",
)
def sentiment_is_by_a_model(pipeline: dg.ResourceParam[Pipeline]) -> dg.AssetCheckResult:
    """Who reads the stories."""
    verdict = model_verdict(pipeline.classifier.model, is_production=pipeline.mode in PRODUCTION)
    return result_of(evaluation_of(SENTIMENT.name, verdict, verdict.observed))
