from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from math import inf, nan, sqrt
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ops_pipeline.domain.execution import (
    Book,
    closing_order,
    exit_reason,
    fill_price,
    round_to_tick,
    size_order,
    stop_distance,
)
from ops_pipeline.domain.gates import CLOSE
from ops_pipeline.domain.session import MINUTE, Session
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.domain.values import Fill, Position
from ops_pipeline_tests.builders import DAY, NOON, SESSION, a_bar, a_fill, a_position, at

CONFIG = DispatcherConfig()
NO_SLIPPAGE = DispatcherConfig(slippage_bps=0)
NEXT_DAY = DAY + timedelta(days=1)
HALF_DAY = Session(
    date(2025, 11, 28),
    datetime(2025, 11, 28, 14, 30, tzinfo=UTC),
    datetime(2025, 11, 28, 18, 0, tzinfo=UTC),
)
EPSILON = 1e-9

prices = st.floats(0.01, 50_000)
sides = st.sampled_from([1, -1])
volatilities = st.none() | st.sampled_from([nan, inf, 0.0]) | st.floats(0, 0.05)
configs = st.builds(
    DispatcherConfig,
    equity_usd=st.floats(100, 1e6),
    max_notional_exposure=st.floats(0, 1),
    max_notional_per_trade=st.floats(0, 1),
    slippage_bps=st.floats(0, 100),
    stop_loss_vol_mult=st.floats(0.1, 10),
    min_stop_distance=st.floats(0.0001, 0.2),
)


@pytest.mark.parametrize(
    ("price", "side", "expected"),
    [
        (200.1, 1, 200.1),
        (200.1, -1, 200.1),
        (200.101, 1, 200.11),
        (200.109, -1, 200.1),
        (200.105, 0, 200.11),
        (200.104, 0, 200.1),
        (1.0, 1, 1.0),
        (1.001, 1, 1.01),
        (0.99991, 1, 1.0),
        (0.99991, -1, 0.9999),
        (0.50001, 1, 0.5001),
        (0.50009, -1, 0.5),
        (0.1 + 0.2, 1, 0.3),
        (1.1 * 3, 1, 3.3),
    ],
)
def test_round_to_tick_rounds_against_the_trader(price: float, side: int, expected: float) -> None:
    assert round_to_tick(price, side) == expected


@pytest.mark.parametrize("price", [1e-9, 0.00004, 0.0001])
def test_round_to_tick_when_a_price_is_below_the_grid_then_is_still_a_price(price: float) -> None:
    assert round_to_tick(price, -1) == 0.0001


@pytest.mark.parametrize(("side", "expected"), [(1, 200.1), (-1, 199.9)])
def test_fill_price_slips_five_basis_points_against_the_trader(side: int, expected: float) -> None:
    assert fill_price(200.0, side, CONFIG) == expected


@settings(deadline=None, max_examples=40)
@given(close=prices, side=sides, config=configs)
def test_fill_price_never_favours_the_trader(
    close: float, side: int, config: DispatcherConfig
) -> None:
    slipped = close * (1 + side * config.slippage_bps * 1e-4)
    assert side * (fill_price(close, side, config) - slipped) >= -EPSILON


@settings(deadline=None, max_examples=40)
@given(close=prices, side=sides)
def test_fill_price_is_a_multiple_of_the_tick(close: float, side: int) -> None:
    price = fill_price(close, side, CONFIG)
    assert price == round(price, 2 if price >= 1 else 4)


@pytest.mark.parametrize("recent_vol", [None, nan, inf, 0.0, 0.0001])
def test_stop_distance_is_never_less_than_half_a_percent(recent_vol: float | None) -> None:
    assert stop_distance(200.0, recent_vol, CONFIG) == pytest.approx(1.0)


def test_stop_distance_scales_volatility_by_the_root_of_the_horizon() -> None:
    assert stop_distance(200.0, 0.002, CONFIG) == pytest.approx(2 * 0.002 * sqrt(30) * 200)


