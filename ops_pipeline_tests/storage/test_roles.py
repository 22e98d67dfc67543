"""What the run-time role and the reader may not do, whoever holds their passwords."""

import json
import stat
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text

from ops_pipeline.settings import (
    Roles,
    Server,
    Settings,
    kept_password,
    load,
    roles_of,
    runtime_file,
)
from ops_pipeline.storage.databases import create_databases, grant_reader, keep_reader_password
from ops_pipeline.storage.dispatch import set_trading_state
from ops_pipeline.storage.engine import lock_knowledge, open_engine
from ops_pipeline.storage.migrate import migrate
from ops_pipeline.storage.roles import ensure_roles, grant_runtime, guarantee
from ops_pipeline_tests.storage import rows


def server_in(settings: Settings) -> Server:
    assert settings.server is not None
    return settings.server


def roles_in(settings: Settings) -> Roles:
    roles = server_in(settings).roles
    assert roles is not None
    return roles


def connect(settings: Settings, login: tuple[str, str], database: str = "") -> psycopg.Connection:
    server = server_in(settings)
    return psycopg.connect(
        host=server.host,
        port=server.port,
        user=login[0],
        password=login[1],
        dbname=database or settings.pipeline_database,
        autocommit=True,
    )


def at_run_time(settings: Settings, database: str = "") -> psycopg.Connection:
    return connect(settings, server_in(settings).login, database)


def as_reader(settings: Settings, database: str = "") -> psycopg.Connection:
    return connect(settings, (settings.reader, settings.reader_password), database)


def administrator(settings: Settings, database: str = "") -> psycopg.Connection:
    server = server_in(settings)
    return connect(settings, (server.user, server.password), database)


def installation(server: Settings, var_dir: Path, login: str = "") -> Settings:
    """Settings of a new installation on the session's server; it has no roles yet."""
    known = server_in(server)
    login = login or f"{known.user}:{known.password}"
    name = f"r{uuid4().hex[:12]}"
    keep_reader_password(var_dir)
    url = f"postgresql://{login}@{known.host}:{known.port}/{name}"
    found = load("replay", {"OPS_VAR_DIR": str(var_dir), "DATABASE_URL": url})
    # Ours, so that the databases of the server itself are closed as well.
    return replace(found, server=replace(server_in(found), is_embedded=True))


def runtime_password(settings: Settings) -> Path:
    return runtime_file(settings.var_dir, server_in(settings))


def with_roles(settings: Settings) -> Settings:
    """Make the roles where this user may, and take them as the next process would."""
    ensure_roles(settings)
    server, password = server_in(settings), kept_password(runtime_password(settings))
    roles = roles_of(server, password) if password else None
    return replace(settings, server=replace(server, roles=roles))


def prepared(settings: Settings) -> Settings:
    create_databases(settings)
    engine = open_engine(settings, as_owner=True)
    migrate(engine)
    engine.dispose()
    grant_reader(settings)
    grant_runtime(settings)
    return settings


