"""A replay steps through minutes, and playing them again changes nothing."""

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from ops_pipeline.dispatcher.replay import Played, play
from ops_pipeline.domain.errors import Unsafe
from ops_pipeline.domain.session import Timing
from ops_pipeline.settings import Mode
from ops_pipeline.storage import dispatch, knowledge
from ops_pipeline_tests.builders import NOON, a_bar
from ops_pipeline_tests.dispatcher.world import World, features, moved

MINUTES = [NOON + timedelta(minutes=n) for n in range(8)]
HASHES = (
    "select md5(row::text) from dispatch_recommendations as row order by id",
    "select md5(row::text) from dispatch_executions as row order by execution_id",
)


def make_market(world: World) -> None:
    """A ticker that is bought at the first minute and reaches its target, one that stays."""
    for n, minute in enumerate(MINUTES):
        rising = 200.0 + n
        bar = a_bar(open=rising, high=rising, low=rising, close=rising)
        world.trade(moved(bar, n), moved(a_bar(ticker="MSFT"), n))
        world.feature("AAPL", minute)
        world.feature("MSFT", minute)
    for ticker, minute in (("AAPL", MINUTES[0]), ("MSFT", MINUTES[3]), ("TSLA", MINUTES[4])):
        world.recommend(
            ticker=ticker,
            minute=minute,
            ts=minute + timedelta(seconds=80),
            features_snapshot=features(ts=minute.isoformat()),
        )


def played(world: World) -> Played:
    return play(world.desk, MINUTES, Timing())


def test_a_replay_adds_up_what_its_runs_did(world: World) -> None:
    make_market(world)
    found = played(world)
    assert (found.pulled, found.simulated, found.skipped, found.failed) == (4, 3, 1, 0)


def test_a_replay_runs_until_nothing_waits_in_every_minute(world: World) -> None:
    make_market(world)
    found = played(world)
    assert found.runs == len(MINUTES) + 3
    starts = world.ask("select distinct started_at from dispatcher_runs order by 1")
    assert starts == [(minute + timedelta(seconds=80),) for minute in MINUTES]


def test_the_present_is_that_of_the_minute_while_it_is_played(world: World) -> None:
    seen: list[datetime] = []

    def look(minute: datetime) -> None:
        with world.engine.connect() as connection:
            seen.append(knowledge.read_now(connection, Mode.REPLAY))

    play(world.desk, MINUTES[:3], Timing(settle_seconds=7), look)
    assert seen == [minute + timedelta(seconds=67) for minute in MINUTES[:3]]


def test_a_second_play_of_the_same_minutes_changes_nothing(world: World) -> None:
    make_market(world)
    played(world)
    before = [world.ask(statement) for statement in HASHES]
    assert played(world).pulled == 0
    assert [world.ask(statement) for statement in HASHES] == before
    assert [len(found) for found in before] == [4, 3]


def test_a_played_minute_is_not_run_again(world: World) -> None:
    make_market(world)
    played(world)
    runs = "select count(*) from dispatcher_runs"
    before = world.ask(runs)
    assert played(world) == Played()
    assert world.ask(runs) == before


def test_the_present_ends_at_the_last_minute_also_when_all_were_played(world: World) -> None:
    make_market(world)
    played(world)
    play(world.desk, MINUTES[:2], Timing())
    assert world.ask("select present from replay_clock") == [(MINUTES[1] + timedelta(seconds=80),)]


def test_a_replay_takes_up_what_a_dead_driver_held(world: World) -> None:
    """The lease of a dead run lasts a minute of the clock: minutes of a replay are faster."""
    make_market(world)
    with pytest.raises(ZeroDivisionError):
        play(world.desk, MINUTES, Timing(), lambda minute: die(world, minute))
    assert world.ask("select status from dispatch_recommendations where ticker = 'MSFT'") == [
        ("PROCESSING",)
    ]
    play(world.desk, MINUTES, Timing())
    statuses = "select distinct status from dispatch_recommendations where ticker <> 'TSLA'"
    assert world.ask(statuses) == [("SIMULATED",)]
    assert world.ask("select count(*) from dispatch_executions") == [(3,)]


def die(world: World, minute: datetime) -> None:
    """Claim what the next minute has to decide, and end before it is decided."""
    if minute != MINUTES[2]:
        return
    with world.engine.begin() as connection:
        run_id = uuid4()
        at = MINUTES[3] + timedelta(seconds=80)
        dispatch.insert_run(
            connection,
            run_id,
            at,
            world.desk.config,
            mode="replay",
            code_version="0",
            orchestrator_run_id="dead",
        )
        assert dispatch.claim(connection, run_id, at, world.desk.config)
    raise ZeroDivisionError


def test_two_drivers_do_not_play_at_once(world: World) -> None:
    make_market(world)
    said: list[str] = []

    def second(minute: datetime) -> None:
        with pytest.raises(Unsafe, match="another replay is at work") as caught:
            play(world.desk, MINUTES[1:], Timing())
        said.append(str(caught.value))

    play(world.desk, MINUTES[:1], Timing(), second)
    assert len(said) == 1


def test_only_a_replay_is_played(world: World) -> None:
    desk = replace(world.desk, mode=Mode.SANDBOX)
    with pytest.raises(Unsafe, match="not traded in sandbox mode"):
        play(desk, MINUTES, Timing())
    assert world.ask("select 1 from replay_clock") == []
    assert world.ask("select 1 from dispatcher_runs") == []


def test_without_a_present_of_its_own_a_run_reads_the_replays(world: World) -> None:
    from ops_pipeline.dispatcher.run import run_once

    with world.engine.begin() as connection:
        knowledge.set_present(connection, NOON)
    run_once(world.desk)
    assert world.ask("select started_at, finished_at from dispatcher_runs") == [(NOON, NOON)]
