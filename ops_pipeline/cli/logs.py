"""The verb logs: what a service or a process has said lately."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich.text import Text

from ops_pipeline.cli.console import JsonOption, ModeOption, out, print_json, read_length, say
from ops_pipeline.cli.server import settings_of
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.logs import Line
from ops_pipeline.domain.session import NEW_YORK
from ops_pipeline.local.keeper import last_asked
from ops_pipeline.operations.logs import read
from ops_pipeline.settings import Settings
from ops_pipeline.storage.knowledge import clock

STYLES = {"DEBUG": "dim", "INFO": "", "WARNING": "yellow"}
FOLLOW_SECONDS = 1.0
# Dagster writes an event in batches: what came late still belongs to what was asked for.
LATE = timedelta(seconds=60)


def logs(
    name: Annotated[str, typer.Argument(help="A runbook's service, or a process: daemon, web.")],
    since: Annotated[str, typer.Option(help="How far back: 90s, 10m, 2h, 1d.")] = "10m",
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C.")] = False,
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the lines of the last minutes, each with its time, run and level."""
    if follow and as_json:
        raise BadInput("--follow prints lines, not one document", "leave --json out")
    settings = settings_of(mode)
    now = clock()
    found = read(settings, name, now - read_length("--since", since), now)
    if not found.lines and not follow and not found.is_quiet:
        raise BadInput(f"no line of {name} in the last {since}: {found.reason}", "try --since 1d")
    if as_json:
        lines = [{**line.__dict__, "url": _url(settings, line)} for line in found.lines]
        print_json({"name": name, "mode": settings.mode, "is_cut": found.is_cut, "lines": lines})
        return
    if found.is_quiet:
        say(f"no line of {name} in the last {since}: {found.reason}")
    if found.is_cut:
        say("only the newest lines are shown; for fewer: --since 1m")
    _print(found.lines)
    if newest := next((line for line in reversed(found.lines) if line.run_id), None):
        say(f"the newest run: {_url(settings, newest)}")
    if follow:
        _follow(settings, name, now, set(found.lines))


def _follow(settings: Settings, name: str, since: datetime, seen: set[Line]) -> None:
    while True:
        time.sleep(FOLLOW_SECONDS)
        found = read(settings, name, since - LATE, clock()).lines
        _print([line for line in found if line not in seen and line.at and line.at >= since])
        seen = {*found}


def _print(lines: Sequence[Line]) -> None:
    for line in lines:
        text = Text(f"{_both_times(line.at) if line.at else '-':27} ")
        text.append(f"{line.level:8}", STYLES.get(line.level, "bold red"))
        text.append(f" {line.run_id[:8]:8}  {line.text}")
        out.print(text, soft_wrap=True)


def _both_times(at: datetime) -> str:
    return f"{at.astimezone(NEW_YORK):%m-%d %H:%M:%S} ET ({at:%H:%M:%S})"


def _url(settings: Settings, line: Line) -> str:
    return f"http://127.0.0.1:{last_asked(settings).port}/runs/{line.run_id}" if line.run_id else ""
