"""The verb universe: which tickers are tracked, which of them must not be traded, and why."""

from typing import Annotated

import typer

from ops_pipeline.cli.console import (
    JsonOption,
    ModeOption,
    ReasonOption,
    out,
    print_json,
    require_reason,
    say,
    table,
)
from ops_pipeline.cli.server import connected
from ops_pipeline.clients.universe import tickers_of
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.operations.universe import add as add_ticker
from ops_pipeline.operations.universe import remove as remove_ticker
from ops_pipeline.storage import knowledge, quarantine
from ops_pipeline.storage import universe as storage

app = typer.Typer(help="Tracked tickers; every change is kept with its reason.")

CHANGES = 10
Symbol = Annotated[str, typer.Argument(help="A ticker, as AAPL.")]


@app.command("list")
def list_tickers(mode: ModeOption = None, as_json: JsonOption = False) -> None:
    """The tracked tickers, those in quarantine, and the newest changes."""
    with connected(mode) as (_, connection):
        tickers = storage.universe(connection)
        held_back = quarantine.open_quarantines(connection)
        changes = storage.changes(connection, CHANGES)
    if as_json:
        print_json({"tickers": tickers, "quarantines": held_back, "changes": changes})
        return
    causes = {found.ticker: found for found in held_back}
    rows = [
        [ticker.symbol, ", ".join(ticker.aliases), _cause(causes.get(ticker.symbol))]
        for ticker in tickers
    ]
    out.print(table("", ["ticker", "called", "quarantine"], rows))
    if changes:
        shown = [[f"{c.written_at:%Y-%m-%d %H:%M}", c.ticker, c.change, c.reason] for c in changes]
        out.print(table("newest changes (UTC)", ["at", "ticker", "change", "reason"], shown))


@app.command()
def add(symbol: Symbol, reason: ReasonOption = "", mode: ModeOption = None) -> None:
    """Track a ticker from the next minute on."""
    with connected(mode) as (settings, connection):
        (ticker,) = tickers_of([symbol], settings.universe_file)
        add_ticker(connection, ticker, reason)
    say(f"{symbol} is tracked from the next minute on")
    if not ticker.aliases:
        say("the universe file has no names for it: news are linked by its symbol alone")


@app.command()
def remove(symbol: Symbol, reason: ReasonOption = "", mode: ModeOption = None) -> None:
    """Track a ticker no longer; refused while it is held."""
    with connected(mode) as (settings, connection):
        remove_ticker(connection, symbol, settings.mode.calendar, reason)
    say(f"{symbol} is tracked no longer; what is stored of it stays")


@app.command()
def release(
    symbol: Symbol,
    because: Annotated[
        str,
        typer.Option(help="What you found; kept beside the quarantine.", callback=require_reason),
    ],
    mode: ModeOption = None,
) -> None:
    """Let a quarantined ticker be traded again, from now on."""
    with connected(mode) as (settings, connection):
        now = knowledge.read_now(connection, settings.mode)
        settled = quarantine.release(connection, symbol, now, because)
    if not settled:
        raise BadInput(f"{symbol} is not quarantined", "run: ops-pipeline universe list")
    say(f"{symbol} may be traded again")


def _cause(found: quarantine.Quarantine | None) -> str | None:
    if found is None:
        return None
    is_split = found.cause == quarantine.SPLIT
    size = f"{found.observed:g} for 1" if is_split else f"{found.observed:+.1%}"
    return f"{found.cause} {size} on {found.session_date}"
