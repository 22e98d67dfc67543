"""Verbs that look: status, check, sql."""

import csv
import io
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from ops_pipeline.cli.console import JsonOption, ModeOption, out, plain, print_json, say, table
from ops_pipeline.cli.server import connected, existing_server
from ops_pipeline.domain.checks import NAMES
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.session import both_zones
from ops_pipeline.operations.acceptance import examine
from ops_pipeline.operations.status import ServiceStatus, Status, read_status
from ops_pipeline.storage import knowledge
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.reader import select


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def status(mode: ModeOption = None, as_json: JsonOption = False) -> None:
    """Seven services, trading state and backlog, at a glance."""
    with connected(mode) as (settings, connection):
        found = read_status(connection, settings.mode, settings.mode.calendar)
    if as_json:
        print_json(found)
    else:
        _print_status(found)


def check(
    name: Annotated[str | None, typer.Argument(help="One check's name; all without it.")] = None,
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the checks of the pipeline's present; exit code 1 if one is not normal."""
    if name is not None and name not in NAMES:
        raise BadInput(f"there is no check {name!r}; there are {', '.join(NAMES)}")
    with existing_server(mode) as settings, opened(settings) as engine:
        with engine.connect() as connection:
            now = knowledge.read_now(connection, settings.mode)
        chosen = examine(
            engine,
            now,
            settings.mode.calendar,
            is_live=settings.mode.is_live,
            names=NAMES if name is None else [name],
        )
    if as_json:
        print_json(chosen)
    else:
        rows = [[v.name, v.level.value, v.finding, v.expected] for v in chosen]
        title = f"mode {settings.mode.value}, as of {both_zones(now)}"
        out.print(table(title, ["check", "level", "found", "expected"], rows))
    if not all(verdict.is_normal for verdict in chosen):
        raise typer.Exit(1)


def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT.")],
    output: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
    mode: ModeOption = None,
) -> None:
    """Run one statement as the role that may only read, for at most ten seconds."""
    with existing_server(mode) as settings:
        columns, rows = select(settings, statement)
    if output is Format.JSON:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif output is Format.CSV:
        say(_csv(columns, rows))
    else:
        out.print(table("", columns, [[plain(cell) for cell in row] for row in rows]))


def _csv(columns: list[str], rows: list[tuple[Any, ...]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([["" if cell is None else plain(cell) for cell in row] for row in rows])
    return buffer.getvalue().rstrip("\n")


def _print_status(found: Status) -> None:
    at = both_zones(found.now) if found.now else "no replay yet"
    market = "open" if found.session else "closed"
    say(f"mode {found.mode.value}, {at}, market {market}, trading {found.trading_state}")
    if found.last_change:
        change = found.last_change
        why = f": {change.reason}" if change.reason else ""
        say(f"{change.state} since {both_zones(change.written_at)}, by {change.changed_by}{why}")
    if found.stream:
        say(found.stream)
    say(f"recommendations: {_counts(found.backlog) or 'none'}")
    if found.orders:
        say(f"orders at the broker: {_counts(found.orders)}")
    columns = ["service", "stage", "switch", "minute (UTC)", "lag s", "written (UTC)"]
    out.print(table("", columns, [_row(service, found) for service in found.services]))


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _row(service: ServiceStatus, found: Status) -> list[object]:
    minute, written = service.last_minute, service.last_written_at
    return [
        service.switch.stage.service,
        service.switch.stage.name,
        "on" if service.switch.is_enabled else "off",
        _brief(minute, found.now, "%H:%M"),
        None if service.lag_seconds is None else int(service.lag_seconds),
        _brief(written, found.now, "%H:%M:%S"),
    ]


def _brief(at: datetime | None, now: datetime | None, form: str) -> str | None:
    """A time of today without its date."""
    if at is None:
        return None
    return f"{at:{form}}" if now and at.date() == now.date() else f"{at:%m-%d {form}}"
