"""What a broker tells: in any order and as often as it likes, it comes to the same."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import reduce
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops_pipeline.domain.acceptance import Level
from ops_pipeline.domain.gates import ACTIVE, HALTED, REDUCING
from ops_pipeline.domain.orders import OrderState
from ops_pipeline.domain.stream import (
    ADDS_UP,
    DOWN_AFTER,
    IS_LIVE,
    BrokerOrder,
    Difference,
    StreamHealth,
    differences,
    joined,
    live_verdict,
    positions,
    stream_state,
    stricter,
    sums_verdict,
)
from ops_pipeline_tests.builders import NOON, a_broker_order

ACKED, PARTIAL, FILLED = OrderState.ACKED, OrderState.PARTIAL, OrderState.FILLED
CANCELED, REJECTED = OrderState.CANCELED, OrderState.REJECTED
SECOND = timedelta(seconds=1)
TEN = Decimal(10)
MOVED = "an order moved meanwhile"


@st.composite
def histories(draw: st.DrawFn) -> list[BrokerOrder]:
    """An order as it stood after each event: taken, filled bit by bit, and over."""
    side = draw(st.sampled_from(["buy", "sell"]))
    parts = draw(st.lists(st.integers(1, 5), max_size=6))
    quantity = Decimal(sum(parts) + draw(st.integers(0, 3)) or 1)
    order = a_broker_order(quantity=quantity, side=side)
    told, filled, paid = [order], Decimal(0), Decimal(0)
    for part in parts:
        filled, paid = filled + part, paid + part * draw(st.integers(100, 300))
        state = FILLED if filled == quantity else PARTIAL
        fill = {"filled_quantity": filled, "filled_price": paid / filled, "state": state}
        told.append(replace(told[-1], told_at=told[-1].told_at + SECOND, **fill))
    if not told[-1].state.is_final and draw(st.booleans()):
        end = CANCELED if filled or draw(st.booleans()) else REJECTED
        reason, at = f"Alpaca calls it {end.value}", told[-1].told_at + SECOND
        told.append(replace(told[-1], told_at=at, state=end, reason=reason))
    return told


# Whatever a broker may tell, though no order has such a life.
tellings = st.builds(
    lambda state, filled, price, seconds, quantity, reason: a_broker_order(
        state=state,
        filled_quantity=Decimal(filled),
        filled_price=Decimal(price) if filled else None,
        told_at=NOON + seconds * SECOND,
        quantity=Decimal(quantity),
        reason=reason,
    ),
    st.sampled_from([ACKED, PARTIAL, FILLED, CANCELED, REJECTED]),
    st.integers(0, 9),
    st.integers(1, 9),
    st.integers(0, 9),
    st.integers(1, 9),
    st.sampled_from(["", "a", "b"]),
)


def known_after(told: Sequence[BrokerOrder]) -> BrokerOrder:
    known = reduce(joined, told, None)
    assert known is not None
    return known


@pytest.mark.slow
@settings(max_examples=1_000, deadline=None)
@given(data=st.data(), told=histories())
def test_any_permutation_with_duplicates_gives_the_order_and_the_position_at_its_end(
    data: st.DataObject, told: list[BrokerOrder]
) -> None:
    again = data.draw(st.lists(st.sampled_from(told), max_size=8))
    shuffled = data.draw(st.permutations([*told, *again]))
    assert known_after(shuffled) == told[-1]
    assert positions([known_after(shuffled)]) == positions([told[-1]])


@settings(max_examples=300, deadline=None)
@given(told=histories(), data=st.data())
def test_what_is_missed_is_in_the_last_telling(
    told: list[BrokerOrder], data: st.DataObject
) -> None:
    heard = [one for one in told[:-1] if data.draw(st.booleans())]
    assert known_after(data.draw(st.permutations([*heard, told[-1]]))) == told[-1]


@given(one=tellings, other=tellings, third=tellings)
def test_tellings_join_in_any_grouping_and_repeat_without_effect(
    one: BrokerOrder, other: BrokerOrder, third: BrokerOrder
) -> None:
    assert joined(one, other) == joined(other, one)
    assert joined(joined(one, other), third) == joined(one, joined(other, third))
    assert joined(one, one) == joined(None, one) == one


@given(known=tellings, told=tellings)
def test_nothing_that_is_known_goes_back(known: BrokerOrder, told: BrokerOrder) -> None:
    after = joined(known, told)
    assert after.filled_quantity >= known.filled_quantity
    assert after.told_at >= known.told_at
    assert not known.state.is_final or after.state.is_final
    assert known.state is not FILLED or after.state is FILLED


def test_late_fill_of_an_order_that_is_canceled_counts() -> None:
    canceled = a_broker_order(state=CANCELED, reason="Alpaca calls it canceled")
    partly = a_broker_order(state=PARTIAL, filled_quantity=TEN / 2, filled_price=TEN)
    found = joined(canceled, partly)
    assert (found.state, found.filled_quantity, found.reason) == (CANCELED, 5, canceled.reason)


def test_positions_are_sums_of_signed_fills_over_what_was_held_before() -> None:
    bought = a_broker_order(filled_quantity=TEN)
    sold = replace(bought, side="sell", filled_quantity=Decimal(4))
    other = replace(bought, ticker="MSFT", side="sell", filled_quantity=Decimal(3))
    assert positions([bought, sold, other]) == {"AAPL": 6, "MSFT": -3}
    assert positions([bought, sold], {"AAPL": Decimal(-6), "TSLA": TEN}) == {"TSLA": 10}
    assert positions([]) == {}


def test_a_difference_is_told_by_ticker_and_explained_where_an_order_moved() -> None:
    ours = {"AAPL": TEN, "MSFT": TEN, "TSLA": TEN}
    theirs = {"AAPL": TEN, "MSFT": Decimal(9), "NVDA": TEN}
    found = differences(ours, theirs, ["MSFT"])
    assert found == [
        Difference("MSFT", TEN, Decimal(9), MOVED),
        Difference("NVDA", Decimal(0), TEN, ""),
        Difference("TSLA", TEN, Decimal(0), ""),
    ]
    assert [one.is_explained for one in found] == [True, False, False]


def health(seconds: float | None = 0.0, **changes: Any) -> StreamHealth:
    """Followed by somebody who heard of the broker so long before noon."""
    alive_at = None if seconds is None else NOON - timedelta(seconds=seconds)
    known = StreamHealth("host/1", "test", True, NOON, alive_at, NOON, "")  # noqa: FBT003
    return replace(known, **changes)


STATES = [
    (None, REDUCING, "never started"),
    (health(is_held=False), REDUCING, "nobody follows"),
    (health(None), REDUCING, "silent so far"),
    (health(31), REDUCING, "silent for 31 s"),
    (health(passed_at=None), REDUCING, "was not asked yet"),
    (health(passed_at=NOON - timedelta(minutes=6)), REDUCING, "could not be asked for 6 min"),
    (health(passed_at=NOON - timedelta(minutes=5)), ACTIVE, ""),
    (health(DOWN_AFTER.total_seconds()), ACTIVE, ""),
    (health(-5), ACTIVE, ""),
]


@pytest.mark.parametrize(("found", "state", "said"), STATES)
def test_nothing_new_is_begun_without_a_stream_that_lives(
    found: StreamHealth | None, state: str, said: str
) -> None:
    known, reason = stream_state(found, NOON)
    assert known == state
    assert said in reason
    assert bool(reason) == (state != ACTIVE)


@pytest.mark.parametrize(("found", "state", "said"), STATES)
def test_a_stream_that_is_down_is_critical(
    found: StreamHealth | None, state: str, said: str
) -> None:
    verdict = live_verdict(found, NOON)
    assert verdict.name == IS_LIVE
    assert (verdict.level is Level.NORMAL) == (state == ACTIVE)
    assert said in verdict.finding
    assert ("seconds_silent" in verdict.observed) == bool(found and found.alive_at)


@pytest.mark.parametrize("minutes", [0, 5, 6])
def test_a_stream_that_is_heard_while_nobody_can_ask_for_more_is_told(minutes: int) -> None:
    asked_at = NOON - timedelta(minutes=minutes)
    verdict = live_verdict(health(passed_at=asked_at), NOON)
    assert (verdict.level is Level.HIGH) == (minutes > 5)


@pytest.mark.parametrize(("one", "other"), list(product([ACTIVE, REDUCING, HALTED], repeat=2)))
def test_the_stricter_of_two_states_counts(one: str, other: str) -> None:
    order = [ACTIVE, REDUCING, HALTED]
    assert stricter(one, other) == order[max(order.index(one), order.index(other))]


def test_a_state_that_is_unknown_is_the_strictest() -> None:
    assert stricter("", ACTIVE) == stricter(REDUCING, "PAUSED") == stricter("", "") == HALTED


def test_an_account_that_does_not_add_up_is_critical_and_says_where() -> None:
    moved, real = Difference("MSFT", TEN, TEN * 2, MOVED), Difference("AAPL", TEN, Decimal(3), "")
    verdict = sums_verdict(health(differences=(moved, real)))
    assert (verdict.name, verdict.level) == (ADDS_UP, Level.CRITICAL)
    assert verdict.finding == "AAPL: 3 held, 10 by its orders"
    assert verdict.observed == {"differences": 2, "unexplained": 1}


@pytest.mark.parametrize("found", [None, health()])
def test_an_account_without_a_difference_adds_up(found: StreamHealth | None) -> None:
    assert sums_verdict(found).is_normal


def test_a_difference_that_is_explained_is_no_alarm() -> None:
    moved = Difference("MSFT", TEN, TEN * 2, MOVED)
    verdict = sums_verdict(health(differences=(moved,)))
    assert (verdict.level, verdict.observed["unexplained"]) == (Level.NORMAL, 0)
