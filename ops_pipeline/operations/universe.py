"""Changes of the universe, each with its reason; a ticker that is held stays until it is flat."""

from dataclasses import dataclass

from sqlalchemy import Connection

from ops_pipeline.clients.universe import tickers_of, universe_file
from ops_pipeline.domain.bars import is_ticker
from ops_pipeline.domain.errors import BadInput, Unsafe
from ops_pipeline.domain.execution import Book
from ops_pipeline.domain.session import Calendar
from ops_pipeline.domain.values import Ticker
from ops_pipeline.settings import Mode, Settings
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


@dataclass(frozen=True)
class UniverseDifference:
    """What the universe file would change of what is tracked."""

    added: list[Ticker]
    removed: list[str]
    renamed: list[Ticker]

    @property
    def told(self) -> str:
        """Say it in one line; empty where nothing differs."""
        parts = {
            "add": [ticker.symbol for ticker in self.added],
            "remove": self.removed,
            "rename": [ticker.symbol for ticker in self.renamed],
        }
        return "; ".join(f"{verb} {', '.join(names)}" for verb, names in parts.items() if names)


def difference(connection: Connection, settings: Settings) -> UniverseDifference:
    """Compare the tracked tickers and their names with the universe file.

    Raises:
        BadConfiguration: the file cannot be used.
    """
    path = settings.universe_file
    wanted = {each.symbol: each for each in tickers_of(universe_file(path).tracked, path)}
    tracked = {ticker.symbol: ticker for ticker in universe.universe(connection)}
    both = sorted(wanted.keys() & tracked.keys())
    return UniverseDifference(
        added=[wanted[symbol] for symbol in sorted(wanted.keys() - tracked.keys())],
        removed=sorted(tracked.keys() - wanted.keys()),
        renamed=[wanted[symbol] for symbol in both if wanted[symbol] != tracked[symbol]],
    )


def apply_file(connection: Connection, settings: Settings, reason: str) -> UniverseDifference:
    """Track what the universe file says, by the names that it gives; all of it, or nothing.

    Raises:
        BadConfiguration: the file cannot be used.
        Unsafe: a ticker that the file leaves out is held.
    """
    found = difference(connection, settings)
    for ticker in found.added:
        add(connection, ticker, reason)
    for ticker in found.renamed:
        universe.insert_ticker(connection, ticker, f"other names: {reason}")
    for symbol in found.removed:
        remove(connection, symbol, settings.mode.calendar, reason)
    return found


def sandbox_note(settings: Settings) -> str:
    """Say that the sandbox has feeds of its own, where the operator names others."""
    if settings.mode is not Mode.SANDBOX or settings.universe_file is None:
        return ""
    return (
        "sandbox mode reads the sandbox's own feeds; those of"
        f" {settings.universe_file.name} are not fetched"
    )


def unserved(connection: Connection, settings: Settings) -> list[str]:
    """Return the tracked tickers that the sandbox does not have: it serves those of the file."""
    if settings.mode is not Mode.SANDBOX:
        return []
    return sorted(_symbols(connection) - universe_file(settings.universe_file).tickers.keys())


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
