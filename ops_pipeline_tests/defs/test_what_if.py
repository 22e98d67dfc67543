"""A what-if over a generated half day is what its dispatcher does under those settings."""

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from ops_pipeline.dispatcher.replay import Played, play
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.operations.what_if import WhatIf, what_if
from ops_pipeline.settings import Mode, Settings
from ops_pipeline_tests.defs.markets import generated
from ops_pipeline_tests.defs.world import World, open_world, prepare

HALF_DAY = date(2025, 11, 28)
CHANGES = {"confidence_min": 0.5, "max_trades_per_ticker_per_day": 4, "slippage_bps": 1.0}


@pytest.fixture(scope="module")
def decided(template: Settings) -> Settings:
    """All stages but the last one of a generated half day."""

    def make(world: World) -> None:
        world.open_market(*generated(HALF_DAY))
        minutes = world.session(HALF_DAY).minutes()
        world.stages(minutes[0], minutes[-1])

    return prepare(template, "what_if_half_day", make)


def traded(world: World, **changes: Any) -> Played:
    """The dispatcher over the half day, under changed settings."""
    desk = world.pipeline.desk("test")
    config = DispatcherConfig(**{**desk.config.model_dump(), **changes})
    minutes = world.session(HALF_DAY).minutes()
    return play(replace(desk, config=config), minutes, world.pipeline.timing)


def ask(world: World, **changes: Any) -> WhatIf:
    with world.pipeline.engine.connect() as connection:
        return what_if(connection, Mode.REPLAY, (HALF_DAY, HALF_DAY), changes)


@pytest.mark.slow
def test_a_what_if_of_a_generated_half_day_is_a_real_run_of_it(decided: Settings) -> None:
    with open_world(decided) as world:
        traded(world)
        found = ask(world, **CHANGES)
    with open_world(decided) as world:
        real = traded(world, **CHANGES)
        again = ask(world)
    assert found.is_reproduced
    assert again.is_reproduced
    assert found.after == again.before
    assert found.before.executed > 0
    assert (found.after.executed, found.after.skipped) == (real.simulated, real.skipped)
    assert found.after.executed > found.before.executed
