"""The verb status: the quick health check."""

import time
from dataclasses import replace
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from ops_pipeline.cli.console import JsonOption, ModeOption, out, print_json, table
from ops_pipeline.cli.server import settings_of, watched_server
from ops_pipeline.domain.errors import BadInput, NotRunning
from ops_pipeline.domain.session import NEW_YORK, both_zones
from ops_pipeline.operations.status import (
    ProcessStatus,
    ServiceStatus,
    Status,
    StreamStatus,
    look,
    processes_of,
)
from ops_pipeline.settings import Settings, load

REDRAW_SECONDS = 2.0


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Seven services, trading state, backlog and processes, at a glance.

    Exit code 1 if something needs a look, 3 if the database does not answer.
    """
    settings = settings_of(mode)
    if watch and as_json:
        raise BadInput("--watch draws, and prints no document", "leave one of the two out")
    if watch:
        _watch(settings)
        return
    processes = processes_of(settings)
    try:
        with watched_server(settings.mode) as answering:
            found = replace(look(answering), processes=processes)
    except NotRunning as error:
        _print_unreachable(settings, error, as_json=as_json)
        raise
    if as_json:
        print_json(found)
    else:
        out.print(_drawn(found), soft_wrap=True)
    if found.problems:
        raise typer.Exit(1)


def _watch(settings: Settings) -> None:
    with Live(console=out, auto_refresh=False, screen=out.is_terminal) as live:
        try:
            while True:
                live.update(_drawn_now(settings), refresh=True)
                time.sleep(REDRAW_SECONDS)
        except KeyboardInterrupt:
            return


def _drawn_now(settings: Settings) -> RenderableType:
    try:
        return _drawn(look(load(settings.mode.value)))
    except NotRunning as error:
        return Group(Text(f"mode {settings.mode.value}: {error}"), *_processes(settings))


def _print_unreachable(settings: Settings, error: NotRunning, *, as_json: bool) -> None:
    processes = processes_of(settings)
    if as_json:
        told = {"mode": settings.mode, "database": str(error), "processes": processes}
        print_json(told)
        return
    out.print(Group(Text(f"mode {settings.mode.value}"), *_processes(settings)), soft_wrap=True)


def _processes(settings: Settings) -> list[Text]:
    return _told(processes_of(settings))


def _told(processes: list[ProcessStatus]) -> list[Text]:
    alive = [f"{one.name} {one.pid}" for one in processes if one.is_alive]
    dead = [one.name for one in processes if not one.is_alive]
    lines = [Text(f"runs: {', '.join(alive) or 'nothing'}")]
    return lines + ([Text(f"does not run: {', '.join(dead)}")] if dead else [])


def _drawn(found: Status) -> RenderableType:
    at = both_zones(found.now) if found.now else "no replay yet"
    market = "open" if found.session else "closed"
    lines = [f"mode {found.mode.value}, {at}, market {market}, trading {found.trading_state}"]
    if found.last_change:
        change = found.last_change
        why = f": {change.reason}" if change.reason else ""
        since = both_zones(change.written_at)
        lines.append(f"{change.state} since {since}, by {change.changed_by}{why}")
    if found.stream:
        lines.append(found.stream.told)
    lines.append(f"recommendations: {_counts(found.backlog) or 'none'}")
    if found.settings_version:
        lines.append(f"settings: version {found.settings_version}")
    if found.orders:
        lines.append(f"orders at the broker: {_counts(found.orders)}")
    columns = ["service", "switch", "minute ET", "tick ET", "success ET (UTC)", "lag s"]
    rows = [_row(service, found.now) for service in found.services]
    if found.stream:
        rows.append(_stream_row(found.stream, found.now))
    told = [
        Text(f"alert {alert.level.value}, {alert.cause}: {alert.finding}") for alert in found.alerts
    ]
    problems = [Text(f"needs a look: {problem}", "bold red") for problem in found.problems]
    return Group(
        *map(Text, lines),
        table("", columns, rows),
        *_off(found),
        *_runs(found),
        *told,
        *_told(found.processes),
        *problems,
    )


def _off(found: Status) -> list[Text]:
    off = [one.switch for one in found.services if not one.switch.is_enabled]
    return [
        Text(
            f"{switch.stage.service} is off"
            + (f" until {both_zones(switch.disabled_until)}" if switch.disabled_until else "")
            + (f": {switch.reason}" if switch.reason else "")
        )
        for switch in off
    ]


def _runs(found: Status) -> list[Text]:
    return [
        Text(
            f"dispatcher run {_both(run.started_at, found.now)}: {run.outcome or 'unfinished'},"
            f" {run.pulled_count} pulled, {run.simulated_count} simulated,"
            f" {run.skipped_count} skipped, {run.failed_count} failed"
        )
        for run in found.dispatcher_runs
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _row(service: ServiceStatus, now: datetime | None) -> list[object]:
    switch = service.switch
    lag = service.lag_seconds
    return [
        switch.stage.service,
        "on" if switch.is_enabled else "off",
        _brief(service.last_minute, now, "%H:%M"),
        _brief(service.last_tick, now),
        _both(service.last_success, now),
        None if lag is None else int(lag),
    ]


def _stream_row(stream: StreamStatus, now: datetime | None) -> list[object]:
    lag = None if stream.lag_seconds is None else int(stream.lag_seconds)
    times = [_brief(stream.connected_at, now), _both(stream.alive_at, now)]
    return ["trade-stream", "on", None, *times, lag]


def _both(at: datetime | None, now: datetime | None) -> str | None:
    return f"{_brief(at, now)} ({at:%H:%M:%S})" if at else None


def _brief(at: datetime | None, now: datetime | None, form: str = "%H:%M:%S") -> str | None:
    """An instant in New York, without its date if that is today's."""
    if at is None:
        return None
    local = at.astimezone(NEW_YORK)
    is_today = now is not None and local.date() == now.astimezone(NEW_YORK).date()
    return f"{local:{form}}" if is_today else f"{local:%m-%d {form}}"
