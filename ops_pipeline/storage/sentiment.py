"""Scores of texts, by model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, TextClause

from ops_pipeline.domain.sentiment import MOST_ATTEMPTS
from ops_pipeline.domain.values import Model, Score
from ops_pipeline.storage.queries import query


@dataclass(frozen=True)
class Unscored:
    """A text that a model has not scored, when it was first known, and how often it was tried."""

    text_hash: str
    title: str
    summary: str
    origin: str
    available_at: datetime
    attempts: int = 0

    @property
    def text(self) -> str:
        """What a model reads."""
        return f"{self.title}. {self.summary}".strip()


@dataclass(frozen=True)
class Backlog:
    """How many texts wait for a score, and how many were given up."""

    waiting: int
    given_up: int


def unscored(connection: Connection, model: Model, limit: int) -> list[Unscored]:
    """Texts that wait for a score, the earliest known first; without those given up."""
    rows = connection.execute(
        query("sentiment", "unscored"),
        {**_key(model), "limit": limit, "most_attempts": MOST_ATTEMPTS},
    ).mappings()
    return [Unscored(**row) for row in rows]


def begin_attempts(connection: Connection, model: Model, items: Sequence[Unscored]) -> None:
    """Count an attempt at each of these texts, before it is made."""
    _each(connection, query("sentiment", "begin_attempt"), _keys(model, items))


def end_attempts(connection: Connection, model: Model, items: Sequence[Unscored]) -> None:
    """Forget the attempts at these texts."""
    _each(connection, query("sentiment", "end_attempt"), _keys(model, items))


def fail_attempts(connection: Connection, model: Model, reasons: Mapping[str, str]) -> None:
    """Keep why texts, by their hash, could not be scored."""
    rows = [{**_key(model), "text_hash": text, "reason": why} for text, why in reasons.items()]
    _each(connection, query("sentiment", "fail_attempt"), rows)


def backlog(connection: Connection, model: Model) -> Backlog:
    """What this model has not scored."""
    parameters = {**_key(model), "most_attempts": MOST_ATTEMPTS}
    row = connection.execute(query("sentiment", "backlog"), parameters).one()
    return Backlog(row.waiting, row.given_up)


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
    _each(connection, query("sentiment", "insert_score"), rows)
    end_attempts(connection, model, [item for item, _ in scored])


def _each(connection: Connection, statement: TextClause, rows: list[dict[str, object]]) -> None:
    if rows:
        connection.execute(statement, rows)


def _keys(model: Model, items: Sequence[Unscored]) -> list[dict[str, object]]:
    return [{**_key(model), "text_hash": item.text_hash} for item in items]


def _key(model: Model) -> dict[str, object]:
    return {"model": model.name, "revision": model.revision}


def _row(
    model: Model, item: Unscored, score: Score, known_at: datetime | None, delay: timedelta
) -> dict[str, object]:
    return {
        "text_hash": item.text_hash,
        "model": model.name,
        "revision": model.revision,
        "backend": model.backend,
        "precision": model.precision,
        "weights": model.weights,
        "is_truncated": score.is_truncated,
        "label": score.label,
        "probability": score.probability,
        "p_positive": score.positive,
        "p_negative": score.negative,
        "p_neutral": score.neutral,
        "score": score.signed,
        "origin": item.origin,
        "available_at": known_at or item.available_at + delay,
    }
