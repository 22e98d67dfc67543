"""Runs the numbered migrations forward, and refuses one that was edited after it ran."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.settings import Settings
from ops_pipeline.storage.engine import opened

_FILE = re.compile(r"(\d{4})_\w+\.sql")
_LOCK = 7_310_002


@dataclass(frozen=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """What the file's text hashes to."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def shipped() -> list[Migration]:
    """The migrations of this version, in order.

    Raises:
        BadConfiguration: a number is missing or stands twice.
    """
    folder = files("ops_pipeline.storage").joinpath("migrations")
    found = sorted(path.name for path in folder.iterdir() if _FILE.fullmatch(path.name))
    migrations = [
        Migration(int(name[:4]), name, folder.joinpath(name).read_text(encoding="utf-8"))
        for name in found
    ]
    check_numbers(migrations)
    return migrations


def check_numbers(migrations: list[Migration]) -> None:
    """Refuse a list of migrations that is not numbered 1, 2, 3 and so on."""
    for expected, migration in enumerate(migrations, start=1):
        if migration.number != expected:
            raise BadConfiguration(f"migration {migration.name} should be number {expected:04}")


def migrate(engine: Engine, migrations: list[Migration] | None = None) -> list[str]:
    """Bring a database up to this version; each migration is one transaction.

    Returns:
        The names of the migrations that ran.

    Raises:
        BadConfiguration: a migration that has run before reads differently now, or the database
            belongs to a newer version.
    """
    ran = []
    ours = shipped() if migrations is None else migrations
    _refuse_newer(engine, len(ours))
    for migration in ours:
        with engine.begin() as connection:
            connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            if _run(connection, migration):
                ran.append(migration.name)
    return ran


def pending(engine: Engine) -> list[str]:
    """The migrations of this version that did not run yet."""
    with engine.connect() as connection:
        if connection.execute(text("select to_regclass('schema_migrations')")).scalar() is None:
            return [migration.name for migration in shipped()]
        numbers = connection.execute(text("select number from schema_migrations"))
        done = {int(row[0]) for row in numbers}
    return [migration.name for migration in shipped() if migration.number not in done]


@contextmanager
def migrated(settings: Settings) -> Iterator[None]:
    """Turn what a database without this version's tables refuses into one line.

    Raises:
        BadConfiguration: a statement was refused, and migrations wait.
    """
    try:
        yield
    except ProgrammingError as error:
        with opened(settings) as engine:
            waiting = pending(engine)
        if not waiting:
            raise
        told = f"{len(waiting)} migrations did not run in {settings.pipeline_database}"
        raise BadConfiguration(told, "run: ops-pipeline init") from error


def _refuse_newer(engine: Engine, newest: int) -> None:
    with engine.connect() as connection:
        if connection.execute(text("select to_regclass('schema_migrations')")).scalar() is None:
            return
        reached = connection.execute(text("select max(number) from schema_migrations")).scalar()
    if reached and reached > newest:
        raise BadConfiguration(
            f"the database is at migration {reached}, and this version knows {newest}",
            "use the newer version, or another DATABASE_URL",
        )


def _run(connection: Connection, migration: Migration) -> bool:
    connection.execute(
        text(
            "create table if not exists schema_migrations ("
            " number integer primary key, name text not null, checksum text not null,"
            " applied_at timestamptz not null default clock_timestamp())"
        )
    )
    known = connection.execute(
        text("select checksum from schema_migrations where number = :number"),
        {"number": migration.number},
    ).scalar()
    if known == migration.checksum:
        return False
    if known is not None:
        raise BadConfiguration(
            f"migration {migration.name} was edited after it ran; add a new one instead"
        )
    # Without parameters the driver sends the file as it is, with several statements and % signs.
    connection.exec_driver_sql(migration.sql, execution_options={"no_parameters": True})
    connection.execute(
        text(
            "insert into schema_migrations (number, name, checksum) values (:number, :name, :sum)"
        ),
        {"number": migration.number, "name": migration.name, "sum": migration.checksum},
    )
    return True
