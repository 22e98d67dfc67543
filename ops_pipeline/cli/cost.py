"""The verb cost: what a day would cost on AWS, line by line."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated

import typer
from sqlalchemy.exc import ProgrammingError

from ops_pipeline.cli.console import JsonOption, ModeOption, out, say, show_result, table
from ops_pipeline.cli.market import parse_day
from ops_pipeline.cli.server import connected
from ops_pipeline.domain.acceptance import Level
from ops_pipeline.domain.cost import (
    DAYS_IN_MONTH,
    PRICED_ON,
    TRADING_DAYS_IN_MONTH,
    CostLine,
    level_of,
    limits,
)
from ops_pipeline.domain.errors import BadInput, NotRunning
from ops_pipeline.domain.ranges import RUNBOOK_MINUTES
from ops_pipeline.domain.session import MINUTE, ROUND_THE_CLOCK
from ops_pipeline.operations.cost import measured
from ops_pipeline.settings import Settings
from ops_pipeline.storage.acceptance import installed_at
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.knowledge import clock


@dataclass(frozen=True)
class DayCost:
    """A day's cost in USD, and in a month of such days; what of it is normal."""

    day: date
    lines: list[CostLine]
    usd: float
    # None before a whole session was measured: of less no month is known.
    month_usd: float | None
    level: Level
    normal_usd: float
    critical_usd: float
    minutes: int
    measured_minutes: int
    priced_on: date = PRICED_ON


def cost(
    day: Annotated[str | None, typer.Option("--day", help="Which day; else today.")] = None,
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a day's work would cost on AWS; exit code 1 where that is more than normal."""
    wanted = parse_day(day)[0] if day else None
    with connected(mode) as (settings, connection):
        now, calendar = clock(), settings.mode.calendar
        since = installed_at(connection)
        chosen = wanted or calendar.day(now)
        try:
            with (
                opened(settings, settings.dagster_database) as dagster,
                dagster.connect() as events,
            ):
                lines = measured(connection, events, settings, chosen, now)
        except ProgrammingError as error:
            raise NotRunning("Dagster has run nothing here", "run: ops-pipeline up") from error
    if not lines:
        raise BadInput(f"{chosen} is a day to come")
    if chosen < calendar.day(since):
        raise BadInput(f"{chosen} was not measured: this was installed on {calendar.day(since)}")
    found = judged(settings, chosen, lines, since, now)
    show_result(found, _print, as_json=as_json, is_normal=found.level is Level.NORMAL)


def judged(
    settings: Settings, day: date, lines: list[CostLine], since: datetime, now: datetime
) -> DayCost:
    """Hold a day's cost against what is normal; estimate a month once a session was whole."""
    calendar = settings.mode.calendar
    session = calendar.on(day) or calendar.before(day)
    minutes = (session.closes_at - session.opens_at) // MINUTE
    trading_days = DAYS_IN_MONTH if calendar.name == ROUND_THE_CLOCK else TRADING_DAYS_IN_MONTH
    usd = sum(line.usd for line in lines)
    normal, critical = limits(minutes, RUNBOOK_MINUTES)
    seen = min(now, session.closes_at) - max(since, session.opens_at)
    measured_minutes = max(seen // MINUTE, 0) if session.day == day else minutes
    month = sum(line.month_usd(trading_days) for line in lines)
    level = level_of(usd, normal, critical)
    known = month if measured_minutes >= minutes else None
    return DayCost(day, lines, usd, known, level, normal, critical, minutes, measured_minutes)


def _print(found: DayCost) -> None:
    say(f"{found.day}: what this work would cost on AWS; on this machine nothing is paid")
    rows = [
        [line.item, round(line.quantity, 3), line.unit, f"{line.usd:.4f}"]
        for line in sorted(found.lines, key=lambda line: -line.usd)
    ]
    out.print(table("", ["item", "quantity", "unit", "USD"], rows))
    limits_said = f"(normal up to {found.normal_usd:.2f}, critical beyond {found.critical_usd:.2f})"
    if found.month_usd is None:
        say(
            f"{found.usd:.2f} USD, of {found.measured_minutes} of {found.minutes} minutes of the"
            f" session {limits_said}; a month is not estimated before a whole session was measured"
        )
    else:
        say(
            f"{found.usd:.2f} USD a day, {found.month_usd:.2f} USD in a month of such days:"
            f" {found.level.value} {limits_said}"
        )
    say(f"prices of {found.priced_on}, us-west-2, on demand; others: OPS_PRICES")
