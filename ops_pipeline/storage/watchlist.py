"""Decisions of the watchlist, with their history."""

from collections.abc import Sequence
from datetime import UTC, date, datetime

from sqlalchemy import Connection, RowMapping

from ops_pipeline.domain.values import WatchlistEntry
from ops_pipeline.domain.watchlist import Decision
from ops_pipeline.storage.queries import query

COMPONENTS = ("sentiment_pressure", "setup_quality", "volatility", "trend_alignment")


def insert_entries(
    connection: Connection,
    entries: Sequence[WatchlistEntry],
    session_date: date,
    available_at: datetime,
) -> None:
    """Keep one decision."""
    rows = [
        {
            "minute": entry.minute,
            "ticker": entry.ticker,
            "session_date": session_date,
            "score": entry.score,
            "rank": entry.rank,
            "in_watchlist": entry.in_watchlist,
            "reason": entry.reason,
            "entered_at": entry.entered_at,
            **entry.components,
            "available_at": available_at,
        }
        for entry in entries
    ]
    if rows:
        connection.execute(query("watchlist", "insert_entry"), rows)


def entries_between(
    connection: Connection, session_date: date, start: datetime, end: datetime
) -> dict[datetime, list[WatchlistEntry]]:
    """The decisions of a session in [start, end), best ticker first."""
    rows = connection.execute(
        query("watchlist", "entries_between"),
        {"session_date": session_date, "start": start, "end": end},
    ).mappings()
    found: dict[datetime, list[WatchlistEntry]] = {}
    for row in rows:
        entry = _entry(row)
        found.setdefault(entry.minute, []).append(entry)
    return found


def decisions_known(
    connection: Connection,
    session_date: date,
    start: datetime,
    end: datetime,
    *,
    before: datetime,
) -> list[Decision]:
    """The newest decision up to each minute in [start, end) that was known at its cut-off.

    Args:
        connection: reads cut-offs and decisions.
        session_date: decisions of other sessions do not count.
        start: the first minute that asks.
        end: the minute after the last one that asks.
        before: decisions from this minute on do not count.

    Returns:
        Each decision once, in the order of their minutes.
    """
    found = connection.execute(
        query("watchlist", "decisions_known"),
        {"session_date": session_date, "start": start, "end": end, "before": before},
    ).mappings()
    return [_decision(row) for row in found]


def _decision(row: RowMapping) -> Decision:
    members = zip(row["tickers"] or (), row["entered_at"] or (), strict=True)
    return Decision(
        minute=row["minute"].astimezone(UTC),
        available_at=row["available_at"].astimezone(UTC),
        members={ticker: entered_at.astimezone(UTC) for ticker, entered_at in members},
    )


def _entry(row: RowMapping) -> WatchlistEntry:
    entered_at = row["entered_at"]
    return WatchlistEntry(
        ticker=row["ticker"],
        minute=row["minute"].astimezone(UTC),
        score=row["score"],
        rank=row["rank"],
        in_watchlist=row["in_watchlist"],
        reason=row["reason"],
        entered_at=entered_at.astimezone(UTC) if entered_at else None,
        components={name: row[name] for name in COMPONENTS},
    )
