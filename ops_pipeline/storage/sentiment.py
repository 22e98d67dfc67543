"""Scores of texts, by model."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from ops_pipeline.domain.values import Model, Score
from ops_pipeline.storage.queries import query


@dataclass(frozen=True)
class Unscored:
    """A text that a model has not scored, and when it was first known."""

    text_hash: str
    title: str
    summary: str
    origin: str
    available_at: datetime


def unscored(connection: Connection, model: Model, limit: int) -> list[Unscored]:
    """Texts that wait for a score, the earliest known first."""
    rows = connection.execute(
        query("sentiment", "unscored"),
        {"model": model.name, "revision": model.revision, "limit": limit},
    ).mappings()
    return [Unscored(**row) for row in rows]


def insert_scores(
    connection: Connection,
    model: Model,
    scored: Sequence[tuple[Unscored, Score]],
    *,
    known_at: datetime | None,
    delay: timedelta,
) -> None:
    """Keep scores: live ones are known at known_at, recorded ones a delay after their text."""
    rows = [_row(model, item, score, known_at, delay) for item, score in scored]
    if rows:
        connection.execute(query("sentiment", "insert_score"), rows)


def _row(
    model: Model, item: Unscored, score: Score, known_at: datetime | None, delay: timedelta
) -> dict[str, object]:
    return {
        "text_hash": item.text_hash,
        "model": model.name,
        "revision": model.revision,
        "backend": model.backend,
        "precision": model.precision,
        "label": score.label,
        "probability": score.probability,
        "p_positive": score.positive,
        "p_negative": score.negative,
        "p_neutral": score.neutral,
        "score": score.signed,
        "origin": item.origin,
        "available_at": known_at or item.available_at + delay,
    }
