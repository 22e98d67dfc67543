"""Watchlist, signals, switches and universe: what goes in comes out, and nothing else."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from ops_pipeline.domain.signals import HOLD, features_snapshot, sentiment_snapshot
from ops_pipeline.domain.stages import BARS, DISPATCH, SERVICES
from ops_pipeline.domain.values import Signal, Ticker, WatchlistEntry
from ops_pipeline.storage import signals, watchlist
from ops_pipeline.storage.services import Switch, switches, upsert_switch
from ops_pipeline.storage.signals import Decided
from ops_pipeline.storage.universe import replace_universe, universe
from ops_pipeline_tests.builders import DAY, NOON, a_feature_row, at
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


def put(connection: Connection, *found: Signal) -> int:
    decided = [
        Decided(s, a_feature_row(ticker=s.ticker) if s.action != HOLD else None, DAY, TS)
        for s in found
    ]
    ts = {signal.minute: signal.minute + timedelta(seconds=80) for signal in found}
    return signals.insert_signals(connection, decided, ts, FIVE_MINUTES)


def later(signal: Signal, minutes: float) -> Signal:
    return replace(signal, minute=signal.minute + timedelta(minutes=minutes))


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


def test_the_members_before_a_minute_are_those_of_the_last_decision(
    connection: Connection,
) -> None:
    for n in (0, 5, 10):
        entry = replace(MEMBER, ticker=f"T{n}", minute=at(n), entered_at=at(n))
        watchlist.insert_entries(connection, [entry, replace(OUTSIDER, minute=at(n))], DAY, TS)
    assert watchlist.members_before(connection, DAY, at(10)) == {"T5": at(5)}


def test_a_last_decision_without_members_leaves_nobody(connection: Connection) -> None:
    watchlist.insert_entries(connection, [replace(MEMBER, minute=at(0))], DAY, TS)
    watchlist.insert_entries(connection, [replace(OUTSIDER, minute=at(5))], DAY, TS)
    assert watchlist.members_before(connection, DAY, at(6)) == {}


def test_nobody_is_a_member_before_the_first_decision_of_a_session(connection: Connection) -> None:
    watchlist.insert_entries(connection, [MEMBER], DAY, TS)
    assert watchlist.members_before(connection, DAY + timedelta(days=1), at(2_000)) == {}


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


def test_the_last_actionable_minute_is_before_the_minute_and_no_hold(
    connection: Connection,
) -> None:
    put(connection, BUY, later(BUY, 3), later(BUY, 6), HELD, later(HELD, 1))
    found = signals.last_actionable(connection, DAY, NOON + timedelta(minutes=6))
    assert found == {"AAPL": NOON + timedelta(minutes=3)}


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
