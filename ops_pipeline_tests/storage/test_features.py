"""Feature rows as the rules and the dispatcher read them."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine

from ops_pipeline.storage import features, knowledge
from ops_pipeline.storage.knowledge import counts_by_minute
from ops_pipeline_tests.builders import NOON, SESSION, a_bar, at
from ops_pipeline_tests.dispatcher.world import TS, World
from ops_pipeline_tests.storage.rows import rows


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def stamp(world: World, cutoff: datetime) -> None:
    """Let noon know what was known at this instant."""
    with world.engine.begin() as connection:
        knowledge.stamp_cutoffs(connection, [(SESSION, NOON)], {NOON: cutoff}, "a")


def test_features_come_back_by_minute(world: World) -> None:
    world.feature("MSFT")
    world.feature("AAPL")
    stamp(world, TS)
    with world.engine.connect() as connection:
        found = features.features_between(connection, NOON, at(500))
        counted = counts_by_minute(connection, "features", NOON, at(500))
    assert [row.ticker for row in found[NOON]] == ["AAPL", "MSFT"]
    assert counted == {NOON: 2}


@pytest.mark.parametrize(("late", "known"), [(0, ["AAPL", "MSFT"]), (1, ["AAPL"])])
def test_a_minute_knows_no_features_that_came_after_its_cutoff(
    world: World, late: int, known: list[str]
) -> None:
    for ticker in ("AAPL", "MSFT"):
        world.feature(ticker)
    stamp(world, TS)
    with world.engine.begin() as connection:
        rows(
            connection,
            "update features.features_1m set available_at = :at where ticker = 'MSFT' returning 1",
            at=TS + late * timedelta(microseconds=1),
        )
        found = features.features_between(connection, NOON, at(500))
    assert [row.ticker for row in found[NOON]] == known


def test_a_minute_without_a_cutoff_knows_no_features(world: World) -> None:
    world.feature()
    with world.engine.connect() as connection:
        assert features.features_between(connection, NOON, at(500)) == {}


def test_features_are_known_from_their_availability_on(world: World) -> None:
    world.feature()
    known_at = NOON + timedelta(minutes=1)
    with world.engine.connect() as connection:
        before = features.newest_feature_bars(
            connection, ["AAPL"], known_at - timedelta(microseconds=1)
        )
        after = features.newest_feature_bars(connection, ["AAPL"], known_at)
    assert (before, after) == ({}, {"AAPL": NOON})


def test_why_tickers_have_no_features_is_counted(world: World) -> None:
    world.trade(a_bar(), a_bar(ticker="MSFT"))
    world.feature("AAPL")
    world.execute("delete from universe where ticker not in ('AAPL', 'MSFT', 'NVDA')")
    stamp(world, TS)
    with world.engine.connect() as connection:
        found = features.missing_between(connection, NOON, at(500))
    assert found == {"fewer_than_50_bars": 1, "no_bar": 1}
