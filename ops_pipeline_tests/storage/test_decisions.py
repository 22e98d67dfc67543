"""Watchlist, signals, switches and universe: what goes in comes out, and nothing else."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.signals import HOLD, Actionable, features_snapshot, sentiment_snapshot
from ops_pipeline.domain.stages import BARS, DISPATCH, SERVICES
from ops_pipeline.domain.values import Signal, Ticker, WatchlistEntry
from ops_pipeline.domain.watchlist import Decision
from ops_pipeline.storage import knowledge, signals, watchlist
from ops_pipeline.storage.services import Switch, switches, upsert_switch
from ops_pipeline.storage.signals import Decided
from ops_pipeline.storage.universe import replace_universe, universe
from ops_pipeline_tests.builders import DAY, NOON, SESSION, a_feature_row, at
from ops_pipeline_tests.storage.rows import TS, rows

COMPONENTS = {
    "sentiment_pressure": 0.1,
    "setup_quality": 0.2,
    "volatility": 0.3,
    "trend_alignment": 1 / 3,
}
MEMBER = WatchlistEntry("AAPL", NOON, 0.61, 1, True, "entered", NOON, COMPONENTS)  # noqa: FBT003
OUTSIDER = WatchlistEntry("MSFT", NOON, 0.2, 2, False, "low", None, COMPONENTS)  # noqa: FBT003
REASON = {"rule": "BULL_ENTRY", "confidence_breakdown": {"base": 1 / 3, "parts": [1, None]}}
BUY = Signal("AAPL", NOON, "BUY", "BULL_ENTRY", 2 / 3, REASON)
HELD = Signal("MSFT", NOON, HOLD, "NO_FEATURES", 0.0, {"rule": "NO_FEATURES"})
FIVE_MINUTES = timedelta(minutes=5)


def put(connection: Connection, *found: Signal, available_at: datetime = TS) -> int:
    decided = [
        Decided(s, a_feature_row(ticker=s.ticker) if s.action != HOLD else None, DAY, available_at)
        for s in found
    ]
    ts = {signal.minute: signal.minute + timedelta(seconds=80) for signal in found}
    return signals.insert_signals(connection, decided, ts, FIVE_MINUTES)


def later(signal: Signal, minutes: float) -> Signal:
    return replace(signal, minute=signal.minute + timedelta(minutes=minutes))


def stamp(connection: Connection, cutoffs: dict[float, datetime]) -> None:
    """Let these minutes of the session know what was known at these instants."""
    known = {at(number): cutoff for number, cutoff in cutoffs.items()}
    knowledge.stamp_cutoffs(connection, [(SESSION, minute) for minute in known], known, "a")


def put_decision(
    connection: Connection, number: float, *tickers: str, known_at: datetime | None = None
) -> Decision:
    """By which these tickers are in and MSFT is out; known a minute later."""
    minute, known_at = at(number), known_at or at(number + 1)
    inside = [
        replace(MEMBER, ticker=ticker, minute=minute, rank=rank, entered_at=at(0))
        for rank, ticker in enumerate(tickers, start=1)
    ]
    entries = [*inside, replace(OUTSIDER, minute=minute, rank=len(tickers) + 1)]
    watchlist.insert_entries(connection, entries, DAY, known_at)
    return Decision(minute, known_at, dict.fromkeys(tickers, at(0)))


def decisions_known(
    connection: Connection, start: float, end: float, *, before: float = 1_000
) -> list[Decision]:
    return watchlist.decisions_known(connection, DAY, at(start), at(end), before=at(before))


def test_watchlist_entries_come_back_as_they_went_in(connection: Connection) -> None:
    watchlist.insert_entries(connection, [OUTSIDER, MEMBER], DAY, TS)
    found = watchlist.entries_between(connection, DAY, NOON, NOON + timedelta(minutes=1))
    assert found == {NOON: [MEMBER, OUTSIDER]}


def test_a_watchlist_decision_is_made_once(connection: Connection) -> None:
    watchlist.insert_entries(connection, [MEMBER], DAY, TS)
    with pytest.raises(IntegrityError, match="duplicate key"):
        watchlist.insert_entries(connection, [MEMBER], DAY, TS)


def test_only_a_member_has_a_time_of_entry(connection: Connection) -> None:
    with pytest.raises(IntegrityError, match="violates check constraint"):
        watchlist.insert_entries(connection, [replace(OUTSIDER, entered_at=NOON)], DAY, TS)


def test_a_minute_knows_the_newest_decision_up_to_itself(connection: Connection) -> None:
    made = [put_decision(connection, n, "AAPL", f"T{n}") for n in (0, 5, 10)]
    stamp(connection, {n: at(n + 1) for n in (4, 5, 9)})
    assert decisions_known(connection, 9, 10) == [made[1]]
    assert decisions_known(connection, 5, 6) == [made[1]]
    assert decisions_known(connection, 4, 5) == [made[0]]


def test_decisions_come_in_order_and_once(connection: Connection) -> None:
    made = [put_decision(connection, n, "AAPL") for n in (10, 0, 5)]
    stamp(connection, {n: at(n + 1) for n in range(5, 15)})
    assert decisions_known(connection, 5, 15) == [made[2], made[0]]


def test_decisions_from_a_minute_on_are_left_out(connection: Connection) -> None:
    made = [put_decision(connection, n, "AAPL") for n in (0, 5, 10)]
    stamp(connection, {n: at(n + 1) for n in range(5, 15)})
    assert decisions_known(connection, 5, 15, before=5) == [made[0]]


@pytest.mark.parametrize(("late", "known"), [(0, 5), (1, 0)])
def test_a_decision_is_known_from_its_availability_on(
    connection: Connection, late: int, known: int
) -> None:
    put_decision(connection, 0, "AAPL")
    put_decision(connection, 5, "AAPL", known_at=at(8) + late * timedelta(microseconds=1))
    stamp(connection, {7: at(8)})
    assert [found.minute for found in decisions_known(connection, 7, 8)] == [at(known)]


def test_each_minute_brings_the_decision_that_its_own_cutoff_covers(
    connection: Connection,
) -> None:
    early = put_decision(connection, 0, "AAPL")
    filled = put_decision(connection, 5, "AAPL", known_at=at(500))
    stamp(connection, {6: at(500), 7: at(8), 8: at(9)})
    assert decisions_known(connection, 6, 9) == [early, filled]
    assert decisions_known(connection, 7, 9) == [early]


def test_an_entry_that_came_after_the_cutoff_is_no_part_of_the_decision(
    connection: Connection,
) -> None:
    made = put_decision(connection, 5, "AAPL")
    poison = replace(MEMBER, ticker="ZZZ", minute=at(5), rank=9, entered_at=at(5))
    watchlist.insert_entries(connection, [poison], DAY, at(500))
    stamp(connection, {7: at(8)})
    assert decisions_known(connection, 7, 8) == [made]


def test_a_decision_without_members_leaves_nobody(connection: Connection) -> None:
    put_decision(connection, 0, "AAPL")
    put_decision(connection, 5)
    stamp(connection, {6: at(7)})
    assert decisions_known(connection, 6, 7) == [Decision(at(5), at(6), {})]


def test_a_minute_with_a_late_cutoff_knows_no_later_decision(connection: Connection) -> None:
    made = [put_decision(connection, n, "AAPL") for n in (5, 10)]
    stamp(connection, {7: at(500)})
    assert decisions_known(connection, 7, 8) == made[:1]


def test_nothing_is_decided_before_the_first_decision_of_a_session(connection: Connection) -> None:
    yesterday = replace(MEMBER, minute=at(-1_440), entered_at=at(-1_440))
    watchlist.insert_entries(connection, [yesterday], DAY - timedelta(days=1), at(-1_439))
    stamp(connection, {6: at(7)})
    assert decisions_known(connection, 6, 7) == []


def test_a_minute_without_a_cutoff_knows_no_decision(connection: Connection) -> None:
    put_decision(connection, 0, "AAPL")
    assert decisions_known(connection, 0, 10) == []


def test_no_entries_are_nothing(connection: Connection) -> None:
    watchlist.insert_entries(connection, [], DAY, TS)
    assert rows(connection, "select 1 from watchlist_entries") == []


def test_signals_come_back_as_they_went_in(connection: Connection) -> None:
    put(connection, HELD, BUY)
    found = signals.signals_between(connection, DAY, NOON, NOON + timedelta(minutes=1))
    assert found == {NOON: [BUY, HELD]}


def test_only_actionable_signals_are_recommended(connection: Connection) -> None:
    assert put(connection, HELD, BUY) == 1
    assert rows(connection, "select ticker from dispatch_recommendations") == [("AAPL",)]


def test_no_signals_are_nothing(connection: Connection) -> None:
    assert put(connection) == 0


def test_a_minute_is_decided_once(connection: Connection) -> None:
    put(connection, BUY)
    with pytest.raises(IntegrityError, match="duplicate key"):
        put(connection, BUY)


def test_a_recommendation_carries_its_signal(connection: Connection) -> None:
    put(connection, BUY)
    found = rows(
        connection,
        "select action, instrument_type, intent, confidence, reason, minute, session_date"
        " from dispatch_recommendations",
    )
    assert found == [("BUY", "STOCK", "open", 2 / 3, REASON, NOON, DAY)]


def test_a_recommendation_carries_what_it_was_made_on(connection: Connection) -> None:
    put(connection, BUY)
    found = rows(
        connection, "select features_snapshot, sentiment_snapshot from dispatch_recommendations"
    )
    row = a_feature_row()
    assert found == [(features_snapshot(row), sentiment_snapshot(row))]


def test_a_recommendation_waits_with_its_own_clock(connection: Connection) -> None:
    put(connection, BUY)
    found = rows(
        connection,
        "select status, ts, expires_at, available_at, claim_epoch from dispatch_recommendations",
    )
    assert found == [("PENDING", TS, TS + FIVE_MINUTES, TS, 0)]


def test_what_was_recommended_before_a_minute_comes_in_order(connection: Connection) -> None:
    put(connection, BUY, later(BUY, 6), later(BUY, 3), HELD, later(HELD, 1))
    stamp(connection, {156: TS + timedelta(days=1)})
    found = signals.actionable_known(connection, DAY, at(156), at(157))
    assert found == {"AAPL": [Actionable(at(150), TS), Actionable(at(153), TS)]}
    assert last_of(connection, at(156)) == {"AAPL": at(153)}


@pytest.mark.parametrize(("late", "last"), [(0, 153), (1, 150)])
def test_a_recommendation_is_known_from_its_availability_on(
    connection: Connection, late: int, last: int
) -> None:
    put(connection, BUY)
    put(connection, later(BUY, 3), available_at=at(157) + late * timedelta(microseconds=1))
    stamp(connection, {156: at(157)})
    assert last_of(connection, at(156)) == {"AAPL": at(last)}


def test_a_range_of_minutes_knows_what_its_last_cutoff_covers(connection: Connection) -> None:
    put(connection, BUY, available_at=at(500))
    stamp(connection, {155: at(156), 156: at(500), 157: at(158), 158: at(900)})
    known = [Actionable(NOON, at(500))]
    assert signals.actionable_known(connection, DAY, at(155), at(158)) == {"AAPL": known}
    assert signals.actionable_known(connection, DAY, at(157), at(158)) == {}


def test_what_another_session_recommended_does_not_count(connection: Connection) -> None:
    put(connection, BUY)
    rows(connection, "update signals set session_date = session_date - 1 returning 1")
    stamp(connection, {156: at(500)})
    assert signals.actionable_known(connection, DAY, at(156), at(157)) == {}


def test_a_nan_never_enters_a_reason(connection: Connection) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        put(connection, replace(BUY, reason={"base": float("nan")}))


def test_all_services_are_on_before_anybody_switches(connection: Connection) -> None:
    assert switches(connection, NOON) == [Switch(stage, is_enabled=True) for stage in SERVICES]


def test_a_service_that_was_switched_off_is_off(connection: Connection) -> None:
    off = Switch(DISPATCH, is_enabled=False, reason="incident")
    upsert_switch(connection, off)
    assert [s for s in switches(connection, NOON) if not s.is_enabled] == [off]


def test_a_service_that_was_switched_on_again_is_on(connection: Connection) -> None:
    upsert_switch(connection, Switch(BARS, is_enabled=False, reason="incident"))
    upsert_switch(connection, Switch(BARS, is_enabled=True))
    assert all(switch.is_enabled for switch in switches(connection, NOON))


@pytest.mark.parametrize(("seconds", "is_enabled"), [(-1, False), (0, True), (1, True)])
def test_a_service_that_is_off_until_an_instant_is_on_from_then(
    connection: Connection,
    seconds: int,
    is_enabled: bool,  # noqa: FBT001
) -> None:
    upsert_switch(connection, Switch(BARS, is_enabled=False, disabled_until=NOON, reason="wait"))
    found = switches(connection, NOON + timedelta(seconds=seconds))
    assert next(s for s in found if s.stage == BARS).is_enabled is is_enabled


def test_a_row_of_an_unknown_service_is_not_shown(connection: Connection) -> None:
    rows(connection, "insert into services (service) values ('oracle') returning 1")
    assert [switch.stage for switch in switches(connection, NOON)] == list(SERVICES)


def test_the_universe_comes_back_as_it_went_in(connection: Connection) -> None:
    tickers = [Ticker("AAPL", ("Apple", "Apple Inc")), Ticker("BRK.B"), Ticker("T")]
    replace_universe(connection, tickers)
    assert universe(connection) == tickers


def test_the_universe_is_exactly_what_it_was_replaced_by(connection: Connection) -> None:
    replace_universe(connection, [Ticker("AAPL", ("Apple",)), Ticker("T")])
    replace_universe(connection, [Ticker("AAPL", ("Cupertino",))])
    assert universe(connection) == [Ticker("AAPL", ("Cupertino",))]


def test_the_universe_may_be_empty(connection: Connection) -> None:
    replace_universe(connection, [])
    assert universe(connection) == []


@pytest.mark.parametrize(
    "symbol", ["aapl", "", "A B", "AAPL'; drop table universe; --", "TOOLONGX"]
)
def test_the_database_refuses_what_is_no_ticker(connection: Connection, symbol: str) -> None:
    with pytest.raises(IntegrityError, match="universe_ticker_check"):
        replace_universe(connection, [Ticker(symbol)])


def last_of(connection: Connection, minute: datetime) -> dict[str, datetime]:
    """When each ticker was last recommended, as far as a minute may know."""
    known = signals.actionable_known(connection, DAY, minute, minute + MINUTE)
    return {ticker: found[-1].minute for ticker, found in known.items()}
