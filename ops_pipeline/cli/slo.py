"""The verb slo: how fast the minutes of a session were, and which limits that keeps."""

from dataclasses import dataclass
from typing import Annotated

import typer

from ops_pipeline.cli.console import JsonOption, ModeOption, out, say, show_result, table
from ops_pipeline.cli.market import parse_day
from ops_pipeline.cli.server import connected
from ops_pipeline.domain.acceptance import Verdict
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.session import both_zones
from ops_pipeline.domain.slo import (
    IN_A_REPLAY,
    MEGABYTE,
    Measurement,
    measurement_is_due,
    verdicts,
)
from ops_pipeline.settings import slo_rules_of
from ops_pipeline.storage.acceptance import expected_from
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.slo import read


@dataclass(frozen=True)
class Judged:
    """What was measured of a session, and the verdict of each limit."""

    measured: Measurement | None
    verdicts: list[Verdict]


def slo(
    day: Annotated[str | None, typer.Option("--day", help="The session; else the last.")] = None,
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the asset pipeline_slo measured of a session; exit code 1 past a limit."""
    first = parse_day(day)[0] if day else None
    with connected(mode) as (settings, connection):
        if not settings.mode.is_live:
            raise BadInput(IN_A_REPLAY, "name a live mode: --mode sandbox")
        measured = read(connection, first)
        calendar, since = settings.mode.calendar, expected_from(connection)
        is_due = first is not None or measurement_is_due(calendar, since, clock())
        found = Judged(measured, verdicts(measured, slo_rules_of(settings), is_due=is_due))
    is_normal = all(verdict.is_normal for verdict in found.verdicts)
    show_result(found, _print, as_json=as_json, is_normal=is_normal)


def _print(found: Judged) -> None:
    if found.measured:
        _print_measured(found.measured)
    columns = ["check", "verdict", "found", "expected"]
    rows = [[v.name, v.level.value, v.finding, v.expected] for v in found.verdicts]
    out.print(table("", columns, rows))


def _print_measured(measured: Measurement) -> None:
    turns, growth = measured.turns, measured.growth
    say(
        f"session {measured.session_date}, measured {both_zones(measured.measured_at)}:"
        f" {turns.minutes} minutes, {turns.skipped} skipped, {turns.late} late"
        + (f"; {turns.operator_down}" if turns.operator_down else "")
    )
    columns = ["seconds", "count", "p50", "p95", "p99", "max"]
    rows = [list(phase.__dict__.values()) for phase in measured.phases]
    out.print(table("", columns, rows))
    sizes = [
        ["event log", *_megabytes(growth.event_log_bytes, growth.event_log_growth_bytes)],
        ["database", *_megabytes(growth.database_bytes, growth.database_growth_bytes)],
    ]
    out.print(table("", ["MB", "now", "growth a day"], sizes))


def _megabytes(*counts: int | None) -> list[float | None]:
    return [None if count is None else count / MEGABYTE for count in counts]
