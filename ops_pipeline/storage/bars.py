"""One-minute bars: the first complete version decides, later ones are kept beside it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from sqlalchemy import Connection

from ops_pipeline.domain.session import Session
from ops_pipeline.domain.values import Bar
from ops_pipeline.storage.queries import query

COLUMNS = ("ticker", "minute", "open", "high", "low", "close", "volume")


@dataclass(frozen=True)
class Kept:
    """What became of bars: new ones, and versions that differ from the one that stands."""

    new: int
    revisions: int


@dataclass(frozen=True)
class OpeningGap:
    """The return from the close before a session to its first trade, and when it was known."""

    ticker: str
    gap: float
    available_at: datetime


def insert_bars(
    connection: Connection,
    bars: Sequence[Bar],
    sessions: Mapping[datetime, date],
    known_at: Callable[[Bar], datetime],
    *,
    feed: str,
    origin: str,
) -> Kept:
    """Keep bars that are new, and the versions of known bars that differ.

    Args:
        connection: holds the knowledge lock where rows are stamped with the present.
        bars: usable bars of session minutes.
        sessions: the session day of each bar's minute.
        known_at: when a bar could first have been known.
        feed: which vendor feed they come from.
        origin: live or recorded.

    Returns:
        How many bars were new, and how many other versions of known ones.
    """
    columns = {
        **{name: [getattr(bar, name) for bar in bars] for name in COLUMNS},
        "session_date": [sessions[bar.minute] for bar in bars],
        "available_at": [known_at(bar) for bar in bars],
    }
    new = connection.execute(
        query("bars", "insert_bars"), {**columns, "feed": feed, "origin": origin}
    )
    revisions = connection.execute(query("bars", "insert_revisions"), columns)
    return Kept(new.rowcount, revisions.rowcount)


def coverage(connection: Connection, first: date, last: date) -> dict[tuple[str, date], datetime]:
    """Up to when the vendor has answered, by ticker and session day."""
    rows = connection.execute(query("bars", "coverage"), {"first": first, "last": last})
    return {(row[0], row[1]): row[2].astimezone(UTC) for row in rows}


def mark_answered(
    connection: Connection, tickers: Iterable[str], sessions: Iterable[Session], until: datetime
) -> None:
    """Keep that the vendor has answered for these tickers in these sessions, up to an instant."""
    rows = [
        {
            "ticker": ticker,
            "session_date": session.day,
            "answered_until": min(until, session.closes_at),
        }
        for session in sessions
        if session.opens_at < until
        for ticker in tickers
    ]
    if rows:
        connection.execute(query("bars", "mark_answered"), rows)


def newest_minute(connection: Connection, now: datetime) -> datetime | None:
    """The newest minute of which a bar was known at an instant; None before the first one."""
    newest: datetime | None = connection.execute(
        query("bars", "newest_minute"), {"now": now}
    ).scalar()
    return newest.astimezone(UTC) if newest else None


def opening_gaps(
    connection: Connection, tickers: Sequence[str], session: Session
) -> list[OpeningGap]:
    """How far these tickers opened a session from their last close before it."""
    rows = connection.execute(
        query("bars", "opening_gaps"),
        {"tickers": list(tickers), "opens": session.opens_at, "closes": session.closes_at},
    )
    return [OpeningGap(row[0], row[1], row[2].astimezone(UTC)) for row in rows]


def newest_bars(connection: Connection, tickers: Sequence[str], now: datetime) -> dict[str, Bar]:
    """The newest bar of each ticker that was known at an instant, not older than a week."""
    rows = connection.execute(
        query("bars", "newest_bars"), {"tickers": list(tickers), "now": now}
    ).mappings()
    return {row["ticker"]: Bar(**{**row, "minute": row["minute"].astimezone(UTC)}) for row in rows}
