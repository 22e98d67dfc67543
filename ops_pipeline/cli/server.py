"""The database that a verb works with: started for as long as it is needed, and made ready."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from ops_pipeline.clients.universe import tickers_of, universe_file
from ops_pipeline.domain.errors import NotRunning
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.settings import Mode, Settings, load
from ops_pipeline.storage.databases import create_databases, grant_reader, keep_reader_password
from ops_pipeline.storage.engine import opened, reachable
from ops_pipeline.storage.migrate import migrate
from ops_pipeline.storage.universe import replace_universe, universe


@contextmanager
def running_server(mode: Mode | None) -> Iterator[Settings]:
    """Settings with a server that answers; one that was not running is stopped again."""
    settings = load(mode.value if mode else None)
    if not settings.is_embedded:
        keep_reader_password(settings.var_dir)
        yield load(settings.mode.value)
        return
    server = EmbeddedServer.in_folder(settings.var_dir)
    was_running = server.is_running()
    server.start()
    try:
        yield load(settings.mode.value)
    finally:
        if not was_running:
            server.stop()


@contextmanager
def existing_server(mode: Mode | None) -> Iterator[Settings]:
    """Settings with a server that runs already.

    Raises:
        NotRunning: it does not; nothing is started for a verb that only looks.
    """
    settings = load(mode.value if mode else None)
    if settings.is_embedded:
        server = EmbeddedServer.in_folder(settings.var_dir)
        if settings.server is None or not server.is_running():
            raise NotRunning("the embedded PostgreSQL does not run", "run: ops-pipeline up")
    with reachable(settings):
        yield settings


@contextmanager
def connected(mode: Mode | None) -> Iterator[tuple[Settings, Connection]]:
    """Settings, and one transaction on the database of a server that runs already."""
    with (
        existing_server(mode) as settings,
        opened(settings) as engine,
        engine.begin() as connection,
    ):
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