@pytest.mark.parametrize(
    ("recent_vol", "quantity"),
    [
        # The notional cap of 10,000 binds: 49 x 200.1 = 9,804.90
        (0.0005, 49),
        # The risk of 1,000 binds: 1,000 / (2 x 0.02 x sqrt(30) x 200.1) = 22.8
        (0.02, 22),
    ],
)
def test_size_order_takes_the_smallest_of_risk_and_notional(
    recent_vol: float, quantity: int
) -> None:
    assert size_order(1, 200.0, recent_vol, 0, 0.0, CONFIG).quantity == quantity


@pytest.mark.parametrize(
    ("recent_vol", "stop", "target"),
    [
        (0.0005, 199.8999, 200.5002),
        (0.002, 199.2996, 201.7008),
        (0.01, 196.0980, 208.1040),
    ],
)
def test_size_order_agrees_with_the_parity_vector(
    recent_vol: float, stop: float, target: float
) -> None:
    # The vectors know no horizon, no nearest stop, and a cap of a quarter of the equity.
    config = DispatcherConfig(
        stop_horizon_minutes=1, min_stop_distance=1e-6, max_notional_per_trade=0.25
    )
    order = size_order(1, 200.0, recent_vol, 0, 0.0, config)
    distance = stop_distance(order.price, recent_vol, config)
    assert order.price == 200.1
    assert order.price - distance == pytest.approx(stop, abs=1e-9)
    assert order.price + 2 * distance == pytest.approx(target, abs=1e-9)
    assert (order.stop_price, order.target_price) == (round(stop, 2), round(target, 2))
    # Theirs was 125, which costs 25,012.50: more than the cap.
    assert (order.quantity, order.notional) == (124, pytest.approx(24_812.4))


@pytest.mark.parametrize(
    ("exposure", "quantity"),
    [(0.0, 49), (95_000.0, 24), (99_799.9, 1), (99_800.0, 0), (100_000.0, 0), (250_000.0, 0)],
)
def test_size_order_takes_no_more_than_what_exposure_leaves(exposure: float, quantity: int) -> None:
    assert size_order(1, 200.0, None, 0, exposure, CONFIG).quantity == quantity


@settings(deadline=None, max_examples=40)
@given(
    side=sides,
    close=prices,
    recent_vol=volatilities,
    exposure=st.floats(0, 2e6),
    config=configs,
)
@example(side=1, close=200.0, recent_vol=0.0005, exposure=0.0, config=CONFIG)
def test_size_order_passes_no_cap(
    side: int, close: float, recent_vol: float | None, exposure: float, config: DispatcherConfig
) -> None:
    order = size_order(side, close, recent_vol, 0, exposure, config)
    risk = abs(order.quantity) * stop_distance(order.price, recent_vol, config)
    room = max(config.max_notional_exposure * config.equity_usd - exposure, 0.0)
    assert risk <= config.limits.risk_per_trade * config.equity_usd + 1e-6
    assert order.notional <= config.max_notional_per_trade * config.equity_usd + 1e-6
    assert order.notional <= room + 1e-6


@settings(deadline=None, max_examples=40)
@given(side=sides, close=prices, recent_vol=volatilities, config=configs)
def test_size_order_never_turns_to_the_other_side(
    side: int, close: float, recent_vol: float | None, config: DispatcherConfig
) -> None:
    assert size_order(side, close, recent_vol, 0, 0.0, config).quantity * side >= 0


@settings(deadline=None, max_examples=40)
@given(close=prices, held=st.integers(1, 500), side=sides, exposure=st.floats(0, 2e6))
def test_size_order_against_a_position_never_takes_more_than_it(
    close: float, held: int, side: int, exposure: float
) -> None:
    order = size_order(side, close, None, -side * held, exposure, CONFIG)
    assert 0 <= order.quantity * side <= held


def test_size_order_when_it_reduces_then_exposure_does_not_bind() -> None:
    assert size_order(-1, 200.0, None, 10, 1e9, CONFIG).quantity == -10


def test_size_order_when_it_reduces_then_has_neither_stop_nor_target() -> None:
    order = size_order(-1, 200.0, None, 10, 0.0, CONFIG)
    assert (order.stop_price, order.target_price) == (None, None)


