"""Migrations run once, in order, all or nothing, and never differently from how they ran."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.settings import Settings
from ops_pipeline.storage.engine import open_engine
from ops_pipeline.storage.migrate import Migration, check_numbers, migrate, shipped

FIRST = Migration(1, "0001_first.sql", "create table first (id integer);")
SECOND = Migration(2, "0002_second.sql", "create table second (id integer);")
BROKEN = Migration(2, "0002_broken.sql", "create table broken (id integer); select 1 / 0;")
COLUMNS = (
    "select table_schema, table_name, column_name, data_type, is_nullable, column_default"
    " from information_schema.columns where table_schema in ('public', 'features')"
)
CONSTRAINTS = (
    "select conrelid::regclass::text, pg_get_constraintdef(oid) from pg_constraint"
    " where connamespace in ('public'::regnamespace, 'features'::regnamespace)"
)
INDEXES = "select indexdef from pg_indexes where schemaname in ('public', 'features')"
TRIGGERS = "select pg_get_triggerdef(oid) from pg_trigger where not tgisinternal"


@pytest.fixture
def empty(server: Settings) -> Iterator[Engine]:
    """An engine on a database without any table."""
    name = f"empty{uuid4().hex[:12]}"
    owner = server.server
    assert owner is not None
    with psycopg.connect(
        host=owner.host,
        port=owner.port,
        user=owner.user,
        password=owner.password,
        dbname="postgres",
        autocommit=True,
    ) as administrator:
        administrator.execute(f'create database "{name}"')
        engine = open_engine(server, name)
        yield engine
        engine.dispose()
        administrator.execute(f'drop database "{name}" with (force)')


def tables(engine: Engine) -> set[str]:
    statement = "select tablename from pg_tables where schemaname in ('public', 'features')"
    with engine.connect() as connection:
        return set(connection.execute(text(statement)).scalars())


def schema(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    with engine.connect() as connection:
        return {
            statement: sorted(tuple(map(str, row)) for row in connection.execute(text(statement)))
            for statement in (COLUMNS, CONSTRAINTS, INDEXES, TRIGGERS)
        }


@pytest.mark.parametrize(
    ("numbers", "named"),
    [([1, 3], 3), ([2], 2), ([1, 1], 1), ([1, 2, 2, 3], 2), ([0, 1], 0)],
    ids=["gap", "no first", "first twice", "second twice", "zero"],
)
def test_a_gap_or_a_number_that_stands_twice_is_refused(numbers: list[int], named: int) -> None:
    with pytest.raises(BadConfiguration, match=f"migration {named:04}_x.sql should be number"):
        check_numbers([Migration(number, f"{number:04}_x.sql", "") for number in numbers])


def test_a_migration_that_was_edited_after_it_ran_is_refused_by_name(empty: Engine) -> None:
    migrate(empty, [FIRST])
    edited = replace(FIRST, sql=FIRST.sql + " -- a word more")
    with pytest.raises(BadConfiguration, match=r"0001_first\.sql was edited after it ran"):
        migrate(empty, [edited, SECOND])


def test_nothing_runs_behind_an_edited_migration(empty: Engine) -> None:
    migrate(empty, [FIRST])
    with pytest.raises(BadConfiguration):
        migrate(empty, [replace(FIRST, sql="select 1;"), SECOND])
    assert tables(empty) == {"first", "schema_migrations"}


def test_one_by_one_gives_the_same_schema_as_all_at_once(empty: Engine, engine: Engine) -> None:
    for count in range(1, len(shipped()) + 1):
        assert migrate(empty, shipped()[:count]) == [shipped()[count - 1].name]
    assert schema(empty) == schema(engine)


def test_classes_of_shares_that_are_tracked_get_their_one_spelling(empty: Engine) -> None:
    before = next(m.number for m in shipped() if "name_classes" in m.name) - 1
    migrate(empty, shipped()[:before])
    with empty.begin() as connection:
        connection.execute(text("insert into universe values ('BRK-B'), ('BF.B'), ('BF-B'), ('A')"))
    migrate(empty)
    with empty.connect() as connection:
        found = connection.execute(text("select ticker from universe order by 1")).scalars()
        assert list(found) == ["A", "BF.B", "BRK.B"]


def test_a_second_time_runs_nothing(engine: Engine) -> None:
    assert migrate(engine) == []


def test_two_processes_that_migrate_at_once_run_each_migration_once(empty: Engine) -> None:
    with ThreadPoolExecutor(4) as pool:
        ran = list(pool.map(lambda _: migrate(empty), range(4)))
    assert sorted(name for names in ran for name in names) == [m.name for m in shipped()]


def test_a_migration_that_fails_leaves_nothing_of_itself(empty: Engine) -> None:
    with pytest.raises(DBAPIError, match="division by zero"):
        migrate(empty, [FIRST, BROKEN])
    assert tables(empty) == {"first", "schema_migrations"}


def test_a_migration_that_failed_can_be_corrected_and_run(empty: Engine) -> None:
    with pytest.raises(DBAPIError):
        migrate(empty, [FIRST, BROKEN])
    assert migrate(empty, [FIRST, SECOND]) == [SECOND.name]


def test_percent_signs_and_colons_of_a_migration_reach_the_server_as_they_are(
    empty: Engine,
) -> None:
    odd = "create table odd as select '100 %s :name'::text as said;"
    migrate(empty, [Migration(1, "0001_odd.sql", odd)])
    with empty.connect() as connection:
        assert connection.execute(text("select said from odd")).scalar_one() == "100 %s :name"


def test_a_database_of_a_newer_version_is_refused(engine: Engine) -> None:
    with pytest.raises(BadConfiguration, match="this version knows 2"):
        migrate(engine, shipped()[:2])
