"""Databases and the reading role are made once, and only a replay's are emptied."""

import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.exc import OperationalError

from ops_pipeline.domain.errors import BadConfiguration, NotRunning, Unsafe
from ops_pipeline.local.ports import free_port, port_is_free
from ops_pipeline.local.processes import wait_until
from ops_pipeline.operations.doctor import Health, examine
from ops_pipeline.settings import Mode, Settings, reader_file
from ops_pipeline.storage.databases import (
    create_databases,
    drop_pipeline,
    grant_reader,
    keep_reader_password,
    scratch_databases,
)
from ops_pipeline.storage.engine import open_engine, reachable, server_of
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.migrate import migrate, shipped
from ops_pipeline.storage.reader import select


def administrator(settings: Settings, database: str = "postgres") -> psycopg.Connection:
    server = settings.server
    assert server is not None
    return psycopg.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        dbname=database,
        autocommit=True,
    )


@pytest.fixture
def fresh(server: Settings) -> Iterator[Settings]:
    """Settings of an installation that has no databases yet."""
    owner = server.server
    assert owner is not None
    own = replace(server, server=replace(owner, base_name=f"f{uuid4().hex[:12]}"))
    yield own
    with administrator(own) as connection:
        for name in (own.pipeline_database, own.dagster_database):
            known = sql.Identifier(name)
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(known))


def names(settings: Settings) -> set[str]:
    with administrator(settings) as connection:
        rows = connection.execute(
            "select datname from pg_database where datname like %s", [f"{settings.base_name}%"]
        )
        return {row[0] for row in rows}


def test_each_mode_has_a_database_of_the_pipeline_and_one_of_dagster(fresh: Settings) -> None:
    create_databases(fresh)
    assert names(fresh) == {fresh.pipeline_database, fresh.dagster_database}


def test_what_exists_stays(fresh: Settings) -> None:
    create_databases(fresh)
    with administrator(fresh, fresh.pipeline_database) as connection:
        connection.execute("create table kept (id integer)")
    create_databases(fresh)
    with administrator(fresh, fresh.pipeline_database) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (0,)


def test_a_role_that_may_not_create_is_told_what_to_have_created(fresh: Settings) -> None:
    owner = fresh.server
    assert owner is not None
    role = f"{fresh.base_name}_poor"
    with administrator(fresh) as connection:
        connection.execute(
            sql.SQL("create role {} login password 'poor'").format(sql.Identifier(role))
        )
        enter = sql.SQL("grant connect on database postgres to {}")
        connection.execute(enter.format(sql.Identifier(role)))
    poor = replace(fresh, server=replace(owner, user=role, password="poor"))
    with pytest.raises(BadConfiguration, match=fresh.pipeline_database):
        create_databases(poor)


def test_a_replay_is_emptied_and_can_be_made_anew(fresh: Settings) -> None:
    create_databases(fresh)
    engine = open_engine(fresh)
    migrate(engine)
    drop_pipeline(fresh)
    assert migrate(engine) == [migration.name for migration in shipped()]
    engine.dispose()


def test_the_reader_reads_a_replay_that_was_made_anew(fresh: Settings) -> None:
    drop_pipeline(fresh)
    engine = open_engine(fresh)
    migrate(engine)
    engine.dispose()
    grant_reader(fresh)
    assert select(fresh, "select count(*) from features_1m")[1] == [(0,)]


def test_a_table_that_is_made_later_is_readable_too(fresh: Settings) -> None:
    create_databases(fresh)
    grant_reader(fresh)
    with administrator(fresh, fresh.pipeline_database) as connection:
        connection.execute("create table public.later as select 7 as n")
    assert select(fresh, "select n from later")[1] == [(7,)]


def test_what_is_no_replay_is_never_emptied(fresh: Settings) -> None:
    with pytest.raises(Unsafe, match="sandbox mode is not emptied"):
        drop_pipeline(replace(fresh, mode=Mode.SANDBOX))
    assert names(fresh) == set()


def nowhere(settings: Settings, *, is_embedded: bool) -> Settings:
    server = settings.server
    assert server is not None
    return replace(settings, server=replace(server, port=9, is_embedded=is_embedded))


@pytest.mark.parametrize(
    ("is_embedded", "hint"),
    [
        (True, "run: ops-pipeline up --mode replay"),
        (False, "check DATABASE_URL, and that the server runs"),
    ],
)
def test_a_server_that_does_not_answer_is_named_with_what_to_try(
    server: Settings,
    is_embedded: bool,  # noqa: FBT001
    hint: str,
) -> None:
    with pytest.raises(NotRunning, match="does not answer") as caught:
        create_databases(nowhere(server, is_embedded=is_embedded))
    assert caught.value.hint == hint


