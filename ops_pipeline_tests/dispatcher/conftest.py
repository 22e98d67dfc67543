"""Tests here commit: they share a database, and empty what they have filled."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from ops_pipeline.settings import Settings
from ops_pipeline.storage.engine import open_engine
from ops_pipeline_tests.dispatcher.world import World, empty
from ops_pipeline_tests.storage.clones import clone


@pytest.fixture(scope="session")
def desk_engine(template: Settings) -> Iterator[Engine]:
    """An engine on a clone that is emptied after each test."""
    engine = open_engine(clone(template, "desk"))
    yield engine
    engine.dispose()


@pytest.fixture
def world(desk_engine: Engine) -> Iterator[World]:
    """A desk at a database with nothing on it."""
    yield World(desk_engine)
    empty(desk_engine)
