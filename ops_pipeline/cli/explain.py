"""The verb explain: why a trade was made, or why none was."""

import re
from datetime import UTC, datetime
from typing import Annotated

import typer
from sqlalchemy import Connection

from ops_pipeline.cli.console import (
    JsonOption,
    ModeOption,
    out,
    print_json,
    say,
    symbol_of,
    table,
)
from ops_pipeline.cli.server import connected
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.markdown import one_line
from ops_pipeline.domain.session import Calendar
from ops_pipeline.operations.explain import (
    Explanation,
    explain_execution,
    explain_minute,
    explain_recommendation,
)
from ops_pipeline.operations.explain_page import sections
from ops_pipeline.storage.explain import executions_that_begin

USAGE = "try: ops-pipeline explain ID, or: ops-pipeline explain --ticker AAPL --minute TIME"
SHORTEST_PREFIX = 8


def explain(
    identity: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="An execution (8 digits will do), or a number."),
    ] = None,
    ticker: Annotated[str | None, typer.Option(help="Why this ticker was not traded.")] = None,
    minute: Annotated[
        str | None, typer.Option(help="In this minute: ISO, at the exchange without a zone.")
    ] = None,
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Why a trade was made, or why none was; exit code 1 if something of it is not there."""
    _require_one_way(identity, ticker, minute)
    with connected(mode) as (settings, connection):
        if identity is not None:
            found = _by_identity(connection, identity.strip())
        else:
            calendar = settings.mode.calendar
            at = parse_minute(minute or "", calendar)
            found = explain_minute(connection, symbol_of((ticker or "").upper()), at, calendar)
    if as_json:
        print_json(found)
    else:
        _print(found, settings.mode.value)
    if found.unresolved:
        raise typer.Exit(1)


def parse_minute(text: str, calendar: Calendar) -> datetime:
    """The start of a minute, UTC; without a zone it is time at the exchange.

    Raises:
        BadInput: it is no time, or it lies within a minute.
    """
    try:
        at = datetime.fromisoformat(text)
        at = (at if at.tzinfo else at.replace(tzinfo=calendar.zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadInput(f"--minute must be a time like 2025-02-12T10:15, not {text!r}") from None
    if at.second or at.microsecond:
        raise BadInput(f"--minute must be a whole minute, not {text!r}")
    return at


def _require_one_way(identity: str | None, ticker: str | None, minute: str | None) -> None:
    if identity is not None and (ticker is not None or minute is not None):
        raise BadInput("an ID and a minute are two questions", USAGE)
    if identity is None and (ticker is None or minute is None):
        raise BadInput("explain what? An ID, or both --ticker and --minute", USAGE)


def _by_identity(connection: Connection, identity: str) -> Explanation:
    if re.fullmatch("[0-9]{1,18}", identity) and len(identity) < SHORTEST_PREFIX:
        return explain_recommendation(connection, int(identity))
    digits = identity.replace("-", "").lower()
    if not re.fullmatch(f"[0-9a-f]{{{SHORTEST_PREFIX},32}}", digits):
        raise BadInput(
            f"{identity!r} is neither an execution's id (8 digits of it or more) nor a number",
            USAGE,
        )
    found = executions_that_begin(connection, digits)
    if len(found) > 1:
        raise BadInput(f"several executions begin with {identity}", "give more digits of the id")
    if found:
        return explain_execution(connection, found[0])
    if re.fullmatch("[0-9]{8,18}", identity):
        return explain_recommendation(connection, int(identity))
    raise BadInput(
        f"there is no execution {identity}",
        'list them with: ops-pipeline sql "select execution_id from dispatch_executions"',
    )


def _print(found: Explanation, mode: str) -> None:
    say(f"mode {mode}: {one_line(found.headline)}")
    for section in sections(found):
        rows = [[one_line(cell) for cell in row] for row in section.rows]
        out.print(table(section.title, section.columns, rows))
