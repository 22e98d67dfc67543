"""A quarantined ticker is neither bought nor sold, whatever else is well."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from ops_pipeline.storage.quarantine import OVERNIGHT_GAP, Quarantine, insert_quarantine, release
from ops_pipeline_tests.builders import DAY, NOON
from ops_pipeline_tests.dispatcher.world import World


@pytest.fixture
def world(engine: Engine) -> World:
    made = World(engine)
    made.trade()
    with engine.begin() as connection:
        insert_quarantine(connection, Quarantine("AAPL", DAY, OVERNIGHT_GAP, 0.4, NOON))
    return made


def test_a_quarantined_ticker_is_not_bought(world: World) -> None:
    world.recommend()
    world.run()
    assert world.outcomes() == [("SKIPPED", "bar_freshness: Ticker quarantined")]
    assert world.executions() == 0


def test_after_its_release_it_is_bought(world: World) -> None:
    with world.engine.begin() as connection:
        release(connection, "AAPL", NOON + timedelta(seconds=1), "a real jump")
    world.recommend()
    world.run()
    assert world.outcomes() == [("SIMULATED", None)]


def test_another_ticker_is_bought(world: World) -> None:
    world.trade(ticker="MSFT")
    world.recommend(ticker="MSFT")
    world.run()
    assert world.outcomes() == [("SIMULATED", None)]


def test_no_exit_is_proposed_for_a_quarantined_position(world: World) -> None:
    world.hold()
    world.feature()
    world.trade(minute=NOON + timedelta(minutes=1), close=100.0, low=99.0)
    world.run(NOON + timedelta(seconds=140))
    assert world.ask("select count(*) from dispatch_recommendations where intent = 'close'") == [
        (0,)
    ]
    with world.engine.begin() as connection:
        release(connection, "AAPL", NOON + timedelta(seconds=141), "looked at it")
    world.run(NOON + timedelta(seconds=145))
    assert world.ask("select status from dispatch_recommendations where intent = 'close'") == [
        ("SIMULATED",)
    ]
