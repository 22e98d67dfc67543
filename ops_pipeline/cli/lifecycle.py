"""Verbs that begin and end: init, up, down, demo."""

import os
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import DBAPIError

from ops_pipeline.cli import replay as replay_verb
from ops_pipeline.cli.console import JsonOption, ModeOption, print_json, say, working
from ops_pipeline.cli.server import prepare, running_server, settings_of
from ops_pipeline.clients.live import access_of
from ops_pipeline.clients.universe import universe_file
from ops_pipeline.domain.errors import BadConfiguration, BadInput, NotRunning, OperatorError
from ops_pipeline.local.keeper import Asked, log_dir, start_keeper, stop_kept, table_of
from ops_pipeline.local.ports import port_is_free
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.local.processes import Process, ProcessTable, wait_until
from ops_pipeline.operations.operator import operator
from ops_pipeline.settings import (
    KEEPER,
    SANDBOX,
    WEB,
    Mode,
    PartitionWindow,
    Settings,
    load,
    save_window,
)
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.machine import begin_downtime, end_downtime

START_SECONDS = 120
PortOption = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="Port of the UI. [env: OPS_WEB_PORT]"),
]
DEMO_DAY, DEMO_HALF_DAY = date(2026, 10, 14), date(2025, 11, 28)


def init(mode: ModeOption = None, as_json: JsonOption = False) -> None:
    """Make the databases, their tables and the read-only role; safe to repeat."""
    with running_server(mode) as settings:
        ran = prepare(settings)
        databases = [settings.pipeline_database, settings.dagster_database]
    if as_json:
        print_json({"mode": settings.mode, "databases": databases, "migrations": ran})
        return
    say(f"mode {settings.mode.value}: databases {' and '.join(databases)} are ready")
    say(f"{len(ran)} migrations ran" if ran else "nothing was to do")


def up(
    mode: ModeOption = None,
    port: PortOption = None,
    bars: Annotated[
        Path | None, typer.Option(help="The sandbox plays a day of this file over and over.")
    ] = None,
    news: Annotated[Path | None, typer.Option(help="With --bars: that day's news.")] = None,
    day: Annotated[
        str | None, typer.Option(help="Which day of --bars; the last without it.")
    ] = None,
) -> None:
    """Start PostgreSQL, the daemon, the guarded web server, and in sandbox mode the sandbox."""
    settings = settings_of(mode)
    market = _market_words(settings, bars, news, day)
    asked, table = Asked(port or settings.web_port, market), table_of(settings)
    if all(table.find(name) for name in settings.mode.processes):
        say(f"mode {settings.mode.value} is up already; stop it with: ops-pipeline down")
        return
    _require_free_ports(settings, asked.port, "up")
    _require_market(settings)
    settings = _start(settings, table, asked)
    say(f"mode {settings.mode.value}: Dagster UI at http://127.0.0.1:{asked.port}")
    say("stop it with: ops-pipeline down")


