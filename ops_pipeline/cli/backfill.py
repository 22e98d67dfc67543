"""The verb backfill: past sessions through the data stages, one run for each trading day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated

import typer
from sqlalchemy import Connection

from ops_pipeline.cli import market as market_of
from ops_pipeline.cli.console import JsonOption, ModeOption, out, print_json, say, table
from ops_pipeline.cli.play import fill, shown
from ops_pipeline.cli.replay import claim_sessions, play_sessions, show_days, show_report
from ops_pipeline.cli.server import prepare, running_server
from ops_pipeline.clients.replay import RecordedMarket
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.session import MINUTE, Session, both_zones
from ops_pipeline.domain.stages import DATA_STAGES
from ops_pipeline.domain.watchlist import is_due
from ops_pipeline.operations.summary import SessionSummary, summarize
from ops_pipeline.settings import Mode, Settings, load
from ops_pipeline.storage import knowledge
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.universe import universe

# Measured on two cores: to start, for each minute of a session, and for each ticker in it.
SECONDS_TO_START, SECONDS_OF_A_MINUTE, SECONDS_OF_A_TICKER = 8.0, 0.0085, 0.0004


@dataclass(frozen=True)
class Day:
    """What one session of a backfill comes to, as far as it is known before."""

    day: date
    minutes: int
    minutes_done: int
    bars: int | None
    rows: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a backfill is going to do."""

    mode: Mode
    days: list[Day]
    seconds: float


@dataclass(frozen=True)
class Filled:
    """What a backfill of a live mode came to."""

    mode: Mode
    days: list[SessionSummary]


def backfill(
    first: Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD.")],
    last: Annotated[
        str | None, typer.Option("--to", help="Last day; the first without it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fill past sessions, one range run a day; what is decided already is compared.

    In a replay the dispatcher trades them under the replay's clock; in every other mode nothing
    of the past is traded.
    """
    begin, end = market_of.parse_days(first, last or first)
    assert begin is not None  # noqa: S101 - it was given
    with running_server(mode) as settings:
        prepare(settings)
        sessions = _sessions(settings.mode, begin, end or begin)
        with opened(settings) as engine, engine.connect() as connection:
            plan = _plan(connection, settings, sessions)
        if not as_json:
            _print_plan(plan)
        elif dry_run:
            print_json(plan)
        if dry_run:
            return
        show_days(settings, sessions)
        run = _fill if settings.mode.is_live else _play
        run(load(settings.mode.value), sessions, as_json=as_json)


def _sessions(mode: Mode, first: date, last: date) -> list[Session]:
    calendar, now = mode.calendar, knowledge.clock()
    today = calendar.day(now)
    if last > today:
        raise BadInput(f"{last} lies in the future; today is {today}")
    sessions = calendar.between(first, last)
    if not sessions:
        raise BadInput(f"the market is closed from {first} to {last}")
    if sessions[-1].closes_at > now:
        raise BadInput(
            f"{last} is not over before {both_zones(sessions[-1].closes_at)}",
            f"try: --to {calendar.before(today).day}; the daemon fills today by itself",
        )
    # Live minutes go on, so that the UI shows all days since the first one.
    shown_days = calendar.between(first, today) if mode.is_live else sessions
    if len(shown_days) > market_of.MAX_SESSIONS:
        raise BadInput(f"{len(shown_days)} sessions are more than {market_of.MAX_SESSIONS} at once")
    return sessions


def _plan(connection: Connection, settings: Settings, sessions: Sequence[Session]) -> Plan:
    tickers = [ticker.symbol for ticker in universe(connection)]
    bars: dict[date, int] = {}
    if not settings.mode.is_live:
        bars = _market(settings).counts(sessions, tickers)
        _require_bars(bars)
    days = [_day(connection, session, len(tickers), bars.get(session.day)) for session in sessions]
    return Plan(settings.mode, days, SECONDS_TO_START + sum(day.seconds for day in days))


def _require_bars(bars: dict[date, int]) -> None:
    missing = [str(day) for day, count in bars.items() if not count]
    if missing:
        raise BadInput(
            f"the market has no bars on {', '.join(missing)}",
            "leave these days out, or bring their bars with: ops-pipeline replay --bars FILE",
        )


def _day(connection: Connection, session: Session, tickers: int, bars: int | None) -> Day:
    minutes = session.minutes()
    names = [stage.name for stage in DATA_STAGES]
    done = knowledge.finished_minutes(connection, names, minutes[0], minutes[-1] + MINUTE)
    decisions = sum(is_due(minute, session.opens_at) for minute in minutes)
    known_bars = len(minutes) * tickers if bars is None else bars
    # A row of features and one of signals for each ticker and minute, at most.
    rows = known_bars + 2 * len(minutes) * tickers + decisions * tickers
    seconds = len(minutes) * (SECONDS_OF_A_MINUTE + SECONDS_OF_A_TICKER * tickers)
    return Day(session.day, len(minutes), len(done), bars, rows, seconds)


def _print_plan(plan: Plan) -> None:
    columns = ["day", "minutes", "done already", "bars", "rows, at most", "seconds"]
    rows = [
        [str(day.day), day.minutes, day.minutes_done, day.bars, day.rows, day.seconds]
        for day in plan.days
    ]
    out.print(table(f"mode {plan.mode.value}: one run a day", columns, rows))
    say(
        f"{len(plan.days)} days, {sum(day.minutes for day in plan.days):,} minutes,"
        f" about {plan.seconds:.0f} seconds"
    )


def _play(settings: Settings, sessions: Sequence[Session], *, as_json: bool) -> None:
    market = _market(settings).name
    claim_sessions(settings, sessions, market)
    report = play_sessions(settings, sessions, market, quiet=as_json)
    show_report(report, as_json=as_json)


def _fill(settings: Settings, sessions: Sequence[Session], *, as_json: bool) -> None:
    with shown(len(sessions), dispatched=False, quiet=as_json) as on_progress:
        fill(settings, sessions, on_progress)
    with opened(settings) as engine, engine.connect() as connection:
        days = [summarize(connection, session, settings.mode.calendar) for session in sessions]
    if as_json:
        print_json(Filled(settings.mode, days))
        return
    rows = [[str(day.day), *day.rows.values(), day.signals] for day in days]
    out.print(table("day by day", ["day", *days[0].rows, "recommendations"], rows))
    say("nothing was traded: recommendations of the past expire")


def _market(settings: Settings) -> RecordedMarket:
    return RecordedMarket(settings.mode_dir / "market")
