"""The one list of tracked tickers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection

from ops_pipeline.domain.values import Ticker
from ops_pipeline.storage.queries import query


@dataclass(frozen=True)
class Change:
    """A ticker that was added or removed, why and when."""

    ticker: str
    change: str
    reason: str
    written_at: datetime


def replace_universe(connection: Connection, tickers: Sequence[Ticker]) -> None:
    """Track exactly these tickers."""
    symbols = [ticker.symbol for ticker in tickers]
    connection.execute(query("universe", "delete_other_tickers"), {"tickers": symbols})
    rows = [{"ticker": ticker.symbol, "aliases": list(ticker.aliases)} for ticker in tickers]
    if rows:
        connection.execute(query("universe", "insert_ticker"), rows)


def insert_ticker(connection: Connection, ticker: Ticker, reason: str) -> None:
    """Track one more ticker, or give one other names, and keep why."""
    row = {"ticker": ticker.symbol, "aliases": list(ticker.aliases)}
    connection.execute(query("universe", "insert_ticker"), row)
    _keep_change(connection, ticker.symbol, "added", reason)


def delete_ticker(connection: Connection, symbol: str, reason: str) -> None:
    """Track a ticker no longer, and keep why."""
    connection.execute(query("universe", "delete_ticker"), {"ticker": symbol})
    _keep_change(connection, symbol, "removed", reason)


def changes(connection: Connection, limit: int) -> list[Change]:
    """What was added and removed, newest first."""
    rows = connection.execute(query("universe", "changes"), {"limit": limit}).mappings()
    return [Change(**{**row, "written_at": row["written_at"].astimezone(UTC)}) for row in rows]


def _keep_change(connection: Connection, symbol: str, change: str, reason: str) -> None:
    row = {"ticker": symbol, "change": change, "reason": reason}
    connection.execute(query("universe", "insert_change"), row)


def universe(connection: Connection) -> list[Ticker]:
    """The tracked tickers, ordered by symbol."""
    rows = connection.execute(query("universe", "all_tickers")).mappings()
    return [Ticker(row["ticker"], tuple(row["aliases"])) for row in rows]