def test_a_refused_connection_of_an_engine_is_one_line(server: Settings) -> None:
    engine = open_engine(nowhere(server, is_embedded=True))
    with (
        pytest.raises(NotRunning, match=r"127\.0\.0\.1:9 does not answer") as caught,
        reachable(nowhere(server, is_embedded=True)),
        engine.connect(),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, OperationalError)


def test_a_question_to_a_server_that_does_not_answer_is_not_running(server: Settings) -> None:
    with pytest.raises(NotRunning, match="does not answer"):
        select(nowhere(server, is_embedded=True), "select 1")


def test_without_a_server_there_is_no_database_yet(server: Settings) -> None:
    with pytest.raises(NotRunning, match="no database yet"):
        open_engine(replace(server, server=None))


def test_a_readers_password_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    keep_reader_password(tmp_path)
    path = reader_file(tmp_path)
    first = path.read_text()
    keep_reader_password(tmp_path)
    assert path.read_text() == first
    assert len(json.loads(first)["password"]) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def scratch_of(settings: Settings) -> Settings:
    assert settings.server is not None
    server = replace(settings.server, base_name="here_scratch_there")
    return replace(settings, server=server)


def test_a_scratch_is_there_while_it_is_used_and_gone_afterwards(server: Settings) -> None:
    scratch = scratch_of(server)
    with scratch_databases(scratch):
        assert open_engine(scratch).connect().exec_driver_sql("select 1").scalar() == 1
    with pytest.raises(OperationalError, match="does not exist"):
        open_engine(scratch).connect()


def test_a_scratch_has_one_user_at_a_time(server: Settings) -> None:
    scratch = scratch_of(server)
    with (
        scratch_databases(scratch),
        pytest.raises(Unsafe, match="same scratch"),
        scratch_databases(scratch),
    ):
        pass


def test_what_is_no_scratch_by_name_is_not_dropped(server: Settings) -> None:
    with pytest.raises(Unsafe, match="not the name of a scratch"), scratch_databases(server):
        pass


@contextmanager
def pooled(settings: Settings, pool_mode: str, pool_size: int = 5) -> Iterator[Settings]:
    """These settings' server behind a PgBouncer, which drops what we set by `options`."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    server, port = server_of(settings), free_port()
    # Another account than ours may have to read it.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pgbouncer.ini"
        login = f"user={server.user} password={server.password}"
        file.write_text(
            f"[databases]\n* = host={server.host} port={server.port} {login}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {pool_mode}\ndefault_pool_size = {pool_size}\n"
            "ignore_startup_parameters = options\nquery_wait_timeout = 10\n"
        )
        Path(folder).chmod(0o755)
        file.chmod(0o644)
        user = "nobody" if os.geteuid() == 0 else None
        with subprocess.Popen(
            [program, "-q", str(file)], user=user, stderr=subprocess.DEVNULL
        ) as process:
            try:
                wait_until(lambda: not port_is_free(port), 10, "pgbouncer did not start")
                yield replace(settings, server=replace(server, port=port, is_embedded=False))
            finally:
                process.terminate()


@pytest.mark.parametrize(
    ("pool_mode", "size"), [("transaction", 5), ("transaction", 1), ("statement", 5)]
)
def test_a_pool_that_keeps_no_sessions_is_refused_in_one_line(
    fresh: Settings, pool_mode: str, size: int
) -> None:
    with pooled(fresh, pool_mode, size) as behind:
        with pytest.raises(BadConfiguration, match="transaction pooling") as refused:
            create_databases(behind)
        database = next(iter(examine(behind, clock)))
    assert len(str(refused.value).splitlines()) == 1
    assert refused.value.hint.startswith("use pool_mode=session")
    assert names(fresh) == set()
    assert (database.dependency, database.health) == ("database", Health.FAILED)


def test_a_pool_of_whole_sessions_is_taken_and_its_sessions_are_ours(fresh: Settings) -> None:
    with pooled(fresh, "session") as behind:
        create_databases(behind)
        engine = open_engine(behind, idle_seconds=7)
        shown = "select current_setting('timezone'), current_setting('lock_timeout')"
        idle = ", current_setting('idle_in_transaction_session_timeout')"
        with engine.connect() as connection:
            found = connection.exec_driver_sql(shown + idle).one()
            connection.rollback()
            assert tuple(connection.exec_driver_sql(shown + idle).one()) == tuple(found)
        engine.dispose()
    assert tuple(found) == ("UTC", "30s", "7s")
