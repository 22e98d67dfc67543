"""The data stages of some minutes, one after the other, without a run of Dagster around them."""

from collections.abc import Iterable
from datetime import datetime

from ops_pipeline.defs.assets import bars, features, news, sentiment, signals, watchlist
from ops_pipeline.defs.minutes import minutes_between
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.stages import (
    BARS,
    DATA_STAGES,
    FEATURES,
    NEWS,
    SENTIMENT,
    SIGNALS,
    WATCHLIST,
    Stage,
)

BODIES = {
    NEWS: news.materialize,
    BARS: bars.materialize,
    SENTIMENT: sentiment.materialize,
    FEATURES: features.materialize,
    WATCHLIST: watchlist.materialize,
    SIGNALS: signals.materialize,
}


def tick(
    pipeline: Pipeline,
    first: datetime,
    last: datetime,
    stages: Iterable[Stage] = DATA_STAGES,
    run_id: str = "",
) -> dict[str, dict[str, object]]:
    """Stages from one minute to another, both included. Returns what each said, by its word."""
    minutes = minutes_between(first, last + MINUTE, run_id, pipeline)
    return {stage.name: dict(BODIES[stage](minutes, pipeline).metadata or {}) for stage in stages}
