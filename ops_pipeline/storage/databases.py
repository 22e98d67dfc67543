"""Creates this installation's databases and its read-only role."""

import contextlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from ops_pipeline.domain.errors import BadConfiguration, Unsafe
from ops_pipeline.settings import Mode, Settings, reader_file
from ops_pipeline.storage.engine import server_of
from ops_pipeline.storage.roles import (
    PIPELINE_SCHEMAS,
    administration,
    encrypted,
    hand_over,
    keep_password,
    ownership,
)

READER_TIMEOUT_SECONDS = 10
# The reader can lift its own time-out; so many sessions are all that it can keep busy.
READER_SESSIONS = 10
_MARKED = "select pg_backend_pid(), set_config('ops_pipeline.session', %s, false)"
_SEEN = "select pg_backend_pid(), current_setting('ops_pipeline.session', true)"
# In the name of every database that is made to be dropped.
SCRATCH = "_scratch_"


def create_databases(settings: Settings) -> None:
    """Create the databases of this mode and the role that may only read; what exists stays.

    Raises:
        NotRunning: the server does not answer.
        BadConfiguration: this user may not create them, and the message says which to create; or a
            pool stands before the server that keeps no sessions.
    """
    wanted = [settings.pipeline_database, settings.dagster_database]
    require_sessions(settings, "postgres")
    with administration(settings, "postgres") as connection:
        try:
            _create(connection, wanted)
            _create_reader(connection, settings)
        except InsufficientPrivilege as error:
            raise BadConfiguration(
                f"the databases {' and '.join(wanted)} and the role {settings.reader} must exist,"
                " and this user may not create them",
                "have them created, then run: ops-pipeline init",
            ) from error
    for name in wanted:
        require_sessions(settings, name)
    _tune(settings)
    hand_over(settings)


def require_sessions(settings: Settings, database: str) -> None:
    """Refuse a pool that gives one client's session to another between two transactions.

    Locks, time-outs and the turns of the stages belong to a session. A server that is ours is not
    asked.

    Raises:
        NotRunning: the server does not answer.
        BadConfiguration: there is such a pool.
    """
    server = server_of(settings)
    if server.is_embedded:
        return
    with (
        administration(settings, database) as first,
        administration(settings, database) as second,
    ):
        mark = secrets.token_hex(8)
        before = first.execute(_MARKED, [mark]).fetchone()
        # Two that share a session are told by that; where its pool has one only, the first would
        # wait for the second's transaction.
        is_kept = before != second.execute(_MARKED, [mark]).fetchone()
        if is_kept:
            with second.transaction():
                second.execute("select 1")
                is_kept = before == first.execute(_SEEN).fetchone()
    if not is_kept:
        raise BadConfiguration(
            f"a pool at {server.host}:{server.port} gives each transaction another session of"
            f" {database} (PgBouncer calls it transaction pooling)",
            "use pool_mode=session for these databases, or the server's own port",
        )


def has_database(settings: Settings) -> bool:
    """Whether the pipeline's database of this mode was ever made."""
    known = "select 1 from pg_database where datname = %s"
    with administration(settings, "postgres") as connection:
        return connection.execute(known, [settings.pipeline_database]).fetchone() is not None


@contextmanager
def scratch_databases(settings: Settings) -> Iterator[None]:
    """New databases for as long as they are needed; what an earlier use left behind goes first.

    Raises:
        Unsafe: their name is not that of a scratch, or another one works with them.
    """
    if SCRATCH not in settings.base_name:
        raise Unsafe(f"{settings.base_name} is not the name of a scratch")
    names = [settings.pipeline_database, settings.dagster_database]
    # The session stays open because the lock is its own: two at once would drop each other's.
    with administration(settings, "postgres") as connection:
        lock = "select pg_try_advisory_lock(hashtext(%s))"
        row = connection.execute(lock, [settings.pipeline_database]).fetchone()
        if row is None or not row[0]:
            raise Unsafe("another one is at work with the same scratch", "wait until it is done")
        _drop(connection, names)
        _create(connection, names)
        _tune(settings)
        try:
            yield
        finally:
            _drop(connection, names)


