"""Owner and run-time role: only the owner can change tables, functions and triggers."""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from ops_pipeline.settings import (
    Mode,
    Roles,
    Settings,
    kept_password,
    roles_of,
    runtime_file,
)
from ops_pipeline.storage.engine import (
    CONNECT_TIMEOUT_SECONDS,
    owner_settings,
    reachable,
    server_of,
)

PIPELINE_SCHEMAS = ("public", "features")
# A schema comes first: its tables can only be given to one who may create in it.
_OWN = sql.SQL(
    """
    select format('alter schema %I owner to %I', nspname, {owner})
    from pg_namespace
    where nspname = {schema} and {owns_schema} and pg_get_userbyid(nspowner) <> {owner}
    union all
    select format('alter table %s owner to %I', oid::regclass, {owner})
    from pg_class
    where relnamespace = to_regnamespace({schema}) and relkind in ('r', 'p', 'v', 'm', 'S')
        and pg_get_userbyid(relowner) = current_user and not exists (
            select from pg_depend
            where objid = pg_class.oid and classid = 'pg_class'::regclass
                and (deptype = 'e' or (relkind = 'S' and deptype in ('a', 'i')))
        )
    union all
    select format('alter routine %s owner to %I', oid::regprocedure, {owner})
    from pg_proc
    where pronamespace = to_regnamespace({schema})
        and pg_get_userbyid(proowner) = current_user and not exists (
            select from pg_depend
            where objid = pg_proc.oid and classid = 'pg_proc'::regclass and deptype = 'e'
        )
    """
)
# Everyone may call these by default: locks that the pipeline waits for, and writes to the disk.
_OPEN: LiteralString = """
    select oid::regprocedure::text, proname ~ 'advisory'
    from pg_proc
    where pronamespace = 'pg_catalog'::regnamespace
        and (
            proname ~ '^pg_(try_)?advisory_' or proname ~ '^lo_'
            or proname in ('lowrite', 'pg_logical_emit_message')
        )
        and has_function_privilege('public', oid, 'execute')
    """
_SUPERUSER: LiteralString = "select rolsuper from pg_roles where rolname = current_user"


@contextmanager
def administration(settings: Settings, database: str) -> Iterator[psycopg.Connection]:
    """Open a session of the given user; what a restricted role may create is not on its path."""
    yield from _connected(settings, database, {"search_path": "public"})


@contextmanager
def ownership(settings: Settings) -> Iterator[psycopg.Connection]:
    """Open a session of the owner of the pipeline's tables."""
    yield from _connected(settings, settings.pipeline_database, owner_settings(server_of(settings)))


def _connected(
    settings: Settings, database: str, kept: Mapping[str, str]
) -> Iterator[psycopg.Connection]:
    server = server_of(settings)
    with reachable(settings):
        connection = psycopg.connect(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            dbname=database,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
        )
    with connection:
        for setting in kept.items():
            connection.execute("select set_config(%s, %s, false)", setting)
        yield connection


def ensure_roles(settings: Settings) -> None:
    """Make owner and run-time role if the given user may; else that user does everything.

    The databases that exist already are handed over to them.
    """
    server = server_of(settings)
    with administration(settings, "postgres") as connection:
        # Two first starts at once would each set a password.
        connection.execute("select pg_advisory_lock(hashtext(%s))", [f"{server.base_name} roles"])
        path = runtime_file(settings.var_dir, server)
        known = kept_password(path)
        roles = server.roles or roles_of(server, known or secrets.token_urlsafe(24))
        is_made = _exists(connection, roles.runtime)
        # On a server that others use as well, the password that is not ours may be theirs.
        if is_made and (known or server.roles or not server.is_embedded):
            is_ours = server.is_embedded and settings.pipeline_database in _databases(connection)
            if not (is_ours and _is_wrong(settings, roles)):
                return
        try:
            _make(connection, roles)
        except InsufficientPrivilege:
            return
        if server.is_embedded:
            _close(connection, "postgres", "template1")
        made = replace(settings, server=replace(server, roles=roles))
        for mode in Mode:
            one = replace(made, mode=mode)
            if {one.pipeline_database, one.dagster_database} <= _databases(connection):
                hand_over(one)
        if not server.roles:
            keep_password(path, roles.password)


def hand_over(settings: Settings) -> None:
    """Give one mode's tables to their roles, and take from others what could block them."""
    roles = server_of(settings).roles
    if roles is None:
        return
    pipeline, dagster = settings.pipeline_database, settings.dagster_database
    for database, owner, schemas in (
        (pipeline, roles.owner, PIPELINE_SCHEMAS),
        (dagster, roles.runtime, ("public",)),
    ):
        with administration(settings, database) as connection:
            # A table that somebody works with is waited for, but its next user is not held up.
            connection.execute("set lock_timeout = '10s'")
            _grant_database(connection, database, roles)
            if owner == roles.runtime:
                _run(connection, "grant usage, create on schema public to {owner}", owner=owner)
            for schema in schemas:
                names = {
                    "owner": sql.Literal(owner),
                    "schema": sql.Literal(schema),
                    "owns_schema": sql.Literal(owner == roles.owner),
                }
                for (statement,) in connection.execute(_OWN.format(**names)).fetchall():
                    connection.execute(statement)
            _close_functions(connection, roles)
            if settings.is_embedded:
                _close(connection, database)
    grant_runtime(settings)


