"""Changes of the universe, each with its reason; a ticker that is held stays until it is flat."""

from sqlalchemy import Connection

from ops_pipeline.domain.bars import is_ticker
from ops_pipeline.domain.errors import BadInput, Unsafe
from ops_pipeline.domain.execution import Book
from ops_pipeline.domain.session import Calendar
from ops_pipeline.domain.values import Ticker
from ops_pipeline.storage import universe
from ops_pipeline.storage.execution import live_fills
from ops_pipeline.storage.knowledge import clock


def add(connection: Connection, ticker: Ticker, reason: str) -> None:
    """Track a ticker from the next minute on; its bars of the session before are fetched too.

    Raises:
        BadInput: it is no symbol, or is tracked already.
    """
    if not is_ticker(ticker.symbol):
        raise BadInput(f"{ticker.symbol!r} is no symbol of a US stock")
    if ticker.symbol in _symbols(connection):
        raise BadInput(f"{ticker.symbol} is tracked already")
    universe.insert_ticker(connection, ticker, reason)


def remove(connection: Connection, symbol: str, calendar: Calendar, reason: str) -> None:
    """Track a ticker no longer; what is stored of it stays.

    Raises:
        BadInput: it is not tracked.
        Unsafe: it is held, or the last one.
    """
    tracked = _symbols(connection)
    if symbol not in tracked:
        raise BadInput(f"{symbol} is not tracked", "run: ops-pipeline universe list")
    if len(tracked) == 1:
        raise Unsafe(f"{symbol} is the last ticker; without any there is nothing to watch")
    held = Book(live_fills(connection, calendar.day(clock()))).positions.get(symbol)
    if held:
        # Without bars and features its exits would be refused, and nothing would ever close it.
        raise Unsafe(
            f"{symbol} is held: {held.quantity} shares, since {held.opened_at:%Y-%m-%d %H:%M} UTC",
            "its exits close it before the session ends; try again then",
        )
    universe.delete_ticker(connection, symbol, reason)


def _symbols(connection: Connection) -> set[str]:
    return {ticker.symbol for ticker in universe.universe(connection)}