@pytest.mark.parametrize(("side", "stop", "target"), [(1, 199.1, 202.1), (-1, 200.9, 197.9)])
def test_size_order_puts_stop_and_target_on_the_sides_of_the_trade(
    side: int, stop: float, target: float
) -> None:
    order = size_order(side, 200.0, None, 0, 0.0, CONFIG)
    assert (order.stop_price, order.target_price) == (stop, target)


@settings(deadline=None, max_examples=40)
@given(close=st.floats(1, 50_000), recent_vol=volatilities, side=sides)
def test_size_order_has_the_price_between_stop_and_target(
    close: float, recent_vol: float | None, side: int
) -> None:
    order = size_order(side, close, recent_vol, 0, 0.0, CONFIG)
    assert order.stop_price is not None
    assert order.target_price is not None
    assert side * (order.price - order.stop_price) > 0
    assert side * (order.target_price - order.price) > 0


def test_size_order_when_the_target_would_be_negative_then_it_is_the_smallest_price() -> None:
    assert size_order(-1, 10.0, 0.2, 0, 0.0, CONFIG).target_price == 0.0001


@pytest.mark.parametrize("side", [1, -1])
def test_size_order_when_the_price_is_tiny_then_still_sizes(side: int) -> None:
    order = size_order(side, 0.00004, None, 0, 0.0, CONFIG)
    assert order.price > 0
    assert order.notional <= 10_000


@pytest.mark.parametrize(("held", "price"), [(10, 199.9), (-10, 200.1)])
def test_closing_order_brings_the_position_to_nothing_at_a_slipped_price(
    held: int, price: float
) -> None:
    order = closing_order(a_position(quantity=held), 200.0, CONFIG)
    assert (order.quantity, order.price) == (-held, price)
    assert (order.stop_price, order.target_price) == (None, None)


def held(fills: list[Fill]) -> tuple[int, float]:
    position = Book(fills).positions["AAPL"]
    return position.quantity, position.average_price


def test_book_of_no_fills_is_empty() -> None:
    assert (Book().positions, Book().realised_usd) == ({}, {})


def test_book_averages_what_is_added() -> None:
    assert held([a_fill(10, 100.0), a_fill(30, 120.0)]) == (40, 115.0)


def test_book_averages_shorts_too() -> None:
    assert held([a_fill(-10, 100.0), a_fill(-30, 120.0)]) == (-40, 115.0)


def test_book_when_part_is_closed_then_the_average_stays() -> None:
    assert held([a_fill(10, 100.0), a_fill(-4, 130.0)]) == (6, 100.0)


@pytest.mark.parametrize(
    ("first", "second", "profit"),
    [
        (a_fill(10, 100.0), a_fill(-4, 130.0), 120.0),
        (a_fill(10, 100.0), a_fill(-10, 90.0), -100.0),
        (a_fill(-10, 100.0), a_fill(4, 90.0), 40.0),
        (a_fill(-10, 100.0), a_fill(10, 110.0), -100.0),
        (a_fill(10, 100.0), a_fill(-25, 110.0), 100.0),
        (a_fill(-10, 100.0), a_fill(25, 110.0), -100.0),
        (a_fill(10, 100.0), a_fill(10, 130.0), 0.0),
    ],
)
def test_book_realises_the_profit_of_what_is_closed(
    first: Fill, second: Fill, profit: float
) -> None:
    assert Book([first, second]).realised_usd == {DAY: profit}


def test_book_when_all_is_closed_then_nothing_is_held() -> None:
    assert Book([a_fill(10, 100.0), a_fill(-10, 110.0)]).positions == {}


@pytest.mark.parametrize("sign", [1, -1])
def test_book_when_a_fill_flips_then_the_rest_is_a_new_position(sign: int) -> None:
    later = a_fill(-sign * 25, 110.0, at=NOON + MINUTE, stop_price=90.0)
    position = Book([a_fill(sign * 10, 100.0, stop_price=95.0), later]).positions["AAPL"]
    assert (position.quantity, position.average_price) == (-sign * 15, 110.0)
    assert (position.opened_at, position.stop_price) == (NOON + MINUTE, 90.0)