def down() -> None:
    """Stop all that up has started, and the embedded PostgreSQL."""
    # Of replay, because a live mode's settings may be refused, and what runs must be stopped.
    settings = load(Mode.REPLAY.value)
    for mode in Mode:
        _keep_downtime(replace(settings, mode=mode))
    stopped = [
        f"{name} ({mode.value})"
        for mode in Mode
        for name in stop_kept(replace(settings, mode=mode))
    ]
    server = EmbeddedServer.in_folder(settings.var_dir)
    if settings.is_embedded and server.is_running():
        server.stop()
        stopped.append("postgres")
    say(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


def demo(
    ui: Annotated[bool, typer.Option(help="Leave the Dagster UI open on the day.")] = True,
    half_day: Annotated[bool, typer.Option(help="Play a half day.")] = False,
    port: PortOption = None,
) -> None:
    """Play one generated market day end to end, then open the UI on a market that goes on."""
    if ui:
        settings = load(Mode.SANDBOX.value)
        _require_free_ports(settings, port or settings.web_port, "demo")
    day = DEMO_HALF_DAY if half_day else DEMO_DAY
    replay_verb.replay(first=day.isoformat(), last=day.isoformat())
    if ui:
        say("now live, on a market that is played on this machine and never closes:")
        up(Mode.SANDBOX, port)


def _start(settings: Settings, table: ProcessTable, asked: Asked) -> Settings:
    if settings.is_embedded:
        EmbeddedServer.in_folder(settings.var_dir).start()
    with running_server(settings.mode) as answering, working("starting", quiet=False):
        prepare(answering)
        _ensure_window(answering)
        settings = load(settings.mode.value)
        os.environ.update(settings.environment())
        _parse_models(settings)
        _prepare_dagster(settings)
        # What a keeper that was killed left behind belongs to nobody.
        stop_kept(settings)
        with opened(settings) as engine, engine.begin() as connection:
            end_downtime(connection, clock())
        start_keeper(settings, asked)
        try:
            _wait_until_up(settings, table, asked.port)
        except BaseException:
            stop_kept(settings)
            raise
    return settings


def _keep_downtime(settings: Settings) -> None:
    """Keep that an operator stops a mode that runs: its minutes from here on are not missed.

    What cannot be kept holds nobody up: then they count as missed.
    """
    if not (settings.mode.is_live and table_of(settings).find(KEEPER)):
        return
    with (
        suppress(DBAPIError, OperatorError),
        opened(load(settings.mode.value)) as engine,
        engine.begin() as connection,
    ):
        begin_downtime(connection, clock(), operator(settings))


def _market_words(
    settings: Settings, bars: Path | None, news: Path | None, day: str | None
) -> list[str]:
    """How the sandbox is told what to play; nothing for a generated market."""
    given = {"--bars": bars and bars.resolve(), "--news": news and news.resolve(), "--day": day}
    words = [word for name, value in given.items() if value for word in (name, str(value))]
    if words and settings.mode is not Mode.SANDBOX:
        raise BadInput(f"{words[0]} belongs to the sandbox", "add --mode sandbox")
    return words


def _wait_until_up(settings: Settings, table: ProcessTable, port: int) -> None:
    seen: dict[str, Process] = {}
    wait_until(
        lambda: _is_up(settings, table, port, seen),
        START_SECONDS,
        "the web server did not answer",
        hint=f"look at {_log_file(settings, WEB)}",
    )


def _log_file(settings: Settings, name: str) -> Path:
    return log_dir(settings) / f"{name}.log"


def _require_market(settings: Settings) -> None:
    """A live mode without keys, or with a universe file that is refused, would fail each minute."""
    if settings.mode.is_live:
        access_of(settings)
        universe_file(settings.universe_file)


def _require_free_ports(settings: Settings, port: int, verb: str) -> None:
    table = table_of(settings)
    if not table.find(WEB) and not port_is_free(port):
        raise BadConfiguration(
            f"port {port} is taken by another program",
            f"try: ops-pipeline {verb} --port {port + 1}",
        )
    needs_sandbox = SANDBOX in settings.mode.processes and not table.find(SANDBOX)
    if needs_sandbox and not port_is_free(settings.sandbox_port):
        raise BadConfiguration(
            f"port {settings.sandbox_port} is taken by another program",
            f"try: OPS_SANDBOX_PORT={settings.sandbox_port + 1} ops-pipeline {verb}",
        )


def _is_up(settings: Settings, table: ProcessTable, port: int, seen: dict[str, Process]) -> bool:
    """Whether the web server answers; what dies before it does would die again and again."""
    for name in settings.mode.processes:
        process = table.find(name)
        if seen.get(name, process) != process or (name == KEEPER and not process):
            raise NotRunning(f"the {name} ended at once", f"look at {_log_file(settings, name)}")
        if process:
            seen[name] = process
    return len(seen) == len(settings.mode.processes) and _answers(port)


def _answers(port: int) -> bool:
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(f"http://127.0.0.1:{port}/server_info", timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _ensure_window(settings: Settings) -> None:
    """Live minutes begin on the day of the first start; replays bring their own days."""
    if settings.mode.is_live and settings.window is None:
        save_window(settings, PartitionWindow(clock().date()))


def _prepare_dagster(settings: Settings) -> None:
    """Its tables, before daemon and web server would make them side by side, and one of them fail.

    After a change of the partitions' days, their status: the first page would wait for it.
    """
    import dagster as dg

    from ops_pipeline.defs.jobs import DATA_ASSETS
    from ops_pipeline.defs.partitions import minute_partitions
    from ops_pipeline.engine.partitions import prepare_status

    with dg.DagsterInstance.get() as instance:
        instance.get_runs_count()
        prepare_status(instance, DATA_ASSETS, minute_partitions(settings))


def _parse_models(settings: Settings) -> None:
    """Before daemon and web server would do it side by side."""
    from ops_pipeline.defs.dbt import manifest_path

    manifest_path(settings)
