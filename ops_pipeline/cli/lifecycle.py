"""Verbs that begin and end: init, up, down, demo."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

from ops_pipeline.cli import replay as replay_verb
from ops_pipeline.cli.console import JsonOption, ModeOption, print_json, say, working
from ops_pipeline.cli.server import prepare, running_server, settings_of
from ops_pipeline.clients.live import access_of
from ops_pipeline.clients.universe import universe_file
from ops_pipeline.domain.errors import BadConfiguration, BadInput, NotRunning, OperatorError
from ops_pipeline.local.installation_lock import installation_lock
from ops_pipeline.local.keeper import (
    Asked,
    differing_settings,
    last_asked,
    log_dir,
    start_keeper,
    stop_kept,
    table_of,
)
from ops_pipeline.local.ports import port_is_free
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.local.processes import Process, ProcessTable, wait_until
from ops_pipeline.local.ticks import code_location, newest_ticks
from ops_pipeline.settings import (
    CODE,
    DAEMON,
    KEEPER,
    SANDBOX,
    WEB,
    Mode,
    PartitionWindow,
    Settings,
    load,
    save_window,
)
from ops_pipeline.storage.knowledge import clock

START_SECONDS = 120
MAX_REASON_CHARS = 500
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
    restart: Annotated[
        bool, typer.Option("--restart", help="Stop what runs of this mode first.")
    ] = False,
) -> None:
    """Start PostgreSQL, the daemon, the guarded web server, and in sandbox mode the sandbox.

    Exit code 4 where this mode is up already with other settings or options.
    """
    settings = settings_of(mode)
    market, table = _market_words(settings, bars, news, day), table_of(settings)
    with installation_lock(settings.var_dir, "up"):
        is_up = all(table.find(name) for name in settings.mode.processes)
        if is_up and not restart:
            _refuse_differences(settings, port, market)
            say(f"mode {settings.mode.value} is up already; stop it with: ops-pipeline down")
            return
        asked = Asked(port or settings.web_port, market)
        if restart:
            asked = _asked_again(settings, port, market)
        _require_free_ports(settings, asked.port, "up")
        _require_market(settings)
        settings = _start(settings, table, asked)
    say(f"mode {settings.mode.value}: Dagster UI at http://127.0.0.1:{asked.port}")
    say("stop it with: ops-pipeline down")


def _asked_again(settings: Settings, port: int | None, market: list[str]) -> Asked:
    """Return what a restart is asked for: what is not given again stays."""
    last = last_asked(settings)
    is_changed = "OPS_WEB_PORT" in differing_settings(settings)
    kept_port = settings.web_port if is_changed else last.port
    return Asked(port or kept_port, market or last.market)


def _refuse_differences(settings: Settings, port: int | None, market: list[str]) -> None:
    """Refuse to call it done where what runs was started with something else.

    Raises:
        BadConfiguration: it was; the message names what differs, and no value.
    """
    last, names = last_asked(settings), differing_settings(settings)
    if port not in (None, last.port):
        names.append("--port")
    if market and market != [*last.market]:
        names += [word for word in ("--bars", "--news", "--day") if word in market]
    if names:
        raise BadConfiguration(
            f"mode {settings.mode.value} is up with other settings; these differ:"
            f" {', '.join(names)}",
            "to apply them, run the same command with --restart",
        )


def down() -> None:
    """Stop all that up has started, and the embedded PostgreSQL."""
    # Of replay, because a live mode's settings may be refused, and what runs must be stopped.
    settings = load(Mode.REPLAY.value)
    if not settings.var_dir.exists():
        say("nothing was running")
        return
    with installation_lock(settings.var_dir, "down", takes_over=True):
        stopped = _stop_all(settings)
    say(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


def _stop_all(settings: Settings) -> list[str]:
    stopped = [
        f"{name} ({mode.value})"
        for mode in Mode
        for name in stop_kept(replace(settings, mode=mode))
    ]
    server = EmbeddedServer.in_folder(settings.var_dir)
    if settings.is_embedded and server.pid() is not None:
        server.stop()
        stopped.append("postgres")
    return stopped


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
    with (
        _server_that_stays(settings),
        running_server(settings.mode) as prepared,
        working("starting", quiet=False),
    ):
        prepare(prepared)
        _ensure_window(prepared)
        settings = load(settings.mode.value)
        os.environ.update(settings.environment())
        _load_code(settings)
        # What a keeper that was killed left behind belongs to nobody.
        stop_kept(settings)
        began = clock()
        start_keeper(settings, asked)
        try:
            _wait_until_up(settings, table, asked.port, began)
        except BaseException:
            stop_kept(settings)
            raise
    return settings


@contextmanager
def _server_that_stays(settings: Settings) -> Iterator[None]:
    """Start the embedded server for good, unless what it is started for comes to nothing."""
    if not settings.is_embedded:
        yield
        return
    server = EmbeddedServer.in_folder(settings.var_dir)
    was_running = server.is_running()
    server.start()
    try:
        yield
    except BaseException:
        if not was_running:
            server.stop()
        raise


def _load_code(settings: Settings) -> None:
    """Load here first what the code server will load: two side by side would both parse.

    Raises:
        NotRunning: the code cannot be loaded; the message says why.
    """
    try:
        _parse_models(settings)
        _prepare_dagster(settings)
    except (OperatorError, SQLAlchemyError):
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_REASON_CHARS]
        raise NotRunning(f"the code cannot be loaded: {reason}") from error


def _market_words(
    settings: Settings, bars: Path | None, news: Path | None, day: str | None
) -> list[str]:
    """How the sandbox is told what to play; nothing for a generated market."""
    given = {"--bars": bars and bars.resolve(), "--news": news and news.resolve(), "--day": day}
    words = [word for name, value in given.items() if value for word in (name, str(value))]
    if words and settings.mode is not Mode.SANDBOX:
        raise BadInput(f"{words[0]} belongs to the sandbox", "add --mode sandbox")
    return words


def _wait_until_up(settings: Settings, table: ProcessTable, port: int, began: datetime) -> None:
    seen: dict[str, Process] = {}
    wait_until(
        lambda: _is_up(settings, table, port, seen),
        START_SECONDS,
        "the web server did not answer",
        hint=f"look at {_log_file(settings, WEB)}",
    )
    wait_until(
        lambda: _has_ticked(settings, table, began),
        START_SECONDS,
        "no schedule and no sensor has ticked",
        hint=f"look at {_log_file(settings, DAEMON)}",
    )


def _has_ticked(settings: Settings, table: ProcessTable, began: datetime) -> bool:
    _refuse_broken_code(settings, table)
    ticks = newest_ticks(settings).values()
    return not ticks or any(at is not None and at >= began for at in ticks)


def _refuse_broken_code(settings: Settings, table: ProcessTable) -> None:
    if error := code_location(settings, table).error:
        raise NotRunning(
            f"the code cannot be loaded: {error}", f"look at {_log_file(settings, CODE)}"
        )


def _log_file(settings: Settings, name: str) -> Path:
    return log_dir(settings) / f"{name}.log"


def _require_market(settings: Settings) -> None:
    """A live mode without keys, or with a universe file that is refused, would fail each minute."""
    if settings.mode.is_live:
        access_of(settings)
        universe_file(settings.universe_file)


def _require_free_ports(settings: Settings, port: int, verb: str) -> None:
    table, last = table_of(settings), last_asked(settings)
    is_ours = bool(table.find(WEB)) and port == last.port
    if not is_ours and not port_is_free(port):
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
    """Whether the web server answers and the code is loaded; what dies before would die again."""
    _refuse_broken_code(settings, table)
    for name in settings.mode.processes:
        process = table.find(name)
        if seen.get(name, process) != process or (name == KEEPER and not process):
            raise NotRunning(f"the {name} ended at once", f"look at {_log_file(settings, name)}")
        if process:
            seen[name] = process
    is_complete = len(seen) == len(settings.mode.processes)
    return is_complete and _answers(port) and code_location(settings, table).is_loaded


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
    from ops_pipeline.defs.dbt import manifest_document

    manifest_document(settings)
