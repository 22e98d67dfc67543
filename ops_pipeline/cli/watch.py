"""Verbs that look: check, sql."""

import json
import math
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

import typer

from ops_pipeline.cli.console import JsonOption, ModeOption, out, plain, print_json, say, table
from ops_pipeline.cli.server import existing_server
from ops_pipeline.domain.checks import NAMES
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.session import both_zones
from ops_pipeline.operations.acceptance import examine
from ops_pipeline.storage import knowledge
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.reader import select


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


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
    statement: Annotated[
        str, typer.Argument(help="One statement that reads; comments may come first.")
    ],
    output: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
    mode: ModeOption = None,
) -> None:
    """Run one statement as the role that may only read, for at most ten seconds."""
    with existing_server(mode) as settings:
        columns, rows = select(settings, statement)
    if output is Format.JSON:
        print_json([dict(zip(columns, map(_finite, row), strict=True)) for row in rows])
    elif output is Format.CSV:
        say(_csv(columns, rows))
    else:
        out.print(table("", columns, [[plain(cell) for cell in row] for row in rows]))


def _csv(columns: list[str], rows: list[tuple[Any, ...]]) -> str:
    return "\n".join(",".join(map(_csv_cell, row)) for row in [columns, *rows])


def _csv_cell(cell: Any) -> str:
    """Return a value as PostgreSQL's CSV has it: NULL is nothing, the empty text is quoted."""
    if cell is None:
        return ""
    value = str(cell) if isinstance(cell, Decimal) else plain(cell)
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    needs_quotes = not text or any(mark in text for mark in '",\r\n')
    return '"' + text.replace('"', '""') + '"' if needs_quotes else text


def _finite(cell: Any) -> Any:
    """Return NaN and the infinities as text, which JSON has no numbers for."""
    is_number = isinstance(cell, float | Decimal)
    return json.dumps(float(cell)) if is_number and not math.isfinite(cell) else cell
