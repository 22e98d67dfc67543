"""The first version of a bar decides, and the database refuses what is no bar."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from ops_pipeline.domain.values import Bar
from ops_pipeline.storage import bars
from ops_pipeline.storage.bars import Kept
from ops_pipeline.storage.knowledge import counts_by_minute
from ops_pipeline_tests.builders import DAY, NOON, SESSION, a_bar, at
from ops_pipeline_tests.storage.rows import insert, rows

REVISIONS = "select ticker, minute, close from bar_revisions order by close"


def keep(connection: Connection, found: Sequence[Bar], known_at: datetime | None = None) -> Kept:
    minutes = {bar.minute for bar in found}
    return bars.insert_bars(
        connection,
        found,
        dict.fromkeys(minutes, DAY),
        lambda bar: known_at or bar.minute + timedelta(minutes=1),
        feed="iex",
        origin="live",
    )


def test_a_bar_comes_back_as_it_went_in(connection: Connection) -> None:
    bar = a_bar(open=200.01, high=200.123456789, low=199.1, close=200.02, volume=2**40)
    keep(connection, [bar])
    assert bars.newest_bars(connection, ["AAPL"], at(500)) == {"AAPL": bar}


def test_only_new_bars_are_counted(connection: Connection) -> None:
    keep(connection, [a_bar()])
    assert keep(connection, [a_bar(), a_bar(ticker="MSFT")]) == Kept(new=1, revisions=0)


def test_no_bars_are_nothing(connection: Connection) -> None:
    assert keep(connection, []) == Kept(0, 0)


def test_the_first_version_of_a_bar_stays(connection: Connection) -> None:
    keep(connection, [a_bar(close=200.0)])
    keep(connection, [a_bar(close=200.4)])
    assert rows(connection, "select close from bars_1m") == [(200.0,)]


def test_a_later_version_that_differs_is_a_revision(connection: Connection) -> None:
    keep(connection, [a_bar(close=200.0)])
    keep(connection, [a_bar(close=200.4)])
    assert rows(connection, REVISIONS) == [("AAPL", NOON, 200.4)]


def test_the_same_revision_is_kept_once(connection: Connection) -> None:
    for close in (200.0, 200.4, 200.4, 200.4):
        keep(connection, [a_bar(close=close)])
    assert rows(connection, REVISIONS) == [("AAPL", NOON, 200.4)]


def test_each_different_revision_is_kept(connection: Connection) -> None:
    for close in (200.0, 200.4, 200.3):
        keep(connection, [a_bar(close=close)])
    assert [close for *_, close in rows(connection, REVISIONS)] == [200.3, 200.4]


def test_an_identical_later_version_is_no_revision(connection: Connection) -> None:
    keep(connection, [a_bar()])
    keep(connection, [a_bar()])
    assert rows(connection, REVISIONS) == []


def test_a_different_volume_alone_is_a_revision(connection: Connection) -> None:
    keep(connection, [a_bar(volume=10)])
    keep(connection, [a_bar(volume=11)])
    assert len(rows(connection, REVISIONS)) == 1


def test_of_two_versions_in_one_batch_the_first_stays(connection: Connection) -> None:
    assert keep(connection, [a_bar(close=200.0), a_bar(close=200.4)]).new == 1
    assert rows(connection, "select close from bars_1m") == [(200.0,)]


def test_of_two_versions_in_one_batch_the_second_is_a_revision(connection: Connection) -> None:
    keep(connection, [a_bar(close=200.0), a_bar(close=200.4)])
    assert rows(connection, REVISIONS) == [("AAPL", NOON, 200.4)]


def test_the_same_bar_twice_in_one_batch_is_one_bar(connection: Connection) -> None:
    assert keep(connection, [a_bar(), a_bar()]).new == 1
    assert rows(connection, REVISIONS) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"close": math.nan},
        {"open": math.nan},
        {"low": math.nan},
        {"high": math.nan},
        {"open": math.nan, "high": math.nan, "low": math.nan, "close": math.nan},
        {"high": math.inf},
        {"high": math.inf, "open": math.inf, "close": math.inf, "low": math.inf},
        {"low": -math.inf},
        {"low": 0.0},
        {"open": 0.0, "high": 0.0, "low": 0.0, "close": 0.0},
        {"low": -1.0},
        {"high": 199.0},
        {"high": 200.1, "close": 200.2},
        {"low": 200.1, "open": 200.05, "close": 200.2},
        {"volume": -1},
    ],
    ids=str,
)
def test_the_database_refuses_what_is_no_bar(
    connection: Connection, changes: dict[str, Any]
) -> None:
    with pytest.raises(IntegrityError, match="violates check constraint"):
        keep(connection, [a_bar(**changes)])


def test_the_database_refuses_a_bar_that_was_known_before_its_end(connection: Connection) -> None:
    with pytest.raises(IntegrityError, match="violates check constraint"):
        keep(connection, [a_bar()], known_at=NOON + timedelta(seconds=59))


def test_the_newest_bar_is_the_newest_of_those_known_by_then(connection: Connection) -> None:
    keep(connection, [a_bar(minute=at(0)), a_bar(minute=at(1), close=200.1)])
    keep(connection, [a_bar(minute=at(2), close=200.2)], known_at=at(10))
    assert bars.newest_bars(connection, ["AAPL"], at(5))["AAPL"].minute == at(1)


def test_a_bar_is_known_from_its_availability_on(connection: Connection) -> None:
    keep(connection, [a_bar(minute=at(0))], known_at=at(1))
    assert bars.newest_bars(connection, ["AAPL"], at(1) - timedelta(microseconds=1)) == {}
    assert set(bars.newest_bars(connection, ["AAPL"], at(1))) == {"AAPL"}


def test_a_ticker_without_a_bar_is_left_out(connection: Connection) -> None:
    keep(connection, [a_bar()])
    assert set(bars.newest_bars(connection, ["AAPL", "MSFT"], at(500))) == {"AAPL"}


def test_a_bar_of_more_than_a_week_ago_is_left_out(connection: Connection) -> None:
    keep(connection, [a_bar()])
    assert bars.newest_bars(connection, ["AAPL"], NOON + timedelta(days=7)) == {}


def test_what_the_vendor_answered_never_goes_back(connection: Connection) -> None:
    for until in (at(5), at(2), SESSION.closes_at + timedelta(hours=1)):
        bars.mark_answered(connection, ["AAPL"], [SESSION], until)
        found = bars.coverage(connection, DAY, DAY)
        assert found[("AAPL", DAY)] == max(at(5), min(until, SESSION.closes_at))


def test_a_session_that_has_not_begun_was_not_answered_for(connection: Connection) -> None:
    bars.mark_answered(connection, ["AAPL"], [SESSION], SESSION.opens_at)
    assert bars.coverage(connection, DAY, DAY) == {}


def test_the_gap_of_an_open_is_told_by_the_close_before_it(connection: Connection) -> None:
    keep(connection, [a_bar(minute=SESSION.opens_at - timedelta(hours=18), close=100.0, low=99.0)])
    keep(connection, [a_bar(minute=SESSION.opens_at, open=200.0), a_bar(minute=at(1), open=200.3)])
    (found,) = bars.opening_gaps(connection, ["AAPL", "MSFT"], SESSION)
    assert (found.ticker, found.gap) == ("AAPL", 1.0)
    assert found.available_at == SESSION.opens_at + timedelta(minutes=1)


def test_bars_are_counted_by_minute(connection: Connection) -> None:
    keep(connection, [a_bar(minute=at(0)), a_bar(minute=at(1)), a_bar(ticker="T", minute=at(1))])
    assert counts_by_minute(connection, "bars", at(0), at(2)) == {at(0): 1, at(1): 2}


def test_a_bar_without_volume_is_a_bar(connection: Connection) -> None:
    assert keep(connection, [a_bar(volume=0)]).new == 1


def test_the_database_refuses_an_unknown_origin(connection: Connection) -> None:
    with pytest.raises(IntegrityError, match="origin"):
        insert(
            connection,
            "bars_1m",
            ticker="T",
            minute=NOON,
            session_date=DAY,
            open=1,
            high=1,
            low=1,
            close=1,
            volume=1,
            feed="x",
            origin="guessed",
            available_at=at(500),
        )
