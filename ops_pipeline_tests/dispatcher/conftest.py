"""Tests here commit: they share a database, and empty what they have filled."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from ops_pipeline.settings import Settings
from ops_pipeline.storage.engine import open_engine
from ops_pipeline_tests.dispatcher.world import World
from ops_pipeline_tests.storage.clones import clone

FILLED = (
    "dispatch_executions",
    "dispatch_recommendations",
    "dispatcher_runs",
    "bars_1m",
    "bar_revisions",
    "features.features_1m",
    "replay_clock",
    "stage_minutes",
)


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
    with desk_engine.begin() as connection:
        # The ledger refuses to be emptied, as it should: its guards are triggers.
        connection.execute(text("set local session_replication_role = replica"))
        for table in FILLED:
            connection.execute(text(f"delete from {table}"))
        connection.execute(text("update trading_state set state = 'ACTIVE'"))
