"""Free statements only ever read, and only what the reading role may see."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from ops_pipeline.domain.errors import BadInput, TimedOut, Unsafe
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage.reader import select
from ops_pipeline_tests.storage.clones import clone

COUNT = "select count(*) from universe"


def connect(settings: Settings, database: str, *, as_reader: bool = False) -> psycopg.Connection:
    server = settings.server
    assert server is not None
    return psycopg.connect(
        host=server.host,
        port=server.port,
        user=settings.reader if as_reader else server.user,
        password=settings.reader_password if as_reader else server.password,
        dbname=database,
        autocommit=True,
    )


@pytest.fixture(scope="module")
def asked(template: Settings) -> Settings:
    """Settings whose reader is the role that was granted on the template."""
    own = clone(template, "asked")
    with connect(template, "postgres") as administrator:
        # Without the read-only default of the shipped role: each question has to be so itself.
        administrator.execute(sql.SQL("drop role if exists asked_reader"))
        administrator.execute(sql.SQL("create role asked_reader login in role template_reader"))
        for statement in (
            sql.SQL("alter role asked_reader password {}").format(template.reader_password),
            sql.SQL("alter role asked_reader set statement_timeout = '1s'"),
        ):
            administrator.execute(statement)
    return own


@dataclass(frozen=True)
class Watch:
    """An administrator's look at the database, and what it was like before any statement."""

    administrator: psycopg.Connection
    names: list[tuple[str, str]]
    before: list[tuple[object, ...]]

    @classmethod
    def begin(cls, administrator: psycopg.Connection) -> "Watch":
        watch = cls(administrator, cls.tables(administrator), [])
        return replace(watch, before=watch.look())

    @staticmethod
    def tables(administrator: psycopg.Connection) -> list[tuple[str, str]]:
        return administrator.execute(
            "select schemaname::text, tablename::text from pg_tables"
            " where schemaname in ('public', 'features') order by 1, 2"
        ).fetchall()

    def look(self) -> list[tuple[object, ...]]:
        """All tables with all their rows, all roles, and what each may do."""
        found: list[tuple[object, ...]] = [*self.tables(self.administrator)]
        for schema, table in self.names:
            statement = sql.SQL("select * from {}").format(sql.Identifier(schema, table))
            found += self.administrator.execute(statement).fetchall()
        found += self.administrator.execute("select * from pg_roles order by rolname").fetchall()
        return found


@pytest.fixture(scope="module")
def watch(asked: Settings) -> Iterator[Watch]:
    with connect(asked, asked.pipeline_database) as administrator:
        yield Watch.begin(administrator)


def test_a_clone_of_a_granted_database_is_granted(template: Settings, asked: Settings) -> None:
    with connect(template, asked.pipeline_database, as_reader=True) as connection:
        tables = [row for row in Watch.tables(connection) if row[1] != "schema_migrations"]
        for schema, table in tables:
            connection.execute(sql.SQL("table {}").format(sql.Identifier(schema, table)))
    assert len(tables) > 15


def test_a_selection_gives_columns_and_rows(asked: Settings) -> None:
    statement = "select ticker, cardinality(aliases) as n from universe where ticker = 'AAPL'"
    columns, found = select(asked, statement)
    assert (columns, [row[0] for row in found]) == (["ticker", "n"], ["AAPL"])


@pytest.mark.parametrize(
    "statement",
    [
        "table universe",
        "with x as (select 1 as n) select * from x",
        "values (1)",
        "explain select * from universe",
        "select * from features.features_1m",
        "select 1;",
        "show timezone",
        "select '100 %s' as said, ':x' as other",
    ],
)
def test_whatever_only_reads_is_answered(asked: Settings, statement: str) -> None:
    columns, _ = select(asked, statement)
    assert columns


def test_times_are_answered_in_utc(asked: Settings) -> None:
    assert select(asked, "show timezone")[1] == [("UTC",)]


