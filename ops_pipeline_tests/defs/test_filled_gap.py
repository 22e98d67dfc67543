"""A gap that is filled late: what was decided before it stays as it was decided."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from ops_pipeline.defs import lookahead
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.thresholds import WatchlistRules
from ops_pipeline.settings import Mode, Settings
from ops_pipeline_tests.defs.markets import generated
from ops_pipeline_tests.defs.plays import DAY
from ops_pipeline_tests.defs.world import World, _on_a_short_stack, open_world, prepare

DECIDED = ("watchlist_entries", "signals", "dispatch_recommendations")
LATER = timedelta(days=3)
LAST = 16


def minute(world: World, number: int) -> datetime:
    return world.session(DAY).minutes()[number]


def stamp(world: World, first: int, last: int, late: timedelta = timedelta()) -> None:
    """Let these minutes know what was known so long after their usual decision instant."""
    session = world.session(DAY)
    for number in range(first, last + 1):
        at = minute(world, number)
        world.execute(
            "insert into minute_cutoffs (minute, session_date, session_opens_at, cutoff, run_id)"
            " values (:at, :day, :opens_at, :cutoff, 'by hand')",
            at=at,
            day=session.day,
            opens_at=session.opens_at,
            cutoff=world.pipeline.timing.as_of(at) + late,
        )


def play(world: World, first: int, last: int, *names: str) -> None:
    between = minute(world, first), minute(world, last)
    world.stages(*between, names) if names else world.stages(*between)


def decided_from(world: World, first: int) -> dict[str, list[dict[str, Any]]]:
    """All that was decided from a minute on, as it stands."""
    statement = "select * from {} where minute >= :first order by minute, ticker"
    return {
        name: world.rows(statement.format(name), first=minute(world, first)) for name in DECIDED
    }


@pytest.fixture(scope="module")
def six_minutes(template: Settings) -> Settings:
    def play_them(world: World) -> None:
        world.open_market(*generated(DAY))
        stamp(world, 5, 10)
        for number in range(5, 11):
            play(world, number, number)

    return prepare(template, "six_minutes", play_them)


@pytest.fixture
def gapped(six_minutes: Settings) -> Iterator[World]:
    """Minutes 5 to 10 are decided, with a decision of the watchlist in the first and the last."""
    with open_world(six_minutes) as world:
        world.open_market(*generated(DAY))
        yield world


@pytest.fixture
def filled(gapped: World) -> World:
    """Minutes 0 to 4 are decided, too, three days later."""
    stamp(gapped, 0, 4, LATER)
    play(gapped, 0, 4)
    return gapped


def test_filling_a_gap_changes_nothing_that_was_decided(gapped: World) -> None:
    before = decided_from(gapped, 5)
    stamp(gapped, 0, 4, LATER)
    play(gapped, 0, 4)
    assert decided_from(gapped, 5) == before
    assert all(rows != before[name] for name, rows in decided_from(gapped, 0).items())


def test_session_with_a_filled_gap_is_computed_again_without_a_difference(filled: World) -> None:
    before, decided = filled.hashes(), decided_from(filled, 5)
    play(filled, 0, 10)
    assert filled.hashes() == before
    assert decided_from(filled, 5) == decided


def test_minutes_after_a_filled_gap_have_entries_and_recommendations_of_their_own(
    filled: World,
) -> None:
    """Had the gap been decided in time, who was in would have entered at the open."""
    found = decided_from(filled, 5)
    entered = [row["entered_at"] for row in found["watchlist_entries"] if row["in_watchlist"]]
    assert min(entered) == minute(filled, 5)
    recommended = decided_from(filled, 0)["dispatch_recommendations"]
    in_gap = {row["ticker"] for row in recommended if row["minute"] < minute(filled, 5)}
    assert in_gap & {row["ticker"] for row in found["dispatch_recommendations"]}


# Each reads as if it had been there in time, but for when it could first be known.
PLANTED = {
    "watchlist decision": """
        insert into watchlist_entries (minute, ticker, session_date, score, rank, in_watchlist,
            reason, entered_at, sentiment_pressure, setup_quality, volatility, trend_alignment,
            available_at)
        values (:at, 'ZZZ', :day, 1, 1, true, 'in: score', :at, 1, 1, 1, 1, :known_at)""",
    "signals": """
        insert into signals (minute, ticker, session_date, action, rule, confidence, reason,
            available_at)
        select distinct :at, ticker, :day, 'BUY', 'BULL_ENTRY', 1, cast('{}' as jsonb), :known_at
        from signals""",
    "features": """
        insert into features.features_1m
        select planted.*
        from features.features_1m as made,
            jsonb_populate_record(made, jsonb_build_object(
                'ticker', 'ZZZ', 'available_at', cast(:known_at as timestamptz))) as planted
        where made.ticker = 'AAPL' and made.minute = :at and :day = made.session_date""",
}


planted = pytest.mark.parametrize(
    ("what", "planted_at", "first"),
    [("watchlist decision", 7, 8), ("signals", 4, 5), ("features", 10, 10)],
)


@planted
def test_row_from_the_future_changes_nothing(
    gapped: World, what: str, planted_at: int, first: int
) -> None:
    before = decided_from(gapped, first)
    known_at = gapped.pipeline.timing.as_of(minute(gapped, 10)) + timedelta(microseconds=1)
    gapped.execute(PLANTED[what], at=minute(gapped, planted_at), day=DAY, known_at=known_at)
    play(gapped, first, 10, "watchlist", "signals")
    assert decided_from(gapped, first) == before


@planted
def test_same_row_in_time_is_believed(
    gapped: World, what: str, planted_at: int, first: int
) -> None:
    """What is planted above would matter if it were known."""
    at = minute(gapped, planted_at)
    gapped.execute(PLANTED[what], at=at, day=DAY, known_at=gapped.pipeline.timing.as_of(at))
    with pytest.raises(dg.Failure, match="differ now"):
        play(gapped, first, 10, "watchlist", "signals")


# Decided too late for who stands on it.


def choosing(world: World) -> None:
    """Let the watchlist be short, so that who is in differs from decision to decision."""
    world.open_market(*generated(DAY))
    world.pipeline.watchlist_rules = WatchlistRules(
        min_size=2, leave_score=0.6, retention_minutes=1
    )


@pytest.fixture(scope="module")
def unwatched(template: Settings) -> Settings:
    def play_them(world: World) -> None:
        choosing(world)
        play(world, 0, 4)
        play(world, 5, LAST, "news", "bars", "sentiment", "features", "signals")

    return prepare(template, "unwatched", play_them)


@pytest.fixture
def caught_up(unwatched: Settings) -> Iterator[World]:
    """The watchlist was off from minute 5 to 16, signals went on; then it decided all of them."""
    with open_world(unwatched) as world:
        choosing(world)
        play_late(world, 5, LAST, "watchlist")
        yield world


def play_late(world: World, first: int, last: int, *names: str) -> None:
    """Play as a live mode would, three seconds after what the last minute may know."""
    now = world.pipeline.timing.as_of(minute(world, last)) + timedelta(seconds=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.pipeline, "stamp", lambda _: now)
        play(world, first, last, *names)


def known_late(world: World, table: str) -> dict[datetime, timedelta]:
    """The minutes of a table that were decided too late, and how long after their cut-off."""
    rows = world.rows(
        f"select distinct minute, available_at - cutoff as late from {table} as made"
        " join minute_cutoffs using (minute) where available_at <> cutoff order by minute"
    )
    return {row["minute"]: row["late"] for row in rows}


def test_decision_that_comes_too_late_says_when_it_came(caught_up: World) -> None:
    came = {minute(caught_up, n): timedelta(minutes=LAST - n, seconds=3) for n in (5, 10, 15)}
    assert known_late(caught_up, "watchlist_entries") == came


def test_signals_stay_as_they_were_decided_without_it(caught_up: World) -> None:
    before = decided_from(caught_up, 0)
    play(caught_up, 0, LAST, "watchlist", "signals")
    assert decided_from(caught_up, 0) == before


def test_minutes_that_could_know_it_stand_on_it(caught_up: World) -> None:
    play(caught_up, LAST + 1, LAST + 4)
    members = (
        "select string_agg(ticker, ' ' order by ticker) as tickers from {} where minute = :at{}"
    )
    watched = members.format("watchlist_entries", " and in_watchlist")
    decided = members.format("signals", "")
    before, late = (caught_up.value(watched, at=minute(caught_up, n)) for n in (0, 15))
    assert before != late
    assert caught_up.value(decided, at=minute(caught_up, LAST)) == before
    assert caught_up.value(decided, at=minute(caught_up, LAST + 1)) == late
    assert set(known_late(caught_up, "watchlist_entries")) == {
        minute(caught_up, number) for number in (5, 10, 15)
    }


def test_nothing_looks_ahead_where_decisions_came_too_late(
    caught_up: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(caught_up, LAST + 1, LAST + 4)
    samples = [minute(caught_up, number) for number in (10, 15, LAST + 1, LAST + 4)]
    monkeypatch.setattr(lookahead, "sample_minutes", lambda *_: samples)
    found = _on_a_short_stack(
        lookahead._prove, caught_up.pipeline, caught_up.session(DAY), 0, lambda _: None
    )
    assert (found.differences, found.early) == ([], [])
    assert [sample.minute for sample in found.samples] == samples


def test_signals_that_come_too_late_cool_down_nothing_that_was_decided(
    unwatched: Settings,
) -> None:
    with open_world(unwatched) as world:
        choosing(world)
        data = ("news", "bars", "sentiment", "features", "watchlist")
        play(world, LAST + 1, LAST + 8, *data)
        play(world, LAST + 6, LAST + 8, "signals")
        before = decided_from(world, LAST + 6)["signals"]
        play_late(world, LAST + 1, LAST + 8, "signals")
        play(world, LAST + 1, LAST + 8, "signals")
        late = {minute(world, LAST + number) for number in range(1, 6)}
        assert decided_from(world, LAST + 6)["signals"] == before
        assert set(known_late(world, "signals")) == late


def test_decisions_in_time_of_a_gap_that_could_know_later_ones_do_not_count_as_late(
    filled: World,
) -> None:
    """Their own cut-off says already how late they are."""
    assert known_late(filled, "watchlist_entries") == known_late(filled, "signals") == {}


def test_live_minutes_whose_signals_are_kept_no_longer_say_so(unwatched: Settings) -> None:
    with open_world(unwatched) as world:
        choosing(world)
        world.execute(
            "delete from signals where minute = :at and action = 'HOLD'", at=minute(world, 3)
        )
        world.pipeline.mode = Mode.SIMULATED
        gone = minute(world, 3).isoformat()
        with pytest.raises(BadInput, match=re.escape(f"signals of {gone} were decided, and are")):
            play(world, 2, 4, "signals")
        play(world, 4, 8, "signals")
