"""The verb replay: a recorded or a generated market through the whole pipeline."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.table import Table

from ops_pipeline.cli import market as market_of
from ops_pipeline.cli.console import JsonOption, err, out, say, show_result, table
from ops_pipeline.cli.play import play, shown
from ops_pipeline.cli.server import prepare, running_server
from ops_pipeline.clients.bar_formats import BarFormat
from ops_pipeline.domain.acceptance import QUERIES, Level, Verdict
from ops_pipeline.domain.errors import Unsafe
from ops_pipeline.domain.session import Session
from ops_pipeline.local.keeper import table_of
from ops_pipeline.operations.config import config_of, in_force
from ops_pipeline.operations.summary import SessionSummary, summarize
from ops_pipeline.settings import (
    Mode,
    PartitionWindow,
    Settings,
    load,
    save_window,
)
from ops_pipeline.storage import acceptance, knowledge
from ops_pipeline.storage.config import ConfigVersion, insert_version, versions
from ops_pipeline.storage.databases import drop_pipeline, has_database
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.migrate import pending

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
    bars: market_of.BarsOption = None,
    news: market_of.NewsOption = None,
    first: Annotated[str | None, typer.Option("--from", help="First day, YYYY-MM-DD.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day, YYYY-MM-DD.")] = None,
    tickers: market_of.TickersOption = None,
    universe: market_of.UniverseOption = market_of.Universe.FROM_FILE,
    seed: market_of.SeedOption = 7,
    rebuild: Annotated[bool, typer.Option(help="Empty the replay database first.")] = False,
    columns: market_of.MapOption = None,
    zone: market_of.ZoneOption = None,
    as_json: JsonOption = False,
) -> None:
    """Play recorded or generated days through all stages, and print what came of them."""
    calendar = Mode.REPLAY.calendar
    days = market_of.parse_days(first, last)
    form = BarFormat.parse(columns, zone)
    request = market_of.requested(calendar, bars, news, tickers, days, seed, universe, form)
    with running_server(Mode.REPLAY) as settings:
        report = _play(settings, request, rebuild=rebuild, quiet=as_json)
    show_report(report, as_json=as_json)


def show_report(report: ReplayReport, *, as_json: bool) -> None:
    """Print what a replay came to; exit code 1 where a check is not normal."""
    show_result(report, _print, as_json=as_json, is_normal=report.is_normal)


def _play(
    settings: Settings, request: market_of.Request, *, rebuild: bool, quiet: bool
) -> ReplayReport:
    kept = _settings_of(settings) if rebuild else []
    if rebuild:
        drop_pipeline(settings)
    prepare(settings)
    if kept:
        _keep(settings, kept)
    claim_sessions(settings, request.sessions, request.market)
    market_of.put(settings, request)
    show_days(settings, request.sessions)
    return play_sessions(load(Mode.REPLAY.value), request.sessions, request.market, quiet=quiet)


def _settings_of(settings: Settings) -> list[ConfigVersion]:
    """The versions of the dispatcher's settings, oldest first: no rebuild takes them away."""
    if not has_database(settings):
        return []
    with opened(settings) as engine:
        if pending(engine):
            return []
        with engine.connect() as connection:
            return versions(connection)[::-1]


def _keep(settings: Settings, kept: Sequence[ConfigVersion]) -> None:
    with opened(settings) as engine, engine.begin() as connection:
        for version in kept:
            insert_version(connection, version)


def play_sessions(
    settings: Settings, sessions: Sequence[Session], market: str, *, quiet: bool
) -> ReplayReport:
    """Play sessions whose market is in place, and say what came of them."""
    calendar = settings.mode.calendar
    with shown(len(sessions), dispatched=True, quiet=quiet) as on_progress:
        tests = play(settings, sessions, on_progress)
    with opened(settings) as engine, engine.connect() as connection:
        now = knowledge.read_now(connection, Mode.REPLAY)
        days = [summarize(connection, session, calendar) for session in sessions]
        checks = [*acceptance.verdicts(connection, now, calendar, is_live=False), *tests]
        config = config_of(in_force(connection, settings, now), settings)
    return ReplayReport(Mode.REPLAY, config.confidence_min, market, days, checks)


def claim_sessions(settings: Settings, sessions: Sequence[Session], market: str) -> None:
    """Keep that these sessions are played on this market.

    Raises:
        Unsafe: one of them was played on another.
    """
    with opened(settings) as engine, engine.begin() as connection:
        known = knowledge.replay_sessions(connection)
        for session in sessions:
            if known.get(session.day, market) != market:
                raise Unsafe(
                    f"{session.day} was played on another market, and two would be mixed",
                    "add --rebuild to ops-pipeline replay to empty the replay database first",
                )
            knowledge.insert_replay_session(connection, session.day, market)


def show_days(settings: Settings, sessions: Sequence[Session]) -> None:
    """The UI shows these days beside those that it showed, as long as they are few."""
    first, last = sessions[0].day, sessions[-1].day
    shown_now = settings.window
    if shown_now:
        first_shown, last_shown = shown_now.first_day, shown_now.last_day
        both = min(first, first_shown), max(last, last_shown or last)
        if len(settings.mode.calendar.between(*both)) <= market_of.MAX_SESSIONS:
            first, last = both
    goes_on = settings.mode.is_live
    window = PartitionWindow(first, None if goes_on else last)
    save_window(settings, window)
    if shown_now != window and table_of(settings).all():
        err.print("the UI shows these days after: ops-pipeline down, ops-pipeline up")


def _print(report: ReplayReport) -> None:
    out.print(_day_table(report.days))
    skips = Counter[str]()
    for day in report.days:
        skips.update(day.skips_by_gate)
    out.print(table("skipped by gate", ["gate", "recommendations"], skips.most_common()))
    shown = [c for c in report.checks if c.name in QUERIES or not c.is_normal]
    rows = [[c.name, c.level.value, c.finding] for c in shown]
    out.print(table("checks", ["check", "verdict", "found"], rows))
    rest = [c.level for c in report.checks if c not in shown]
    silent = rest.count(Level.NOT_APPLICABLE)
    normal = len(rest) - silent
    say(
        f"{normal} other checks are normal, {silent} do not apply to a replay:"
        " ops-pipeline check --mode replay"
    )
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
