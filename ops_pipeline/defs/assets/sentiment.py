"""Stage sentiment: what the stories say, and of whom."""

import dagster as dg

from ops_pipeline.defs.minutes import Minutes, finish, result
from ops_pipeline.defs.resources import SCORE_DELAY, Pipeline
from ops_pipeline.domain.linking import TickerLinker
from ops_pipeline.domain.stages import SENTIMENT
from ops_pipeline.storage import news
from ops_pipeline.storage import sentiment as storage
from ops_pipeline.storage.knowledge import counts_by_minute
from ops_pipeline.storage.universe import universe

# A backlog larger than this waits for the next minute; a replay takes a whole day at once.
BATCH, RECORDED_BATCH = 200, 100_000


def materialize(minutes: Minutes, pipeline: Pipeline) -> dg.MaterializeResult[object]:
    """One row for each text and model; a text that was scored before is not scored again."""
    model = pipeline.classifier.model
    limit = BATCH if pipeline.mode.is_live else RECORDED_BATCH
    with pipeline.engine.connect() as connection:
        waiting = storage.unscored(connection, model, limit)
    scores = pipeline.classifier.classify([f"{i.title}. {i.summary}".strip() for i in waiting])
    with pipeline.engine.begin() as connection:
        stamp = pipeline.stamp(connection)
        scored = list(zip(waiting, scores, strict=True))
        storage.insert_scores(connection, model, scored, known_at=stamp, delay=SCORE_DELAY)
        linked = news.link_tickers(connection, TickerLinker(universe(connection)))
        counts = counts_by_minute(connection, SENTIMENT.name, minutes.start, minutes.end)
        finish(connection, SENTIMENT, minutes, counts)
    return result(minutes, len(scored), linked=linked, model=model.name)
