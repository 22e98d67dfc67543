from collections import Counter
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ops_pipeline.domain.values import Bar
from ops_pipeline.sandbox.broker import STEPS, Broker, Event, Order, Position, Refused, Ticket
from ops_pipeline_tests.builders import a_bar
from ops_pipeline_tests.sandbox.worlds import Clock

CASH = Decimal(10_000)


class Prices:
    """A price for each symbol, moved by hand."""

    def __init__(self, **prices: float) -> None:
        self.of = prices

    def __call__(self, symbol: str) -> Bar | None:
        price = self.of.get(symbol)
        return a_bar(open=price, high=price, low=price, close=price) if price else None


def a_broker(prices: Prices | None = None, **how: Any) -> Broker:
    prices = prices or Prices(AAPL=100.0, MSFT=50.0)
    return Broker(prices, ("AAPL", "MSFT").__contains__, Clock(), cash=CASH, **how)


def a_ticket(**changes: Any) -> Ticket:
    fields = {"symbol": "AAPL", "qty": 10, "side": "buy", "type": "market", "time_in_force": "day"}
    return Ticket.model_validate(fields | changes)


def buy(broker: Broker, **changes: Any) -> Order:
    return broker.submit(a_ticket(**changes))


def sell(broker: Broker, **changes: Any) -> Order:
    return broker.submit(a_ticket(side="sell", **changes))


def settle(broker: Broker) -> None:
    for _ in range(STEPS):
        broker.work()