@pytest.mark.parametrize(
    "statement",
    [
        "insert into universe values ('EVIL')",
        "update universe set aliases = '{}'",
        "delete from universe",
        "with x as (delete from universe returning ticker) select * from x",
        "drop table universe",
        "create table evil (id integer)",
        "create temp table evil (id integer)",
        "select * into evil from universe",
        "truncate universe",
        "alter table universe add column evil integer",
        "create role evil",
        "grant all on universe to public",
        "copy universe to program 'touch /tmp/evil'",
        "copy universe from program 'echo EVIL'",
        "copy universe to '/tmp/evil'",
        "select pg_read_file('/etc/passwd')",
        "select pg_ls_dir('/')",
        "select * from pg_authid",
        "select rolpassword from pg_shadow",
        "select pg_reload_conf()",
        "select lo_create(0)",
        "set role template_owner",
        "set role ops_pipeline",
        "set session authorization ops_pipeline",
        "select set_config('role', 'ops_pipeline', false)",
        "select set_config('role', 'ops_pipeline', true), (select count(*) from pg_authid)",
        "select set_config('transaction_read_only', 'off', false)",
        "set transaction read write",
        "set default_transaction_read_only = off",
        "do $$ begin delete from universe; end $$",
        "do $$ begin set local transaction_read_only = off; delete from universe; end $$",
        "select query_to_xml('delete from universe', true, true, '')",
        "select * from universe for update",
        "lock table universe",
        "select 1; select 2",
        "select 1; delete from universe",
        "commit; delete from universe",
        "begin read write",
        "commit",
        "rollback",
        "vacuum",
        "listen evil",
        "prepare evil as delete from universe",
        "explain analyze delete from universe",
        "declare evil cursor for select 1",
        "call evil()",
        "selct 1",
        "select * from no_such_table",
        "",
        "-- nothing",
        ";",
        "copy universe to stdout",
        "copy universe from stdin",
    ],
)
def test_whatever_is_more_than_reading_is_refused_and_changes_nothing(
    asked: Settings, watch: Watch, statement: str
) -> None:
    with pytest.raises((BadInput, Unsafe)):
        select(asked, statement)
    assert watch.look() == watch.before
    assert not Path("/tmp/evil").exists()  # noqa: S108 - the file that a statement above names


def test_a_write_is_called_unsafe(asked: Settings) -> None:
    with pytest.raises(Unsafe, match="refused: cannot execute DELETE in a read-only transaction"):
        select(asked, "delete from universe")


def test_what_the_role_may_not_see_is_called_unsafe(asked: Settings) -> None:
    with pytest.raises(Unsafe, match="refused: permission denied for table pg_authid"):
        select(asked, "select * from pg_authid")


def test_two_statements_are_called_bad_input(asked: Settings) -> None:
    with pytest.raises(BadInput, match="cannot insert multiple commands"):
        select(asked, "select 1; select 2")


@pytest.mark.parametrize(
    "statement",
    ["select 'infinity'::timestamptz", "select '-infinity'::date", "select '12000-01-01'::date"],
)
def test_a_value_that_python_does_not_know_is_called_bad_input(
    asked: Settings, statement: str
) -> None:
    with pytest.raises(BadInput, match="not a statement to read with"):
        select(asked, statement)


@pytest.mark.parametrize(
    "statement",
    ["select pg_sleep(60)", "select set_config('statement_timeout', '0', false), pg_sleep(60)"],
)
def test_a_statement_that_takes_too_long_is_stopped(asked: Settings, statement: str) -> None:
    with pytest.raises(TimedOut, match="statement timeout"):
        select(asked, statement)


def test_the_shipped_limit_is_ten_seconds_and_read_only(
    template: Settings, asked: Settings
) -> None:
    with connect(template, asked.pipeline_database, as_reader=True) as connection:
        limit = connection.execute("show statement_timeout").fetchone()
        read_only = connection.execute("show default_transaction_read_only").fetchone()
    assert (limit, read_only) == (("10s",), ("on",))


@pytest.mark.parametrize(
    "statement",
    [
        "delete from universe",
        "insert into universe values ('EVIL')",
        "create table evil (id integer)",
        "truncate dispatch_executions",
    ],
)
def test_a_reader_that_switches_read_only_off_still_may_not_write(
    asked: Settings, statement: str
) -> None:
    with connect(asked, asked.pipeline_database, as_reader=True) as connection:
        connection.execute("set default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


def test_the_other_modes_database_is_neither_written_nor_read(asked: Settings) -> None:
    other = replace(asked, mode=Mode.SANDBOX).pipeline_database
    with connect(asked, "postgres") as administrator:
        administrator.execute(sql.SQL("create database {}").format(sql.Identifier(other)))
    with connect(asked, other) as owner:
        owner.execute("create table kept (id integer)")
    with connect(asked, other, as_reader=True) as connection:
        connection.execute("set default_transaction_read_only = off")
        for statement in ("insert into kept values (1)", "select * from kept", "drop table kept"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
