"""The verb replay: a recorded or a generated market through the whole pipeline."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ops_pipeline.cli import market as market_of
from ops_pipeline.cli.console import JsonOption, err, out, print_json, say, table
from ops_pipeline.cli.server import prepare, running_server
from ops_pipeline.clients.replay import RecordedMarket
from ops_pipeline.clients.universe import tickers_of
from ops_pipeline.domain.acceptance import Ranges, Verdict
from ops_pipeline.domain.errors import Unsafe
from ops_pipeline.domain.session import Calendar, Session
from ops_pipeline.local.processes import ProcessTable
from ops_pipeline.operations.summary import SessionSummary, summarize
from ops_pipeline.settings import (
    Mode,
    PartitionWindow,
    Settings,
    dispatcher_config,
    load,
    save_window,
)
from ops_pipeline.storage import acceptance, knowledge
from ops_pipeline.storage.databases import drop_pipeline
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.universe import replace_universe

SIDE_BY_SIDE = 4


@dataclass(frozen=True)
class ReplayReport:
    """What a replay came to."""

    mode: Mode
    confidence_min: float
    market: str
    days: list[SessionSummary]
    checks: list[Verdict]

    @property
    def is_normal(self) -> bool:
        """Whether every check of the last session is normal."""
        return all(check.is_normal for check in self.checks)


def replay(
    bars: Annotated[Path | None, typer.Option(help="Bars: csv, csv.gz or parquet.")] = None,
    news: Annotated[Path | None, typer.Option(help="News: csv or jsonl.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="First day, YYYY-MM-DD.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day, YYYY-MM-DD.")] = None,
    tickers: Annotated[str | None, typer.Option(help="Only these, with commas.")] = None,
    seed: Annotated[int, typer.Option(help="Of the generated market, without --bars.")] = 7,
    rebuild: Annotated[bool, typer.Option(help="Empty the replay database first.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Play recorded or generated days through all stages, and print what came of them."""
    calendar = Mode.REPLAY.calendar
    wanted = tuple(t.strip() for t in tickers.split(",") if t.strip()) if tickers else ()
    days = market_of.parse_days(first, last)
    if bars is not None:
        request = market_of.recorded(calendar, bars, news, wanted, days)
    else:
        request = market_of.generated(calendar, wanted, days, seed)
    with running_server(Mode.REPLAY) as settings:
        report = _play(settings, calendar, request, rebuild=rebuild, quiet=as_json)
    if as_json:
        print_json(report)
    else:
        _print(report)
    if not report.is_normal:
        raise typer.Exit(1)


def _play(
    settings: Settings,
    calendar: Calendar,
    request: market_of.Request,
    *,
    rebuild: bool,
    quiet: bool,
) -> ReplayReport:
    if rebuild:
        drop_pipeline(settings)
    prepare(settings)
    _claim_sessions(settings, request)
    RecordedMarket(settings.mode_dir / "market").save(request.bars, request.news)
    _show_days(settings, request.sessions)
    with _progress(len(request.sessions), quiet=quiet) as on_progress:
        tests = _run(load(Mode.REPLAY.value), calendar, request, on_progress)
    with opened(settings) as engine, engine.connect() as connection:
        now = knowledge.read_now(connection, Mode.REPLAY)
        days = [summarize(connection, session, calendar) for session in request.sessions]
        checks = [*acceptance.verdicts(connection, now, calendar, Ranges()), *tests]
    config = dispatcher_config(Mode.REPLAY)
    return ReplayReport(Mode.REPLAY, config.confidence_min, request.market, days, checks)


def _claim_sessions(settings: Settings, request: market_of.Request) -> None:
    with opened(settings) as engine, engine.begin() as connection:
        known = knowledge.replay_sessions(connection)
        for session in request.sessions:
            if known.get(session.day, request.market) != request.market:
                raise Unsafe(
                    f"{session.day} was played on another market, and two would be mixed",
                    "add --rebuild to empty the replay database first",
                )
            knowledge.insert_replay_session(connection, session.day, request.market)
        replace_universe(connection, tickers_of(request.tickers))


