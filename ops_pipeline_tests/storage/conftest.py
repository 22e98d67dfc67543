"""Most tests here write in one transaction: they share a database, and roll back."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine

from ops_pipeline.settings import Settings
from ops_pipeline.storage.engine import open_engine
from ops_pipeline_tests.storage.clones import clone


@pytest.fixture(scope="session")
def shared(template: Settings) -> Iterator[Engine]:
    """An engine on a clone that nobody commits to."""
    engine = open_engine(clone(template, "shared"))
    yield engine
    engine.dispose()


@pytest.fixture
def connection(shared: Engine) -> Iterator[Connection]:
    """A connection whose transaction is rolled back."""
    with shared.connect() as made:
        yield made
