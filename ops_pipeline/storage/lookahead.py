"""Takes the future away from a database, and puts an absurd one in its place; never in a real one.

Every function expects a scratch: what it removes is gone.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime

from sqlalchemy import Connection

from ops_pipeline.domain.values import Model
from ops_pipeline.storage.queries import query

FORGET = (
    "forget_bars",
    "forget_revisions",
    "forget_links",
    "forget_provenance",
    "forget_items",
    "forget_scores",
    "forget_cutoffs",
    "forget_stage_minutes",
    "forget_features",
    "forget_watchlist",
    "forget_signals",
    "unguard_recommendations",
    "forget_recommendations",
)
POISON = (
    "poison_bars",
    "poison_revisions",
    "poison_items",
    "poison_scores",
    "poison_links",
    "poison_features",
    "poison_watchlist",
    "poison_signals",
)
EARLY = ("early_bars", "early_items", "early_scores", "early_links", "early_decisions")


def forget(connection: Connection, minute: datetime, cutoff: datetime) -> None:
    """Remove what a minute could not know, its own decisions, and everything after it."""
    _execute(connection, FORGET, {"minute": minute, "cutoff": cutoff})


def poison(
    connection: Connection, minute: datetime, cutoff: datetime, session_date: date, model: Model
) -> None:
    """Add what a minute may not know: absurd bars, stories and decisions, all too late."""
    parameters = {
        "minute": minute,
        "cutoff": cutoff,
        "session_date": session_date,
        "model": model.name,
        "revision": model.revision,
    }
    _execute(connection, POISON, parameters)


def scored_otherwise(
    connection: Connection, minutes: Sequence[datetime], model: Model
) -> set[datetime]:
    """Those minutes at whose cut-off the newest score that was known was another model's."""
    parameters = {"minutes": list(minutes), "model": model.name, "revision": model.revision}
    rows = connection.execute(query("lookahead", "scored_otherwise"), parameters)
    return {row[0].astimezone(UTC) for row in rows}


def early(connection: Connection) -> list[str]:
    """The rows that count as known before they could be."""
    return [
        f"{name.replace('_', ' ')}: {row[0]}"
        for name in EARLY
        for row in connection.execute(query("lookahead", name))
    ]


def _execute(
    connection: Connection, names: tuple[str, ...], parameters: Mapping[str, object]
) -> None:
    for name in names:
        statement = query("lookahead", name)
        wanted = statement.compile().params
        connection.execute(statement, {key: parameters[key] for key in wanted})