def _show_days(settings: Settings, sessions: Sequence[Session]) -> None:
    """The UI shows these days beside those that it showed, as long as they are few."""
    first, last = sessions[0].day, sessions[-1].day
    shown = settings.window
    if shown and shown.last_day:
        both = min(first, shown.first_day), max(last, shown.last_day)
        if len(Mode.REPLAY.calendar.between(*both)) <= market_of.MAX_SESSIONS:
            first, last = both
    window = PartitionWindow(first, last)
    save_window(settings, window)
    if shown != window and ProcessTable(settings.mode_dir / "run").all():
        err.print("the UI shows these days after: ops-pipeline down, ops-pipeline up")


def _run(
    settings: Settings,
    calendar: Calendar,
    request: market_of.Request,
    on_progress: Callable[[str, float], None],
) -> list[Verdict]:
    os.environ.update(settings.environment())
    import dagster as dg

    from ops_pipeline.definitions import defs
    from ops_pipeline.defs.replay import Player

    pipeline = (defs.resources or {})["pipeline"]
    pipeline.on_progress = on_progress
    tests: dict[str, Verdict] = {}
    with dg.DagsterInstance.get() as instance:
        player = Player(defs, instance, calendar)
        for session in request.sessions:
            on_progress(f"{session.day} data", 0)
            player.data(session)
            on_progress(f"{session.day} dispatch", 0)
            player.dispatch(session)
            on_progress(f"{session.day} checks", 0)
            # A test that failed on one day stays failed, whatever the days after say.
            asked = player.check()
            tests |= {t.name: t for t in asked if tests.get(t.name, t).is_normal}
            on_progress(f"{session.day} checks", 1)
    pipeline.engine.dispose()
    return list(tests.values())


@contextmanager
def _progress(sessions: int, *, quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """A bar over stages and minutes on a terminal; a line for each session elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    steps = sessions * 8
    with Progress(*columns, TimeElapsedColumn(), console=err, disable=quiet) as progress:
        task = progress.add_task("starting Dagster", total=steps)

        def on_progress(what: str, share: float) -> None:
            if share == 0:
                progress.update(task, description=what)
            progress.advance(task, share)

        yield on_progress
        progress.update(task, completed=steps, description="done")


def _print(report: ReplayReport) -> None:
    out.print(_day_table(report.days))
    skips = Counter[str]()
    for day in report.days:
        skips.update(day.skips_by_gate)
    out.print(table("skipped by gate", ["gate", "recommendations"], skips.most_common()))
    checks = [[c.name, c.level.value, c.finding] for c in report.checks]
    out.print(table("checks", ["check", "verdict", "found"], checks))
    say(
        f"mode {report.mode.value}, confidence_min {report.confidence_min} (this mode's profile;"
        " the production default is 0.7)"
    )


def _day_table(days: Sequence[SessionSummary]) -> Table:
    """Days side by side while they fit, else one below the other."""
    names = [*days[0].rows, "recommendations", "BUY", "SELL", "entries", "exits", "P&L USD"]
    columns = [
        [
            *day.rows.values(),
            day.signals,
            day.signals_by_action.get("BUY", 0),
            day.signals_by_action.get("SELL", 0),
            day.entries,
            day.exits,
            day.profit_usd,
        ]
        for day in days
    ]
    if len(days) <= SIDE_BY_SIDE:
        rows = [list(row) for row in zip(names, *columns, strict=True)]
        return table("the day, row by row", ["", *(str(day.day) for day in days)], rows)
    rows = [[str(day.day), *column] for day, column in zip(days, columns, strict=True)]
    short = ["day", "bars", "news", "scored", "feat.", "watch", "sign.", "recs", "buy", "sell"]
    return table("day by day", [*short, "in", "out", "P&L"], rows)
