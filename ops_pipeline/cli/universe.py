"""The verb universe: which tickers are tracked, which of them must not be traded, and why."""

from functools import partial
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
    symbol_of,
    table,
)
from ops_pipeline.cli.server import connected
from ops_pipeline.clients.universe import tickers_of
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.operations.universe import add as add_ticker
from ops_pipeline.operations.universe import apply_file, difference
from ops_pipeline.operations.universe import remove as remove_ticker
from ops_pipeline.storage import knowledge, quarantine
from ops_pipeline.storage import universe as storage

app = typer.Typer(help="Tracked tickers; every change is kept with its reason.")

CHANGES = 10
Symbol = Annotated[str, typer.Argument(parser=symbol_of, help="A ticker, as AAPL or BRK.B.")]


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
def add(
    symbols: Annotated[list[str], typer.Argument(metavar="SYMBOL...", help="Tickers, as AAPL.")],
    reason: ReasonOption = "",
    mode: ModeOption = None,
) -> None:
    """Track tickers from the next minute on: all of them, or none."""
    with connected(mode) as (settings, connection):
        tickers = tickers_of(symbols, settings.universe_file)
        for ticker in tickers:
            add_ticker(connection, ticker, reason)
    for ticker in tickers:
        say(f"{ticker.symbol} is tracked from the next minute on")
        if not ticker.aliases:
            say("the universe file has no names for it: news are linked by its symbol alone")


@app.command()
def apply(
    apply: Annotated[
        bool, typer.Option("--apply", help="Apply the change (default: dry run).")
    ] = False,
    reason: ReasonOption = "",
    mode: ModeOption = None,
) -> None:
    """Track what the universe file says, by the names that it gives: all of it, or nothing."""
    with connected(mode) as (settings, connection):
        path = settings.universe_file
        name = path.name if path else "the universe file of this version"
        compare = partial(apply_file, reason=reason or f"as {name} says") if apply else difference
        told = compare(connection, settings).told
    if not told:
        say(f"{name} says what is tracked")
    elif apply:
        say(f"done, from the next minute on: {told}")
    else:
        say(f"{name} would: {told}")
        say("nothing was changed; add --apply to do it")


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
