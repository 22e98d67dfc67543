"""Two runs of the same minutes: one works at a stage, whoever started them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from threading import Event

import pytest
from dagster._core.storage.tags import SCHEDULE_NAME_TAG
from sqlalchemy.exc import DBAPIError

from ops_pipeline.defs import declare
from ops_pipeline.defs.minutes import Minutes, alone, finish, minutes_between
from ops_pipeline.defs.partitions import partition_key
from ops_pipeline.domain.errors import TimedOut
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.stages import BARS, FEATURES, NEWS, Stage
from ops_pipeline.settings import Settings
from ops_pipeline.storage import engine
from ops_pipeline.storage.engine import TurnTaken, turn_at
from ops_pipeline.storage.knowledge import clock
from ops_pipeline_tests.defs.markets import generated
from ops_pipeline_tests.defs.plays import DAY
from ops_pipeline_tests.defs.world import END, STAGES, START, World, open_world


@pytest.fixture
def world(template: Settings) -> Iterator[World]:
    with open_world(template) as world:
        yield world


def some_minutes(world: World, count: int = 3) -> Minutes:
    opens_at = world.session(date(2025, 2, 12)).opens_at
    return minutes_between(opens_at, opens_at + count * MINUTE, "a run", world.pipeline)


def work(world: World, minutes: Minutes, requested_at: datetime, stage: Stage = BARS) -> bool:
    """Finish the minutes if they are to be done; tells whether they were."""
    with alone(stage, minutes, world.pipeline, lambda: requested_at) as has_work:
        if has_work:
            with world.pipeline.engine.begin() as connection:
                finish(connection, stage, minutes, {})
        return has_work


def test_of_two_runs_that_were_asked_for_at_once_one_works(world: World) -> None:
    minutes, asked_at = some_minutes(world), clock()
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(lambda _: work(world, minutes, asked_at), range(2)))
    assert sorted(told) == [False, True]


def test_a_run_that_is_asked_for_afterwards_works_again(world: World) -> None:
    minutes = some_minutes(world)
    assert work(world, minutes, clock())
    assert work(world, minutes, clock())


def test_a_run_of_one_minute_more_works(world: World) -> None:
    asked_at = clock() - timedelta(seconds=1)
    assert work(world, some_minutes(world, 3), asked_at)
    assert work(world, some_minutes(world, 4), asked_at)


def test_a_closed_day_is_work_without_minutes(world: World) -> None:
    sunday = datetime.fromisoformat("2025-02-09T15:00Z")
    assert work(world, minutes_between(sunday, sunday + MINUTE, "", world.pipeline), clock())


def test_another_stage_does_not_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "TURN_WAIT_SECONDS", 1)
    with turn_at(world.pipeline.engine, BARS.name):
        assert work(world, some_minutes(world), clock(), NEWS)


def test_who_waits_too_long_is_told_for_what(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "TURN_WAIT_SECONDS", 1)
    with (
        turn_at(world.pipeline.engine, BARS.name),
        pytest.raises(TimedOut, match="another run has been at bars for 1 s"),
    ):
        work(world, some_minutes(world), clock())


@pytest.mark.parametrize("way", ["dies", "is frozen"])
def test_the_turn_of_a_run_that_ends_so_is_given_on(
    world: World, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    taken, over = Event(), Event()
    if way == "is frozen":
        monkeypatch.setattr(engine, "TURN_SECONDS", 1)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(held, world, taken, over)
        taken.wait(10)
        if way == "dies":
            world.execute(
                "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'"
                " and classid = :key",
                key=engine.STAGE_LOCK,
            )
        assert work(world, some_minutes(world), clock())
        over.set()
        with pytest.raises(DBAPIError):
            holding.result()


# A run that takes long.


def held(world: World, taken: Event, over: Event, stage: Stage = BARS) -> None:
    """Be at a stage until it is over."""
    with turn_at(world.pipeline.engine, stage.name):
        taken.set()
        over.wait(20)


def test_a_run_that_works_for_long_keeps_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "TURN_SECONDS", 1)
    monkeypatch.setattr(engine, "ALIVE_SECONDS", 0.2)
    taken, over = Event(), Event()
    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(held, world, taken, over)
        taken.wait(10)
        with (
            pytest.raises(TurnTaken, match="another run has been at bars for 3 s"),
            turn_at(world.pipeline.engine, BARS.name, 3),
        ):
            pass
        over.set()
        holding.result()


def finished(world: World) -> set[str]:
    return {row["stage"] for row in world.rows("select distinct stage from stage_minutes")}


@pytest.mark.parametrize("busy", [BARS, FEATURES])
def test_a_tick_that_does_not_get_its_turn_is_left_to_the_next_one(
    world: World, monkeypatch: pytest.MonkeyPatch, busy: Stage
) -> None:
    monkeypatch.setattr(declare, "TICK_WAIT_SECONDS", 1)
    world.open_market(*generated(DAY), days=(DAY, DAY))
    key = partition_key(world.session(DAY).opens_at, world.calendar)
    tick = {START: key, END: key, SCHEDULE_NAME_TAG: "minute_schedule"}
    with turn_at(world.pipeline.engine, busy.name):
        outcome = world.job("minute_job", tags=tick)
    assert outcome.success
    left_out = {busy.name, "features", "watchlist", "signals"}
    assert finished(world) == set(STAGES) - left_out
    assert world.value("select count(*) as n from minute_cutoffs") == 0
    assert world.job("minute_job", tags=tick).success
    assert finished(world) == set(STAGES)


def test_a_run_of_a_person_says_that_it_did_not_get_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "TURN_WAIT_SECONDS", 1)
    world.open_market(*generated(DAY), days=(DAY, DAY))
    opens_at = world.session(DAY).opens_at
    with (
        turn_at(world.pipeline.engine, BARS.name),
        pytest.raises(TurnTaken, match="another run has been at bars for 1 s"),
    ):
        world.range(opens_at, opens_at)
