"""The mode and the database that a verb works with: started while needed, and made ready."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from sqlalchemy import Connection, Engine

from ops_pipeline.cli.console import say_aside
from ops_pipeline.clients.universe import tickers_of, universe_file
from ops_pipeline.domain.errors import BadInput, NotRunning
from ops_pipeline.local.keeper import differing_names, table_of
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.private_files import close_to_others
from ops_pipeline.settings import KEEPER, Mode, Settings, load
from ops_pipeline.storage.databases import (
    create_databases,
    grant_reader,
    keep_reader_password,
    require_sessions,
)
from ops_pipeline.storage.engine import opened, reachable, wait_for_disk
from ops_pipeline.storage.migrate import migrate, migrated
from ops_pipeline.storage.roles import ensure_roles, grant_runtime
from ops_pipeline.storage.universe import replace_universe, universe


def settings_of(mode: Mode | None) -> Settings:
    """Return the settings that a command works with; say where the running instance has others.

    Raises:
        BadInput: several modes are up, and none was named: a halt must not hit the wrong one.
    """
    settings = chosen_settings(mode)
    if names := differing_names(settings):
        say_aside(
            f"mode {settings.mode.value} was started with other values of {', '.join(names)}, and"
            " keeps them until: ops-pipeline up --restart"
        )
    return settings


def chosen_settings(mode: Mode | None) -> Settings:
    """Return the settings of the mode that is meant: the given one, OPS_MODE's, or what is up.

    Raises:
        BadInput: several are up, and none was named.
    """
    chosen = mode or _mode_meant()
    return load(chosen.value if chosen else None)


def _mode_meant() -> Mode | None:
    """Return the mode that is up here, where OPS_MODE names none; say where it names another."""
    found, named = _modes_that_are_up(), os.environ.get("OPS_MODE")
    names = " and ".join(mode.value for mode in found)
    if named:
        if found and named not in [mode.value for mode in found]:
            say_aside(f"mode {named}, as OPS_MODE says; up here is {names}: add --mode {found[0]}")
        return None
    if len(found) > 1:
        raise BadInput(f"{names} are up, and none was named", f"add --mode {found[0].value}")
    if found:
        say_aside(f"mode {names}, which is up here")
    return found[0] if found else None


def _modes_that_are_up() -> list[Mode]:
    """Return those that were brought up and not taken down; those that run before what died."""
    settings = load(Mode.REPLAY.value)
    tables = {mode: table_of(replace(settings, mode=mode)) for mode in Mode}
    known = [mode for mode, table in tables.items() if table.knows(KEEPER)]
    return [mode for mode in known if tables[mode].find(KEEPER)] or known


@contextmanager
def running_server(mode: Mode | None) -> Iterator[Settings]:
    """Settings with a server that answers; one that was not running is stopped again."""
    settings = settings_of(mode)
    close_to_others(settings.own_paths)
    if not settings.is_embedded:
        keep_reader_password(settings.var_dir)
        # First: a lock that is taken through a transaction pool would stay with a stranger.
        require_sessions(settings, "postgres")
        ensure_roles(load(settings.mode.value))
        yield load(settings.mode.value)
        return
    with EmbeddedServer.in_folder(settings.var_dir).held():
        ensure_roles(load(settings.mode.value))
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
        with opened(settings, as_owner=True) as engine:
            ran = migrate(engine)
        grant_reader(settings)
        grant_runtime(settings)
        with opened(settings) as engine:
            _ensure_universe(engine, settings)
    return ran


def _ensure_universe(engine: Engine, settings: Settings) -> None:
    path = settings.universe_file
    with engine.begin() as connection:
        if not universe(connection):
            replace_universe(connection, tickers_of(universe_file(path).tracked, path))
