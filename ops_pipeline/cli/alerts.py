"""The verb alerts: what is wrong now, who was told of it, and the process that watches."""

import logging
import signal
from datetime import timedelta
from threading import Event
from typing import Annotated

import typer

from ops_pipeline.cli.console import (
    JsonOption,
    ModeOption,
    out,
    print_json,
    read_length,
    say,
    table,
)
from ops_pipeline.cli.server import connected, settings_of
from ops_pipeline.domain.alerts import Alert, Silence
from ops_pipeline.domain.errors import BadConfiguration, BadInput
from ops_pipeline.domain.session import both_zones
from ops_pipeline.engine.logs import JsonLines
from ops_pipeline.local.keeper import channels_not_running
from ops_pipeline.settings import Settings, alert_channels_of, alert_quiet_of
from ops_pipeline.storage import alerts as storage
from ops_pipeline.storage.knowledge import clock

app = typer.Typer(help="What is wrong now, who was told of it, and the process that watches.")

SHOWN = 200
Cause = Annotated[str, typer.Argument(help="A cause as alerts list shows it; a star at its end.")]


@app.command("list")
def list_alerts(
    with_past: Annotated[bool, typer.Option("--all", help="Those of the last week, too.")] = False,
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What is open now, the worst first."""
    with connected(mode) as (_, connection):
        if with_past:
            since = clock() - timedelta(days=7)
            found = storage.recent_alerts(connection, since, SHOWN)
        else:
            found = storage.open_alerts(connection)
    if as_json:
        print_json(found)
        return
    for alert in found:
        _print_alert(alert)
    if not found:
        say("no alert of the last week" if with_past else "no alert is open")


@app.command()
def show(
    number: Annotated[int, typer.Argument(metavar="ID", help="As alerts list shows it.")],
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """One alert: what was found, what to do next, and who was told."""
    with connected(mode) as (_, connection):
        alert = storage.read_alert(connection, number)
        if alert is None:
            raise BadInput(f"there is no alert {number}", "run: ops-pipeline alerts list --all")
        told = storage.what_was_told(connection, alert)
    if as_json:
        print_json({"alert": alert, "next": alert.next_command, "told": told})
        return
    over = f", over at {both_zones(alert.resolved_at)}" if alert.resolved_at else ""
    say(f"{alert.level.value} {alert.cause}, since {both_zones(alert.opened_at)}{over}")
    say(f"found: {alert.finding}; normal: {alert.expected or '-'}; seen {alert.seen_count} times")
    if alert.suppressed_by:
        say(f"nobody is told: {alert.suppressed_by}")
    say(f"next: {alert.next_command}")
    rows = [
        [t.kind, t.level, t.channel, t.state, t.attempts, t.sent_at, t.last_error] for t in told
    ]
    columns = ["message", "level", "channel", "state", "tries", "sent (UTC)", "error"]
    out.print(table("", columns, rows))


@app.command()
def silence(
    cause: Cause,
    length: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 1d.")],
    reason: Annotated[str, typer.Option(help="Why, for whoever looks next.")],
    mode: ModeOption = None,
) -> None:
    """Tell nobody of a cause for a while; it is looked at and listed all the same."""
    from ops_pipeline.operations.operator import operator

    until = clock() + read_length("--for", length)
    with connected(mode) as (settings, connection):
        storage.silence(connection, Silence(cause, until, reason, operator(settings)))
    say(f"nobody is told of {cause} until {both_zones(until)}")


@app.command()
def unsilence(cause: Cause, mode: ModeOption = None) -> None:
    """Tell of it again."""
    with connected(mode) as (_, connection):
        if not storage.unsilence(connection, cause):
            known = ", ".join(one.cause for one in storage.silences(connection, clock()))
            raise BadInput(f"{cause} is not silenced; there are: {known or 'none'}")
    say(f"{cause} is told of again")


@app.command("test")
def send_tests(mode: ModeOption = None, as_json: JsonOption = False) -> None:
    """Send one message to each channel, and say what came of it; exit code 1 if one failed."""
    from ops_pipeline.operations.alerts import send_test

    with connected(mode) as (settings, connection):
        channels = alert_channels_of(settings)
        if not channels:
            raise BadConfiguration(
                "there is no channel but the console",
                "set OPS_ALERT_URLS; docs/alerts.md has examples",
            )
        idle = channels_not_running(settings)
        used = [channel for channel in channels if channel.name not in idle]
        message, errors = send_test(used, clock())
        errors = {**errors, **dict.fromkeys(idle, _not_running(settings))}
        storage.insert_test(connection, message, clock(), errors)
    if as_json:
        print_json(errors)
    else:
        rows = [
            [name, "FAILED" if error else "sent", error or ""] for name, error in errors.items()
        ]
        out.print(table("", ["channel", "outcome", "error"], rows))
    if any(errors.values()):
        raise typer.Exit(1)


def _not_running(settings: Settings) -> str:
    again = f"ops-pipeline up --mode {settings.mode.value} --restart"
    return f"the running alert process does not have this channel; run: {again}"


@app.command()
def run(
    mode: ModeOption = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the UI. [env: OPS_WEB_PORT]")
    ] = None,
) -> None:
    """Watch, and send what is due, until Ctrl-C; up starts it in live modes."""
    settings = settings_of(mode)
    if not settings.mode.is_live:
        raise BadConfiguration("a replay is not watched", "use a live mode, as --mode sandbox")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # Its lines about each request would hold addresses.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    _watch(settings, port or settings.web_port)


def _watch(settings: Settings, port: int) -> None:
    from ops_pipeline.operations.alerts import BOUND_SECONDS, Watch
    from ops_pipeline.operations.dead_man import DeadMan
    from ops_pipeline.operations.looks import looks_of
    from ops_pipeline.storage.engine import opened

    channels, ended = alert_channels_of(settings), Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    names = ", ".join(["console", *(channel.name for channel in channels)])
    say(f"watching mode {settings.mode.value}, telling {names}")
    with opened(settings, bound_seconds=BOUND_SECONDS) as engine:
        Watch(
            engine,
            settings.mode.calendar,
            looks_of(settings, engine),
            clock,
            settings.mode_dir / "alerts-outage.json",
            channels,
            alert_quiet_of(settings),
            f"http://127.0.0.1:{port}",
            DeadMan(settings.dead_man_url),
        ).run(ended)
    say("ended")


def _print_alert(alert: Alert) -> None:
    over = f", over at {both_zones(alert.resolved_at)}" if alert.resolved_at else ""
    say(f"{alert.id:>4}  {alert.level.value:8}  {alert.cause}: {alert.finding}")
    say(f"{'':16}since {both_zones(alert.opened_at)}{over}, seen {alert.seen_count} times")
    if alert.suppressed_by:
        say(f"{'':16}nobody is told: {alert.suppressed_by}")
    if not alert.resolved_at:
        say(f"{'':16}next: {alert.next_command}")
