"""Which market a replay plays: files that were checked whole, or a generated one."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from ops_pipeline.cli.console import say_aside, symbol_of
from ops_pipeline.clients.bar_formats import BarFormat
from ops_pipeline.clients.replay import (
    ANY_FORMAT,
    BarFile,
    RecordedMarket,
    days_of,
    is_regular,
    load_bars,
    read_news,
    table_of,
)
from ops_pipeline.clients.universe import tickers_of, universe_file
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.session import Calendar, Session
from ops_pipeline.domain.values import NewsEntry
from ops_pipeline.sandbox.market import DEFAULT_TICKERS, GeneratedMarket
from ops_pipeline.settings import PartitionWindow, Settings, load
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.universe import replace_universe

MAX_SESSIONS = 60
BarsOption = Annotated[Path | None, typer.Option(help="Bars: csv, csv.gz or parquet.")]
NewsOption = Annotated[Path | None, typer.Option(help="News: csv or jsonl.")]
MapOption = Annotated[
    str | None,
    typer.Option("--map", help="Columns of --bars, as COLUMN=NAME,... with our names."),
]
ZoneOption = Annotated[
    str | None, typer.Option("--tz", help="Zone of times in --bars without one.")
]
TickersOption = Annotated[str | None, typer.Option(help="Only these, with commas.")]


class Universe(StrEnum):
    """Which tickers of a recording are played."""

    FROM_FILE = "from-file"
    CONFIGURED = "configured"


UniverseOption = Annotated[
    Universe,
    typer.Option(help="Of --bars: all its tickers, or those that the universe file tracks."),
]
SeedOption = Annotated[int, typer.Option(help="Of the generated market, without --bars.")]


@dataclass(frozen=True, eq=False)
class Request:
    """Which sessions are to be played, and on what; `market` is the same for the same content."""

    sessions: list[Session]
    market: str
    tickers: list[str]
    bars: pd.DataFrame
    news: list[NewsEntry]

    @property
    def window(self) -> PartitionWindow:
        """Its days."""
        return PartitionWindow(self.sessions[0].day, self.sessions[-1].day)


def put(settings: Settings, request: Request) -> None:
    """Make a market that of a replay: its bars and news, and its tickers."""
    with opened(settings) as engine, engine.begin() as connection:
        replace_universe(connection, tickers_of(request.tickers))
    market = RecordedMarket(settings.mode_dir / "market")
    market.save(request.bars, request.news, request.market)


def parse_days(
    first: str | None, last: str | None, names: tuple[str, str] = ("--from", "--to")
) -> tuple[date | None, date | None]:
    """The first and the last day as they were given, by options of these names, in order.

    Raises:
        BadInput: one is no day, or they are the wrong way round.
    """

    def parsed(name: str, text: str | None) -> date | None:
        try:
            return date.fromisoformat(text) if text else None
        except ValueError:
            raise BadInput(f"{name} must be a day like 2025-02-12, not {text!r}") from None

    begin, end = (parsed(name, text) for name, text in zip(names, (first, last), strict=True))
    if begin and end and end < begin:
        raise BadInput(f"{names[1]} {end} lies before {names[0]} {begin}")
    return begin, end


def parse_day(text: str) -> tuple[date | None, date | None]:
    """The one day that --day names, as first and last."""
    return parse_days(text, text, ("--day", "--day"))


def show_import(path: Path, found: BarFile, calendar: Calendar) -> None:
    """Say on stderr what a bar file holds, and what was recognized, changed and left out."""
    regular = is_regular(found.bars, calendar)
    counts = f"{int(regular.sum()):,} bars of {found.bars['ticker'].nunique()} tickers"
    notes = [counts, *found.notes]
    if outside := int((~regular).sum()):
        notes.append(f"rows left out because they lie outside the regular session: {outside:,}")
    say_aside(f"{path.name}: {'; '.join(notes)}")


def requested(
    calendar: Calendar,
    bars: Path | None,
    news: Path | None,
    tickers: str | None,
    days: tuple[date | None, date | None],
    seed: int,
    universe: Universe = Universe.FROM_FILE,
    form: BarFormat = ANY_FORMAT,
) -> Request:
    """The market that a verb was asked for: of files, or a generated one."""
    wanted = tuple(symbol_of(t) for t in tickers.split(",") if t.strip()) if tickers else ()
    if bars is not None:
        return recorded(calendar, bars, news, wanted, days, universe, form)
    return generated(calendar, wanted, days, seed)


def recorded(
    calendar: Calendar,
    bars: Path,
    news: Path | None,
    wanted: tuple[str, ...],
    days: tuple[date | None, date | None],
    universe: Universe = Universe.FROM_FILE,
    form: BarFormat = ANY_FORMAT,
) -> Request:
    """A market of files, checked whole."""
    # A file of one ticker need not name it in each row.
    found = load_bars(bars, replace(form, ticker=wanted[0] if len(wanted) == 1 else None))
    table = found.bars
    known = sorted(table["ticker"].unique())
    if unknown := sorted(set(wanted) - set(known)):
        raise BadInput(f"{bars} has no bars of {', '.join(unknown)}; it has {', '.join(known)}")
    if universe is Universe.CONFIGURED and not wanted:
        tracked = universe_file(load().universe_file).tracked
        known = [symbol for symbol in known if symbol in tracked]
        if not known:
            raise BadInput(f"{bars} has none of the tracked tickers: {', '.join(tracked)}")
    chosen = list(wanted) or known
    digest = hashlib.sha256(bars.read_bytes())
    digest.update(news.read_bytes() if news else b"")
    table = table[table["ticker"].isin(chosen)]
    sessions = _sessions(calendar, days_of(table, calendar), days, str(bars))
    show_import(bars, found, calendar)
    entries = read_news(news, say_aside, chosen) if news else []
    market = f"{digest.hexdigest()[:12]}/{','.join(chosen)}"
    show_import(bars, found, calendar)
    return Request(sessions, market, chosen, table, entries)


def generated(
    calendar: Calendar,
    wanted: tuple[str, ...],
    days: tuple[date | None, date | None],
    seed: int,
) -> Request:
    """A market for these days, and for the session before the first one to warm up on."""
    first, last = days
    if first is None:
        raise BadInput("a generated market needs --from", "try: ops-pipeline demo")
    if unknown := sorted(set(wanted) - set(universe_file().tickers)):
        raise BadInput(f"unknown ticker {unknown[0]}; the universe file does not have it")
    chosen = list(wanted) or list(DEFAULT_TICKERS)
    sessions = _sessions(calendar, None, (first, last or first), "the calendar")
    source = GeneratedMarket(calendar, chosen, seed)
    played = [calendar.before(sessions[0].day), *sessions]
    bars = table_of(bar for session in played for bar in source.bars(session.day))
    news = [entry for session in played for entry in source.news(session.day)]
    return Request(sessions, f"generated-{seed}/{','.join(chosen)}", chosen, bars, news)


def _sessions(
    calendar: Calendar,
    available: Sequence[date] | None,
    days: tuple[date | None, date | None],
    where: str,
) -> list[Session]:
    first = days[0] or (available[0] if available else None)
    last = days[1] or (available[-1] if available else None)
    if first is None or last is None:
        raise BadInput(f"{where} has no session of XNYS")
    newest = calendar.newest_over(clock()).day
    if calendar.after(newest).day <= last:
        hint = f"add --to {newest}" if first <= newest else ""
        raise BadInput(f"{last} is not over yet; the newest day to play is {newest}", hint)
    found = calendar.between(first, last)
    sessions = [s for s in found if available is None or s.day in set(available)]
    if not found:
        raise BadInput(f"the market is closed from {first} to {last}")
    if not sessions:
        raise BadInput(f"{where} has no bars from {first} to {last}")
    if len(sessions) > MAX_SESSIONS:
        raise BadInput(f"{len(sessions)} sessions are more than {MAX_SESSIONS} at once")
    return sessions
