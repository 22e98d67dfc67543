"""The mode and the database that a verb works with: started while needed, and made ready."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from sqlalchemy import Connection, Engine

from ops_pipeline.cli.console import err
from ops_pipeline.clients.universe import tickers_of, universe_file
from ops_pipeline.domain.errors import BadInput, NotRunning
from ops_pipeline.local.keeper import table_of
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.settings import KEEPER, Mode, Settings, load
from ops_pipeline.storage.databases import create_databases, grant_reader, keep_reader_password
from ops_pipeline.storage.engine import opened, reachable, wait_for_disk
from ops_pipeline.storage.migrate import migrate, migrated
from ops_pipeline.storage.universe import replace_universe, universe


def settings_of(mode: Mode | None) -> Settings:
    """Settings of the mode that a command means: the given one, OPS_MODE's, or what is up here.

    Raises:
        BadInput: several are up, and none was named: a halt must not hit the wrong one.
    """
    if mode is None and not os.environ.get("OPS_MODE"):
        mode = _mode_that_is_up()
        if mode:
            err.print(f"mode {mode.value}, which is up here", style="dim")
    return load(mode.value if mode else None)


def _mode_that_is_up() -> Mode | None:
    """The one that was brought up and not taken down; one that runs before one that died."""
    settings = load(Mode.REPLAY.value)
    tables = {mode: table_of(replace(settings, mode=mode)) for mode in Mode}
    known = [mode for mode, table in tables.items() if table.knows(KEEPER)]
    found = [mode for mode in known if tables[mode].find(KEEPER)] or known
    if len(found) > 1:
        names = " and ".join(mode.value for mode in found)
        raise BadInput(f"{names} are up, and none was named", f"add --mode {found[0].value}")
    return found[0] if found else None


@contextmanager
def running_server(mode: Mode | None) -> Iterator[Settings]:
    """Settings with a server that answers; one that was not running is stopped again."""
    settings = settings_of(mode)
    if not settings.is_embedded:
        keep_reader_password(settings.var_dir)
        yield load(settings.mode.value)
        return
    with EmbeddedServer.in_folder(settings.var_dir).held():
        yield load(settings.mode.value)


@contextmanager
def existing_server(mode: Mode | None) -> Iterator[Settings]:
    """Settings with databases that are there; their server is started for as long as this lasts.

    Raises:
        NotRunning: nothing was ever made here, or the server does not answer.
    """
    settings = settings_of(mode)
    with ExitStack() as stack:
        if settings.is_embedded:
            if settings.server is None:
                raise NotRunning("there is no database yet", "run: ops-pipeline up")
            stack.enter_context(EmbeddedServer.in_folder(settings.var_dir).held())
            settings = load(settings.mode.value)
        stack.enter_context(reachable(settings))
        stack.enter_context(migrated(settings))
        yield settings


@contextmanager
def watched_server(mode: Mode | None) -> Iterator[Settings]:
    """Settings for a verb that also reports a server that is down: only a replay's is started."""
    settings = settings_of(mode)
    if settings.mode.is_live or not settings.is_embedded or settings.server is None:
        yield settings
        return
    with EmbeddedServer.in_folder(settings.var_dir).held():
        yield load(settings.mode.value)


@contextmanager
def connected(mode: Mode | None) -> Iterator[tuple[Settings, Connection]]:
    """Settings, and one transaction on their database."""
    with (
        existing_server(mode) as settings,
        opened(settings) as engine,
        engine.begin() as connection,
    ):
        # What an operator was told is done outlives the crash of the next moment.
        wait_for_disk(connection)
        yield settings, connection


def prepare(settings: Settings) -> list[str]:
    """Make databases, tables, roles and the universe; what is there stays. Returns migrations."""
    with reachable(settings):
        create_databases(settings)
        with opened(settings) as engine:
            ran = migrate(engine)
            grant_reader(settings)
            _ensure_universe(engine, settings)
    return ran


def _ensure_universe(engine: Engine, settings: Settings) -> None:
    path = settings.universe_file
    with engine.begin() as connection:
        if not universe(connection):
            replace_universe(connection, tickers_of(universe_file(path).tracked, path))