def _create(connection: psycopg.Connection, wanted: list[str]) -> None:
    existing = {row[0] for row in connection.execute("select datname from pg_database").fetchall()}
    for name in wanted:
        if name not in existing:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))


def _drop(connection: psycopg.Connection, names: list[str]) -> None:
    for name in names:
        statement = sql.SQL("drop database if exists {} with (force)")
        connection.execute(statement.format(sql.Identifier(name)))


def grant_reader(settings: Settings) -> None:
    """Let the reading role see every table of the pipeline, those to come included."""
    with ownership(settings) as connection:
        for schema in PIPELINE_SCHEMAS:
            _grant(connection, settings.reader, schema)


def _create_reader(connection: psycopg.Connection, settings: Settings) -> None:
    name = sql.Identifier(settings.reader)
    known = connection.execute(
        "select 1 from pg_roles where rolname = %s", [settings.reader]
    ).fetchone()
    if not known:
        connection.execute(sql.SQL("create role {} login").format(name))
    password = encrypted(connection, settings.reader, settings.reader_password)
    database = sql.Identifier(settings.pipeline_database)
    limit = sql.Literal(f"{READER_TIMEOUT_SECONDS}s")
    _where_allowed(
        connection,
        sql.SQL("alter role {} password {}").format(name, password),
        sql.SQL("alter role {} set default_transaction_read_only = on").format(name),
        sql.SQL("alter role {} set statement_timeout = {}").format(name, limit),
        sql.SQL("alter role {} connection limit {}").format(name, sql.Literal(READER_SESSIONS)),
        sql.SQL("grant connect on database {} to {}").format(database, name),
    )


def _where_allowed(connection: psycopg.Connection, *statements: sql.Composed) -> None:
    """Change what is ours to change; what others made on their server stays as it is."""
    with contextlib.suppress(InsufficientPrivilege):
        for statement in statements:
            connection.execute(statement)


def _grant(connection: psycopg.Connection, reader: str, schema: LiteralString) -> None:
    names = {"schema": sql.Identifier(schema), "reader": sql.Identifier(reader)}
    statements: tuple[LiteralString, ...] = (
        "create schema if not exists {schema}",
        "grant usage on schema {schema} to {reader}",
        "grant select on all tables in schema {schema} to {reader}",
        "alter default privileges in schema {schema} grant select on tables to {reader}",
    )
    for statement in statements:
        connection.execute(sql.SQL(statement).format(**names))


def _tune(settings: Settings) -> None:
    with administration(settings, settings.pipeline_database) as connection:
        name = sql.Identifier(settings.pipeline_database)
        change = sql.SQL("alter database {} set search_path = public, features").format(name)
        _where_allowed(connection, change)
        if not settings.mode.is_live:
            # What a crash takes of a replay is played again.
            _where_allowed(connection, _without_waiting(name))
    with administration(settings, settings.dagster_database) as connection:
        # Losing the last events of a crash loses history, not orders.
        name = sql.Identifier(settings.dagster_database)
        _where_allowed(connection, _without_waiting(name))


def _without_waiting(database: sql.Identifier) -> sql.Composed:
    return sql.SQL("alter database {} set synchronous_commit = off").format(database)


def keep_reader_password(var_dir: Path) -> None:
    """Make the reading role's password for a server that is not ours, once, in a 0600 file."""
    path = reader_file(var_dir)
    if not path.exists():
        keep_password(path, secrets.token_urlsafe(24))


def drop_pipeline(settings: Settings) -> None:
    """Empty a replay's database; Dagster's own history stays.

    Raises:
        Unsafe: the mode is not replay; nothing else may be emptied.
    """
    if settings.mode is not Mode.REPLAY:
        raise Unsafe(f"the database of {settings.mode.value} mode is not emptied")
    create_databases(settings)
    with administration(settings, settings.pipeline_database) as connection:
        for schema in ("features", "public"):
            connection.execute(
                sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(schema))
            )
        connection.execute("create schema public")