def test_book_when_added_to_then_the_position_keeps_its_opening() -> None:
    position = Book([a_fill(10, 100.0), a_fill(5, 100.0, at=NOON + MINUTE)]).positions["AAPL"]
    assert position.opened_at == NOON


@pytest.mark.parametrize(("new", "stop"), [(95.0, 95.0), (None, 90.0)])
def test_book_when_added_to_then_the_newest_known_stop_holds(
    new: float | None, stop: float
) -> None:
    fills = [a_fill(10, 100.0, stop_price=90.0), a_fill(5, 100.0, stop_price=new)]
    assert Book(fills).positions["AAPL"].stop_price == stop


def test_book_realises_in_the_session_that_closes() -> None:
    fills = [
        a_fill(10, 100.0),
        a_fill(-5, 110.0),
        a_fill(-5, 120.0, session_date=NEXT_DAY),
    ]
    assert Book(fills).realised_usd == {DAY: 50.0, NEXT_DAY: 100.0}


def test_book_keeps_tickers_apart() -> None:
    found = Book([a_fill(10, 100.0), a_fill(-5, 50.0, ticker="MSFT")])
    assert {t: p.quantity for t, p in found.positions.items()} == {"AAPL": 10, "MSFT": -5}


def test_exposure_adds_longs_and_shorts() -> None:
    assert Book([a_fill(10, 100.0), a_fill(-5, 50.0, ticker="MSFT")]).exposure_usd == 1_250.0


def test_exposure_counts_what_opening_orders_may_still_add() -> None:
    fills = [a_fill(4, 100.0, working=6), a_fill(0, 50.0, ticker="MSFT", working=-5)]
    assert Book(fills).exposure_usd == 1_250.0


def test_exposure_leaves_out_what_closing_orders_may_still_take() -> None:
    fills = [a_fill(10, 100.0), a_fill(0, 100.0, intent=CLOSE, working=-10)]
    assert Book(fills).exposure_usd == 1_000.0


def test_tickers_are_those_that_are_held_or_that_an_opening_order_may_add() -> None:
    fills = [
        a_fill(10),
        a_fill(0, ticker="MSFT", working=10),
        a_fill(0, ticker="NVDA", intent=CLOSE, working=-10),
    ]
    assert Book(fills).tickers == {"AAPL", "MSFT"}


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("filled", "working", "left"), [(0, 10, 0), (0, 4, 6), (3, 4, 3)])
def test_held_is_less_what_works_against_it(
    sign: int, filled: int, working: int, left: int
) -> None:
    closing = a_fill(-sign * filled, intent=CLOSE, working=-sign * working)
    assert Book([a_fill(sign * 10), closing]).held("AAPL") == sign * left


@pytest.mark.parametrize(
    "working", [a_fill(0, working=5), a_fill(0, ticker="MSFT", intent=CLOSE, working=-10)]
)
def test_held_does_not_count_what_works_in_its_favour_or_on_another_ticker(working: Fill) -> None:
    assert Book([a_fill(10), working]).held("AAPL") == 10


def test_held_is_less_what_an_opening_order_of_the_other_side_may_take() -> None:
    assert Book([a_fill(10), a_fill(0, working=-4)]).held("AAPL") == 6


@pytest.mark.parametrize("working", [{"working": 10}, {"working": -10, "intent": CLOSE}], ids=str)
def test_nothing_is_held_by_an_order_that_only_works(working: dict[str, Any]) -> None:
    assert Book([a_fill(0, **working)]).held("AAPL") == 0


def test_a_fill_of_nothing_opens_no_position() -> None:
    found = Book([a_fill(0, working=10)])
    assert (found.positions, found.realised_usd) == ({}, {})


def test_a_fill_of_nothing_leaves_the_position_as_it_is() -> None:
    fills = [a_fill(10, 100.0), a_fill(0, 150.0, at=NOON + MINUTE, working=5, stop_price=1.0)]
    assert Book(fills).positions == Book(fills[:1]).positions


def test_what_was_filled_completely_works_no_more() -> None:
    assert Book([a_fill(10), a_fill(4, working=6)]).working == [a_fill(4, working=6)]