@pytest.fixture(scope="module")
def installed(server: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An installation with roles, one execution and one decided recommendation."""
    made = prepared(with_roles(installation(server, tmp_path_factory.mktemp("roles"))))
    engine = open_engine(made)
    with engine.begin() as connection:
        rows.put_executed(connection)
    engine.dispose()
    return made


REFUSED = [
    "set session_replication_role = replica",
    "alter table dispatch_executions disable trigger all",
    "alter table dispatch_executions disable trigger user",
    "drop trigger dispatch_executions_append_only on dispatch_executions",
    "alter table dispatch_executions drop constraint dispatch_executions_recommendation_id_key",
    "alter function refuse_change() security definer",
    "drop function refuse_change() cascade",
    "alter function refuse_change() owner to current_user",
    "drop table dispatch_executions cascade",
    "alter table dispatch_recommendations add column evil integer",
    "alter table dispatch_recommendations owner to current_user",
    "truncate dispatch_recommendations cascade",
    "truncate bars_1m",
    "truncate trading_state",
    "create rule evil as on delete to dispatch_executions do instead nothing",
    "create trigger evil before delete on bars_1m for each row execute function refuse_change()",
    "drop schema features cascade",
    "drop table features.features_1m",
    "alter schema public rename to evil",
    "copy bars_1m from program 'true'",
    "copy bars_1m to program 'cat'",
    "copy bars_1m from '/etc/passwd'",
    "copy bars_1m to '/tmp/ops-evil'",
    "select pg_read_file('/etc/passwd')",
    "select pg_ls_dir('/')",
    "select lo_import('/etc/passwd')",
    "select lo_create(0)",
    "create extension vector",
    "create role evil",
    "create table public.evil (id integer)",
    "create table features.evil (id integer)",
    "create function public.evil() returns integer language sql as 'select 1'",
    "create function features.evil() returns integer language sql as 'select 1'",
    "create schema evil",
    "create database evil",
    "delete from trading_state",
    "insert into trading_state (only_row, state, changed_by) values (false, 'ACTIVE', 'x')",
    "truncate config_versions",
    "update schema_migrations set checksum = ''",
    "delete from schema_migrations",
    "update installation set id = gen_random_uuid()",
    "set role {owner}",
    "set role {user}",
    "set session authorization {user}",
    "grant {owner} to {runtime}",
    "alter role {runtime} superuser",
    "alter role {user} password 'evil'",
    "alter role {reader} password 'evil'",
    "alter database {database} set session_replication_role = replica",
    "alter role {runtime} set session_replication_role = replica",
    "alter system set fsync = off",
    "select pg_reload_conf()",
    "select pg_terminate_backend({pid})",
    "select pg_cancel_backend({pid})",
    "vacuum full pg_catalog.pg_class",
]


GUARDED = [
    "update trading_state set only_row = null",
    "update trading_state set state = 'OPEN'",
    "update trading_state set state = 'ACTIVE', changed_by = ' '",
    "delete from trading_state_changes",
    "update dispatch_executions set qty = 1",
    "delete from dispatch_executions",
    "delete from dispatch_recommendations",
    "update dispatch_recommendations set confidence = 0.99",
    "update dispatch_recommendations set status = 'PENDING'",
]


@pytest.mark.parametrize("statement", REFUSED)
def test_the_run_time_role_is_refused(installed: Settings, statement: str) -> None:
    server, roles = server_in(installed), roles_in(installed)
    names = {
        "owner": roles.owner,
        "runtime": roles.runtime,
        "reader": installed.reader,
        "user": server.user,
        "database": installed.pipeline_database,
    }
    with administrator(installed) as other, at_run_time(installed) as connection:
        known = statement.format(**names, pid=other.info.backend_pid)
        if statement.startswith("vacuum"):
            # PostgreSQL leaves such a table out, with a warning.
            told: list[str] = []
            connection.add_notice_handler(lambda notice: told.append(str(notice.message_primary)))
            connection.execute(known)
            assert any("permission denied" in line for line in told)
            return
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(known)


@pytest.mark.parametrize("statement", GUARDED)
def test_a_guard_refuses_the_run_time_role(installed: Settings, statement: str) -> None:
    refusals = (psycopg.errors.RaiseException, psycopg.errors.CheckViolation)
    with at_run_time(installed) as connection, pytest.raises(refusals):
        connection.execute(statement)


@pytest.mark.parametrize("statement", ["delete from trading_state", "truncate trading_state"])
def test_the_trading_state_stays_whoever_asks(installed: Settings, statement: str) -> None:
    with (
        administrator(installed) as connection,
        pytest.raises(psycopg.errors.RaiseException, match="one row, which stays"),
    ):
        connection.execute(statement)


def test_no_other_database_lets_the_roles_in(installed: Settings) -> None:
    for database in ("postgres", "template1"):
        for enter in (at_run_time, as_reader):
            with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
                enter(installed, database)
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        as_reader(installed, installed.dagster_database)


def test_the_run_time_role_does_its_work(installed: Settings) -> None:
    engine = open_engine(installed)
    with engine.begin() as connection:
        lock_knowledge(connection, exclusive=True)
        set_trading_state(connection, "HALTED", "somebody", "a test")
        set_trading_state(connection, "ACTIVE", "somebody", "a test")
        connection.execute(text("create temporary table computed as select * from features_1m"))
        connection.execute(text("delete from features_1m"))
        connection.execute(text("insert into features_1m select * from computed"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum (analyze) bars_1m"))
    engine.dispose()
    dagster = open_engine(installed, installed.dagster_database)
    with dagster.begin() as connection:
        connection.execute(text("create table runs (id serial primary key)"))
        connection.execute(text("insert into runs default values"))
        connection.execute(text("drop table runs"))
    dagster.dispose()


BLOCKING = [
    *(
        f"select pg_{word}advisory_{kind}lock{shared}({key})"
        for word in ("", "try_")
        for kind in ("", "xact_")
        for shared in ("", "_shared")
        for key in ("7310001", "7310004, 1")
    ),
    "select pg_advisory_unlock_all()",
    "select lo_create(0)",
    "select lo_from_bytea(0, 'evil')",
    "select pg_logical_emit_message(false, 'evil', repeat('x', 1000))",
    "create temporary table evil (id integer)",
    "begin; lock table bars_1m in share mode",
    "select 1 from bars_1m for update",
    "update trading_state set state = 'HALTED'",
    "select pg_terminate_backend({pid})",
    "select pg_cancel_backend({pid})",
    "set role {owner}",
    "set role {runtime}",
]


@pytest.mark.parametrize("statement", BLOCKING)
def test_the_reader_blocks_nobody(installed: Settings, statement: str) -> None:
    roles = roles_in(installed)
    with at_run_time(installed) as other, as_reader(installed) as connection:
        connection.execute("set default_transaction_read_only = off")
        connection.execute("set statement_timeout = 0")
        known = {"owner": roles.owner, "runtime": roles.runtime, "pid": other.info.backend_pid}
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.format(**known))


def test_the_reader_holds_ten_sessions_and_no_more(installed: Settings) -> None:
    with ExitStack() as held:
        for _ in range(10):
            held.enter_context(as_reader(installed))
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            as_reader(installed)


def test_databases_that_a_superuser_owned_are_handed_over(server: Settings, tmp_path: Path) -> None:
    old = prepared(installation(server, tmp_path))
    with administrator(old, old.dagster_database) as connection:
        connection.execute("create table runs (id serial primary key)")
    assert "alone" in guarantee(old)
    new = with_roles(old)
    roles = roles_in(new)
    owned = (
        "select distinct pg_get_userbyid(relowner) from pg_class"
        " where relnamespace in (to_regnamespace('public'), to_regnamespace('features'))"
    )
    routines = "select distinct pg_get_userbyid(proowner) from pg_proc where proname ~ '^guard_'"
    with administrator(new) as connection:
        assert connection.execute(owned).fetchall() == [(roles.owner,)]
        assert connection.execute(routines).fetchall() == [(roles.owner,)]
    with at_run_time(new, new.dagster_database) as connection:
        assert connection.execute(owned).fetchall() == [(roles.runtime,)]
        connection.execute("insert into runs default values")
        connection.execute("alter table runs add column tags text")
    with at_run_time(new) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("alter table dispatch_executions disable trigger user")
    assert roles.owner in guarantee(new)
    assert prepared(new) == new


def test_the_password_is_made_once_for_its_owner_alone(installed: Settings) -> None:
    path = runtime_password(installed)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = json.loads(path.read_text())["password"]
    ensure_roles(installed)
    assert json.loads(path.read_text())["password"] == before == roles_in(installed).password
    assert before not in repr(installed)


@pytest.fixture
def user(server: Settings, request: pytest.FixtureRequest) -> str:
    """A user of somebody else's server that may make databases, and roles as the test says."""
    name = f"u{uuid4().hex[:12]}"
    with administrator(server, "postgres") as connection:
        connection.execute(f"create role {name} login createdb {request.param} password 'given'")
        connection.execute(f"grant connect on database postgres to {name}")
    return f"{name}:given"


@pytest.mark.parametrize("user", ["createrole"], indirect=True)
def test_a_user_that_may_make_roles_makes_them(server: Settings, tmp_path: Path, user: str) -> None:
    given = installation(server, tmp_path, user)
    outside = replace(given, server=replace(server_in(given), is_embedded=False))
    made = prepared(with_roles(outside))
    url = f"postgresql://{user}@{server_in(given).host}:{server_in(given).port}"
    environ = {"OPS_VAR_DIR": str(tmp_path), "DATABASE_URL": f"{url}/{given.base_name}"}
    assert server_in(load("replay", environ)).roles == roles_in(made)
    # The next server, or the next name on this one, is somebody else's until init was there.
    other = environ | {"DATABASE_URL": f"{url}/another"}
    assert server_in(load("replay", other)).roles is None
    with at_run_time(made) as connection:
        connection.execute("update trading_state set changed_by = 'somebody'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("alter table dispatch_executions disable trigger user")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("delete from trading_state")


@pytest.mark.parametrize("user", ["createrole"], indirect=True)
def test_tables_of_a_user_that_may_now_make_roles_are_handed_over(
    server: Settings, tmp_path: Path, user: str
) -> None:
    given = installation(server, tmp_path, user)
    old = prepared(replace(given, server=replace(server_in(given), is_embedded=False)))
    with administrator(old, old.dagster_database) as connection:
        connection.execute("create table runs (id serial primary key)")
    new = with_roles(old)
    with at_run_time(new, new.dagster_database) as connection:
        connection.execute("alter table runs add column tags text")
    with at_run_time(new) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("drop table bars_1m")
    assert prepared(new) == new


@pytest.mark.parametrize("user", ["nocreaterole"], indirect=True)
def test_a_user_that_may_make_none_does_everything(
    server: Settings, tmp_path: Path, user: str
) -> None:
    given = installation(server, tmp_path, user)
    with administrator(server, "postgres") as connection:
        connection.execute(sql.SQL("create role {} login").format(sql.Identifier(given.reader)))
    alone = with_roles(replace(given, server=replace(server_in(given), is_embedded=False)))
    assert server_in(alone).roles is None
    assert not list(tmp_path.glob("runtime*"))
    assert guarantee(prepared(alone)).startswith(f"works as {server_in(alone).user} alone")


def test_the_file_is_right_where_the_server_is_ours(installed: Settings) -> None:
    server, roles = server_in(installed), roles_in(installed)
    other = replace(installed, server=replace(server, roles=replace(roles, password="another")))
    ensure_roles(other)
    at_run_time(other).close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        at_run_time(installed)
    ensure_roles(installed)
    at_run_time(installed).close()


def test_a_role_whose_password_is_elsewhere_is_left_alone(
    installed: Settings, tmp_path: Path
) -> None:
    server = replace(server_in(installed), roles=None, is_embedded=False)
    ensure_roles(replace(installed, server=server, var_dir=tmp_path))
    assert not list(tmp_path.glob("runtime*"))
    with at_run_time(installed) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