def refused(status: int, text: str) -> Any:
    return pytest.raises(Refused, check=lambda e: e.status == status, match=text)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"qty": 0}, "greater than 0"),
        ({"qty": -1}, "greater than 0"),
        ({"side": "hold"}, "'buy' or 'sell'"),
        ({"type": "stop"}, "'market' or 'limit'"),
        ({"time_in_force": "fok"}, "'day' or 'gtc'"),
        ({"limit_price": 10}, "do not fit"),
        ({"type": "limit"}, "do not fit"),
        ({"type": "limit", "limit_price": 10.001}, "sub-penny"),
        ({"type": "limit", "limit_price": "1e30"}, "24 digits"),
        ({"qty": 1.5, "time_in_force": "gtc"}, "must be DAY"),
        ({"client_order_id": "x" * 129}, "128"),
        ({"notional": 100}, "not permitted"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        a_ticket(**changes)


def test_an_order_moves_step_by_step() -> None:
    broker, seen = a_broker(), list[Event]()
    broker.listeners.append(seen.append)
    order = buy(broker, qty=1)
    assert order.status == "accepted"
    broker.work()
    assert broker.order(order.id).status == "new"
    broker.work()
    assert broker.order(order.id).status == "filled"
    assert [event.name for event in seen] == ["new", "fill"]


def test_some_orders_are_filled_in_two_parts_and_others_in_one() -> None:
    broker, parts = a_broker(Prices(AAPL=1.0)), list[int]()
    for _ in range(40):
        order = buy(broker, qty=10)
        settle(broker)
        parts.append(sum(fill.order.id == order.id for fill in broker.fills))
    assert set(parts) == {1, 2}
    assert broker.positions["AAPL"].quantity == 400


def test_the_same_seed_gives_the_same_parts_and_ids() -> None:
    first, second = a_broker(), a_broker()
    for broker in (first, second):
        for _ in range(5):
            buy(broker, qty=10)
        settle(broker)
    assert first.fills == second.fills
    assert a_broker(seed=8).account_id != first.account_id


def test_a_fill_moves_cash_and_position() -> None:
    broker = a_broker()
    buy(broker)
    settle(broker)
    assert broker.cash == CASH - 1_000
    assert (broker.position("AAPL").quantity, broker.position("AAPL").average_price) == (10, 100)


def test_a_position_that_is_closed_is_gone() -> None:
    broker = a_broker()
    buy(broker)
    settle(broker)
    sell(broker)
    settle(broker)
    assert broker.positions == {}
    assert broker.cash == CASH
    with refused(404, "position does not exist"):
        broker.position("AAPL")


def test_the_average_price_is_that_of_what_was_bought() -> None:
    prices = Prices(AAPL=100.0)
    broker = a_broker(prices)
    for prices.of["AAPL"] in (100.0, 200.0):
        buy(broker)
        settle(broker)
    sell(broker, qty=5)
    settle(broker)
    assert broker.position("AAPL").average_price == 150


@pytest.mark.parametrize(
    ("quantity", "held", "average"), [(-3, -2, 120), (3, 4, 115), (-0.5, 0.5, 100)]
)
def test_a_position_that_turns_has_the_price_of_the_turn(
    quantity: float, held: float, average: float
) -> None:
    after = Position("AAPL", Decimal(1), Decimal(100)).after(Decimal(quantity), Decimal(120))
    assert (after.quantity, after.average_price) == (Decimal(held), Decimal(average))


def test_no_order_is_filled_in_more_than_two_parts() -> None:
    broker = a_broker(Prices(AAPL=1.0))
    orders = [buy(broker, qty=100) for _ in range(30)]
    for _ in range(20):
        broker.work()
    parts = Counter(fill.order.id for fill in broker.fills)
    assert max(parts.values()) == 2
    assert not any(broker.order(order.id).is_open for order in orders)


def test_two_sales_of_the_same_shares_bind_what_is_short() -> None:
    broker = a_broker(shorting=True)
    buy(broker)
    settle(broker)
    for _ in range(2):
        sell(broker, type="limit", limit_price=200)
    assert broker.buying_power() == CASH - 1_000 - 2_000


def test_an_open_order_binds_its_cash() -> None:
    broker = a_broker()
    buy(broker, qty=60, type="limit", limit_price=90)
    assert broker.buying_power() == CASH - 5_400
    with refused(403, "insufficient buying power"):
        buy(broker, qty=47)
    buy(broker, qty=46)


def test_a_canceled_order_frees_its_cash() -> None:
    broker = a_broker()
    broker.cancel(buy(broker, qty=60, type="limit", limit_price=90).id)
    assert broker.buying_power() == CASH


def test_shares_that_are_promised_cannot_be_sold_twice() -> None:
    broker = a_broker()
    buy(broker)
    settle(broker)
    sell(broker, qty=6, type="limit", limit_price=200)
    with refused(403, "insufficient qty"):
        sell(broker, qty=5)
    sell(broker, qty=4)


def test_a_short_sale_needs_leave() -> None:
    with refused(403, "not allowed to short"):
        sell(a_broker())


def test_a_short_position_binds_its_value_and_not_what_it_brought() -> None:
    broker = a_broker(shorting=True)
    sell(broker, qty=40)
    assert broker.buying_power() == CASH - 4_000
    settle(broker)
    assert broker.cash == CASH + 4_000
    assert broker.buying_power() == CASH - 4_000
    with refused(403, "buying power"):
        sell(broker, qty=61)


def test_what_closes_a_short_binds_nothing() -> None:
    broker = a_broker(shorting=True)
    sell(broker, qty=100)
    settle(broker)
    buy(broker, qty=100)
    assert broker.buying_power() == 0


def test_an_unknown_symbol_is_refused() -> None:
    with refused(422, "not found"):
        buy(a_broker(), symbol="ZZZZ")


def test_a_client_order_id_is_used_once() -> None:
    broker = a_broker()
    order = buy(broker, qty=1, client_order_id="mine")
    with refused(422, "must be unique"):
        buy(broker, qty=1, client_order_id="mine")
    assert broker.order_of_client("mine") == order


def test_a_doomed_symbol_is_accepted_and_then_rejected() -> None:
    broker = a_broker()
    order = buy(broker, symbol="REJ1")
    assert order.status == "accepted"
    settle(broker)
    assert broker.order(order.id).status == "rejected"
    assert broker.cash == CASH


@pytest.mark.parametrize("status", ["filled", "canceled"])
def test_what_is_no_longer_open_cannot_be_canceled(status: str) -> None:
    broker = a_broker()
    order = buy(broker)
    if status == "filled":
        settle(broker)
    else:
        broker.cancel(order.id)
    with refused(422, f'already in "{status}" state'):
        broker.cancel(order.id)


def test_an_unknown_order_is_not_found() -> None:
    with refused(404, "order not found"):
        a_broker().order(uuid4())
    with refused(404, "order not found"):
        a_broker().order_of_client("nobody")


@pytest.mark.parametrize(
    ("side", "limit", "price", "filled_at"),
    [
        ("buy", 99, 100.0, None),
        ("buy", 99, 98.5, 98.5),
        ("buy", 100, 100.0, 100),
        ("sell", 101, 100.0, None),
        ("sell", 101, 102.5, 102.5),
    ],
)
def test_a_limit_order_waits_for_its_price(
    side: str, limit: float, price: float, filled_at: float | None
) -> None:
    prices = Prices(AAPL=100.0)
    broker = a_broker(prices, shorting=True)
    order = broker.submit(a_ticket(side=side, qty=1, type="limit", limit_price=limit))
    broker.work()
    prices.of["AAPL"] = price
    broker.work()
    assert broker.order(order.id).status == ("filled" if filled_at else "new")
    assert [float(fill.price) for fill in broker.fills] == ([filled_at] if filled_at else [])


def test_a_limit_that_the_bar_touched_is_filled_at_the_limit() -> None:
    bar = a_bar(open=100, high=101, low=98, close=100)
    broker = Broker(lambda _: bar, ("AAPL",).__contains__, Clock(), shorting=True)
    buy(broker, qty=1, type="limit", limit_price=99)
    sell(broker, qty=1, type="limit", limit_price=100.5)
    settle(broker)
    assert [fill.price for fill in broker.fills] == [Decimal(99), Decimal("100.5")]


def test_without_a_price_an_order_waits() -> None:
    prices = Prices()
    broker = a_broker(prices)
    buy(broker)
    settle(broker)
    assert broker.fills == []
    prices.of["AAPL"] = 10.0
    settle(broker)
    assert sum(fill.quantity for fill in broker.fills) == 10


DEEDS = st.lists(
    st.tuples(
        st.sampled_from(["buy", "sell", "cancel", "work", "price"]),
        st.sampled_from(["AAPL", "MSFT"]),
        st.decimals("0.1", 40, places=1),
    ),
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(DEEDS, st.booleans())
def test_whatever_is_done_nothing_is_lost(deeds: list[Any], shorting: bool) -> None:  # noqa: FBT001
    prices = Prices(AAPL=100.0, MSFT=50.0)
    broker = a_broker(prices, shorting=shorting)
    for what, symbol, amount in deeds:
        _do(broker, prices, what, symbol, amount)
        signed = [
            (f.order.ticket.symbol, f.order.ticket.sign * f.quantity, f.price) for f in broker.fills
        ]
        assert broker.cash + sum(quantity * price for _, quantity, price in signed) == CASH
        for held in ("AAPL", "MSFT"):
            expected = sum(quantity for name, quantity, _ in signed if name == held)
            position = broker.positions.get(held)
            assert (position.quantity if position else 0) == expected
            assert shorting or expected >= 0


def _do(broker: Broker, prices: Prices, what: str, symbol: str, amount: Decimal) -> None:
    try:
        if what == "work":
            broker.work()
        elif what == "price":
            prices.of[symbol] = float(amount) + 20
        elif what == "cancel":
            for order in broker.open_orders()[:1]:
                broker.cancel(order.id)
        else:
            broker.submit(a_ticket(symbol=symbol, side=what, qty=amount))
    except Refused as error:
        assert error.status == 403  # noqa: PT017 - what is refused is part of the story
