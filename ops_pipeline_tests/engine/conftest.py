import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from dagster import DagsterInstance

from ops_pipeline.settings import Settings
from ops_pipeline.storage.engine import server_of

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Postgres:
    """The server of this test session."""

    port: int
    user: str
    password: str

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A connection as superuser, committing by itself."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=self.user,
            password=self.password,
            dbname=database,
            autocommit=True,
        )


@pytest.fixture(scope="session")
def postgres(server: Settings) -> Postgres:
    known = server_of(server)
    return Postgres(known.port, known.user, known.password)


@pytest.fixture(scope="session")
def dagsters(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with Dagster's tables, made by the project's own dagster.yaml, to be cloned."""
    name, folder = "dagsters", tmp_path_factory.mktemp("dagsters")
    with postgres.connect() as connection:
        connection.execute(f"create database {name}")
    with (
        pytest.MonkeyPatch.context() as patched,
        DagsterInstance.from_config(str(_home(postgres, name, folder, patched))),
    ):
        return name


@pytest.fixture
def untouched(postgres: Postgres) -> str:
    """A database that Dagster never saw."""
    return _created(postgres, "template1")


@pytest.fixture
def database(postgres: Postgres, dagsters: str) -> str:
    """A database with Dagster's tables, of this test's own."""
    return _created(postgres, dagsters)


@pytest.fixture
def environment(
    postgres: Postgres, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A DAGSTER_HOME with the project's own dagster.yaml, and what that reads."""
    return _home(postgres, database, tmp_path, monkeypatch)


@pytest.fixture
def instance(environment: Path) -> Iterator[DagsterInstance]:
    with DagsterInstance.from_config(str(environment)) as loaded:
        yield loaded


def _created(postgres: Postgres, template: str) -> str:
    name = f"dagster_{uuid4().hex}"
    with postgres.connect() as connection:
        connection.execute(f"create database {name} template {template}")
    return name


def _home(postgres: Postgres, database: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = folder / "home"
    home.mkdir()
    shutil.copy(PROJECT / "dagster.yaml", home)
    values = {
        "OPS_DAGSTER_DB_HOST": "127.0.0.1",
        "OPS_DAGSTER_DB_PORT": str(postgres.port),
        "OPS_DAGSTER_DB_NAME": database,
        "OPS_DAGSTER_DB_USER": postgres.user,
        "OPS_DAGSTER_DB_PASSWORD": postgres.password,
        "OPS_DAGSTER_DIR": str(folder / "dagster"),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return home
