"""Splits and new symbols of a lot, to the share."""

from decimal import Decimal

import pytest

from ops_pipeline.domain.adjustments import (
    ACCEPTED,
    Activity,
    Adjustment,
    explained,
    looks_like_split,
    split_of,
)
from ops_pipeline.domain.stream import Difference
from ops_pipeline_tests.builders import DAY, a_position


def differing(by_orders: str, by_broker: str, ticker: str = "AAPL") -> Difference:
    return Difference(ticker, Decimal(by_orders), Decimal(by_broker), "")


@pytest.mark.parametrize(
    ("by_orders", "by_broker", "held", "after"),
    [
        ("30", "10", 30, 10),
        ("30", "10", 20, 6),
        ("-30", "-10", -30, -10),
        ("7", "0.7", 7, 0),
        ("10", "15", 10, 15),
        ("49", "490", 49, 490),
    ],
)
def test_a_lot_is_scaled_like_the_whole_position_in_whole_shares(
    by_orders: str, by_broker: str, held: int, after: int
) -> None:
    plain = Adjustment(ACCEPTED, differing(by_orders, by_broker), "why", "ops")
    made = split_of(plain, a_position(quantity=held))
    assert held + made.ledger_quantity == after
    assert made.split_ratio == pytest.approx(float(by_broker) / float(by_orders))


@pytest.mark.parametrize(("by_orders", "by_broker"), [("10", "-10"), ("0", "10"), ("10", "0")])
def test_what_changes_its_side_is_no_split(by_orders: str, by_broker: str) -> None:
    found = differing(by_orders, by_broker)
    plain = Adjustment(ACCEPTED, found, "why", "ops")
    assert split_of(plain, a_position()) == plain
    assert not looks_like_split(found, Decimal(20), a_position())


def test_a_new_symbol_for_a_third_of_the_shares_keeps_the_cost() -> None:
    moved = [
        Activity("1", "NC", "OLD", Decimal(-30), DAY),
        Activity("2", "NC", "NEW", Decimal(10), DAY),
    ]
    lot = a_position(ticker="OLD", quantity=30)
    found = [differing("30", "0", "OLD"), differing("0", "10", "NEW")]
    gone, came = explained(found, moved, {"OLD": lot}, "test")
    assert (gone.ledger_quantity, came.ledger_quantity) == (-30, 10)
    assert came.lot is not None
    assert (came.lot.average_price, came.lot.stop_price) == (600.0, 597.0)


def test_two_orders_that_were_busted_are_two_rows() -> None:
    busts = [
        Activity(f"bust-{name}", "bust", "AAPL", Decimal(-3), DAY, name) for name in ("a", "b")
    ]
    made = explained([differing("10", "4")], busts, {}, "test")
    assert [(one.broker_order_id, one.quantity) for one in made] == [("a", -3), ("b", -3)]
