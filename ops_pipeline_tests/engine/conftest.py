import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from dagster import DagsterInstance

from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.settings import connection_file

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
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    folder = tmp_path_factory.mktemp("postgres")
    server = EmbeddedServer.in_folder(folder)
    try:
        server.start()
        kept = json.loads(connection_file(folder).read_text(encoding="utf-8"))
        yield Postgres(kept["port"], kept["user"], kept["password"])
    finally:
        server.remove()


@pytest.fixture
def database(postgres: Postgres) -> str:
    name = f"dagster_{uuid4().hex}"
    with postgres.connect() as connection:
        connection.execute(f"create database {name}")
    return name


@pytest.fixture
def environment(
    postgres: Postgres, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A DAGSTER_HOME with the project's own dagster.yaml, and what that reads."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(PROJECT / "dagster.yaml", home)
    values = {
        "OPS_DAGSTER_DB_HOST": "127.0.0.1",
        "OPS_DAGSTER_DB_PORT": str(postgres.port),
        "OPS_DAGSTER_DB_NAME": database,
        "OPS_DAGSTER_DB_USER": postgres.user,
        "OPS_DAGSTER_DB_PASSWORD": postgres.password,
        "OPS_DAGSTER_DIR": str(tmp_path / "dagster"),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return home


@pytest.fixture
def instance(environment: Path) -> Iterator[DagsterInstance]:
    with DagsterInstance.from_config(str(environment)) as loaded:
        yield loaded