def grant_runtime(settings: Settings) -> None:
    """Let the run-time role read and write the pipeline's tables, and nothing else."""
    roles = server_of(settings).roles
    if roles is None:
        return
    with ownership(settings) as connection:
        maintain = ", maintain" if connection.info.server_version >= 170_000 else ""
        rights = f"select, insert, update, delete{maintain}"
        for schema in PIPELINE_SCHEMAS:
            if connection.execute("select to_regnamespace(%s)", [schema]).fetchone() == (None,):
                continue
            for statement in (
                # Before PostgreSQL 15 everyone may create there.
                "revoke create on schema {schema} from public",
                "grant usage on schema {schema} to {runtime}",
                f"grant {rights} on all tables in schema {{schema}} to {{runtime}}",
                "grant usage on all sequences in schema {schema} to {runtime}",
            ):
                _run(connection, statement, schema=schema, runtime=roles.runtime)
        for table, refused in (
            ("trading_state", "insert, delete"),
            ("schema_migrations", "insert, update, delete"),
            ("installation", "insert, update, delete"),
        ):
            if connection.execute("select to_regclass(%s)", [table]).fetchone() != (None,):
                statement = f"revoke {refused} on {{table}} from {{runtime}}"
                _run(connection, statement, table=table, runtime=roles.runtime)


def guarantee(settings: Settings) -> str:
    """Say in one line on whom the guards of the ledger rest."""
    server = server_of(settings)
    if server.roles:
        return f"works as {server.roles.runtime}; tables and guards belong to {server.roles.owner}"
    return (
        f"works as {server.user} alone, who could switch the guards of the ledger off;"
        " docs/configuration.md, Roles, says how to change that"
    )


def keep_password(path: Path, password: str) -> None:
    """Write a role's password once, into a file that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"password": password}, file)


def encrypted(connection: psycopg.Connection, role: str, password: str) -> sql.Composable:
    """Return a password as the server stores it: a refused statement is logged as it was sent.

    An empty one is none, with which nobody logs in.
    """
    if not password:
        return sql.NULL
    raw = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
    return sql.Literal(raw.decode())


def _is_wrong(settings: Settings, roles: Roles) -> bool:
    server = server_of(settings)
    try:
        psycopg.connect(
            host=server.host,
            port=server.port,
            user=roles.runtime,
            password=roles.password,
            dbname=settings.pipeline_database,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
        ).close()
    except psycopg.OperationalError as error:
        return "password authentication failed" in str(error)
    return False


def _make(connection: psycopg.Connection, roles: Roles) -> None:
    with connection.transaction():
        if not _exists(connection, roles.owner):
            _run(connection, "create role {owner} nologin", owner=roles.owner)
        if not _exists(connection, roles.runtime):
            _run(connection, "create role {runtime} login", runtime=roles.runtime)
        if connection.execute(_SUPERUSER).fetchone() != (True,):
            _run(connection, "grant {owner}, {runtime} to current_user", **_names(roles))
        statement = sql.SQL("alter role {} password {}")
        password = encrypted(connection, roles.runtime, roles.password)
        connection.execute(statement.format(sql.Identifier(roles.runtime), password))


def _grant_database(connection: psycopg.Connection, database: str, roles: Roles) -> None:
    for statement in (
        "grant create, connect on database {database} to {owner}",
        # dbt puts what it computes into a temporary table first.
        "grant connect, temporary on database {database} to {runtime}",
        "revoke temporary on database {database} from public",
    ):
        _run(connection, statement, database=database, **_names(roles))


def _close_functions(connection: psycopg.Connection, roles: Roles) -> None:
    if connection.execute(_SUPERUSER).fetchone() != (True,):
        return
    for function, is_lock in connection.execute(_OPEN).fetchall():
        connection.execute(f"revoke execute on function {function} from public")
        if is_lock:
            _run(
                connection,
                f"grant execute on function {function} to {{owner}}, {{runtime}}",
                **_names(roles),
            )


def _close(connection: psycopg.Connection, *databases: str) -> None:
    for database in databases:
        _run(connection, "revoke connect on database {database} from public", database=database)


def _names(roles: Roles) -> dict[str, str]:
    return {"owner": roles.owner, "runtime": roles.runtime}


def _run(connection: psycopg.Connection, statement: str, **names: str) -> None:
    identifiers = {key: sql.Identifier(name) for key, name in names.items()}
    connection.execute(sql.SQL(statement).format(**identifiers))


def _exists(connection: psycopg.Connection, role: str) -> bool:
    return connection.execute("select to_regrole(quote_ident(%s))", [role]).fetchone() != (None,)


def _databases(connection: psycopg.Connection) -> set[str]:
    return {row[0] for row in connection.execute("select datname from pg_database").fetchall()}
