"""The one list of tracked tickers."""

from collections.abc import Sequence

from sqlalchemy import Connection

from ops_pipeline.domain.values import Ticker
from ops_pipeline.storage.queries import query


def replace_universe(connection: Connection, tickers: Sequence[Ticker]) -> None:
    """Track exactly these tickers."""
    symbols = [ticker.symbol for ticker in tickers]
    connection.execute(query("universe", "delete_other_tickers"), {"tickers": symbols})
    rows = [{"ticker": ticker.symbol, "aliases": list(ticker.aliases)} for ticker in tickers]
    if rows:
        connection.execute(query("universe", "insert_ticker"), rows)


def universe(connection: Connection) -> list[Ticker]:
    """The tracked tickers, ordered by symbol."""
    rows = connection.execute(query("universe", "all_tickers")).mappings()
    return [Ticker(row["ticker"], tuple(row["aliases"])) for row in rows]
