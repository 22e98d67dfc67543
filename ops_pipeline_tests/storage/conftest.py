"""Most tests here write in one transaction: they share a database, and roll back."""

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, Engine

from ops_pipeline.settings import Settings
from ops_pipeline.storage.engine import open_engine


@pytest.fixture(scope="session")
def shared(template: Settings) -> Iterator[Engine]:
    """An engine on a clone that nobody commits to."""
    owner = template.server
    assert owner is not None
    own = replace(template, server=replace(owner, base_name="shared"))
    names = [sql.Identifier(name) for name in (own.pipeline_database, template.pipeline_database)]
    with psycopg.connect(
        host=owner.host,
        port=owner.port,
        user=owner.user,
        password=owner.password,
        dbname="postgres",
        autocommit=True,
    ) as administrator:
        administrator.execute(sql.SQL("create database {} template {}").format(*names))
    engine = open_engine(own)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(shared: Engine) -> Iterator[Connection]:
    """A connection whose transaction is rolled back."""
    with shared.connect() as made:
        yield made
