"""An order's states, its id at the broker, and what is learnt of it."""

from dataclasses import replace
from functools import reduce
from itertools import accumulate, pairwise, product
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ops_pipeline.domain.orders import (
    FINAL,
    MOVES,
    OrderReport,
    OrderState,
    OrderTicket,
    client_order_id,
    is_legal,
    learnt,
)

INSTALLATION = UUID("11111111-1111-4111-8111-111111111111")
ANOTHER = UUID("22222222-2222-4222-8222-222222222222")
TICKET = OrderTicket("op1-a", "AAPL", "buy", 10)
READY, SENT, UNKNOWN = OrderState.READY, OrderState.SENT, OrderState.UNKNOWN
ACKED, PARTIAL, FILLED = OrderState.ACKED, OrderState.PARTIAL, OrderState.FILLED
CANCELED, REJECTED, ABSENT = OrderState.CANCELED, OrderState.REJECTED, OrderState.ABSENT
LEGAL = {
    READY: {SENT, ABSENT},
    SENT: {UNKNOWN, ACKED, PARTIAL, FILLED, CANCELED, REJECTED, ABSENT},
    UNKNOWN: {SENT, ACKED, PARTIAL, FILLED, CANCELED, REJECTED, ABSENT},
    ACKED: {PARTIAL, FILLED, CANCELED, REJECTED},
    PARTIAL: {FILLED, CANCELED},
    FILLED: set(),
    CANCELED: set(),
    REJECTED: set(),
    ABSENT: {ACKED, PARTIAL, FILLED, CANCELED},
}
# What may be filled of ten shares, by state.
FILLS = {PARTIAL: (1, 9), FILLED: (10, 10), CANCELED: (0, 9)}


def a_report(state: OrderState, filled: int = 0, price: float = 200.0) -> OrderReport:
    return OrderReport(TICKET, "b-1", state, filled, price if filled else None)


reports = st.sampled_from(list(OrderState)).flatmap(
    lambda state: st.builds(
        a_report, st.just(state), st.integers(*FILLS.get(state, (0, 0))), st.floats(1, 1_000)
    )
)
known_first = st.sampled_from([a_report(READY), a_report(SENT), a_report(UNKNOWN)])
histories = st.tuples(known_first, st.lists(reports, max_size=12))


@pytest.mark.parametrize(("before", "after"), list(product(OrderState, OrderState)))
def test_a_move_is_legal_where_the_diagram_has_an_arrow_or_nothing_moves(
    before: OrderState, after: OrderState
) -> None:
    assert is_legal(before, after) is (before is after or after in LEGAL[before])


def test_no_move_stays_where_it_is() -> None:
    assert all(before is not after for before, after in MOVES)


@pytest.mark.parametrize("state", list(OrderState))
def test_a_state_is_final_when_nothing_may_follow_but_to_turn_up_after_all(
    state: OrderState,
) -> None:
    assert state.is_final is (not LEGAL[state] or state is ABSENT)


@pytest.mark.parametrize("state", list(OrderState))
def test_every_state_can_be_reached_from_ready(state: OrderState) -> None:
    reached = {READY}
    for _ in OrderState:
        reached |= {after for before, after in MOVES if before in reached}
    assert state in reached


def test_an_order_has_the_same_id_for_each_try() -> None:
    assert client_order_id(INSTALLATION, "live", "paper", 7) == client_order_id(
        INSTALLATION, "live", "paper", 7
    )


def test_the_id_of_an_order_is_the_one_that_earlier_versions_made() -> None:
    # An order that is out is found by it: to change how it is made is to lose those.
    known = "op1-ccf54611ab73d2549979d2e59c3253b4"
    assert client_order_id(INSTALLATION, "live", "paper", 7) == known


@pytest.mark.parametrize(
    "other",
    [
        (ANOTHER, "live", "paper", 7),
        (INSTALLATION, "replay", "paper", 7),
        (INSTALLATION, "live", "paper2", 7),
        (INSTALLATION, "live", "paper", 8),
    ],
    ids=["installation", "mode", "account", "recommendation"],
)
def test_the_id_of_an_order_is_nobody_elses(other: tuple[UUID, str, str, int]) -> None:
    assert client_order_id(*other) != client_order_id(INSTALLATION, "live", "paper", 7)


@settings(deadline=None, max_examples=40)
@given(st.uuids(), st.text(max_size=200), st.text(max_size=200), st.integers(1, 2**63 - 1))
def test_an_id_is_short_and_plain_whatever_it_is_made_of(
    installation: UUID, mode: str, account: str, number: int
) -> None:
    found = client_order_id(installation, mode, account, number)
    assert 8 <= len(found) <= 48
    assert found.startswith("op1-")
    assert found.isascii()
    assert found.replace("-", "").isalnum()


@settings(deadline=None, max_examples=60)
@given(histories)
def test_what_is_filled_never_shrinks(history: tuple[OrderReport, list[OrderReport]]) -> None:
    first, told = history
    quantities = [known.filled_quantity for known in accumulate(told, learnt, initial=first)]
    assert quantities == sorted(quantities)


@settings(deadline=None, max_examples=60)
@given(histories)
def test_every_step_that_is_learnt_is_a_legal_one(
    history: tuple[OrderReport, list[OrderReport]],
) -> None:
    first, told = history
    states = [known.state for known in accumulate(told, learnt, initial=first)]
    assert all(is_legal(before, after) for before, after in pairwise(states))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(FINAL - {ABSENT})), st.lists(reports, max_size=12))
def test_what_is_over_stays_over(state: OrderState, told: list[OrderReport]) -> None:
    over = a_report(state, 10 if state is FILLED else 0)
    assert reduce(learnt, told, over).state is state


@settings(deadline=None, max_examples=60)
@given(histories, reports)
@example((a_report(SENT), [a_report(ACKED)]), a_report(FILLED, 10))
def test_to_be_told_twice_is_to_be_told_once(
    history: tuple[OrderReport, list[OrderReport]], last: OrderReport
) -> None:
    first, told = history
    known = learnt(reduce(learnt, told, first), last)
    assert learnt(known, last) == known


@pytest.mark.parametrize(
    ("known", "older"),
    [
        (a_report(PARTIAL, 6), a_report(PARTIAL, 4)),
        (a_report(PARTIAL, 6), a_report(ACKED)),
        (a_report(FILLED, 10), a_report(PARTIAL, 6)),
        (a_report(CANCELED, 6), a_report(CANCELED, 4)),
        (a_report(CANCELED, 6), a_report(FILLED, 10)),
        (a_report(ACKED), a_report(SENT)),
        (a_report(ACKED), a_report(ABSENT)),
        (a_report(ABSENT), a_report(REJECTED)),
    ],
)
def test_an_older_report_changes_nothing(known: OrderReport, older: OrderReport) -> None:
    assert learnt(known, older) is known


@pytest.mark.parametrize(
    ("known", "newer"),
    [
        (a_report(SENT), a_report(FILLED, 10)),
        (a_report(UNKNOWN), a_report(REJECTED)),
        (a_report(ACKED), a_report(PARTIAL, 4)),
        (a_report(PARTIAL, 4), a_report(PARTIAL, 6)),
        (a_report(PARTIAL, 4), a_report(CANCELED, 4)),
        (a_report(ABSENT), a_report(FILLED, 10)),
        (a_report(FILLED, 10), replace(a_report(FILLED, 10), filled_price=199.5)),
    ],
)
def test_a_newer_report_is_what_is_known(known: OrderReport, newer: OrderReport) -> None:
    assert learnt(known, newer) is newer
