"""Stage sentiment: what the stories say, and of whom."""

import time
from collections.abc import Iterator, Sequence
from math import inf

import dagster as dg

from ops_pipeline.clients.protocols import Unscorable
from ops_pipeline.defs.minutes import Minutes, finish, result
from ops_pipeline.defs.resources import SCORE_DELAY, Pipeline
from ops_pipeline.domain.errors import OperatorError
from ops_pipeline.domain.linking import TickerLinker
from ops_pipeline.domain.stages import SENTIMENT
from ops_pipeline.domain.values import Score
from ops_pipeline.storage import news
from ops_pipeline.storage import sentiment as storage
from ops_pipeline.storage.knowledge import counts_by_minute
from ops_pipeline.storage.sentiment import Unscored
from ops_pipeline.storage.universe import universe

# A backlog larger than this, or that takes longer, waits for the next minute; a replay takes a
# whole day at once.
BATCH, RECORDED_BATCH, SCORING_SECONDS = 200, 100_000, 20.0
# So many are kept together: what ends the process costs no more than these.
KEPT_TOGETHER, RECORDED_TOGETHER = 64, 1_000


def materialize(minutes: Minutes, pipeline: Pipeline) -> dg.MaterializeResult[object]:
    """One row for each text and model; a text that was scored before is not scored again."""
    model = pipeline.classifier.model
    limit = BATCH if pipeline.mode.is_live else RECORDED_BATCH
    with pipeline.engine.connect() as connection:
        waiting = storage.unscored(connection, model, limit)
    until = time.monotonic() + (SCORING_SECONDS if pipeline.mode.is_live else inf)
    rows = 0
    for group in _groups(waiting, KEPT_TOGETHER if pipeline.mode.is_live else RECORDED_TOGETHER):
        if time.monotonic() >= until:
            break
        rows += _score(group, pipeline)
    with pipeline.engine.begin() as connection:
        # For its lock: a link is known as early as its story, and a cut-off must not come between.
        pipeline.stamp(connection)
        linked = news.link_tickers(connection, TickerLinker(universe(connection)))
        backlog = storage.backlog(connection, model)
        counts = counts_by_minute(connection, SENTIMENT.name, minutes.start, minutes.end)
        finish(connection, SENTIMENT, minutes, counts)
    return result(minutes, rows, linked=linked, model=model.name, **backlog.__dict__)


def _groups(waiting: Sequence[Unscored], size: int) -> Iterator[Sequence[Unscored]]:
    """Those that were never tried, many at a time; then each of the others by itself.

    One that ends the process has taken its group with it, and must not do so again.
    """
    fresh = [item for item in waiting if not item.attempts]
    yield from (fresh[at : at + size] for at in range(0, len(fresh), size))
    yield from ([item] for item in waiting if item.attempts)


def _score(group: Sequence[Unscored], pipeline: Pipeline) -> int:
    """Score texts and keep that; one that fails harms no other. Returns how many were scored."""
    model = pipeline.classifier.model
    with pipeline.engine.begin() as connection:
        storage.begin_attempts(connection, model, group)
    try:
        scored, reasons = _classified(group, pipeline)
    except OperatorError:
        # The model is at fault, and no text.
        with pipeline.engine.begin() as connection:
            storage.end_attempts(connection, model, group)
        raise
    with pipeline.engine.begin() as connection:
        stamp = pipeline.stamp(connection)
        storage.insert_scores(connection, model, scored, known_at=stamp, delay=SCORE_DELAY)
        storage.fail_attempts(connection, model, reasons)
    return len(scored)


def _classified(
    group: Sequence[Unscored], pipeline: Pipeline
) -> tuple[list[tuple[Unscored, Score]], dict[str, str]]:
    """The scores of texts, and why those without one have none."""
    try:
        scores = pipeline.classifier.classify([item.text for item in group])
    except Unscorable as error:
        pairs = [(item, score) for item, score in zip(group, error.scores, strict=True) if score]
        failed = {
            item.text_hash: "the model gave no number"
            for item, score in zip(group, error.scores, strict=True)
            if score is None
        }
        return pairs, failed
    except OperatorError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a text does to a model is its own matter
        if len(group) == 1:
            return [], {group[0].text_hash: f"{type(error).__name__}: {error}"[:500]}
        parts = [_classified([item], pipeline) for item in group]
        found = [pair for scored, _ in parts for pair in scored]
        return found, {text: why for _, reasons in parts for text, why in reasons.items()}
    return list(zip(group, scores, strict=True)), {}
