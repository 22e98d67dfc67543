"""The same stretch played in other pieces, or played again, gives the same rows."""

from collections.abc import Iterator
from datetime import date, datetime

import dagster as dg
import pytest

from ops_pipeline.settings import Settings
from ops_pipeline_tests.defs.markets import generated
from ops_pipeline_tests.defs.plays import (
    DAY,
    as_minutes,
    as_range,
    as_range_by_hand,
    hashes,
    require_rows,
)
from ops_pipeline_tests.defs.world import World, open_world, prepare


def test_minute_runs_and_a_range_give_equal_rows(template: Settings) -> None:
    # Four minutes around a decision of the watchlist.
    piece = slice(13, 17)
    ranged = hashes(template, DAY, as_range, piece)
    single = hashes(template, DAY, as_minutes, piece)
    assert single == ranged
    require_rows(ranged, executions=False)


def test_same_minutes_in_two_worlds_give_equal_rows(template: Settings) -> None:
    first, second = (hashes(template, DAY, as_range_by_hand, slice(0, 6)) for _ in range(2))
    assert first == second


def test_hashes_see_a_change_in_any_column(world: World) -> None:
    world.open_market(*generated(DAY))
    minutes = world.session(DAY).minutes()
    world.stages(minutes[0], minutes[1])
    before = world.hashes()
    world.execute(
        "update features.features_1m set sma20 = sma20 + 1e-12 where (ticker, minute) in "
        "(select 'AAPL', min(minute) from features.features_1m)"
    )
    changed = world.hashes()
    assert {name for name in before if before[name] != changed[name]} == {"features.features_1m"}


def test_minute_runs_across_open_and_close_equal_ranges(template: Settings) -> None:
    # A decision of the watchlist is in the midst of either.
    pieces = slice(0, 8), slice(-8, None)
    ranged = hashes(template, DAY, as_range, *pieces)
    single = hashes(template, DAY, as_minutes, *pieces)
    assert single == ranged
    require_rows(ranged, executions=False)


@pytest.fixture(scope="module")
def eleven_minutes(template: Settings) -> Settings:
    def play(world: World) -> None:
        world.open_market(*generated(DAY))
        world.stages(minute(world, 0), minute(world, 10))

    return prepare(template, "eleven_minutes", play)


@pytest.fixture
def played(eleven_minutes: Settings) -> Iterator[World]:
    """The first eleven minutes of a day: three decisions of the watchlist."""
    with open_world(eleven_minutes) as world:
        world.open_market(*generated(DAY), days=(DAY, DAY))
        yield world


def minute(world: World, number: int) -> datetime:
    return world.session(DAY).minutes()[number]


def test_range_played_again_changes_nothing(played: World) -> None:
    before = played.hashes()
    played.range(minute(played, 0), minute(played, 10))
    assert played.hashes() == before


def test_single_minute_played_again_changes_nothing(played: World) -> None:
    before = played.hashes()
    played.stages(minute(played, 7), minute(played, 7))
    assert played.hashes() == before


def test_dispatcher_played_again_executes_nothing(played: World) -> None:
    minutes = played.session(DAY).minutes()[:11]
    played.dispatch(minutes)
    executed = "select count(*) from dispatch_executions"
    before = played.value(executed)
    assert played.dispatch(minutes).simulated == 0
    assert played.value(executed) == before


def plant(world: World, number: int) -> None:
    """A bar that reads differently from what was decided on."""
    world.execute(
        "update bars_1m set close = close * 0.97, low = low * 0.9"
        " where ticker = 'AAPL' and minute = :at",
        at=minute(world, number),
    )


def test_decided_watchlist_that_differs_now_fails_the_run(played: World) -> None:
    plant(played, 5)
    with pytest.raises(dg.Failure, match="watchlist of 2025-02-12T14:35:00") as caught:
        played.range(minute(played, 5), minute(played, 6))
    said = [str(caught.value.metadata[name].value) for name in ("stored", "computed")]
    assert all(text.startswith("WatchlistEntry(") for text in said)
    assert said[0] != said[1]


def test_decided_signals_that_differ_now_fail_the_run(played: World) -> None:
    plant(played, 6)
    with pytest.raises(dg.Failure, match="signals of 2025-02-12T14:36:00"):
        played.range(minute(played, 6), minute(played, 7))


def test_failed_comparison_rewrites_no_decision(played: World) -> None:
    before = played.hashes()
    plant(played, 6)
    with pytest.raises(dg.Failure):
        played.stages(minute(played, 6), minute(played, 7))
    after = played.hashes()
    names = ("watchlist_entries", "signals", "dispatch_recommendations")
    assert [after[name] for name in names] == [before[name] for name in names]


def test_late_bar_changes_no_decided_minute(world: World) -> None:
    """What comes in after the cut-offs is no reason to decide otherwise."""
    bars, news = generated(DAY)
    late = next(bar for bar in bars if (bar.ticker, bar.minute) == ("AAPL", minute(world, 5)))
    world.open_market([bar for bar in bars if bar is not late], news)
    world.stages(minute(world, 0), minute(world, 10))
    before = world.hashes()
    world.execute(
        """
        insert into bars_1m (ticker, minute, session_date, open, high, low, close, volume, feed,
            origin, available_at)
        values (:ticker, :minute, :day, :open, :high, :low, :close, :volume, 'replay', 'recorded',
            :later)""",
        **late.__dict__,
        day=DAY,
        later=minute(world, 20),
    )
    world.stages(minute(world, 0), minute(world, 10), ["features", "watchlist", "signals"])
    after = world.hashes()
    assert {name for name in after if after[name] != before[name]} == {"bars_1m"}


def test_sessions_are_played_one_after_the_other_in_one_process(world: World) -> None:
    """What dbt compiled for the first run must not stand in the way of the second."""
    days = (date(2025, 2, 12), date(2025, 2, 13))
    world.open_market(*generated(*days), days=days)
    for day in days:
        minutes = world.session(day).minutes()
        assert world.range(minutes[0], minutes[1]).success
        world.dispatch(minutes[:1])
        assert world.job("acceptance_job").success
    assert len(world.features()) == 2 * 2 * 7