def test_executions_that_open_are_counted_by_ticker_and_session() -> None:
    found = Book(
        [
            a_fill(10),
            a_fill(0, working=10),
            a_fill(0, working=10),
            a_fill(-10, intent=CLOSE),
            a_fill(10, session_date=NEXT_DAY),
            a_fill(10, ticker="MSFT"),
        ]
    )
    assert found.opened == {("AAPL", DAY): 3, ("AAPL", NEXT_DAY): 1, ("MSFT", DAY): 1}


@pytest.mark.parametrize("last", [{"intent": CLOSE}, {"quantity": 0, "working": 1}], ids=str)
def test_a_ticker_was_traded_when_its_last_fill_came_or_was_asked_for(last: dict[str, Any]) -> None:
    later = replace(a_fill(-10, at=NOON + MINUTE), **last)
    found = Book([a_fill(10), a_fill(10, ticker="MSFT"), later])
    assert found.traded_at == {"AAPL": NOON + MINUTE, "MSFT": NOON}


def test_a_ticker_that_was_never_traded_has_no_time() -> None:
    assert Book([a_fill(10)]).traded_at.get("MSFT") is None


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.integers(-50, 50),
            st.integers(-50, 50),
            st.sampled_from(["open", "close"]),
            st.sampled_from(["AAPL", "MSFT"]),
        ),
        max_size=8,
    )
)
def test_a_book_that_is_told_one_by_one_is_that_of_all_at_once(
    told: list[tuple[int, int, str, str]],
) -> None:
    fills = [a_fill(q, 100.0, working=w, intent=i, ticker=t) for q, w, i, t in told]
    grown = Book()
    for fill in fills:
        grown.add(fill)
    assert vars(grown) == vars(Book(fills))


def test_session_pnl_when_an_order_only_works_then_needs_no_mark() -> None:
    assert Book([a_fill(0, working=10)]).session_pnl(DAY, {}) == 0.0


def test_session_pnl_adds_realised_and_marked() -> None:
    found = Book([a_fill(10, 100.0), a_fill(-4, 130.0), a_fill(-5, 50.0, ticker="MSFT")])
    assert found.session_pnl(DAY, {"AAPL": 110.0, "MSFT": 60.0}) == 120 + 60 - 50


def test_session_pnl_leaves_out_what_other_sessions_realised() -> None:
    found = Book([a_fill(10, 100.0), a_fill(-10, 130.0)])
    assert found.session_pnl(NEXT_DAY, {}) == 0.0


def test_session_pnl_when_a_mark_is_missing_then_unknown() -> None:
    found = Book([a_fill(10, 100.0), a_fill(-5, 50.0, ticker="MSFT")])
    assert found.session_pnl(DAY, {"AAPL": 110.0}) is None


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(-50, 50).filter(bool), st.floats(1, 1_000)), min_size=1, max_size=12
    )
)
def test_profit_of_the_book_is_money_in_minus_money_out(trades: list[tuple[int, float]]) -> None:
    found = Book([a_fill(quantity, price) for quantity, price in trades])
    cash = -sum(quantity * price for quantity, price in trades)
    value = 100.0 * sum(quantity for quantity, _ in trades)
    assert found.session_pnl(DAY, {"AAPL": 100.0}) == pytest.approx(cash + value, abs=1e-6)


def leaves(position: Position | None = None, close: float | None = 200.0, **changes: Any) -> Any:
    """Why a position is left at a minute after noon, with a bar of noon."""
    now = changes.pop("now", NOON + 2 * MINUTE)
    session = changes.pop("session", SESSION)
    bar = a_bar(close=close, minute=changes.pop("minute", NOON)) if close else None
    return exit_reason(position or a_position(**changes), bar, session, now, CONFIG)


@pytest.mark.parametrize(
    ("quantity", "close", "reason"),
    [
        (10, 199.0, "stop"),
        (10, 190.0, "stop"),
        (10, 199.01, None),
        (10, 201.99, None),
        (10, 202.0, "target"),
        (10, 210.0, "target"),
        (-10, 201.0, "stop"),
        (-10, 210.0, "stop"),
        (-10, 200.99, None),
        (-10, 198.01, None),
        (-10, 198.0, "target"),
        (-10, 190.0, "target"),
    ],
)
def test_exit_reason_when_the_close_reaches_stop_or_target_then_names_it(
    quantity: int, close: float, reason: str | None
) -> None:
    sign = 1 if quantity > 0 else -1
    position = a_position(quantity=quantity, stop_price=200.0 - sign, target_price=200.0 + 2 * sign)
    assert leaves(position, close) == reason


