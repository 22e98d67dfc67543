from datetime import datetime, timedelta
from math import inf, nan
from typing import Any

import pytest

from ops_pipeline.domain.bars import (
    MAX_PRICE,
    age_seconds,
    canonical_ticker,
    far_off,
    fault,
    is_complete,
    is_ticker,
    split_faulty,
)
from ops_pipeline_tests.builders import NOON, SESSION, a_bar, at


@pytest.mark.parametrize("text", ["A", "AAPL", "GOOGL", "BRK.B", "BF-B", "X1", "ABCDEF.WSA"])
def test_is_ticker_knows_symbols(text: str) -> None:
    assert is_ticker(text)


@pytest.mark.parametrize(
    "text",
    ["", " ", "aapl", "1A", "ABCDEFG", "AAPL\n", " AAPL", "A;DROP", "../X", "BRK.", "A.BCDE", "Ä"],
)
def test_is_ticker_refuses_what_is_no_symbol(text: str) -> None:
    assert not is_ticker(text)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"volume": 0},
        {"open": 200.0, "high": 200.0, "low": 200.0, "close": 200.0},
        {"high": MAX_PRICE},
    ],
)
def test_a_usable_bar_has_no_fault(changes: dict[str, Any]) -> None:
    assert fault(a_bar(**changes)) is None


@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
@pytest.mark.parametrize("price", [nan, inf, -inf, 0.0, -1.0, MAX_PRICE * 1.01])
def test_a_price_that_is_none_is_a_fault(name: str, price: float) -> None:
    assert fault(a_bar(**{name: price})) == "price"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ticker": "aapl"}, "ticker"),
        ({"high": 199.9}, "high_low"),
        ({"low": 200.1}, "high_low"),
        ({"high": 199.0, "low": 201.0}, "high_low"),
        ({"volume": -1}, "volume"),
        ({"minute": NOON.replace(tzinfo=None)}, "minute"),
        ({"minute": NOON.replace(second=1)}, "minute"),
        ({"minute": NOON.replace(microsecond=1)}, "minute"),
    ],
)
def test_a_fault_is_named(changes: dict[str, Any], expected: str) -> None:
    assert fault(a_bar(**changes)) == expected


@pytest.mark.parametrize(
    ("now", "complete"),
    [
        (NOON + timedelta(seconds=60), True),
        (NOON + timedelta(seconds=59, microseconds=999_999), False),
        (NOON, False),
    ],
)
def test_a_bar_is_complete_when_its_minute_has_ended(
    now: datetime,
    complete: bool,  # noqa: FBT001
) -> None:
    assert is_complete(a_bar(), now) is complete


def test_split_faulty_keeps_usable_bars_in_order() -> None:
    first, second = a_bar(), a_bar(ticker="MSFT")
    usable, _ = split_faulty([first, a_bar(volume=-1), second])
    assert usable == [first, second]


def test_split_faulty_counts_by_fault() -> None:
    _, faults = split_faulty([a_bar(volume=-1), a_bar(close=nan), a_bar(volume=-2), a_bar()])
    assert faults == {"volume": 2, "price": 1}


def test_the_age_of_the_bars_counts_from_the_end_of_the_newest() -> None:
    assert age_seconds(at(3), SESSION, at(6)) == 120


@pytest.mark.parametrize("newest", [None, SESSION.opens_at - timedelta(hours=18)])
def test_before_the_first_bar_of_a_session_its_age_counts_from_the_open(
    newest: datetime | None,
) -> None:
    assert age_seconds(newest, SESSION, SESSION.opens_at + timedelta(seconds=70)) == 70


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("BRK-B", "BRK.B"),
        ("BRK/B", "BRK.B"),
        ("BRK.B", "BRK.B"),
        ("GME-WS", "GME.WS"),
        ("AAPL", "AAPL"),
        # A pair of currencies, and two tickers in one cell, are no class of shares.
        ("BTC/USD", "BTC/USD"),
        ("AAPL GE", "AAPL GE"),
        ("BRK B", "BRK B"),
        ("-B", ".B"),
    ],
)
def test_a_class_of_shares_has_one_spelling(text: str, symbol: str) -> None:
    assert canonical_ticker(text) == symbol


FLAT = {"open": 200.0, "high": 200.0, "low": 200.0, "close": 200.0}


@pytest.mark.parametrize(
    ("bars", "minutes"),
    [
        ([a_bar(minute=at(0)), a_bar(minute=at(1), high=398.0)], [1]),
        ([a_bar(minute=at(0), low=166.0)], [0]),
        ([a_bar(minute=at(0), high=239.0)], []),
        # A print at a cent, and the one after it.
        (
            [a_bar(minute=at(n), **dict.fromkeys(FLAT, p)) for n, p in enumerate([200, 0.01, 200])],
            [1, 2],
        ),
        # A night lies between, of which the opening gap is judged elsewhere.
        (
            [
                a_bar(minute=at(0)),
                a_bar(minute=at(0) + timedelta(days=1), **dict.fromkeys(FLAT, 300.0)),
            ],
            [],
        ),
        ([a_bar(minute=at(0)), a_bar(ticker="MSFT", minute=at(1), **dict.fromkeys(FLAT, 9.0))], []),
    ],
)
def test_bars_that_lie_far_off_are_found(bars: list[Any], minutes: list[int]) -> None:
    assert [bar.minute for bar in far_off(bars)] == [at(n) for n in minutes]
