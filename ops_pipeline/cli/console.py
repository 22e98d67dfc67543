"""How the command line speaks: tables for people, JSON for programs, one line for an error."""

import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import IO, Annotated, Any, TypeVar
from uuid import UUID

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ops_pipeline.domain.bars import canonical_ticker
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.thresholds import visible
from ops_pipeline.settings import Mode

Result = TypeVar("Result")

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

ModeOption = Annotated[
    Mode | None,
    typer.Option("--mode", help="Which market; what is up here without it. [env: OPS_MODE]"),
]
# Where JSON goes while everything else that is printed goes to standard error.
_json_files: list[IO[str]] = []


@contextmanager
def _json_alone() -> Iterator[None]:
    """Keep standard output for JSON: what libraries and child processes print is no part of it."""
    stdout = sys.stdout
    stdout.flush()
    kept = os.dup(1)
    is_ours = stdout is sys.__stdout__
    file = os.fdopen(os.dup(kept), "w", encoding="utf-8") if is_ours else stdout
    _json_files.append(file)
    try:
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        yield
    finally:
        sys.stdout = stdout
        os.dup2(kept, 1)
        os.close(kept)
        _json_files.pop()
        if is_ours:
            file.close()


def _on_json(context: typer.Context, as_json: bool) -> bool:
    if as_json:
        context.with_resource(_json_alone())
    return as_json


def require_reason(context: typer.Context, option: typer.CallbackParam, reason: str) -> str:
    """Return the reason that an option gives; one that is given says something."""
    source = context.get_parameter_source(option.name or "")
    if source and source.name == "COMMANDLINE" and not reason.strip():
        raise BadInput(f"{option.opts[0]} is empty", "say why in a few words")
    return reason.strip()


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON, and nothing else.", callback=_on_json)
]
ReasonOption = Annotated[
    str, typer.Option("--reason", help="Why, for whoever looks next.", callback=require_reason)
]


def say(text: str) -> None:
    """One line to a person."""
    out.print(text, markup=False, soft_wrap=True)


def say_aside(text: str) -> None:
    """One line to a person beside the answer, which a program may read."""
    err.print(text, style="dim", markup=False, soft_wrap=True)


def symbol_of(text: str) -> str:
    """Return a ticker in its one spelling, and say so where another was given."""
    symbol = canonical_ticker(text.strip())
    if symbol != text.strip():
        err.print(f"{text.strip()} is read as {symbol}", markup=False)
    return symbol


def print_json(value: object) -> None:
    """Print one JSON document; NaN is refused, times are ISO 8601."""
    text = json.dumps(plain(value), indent=2, allow_nan=False)
    print(text, file=_json_files[-1] if _json_files else sys.stdout)


def plain(value: Any) -> Any:
    """Records, times and enums as what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"PT{value.total_seconds():g}S"
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


def show_result(
    result: Result, to_people: Callable[[Result], None], *, as_json: bool, is_normal: bool
) -> None:
    """Print a result as JSON or for people; exit code 1 where it is not normal."""
    if as_json:
        print_json(result)
    else:
        to_people(result)
    if not is_normal:
        raise typer.Exit(1)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table with numbers to the right; what stands in it is text, never markup."""
    made = Table(
        title=escape(title) or None,
        title_justify="left",
        title_style="italic",
        header_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for number, column in enumerate(columns):
        cells = [row[number] for row in rows if row[number] is not None]
        is_number = bool(cells) and all(isinstance(cell, int | float) for cell in cells)
        made.add_column(
            column,
            justify="right" if is_number else "left",
            overflow="fold",
            no_wrap=number == 0,
        )
    for row in rows:
        made.add_row(*(escape(show(cell)) for cell in row))
    return made


def show(cell: object) -> str:
    """A value as a cell of a table."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.2f}"
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)


def progress(*, quiet: bool) -> Progress:
    """The house's progress bars, on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    return Progress(*columns, TimeElapsedColumn(), console=err, disable=quiet)


@contextmanager
def working(text: str, *, quiet: bool) -> Iterator[None]:
    """Show that something takes a moment."""
    if quiet or not out.is_terminal:
        yield
        return
    with out.status(text):
        yield


def read_length(option: str, text: str) -> timedelta:
    """A length of time as an operator writes it: 90s, 10m, 2h, 1d, 1h30m.

    Raises:
        BadInput: it reads otherwise, or is nothing; the message names the option.
    """
    parts = re.fullmatch(r"(?:(\d{1,4})d)?(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?", text)
    days, hours, minutes, seconds = (int(p or 0) for p in parts.groups()) if parts else (0,) * 4
    length = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if not length:
        raise BadInput(f"{option} must be a time like 30m, 2h or 1d, not {visible(text)!r}")
    return length