def test_exit_reason_when_neither_stop_nor_target_is_set_then_keeps() -> None:
    assert leaves(a_position(stop_price=None, target_price=None), 1.0) is None


@pytest.mark.parametrize(("minutes", "reason"), [(239, None), (240, "max_hold"), (300, "max_hold")])
def test_exit_reason_when_held_for_long_then_max_hold(minutes: int, reason: str | None) -> None:
    opened = at(30)
    found = leaves(opened_at=opened, now=opened + minutes * MINUTE, max_hold_minutes=240)
    assert found == reason


def test_exit_reason_when_no_longest_time_is_set_then_keeps() -> None:
    assert leaves(opened_at=at(0), now=at(380), max_hold_minutes=None) is None


@pytest.mark.parametrize(
    ("session", "now", "reason"),
    [
        (SESSION, SESSION.closes_at - 5 * MINUTE, "flat_before_close"),
        (SESSION, SESSION.closes_at - 5 * MINUTE - timedelta(seconds=1), None),
        (HALF_DAY, datetime(2025, 11, 28, 17, 55, tzinfo=UTC), "flat_before_close"),
        (HALF_DAY, datetime(2025, 11, 28, 17, 54, tzinfo=UTC), None),
    ],
)
def test_exit_reason_when_the_close_is_near_then_flat(
    session: Session, now: datetime, reason: str | None
) -> None:
    opened = now - 10 * MINUTE
    found = leaves(
        opened_at=opened, session_date=session.day, session=session, now=now, minute=now - MINUTE
    )
    assert found == reason


def test_exit_reason_when_the_position_survived_the_night_then_overnight() -> None:
    assert leaves(session_date=DAY - timedelta(days=1)) == "overnight"


def test_exit_reason_when_there_is_no_bar_then_time_still_counts() -> None:
    assert leaves(close=None, opened_at=at(0), now=at(240), max_hold_minutes=240) == "max_hold"


def test_exit_reason_when_there_is_no_bar_then_keeps() -> None:
    assert leaves(close=None) is None


@pytest.mark.parametrize(("minute", "reason"), [(NOON - MINUTE, None), (NOON, "stop")])
def test_exit_reason_when_the_bar_ended_before_the_entry_then_ignores_it(
    minute: datetime, reason: str | None
) -> None:
    assert leaves(close=100.0, minute=minute, opened_at=NOON) == reason


@pytest.mark.parametrize("session_date", [DAY, DAY - timedelta(days=1)])
def test_exit_reason_when_the_market_is_closed_then_keeps(session_date: date) -> None:
    assert leaves(close=1.0, session=None, session_date=session_date) is None


def test_a_split_keeps_the_cost_of_a_lot_and_scales_its_stop_and_target() -> None:
    fill = a_fill(10, 200.0, stop_price=199.0, target_price=202.0)
    forward = a_fill(90, 20.0, at=NOON + MINUTE, intent="adjust", split_ratio=10.0)
    book = Book([fill, forward])
    lot = book.positions["AAPL"]
    assert (lot.quantity, lot.average_price) == (100, 20.0)
    assert (lot.stop_price, lot.target_price) == (19.9, 20.2)
    assert (lot.opened_at, book.traded_at["AAPL"]) == (fill.at, fill.at)
    assert book.session_pnl(DAY, {"AAPL": 20.1}) == pytest.approx(10.0)
    reverse = a_fill(-97, 666.0, at=NOON + 2 * MINUTE, intent="adjust", split_ratio=1 / 30)
    rest = Book([fill, forward, reverse]).positions["AAPL"]
    assert (rest.quantity, rest.notional) == (3, pytest.approx(2000.0))
    assert rest.stop_price == pytest.approx(597.0)
    gone = Book([fill, a_fill(-10, 1.0, intent="adjust", split_ratio=0.01)])
    assert gone.positions == {}
