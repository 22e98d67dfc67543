"""What somebody closes by hand at the broker leaves the ledger, and is not closed once more."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.clients.alpaca_books import Books
from ops_pipeline.dispatcher.by_hand import read_settled_account
from ops_pipeline.dispatcher.run import run_once
from ops_pipeline.dispatcher.snapshot import Account, read_account
from ops_pipeline.dispatcher.told import take_in
from ops_pipeline.domain.execution import closed_by_hand
from ops_pipeline.domain.orders import OrderState
from ops_pipeline.domain.stream import BrokerOrder, Holding
from ops_pipeline.storage import stream
from ops_pipeline.storage.dispatch import ACCOUNT
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.stream import Lease
from ops_pipeline_tests.dispatcher.paper import ACCEPT, PRICE, Paper
from ops_pipeline_tests.dispatcher.test_followed import Followed, hear, traded
from ops_pipeline_tests.dispatcher.test_orders import minute_later
from ops_pipeline_tests.dispatcher.world import TS, World

SHARES = 49
SOLD_AT = 203.0


@pytest.fixture
def held(world: World) -> Followed:
    """49 shares of AAPL that were bought at 201 USD, in an account that somebody follows."""
    world.trade()
    held = Followed(world)
    hear(world.engine, TS, seconds=600.0)
    world.recommend()
    assert run_once(held.desk, TS).executed == 1
    held.follow()
    assert account(held).book.held("AAPL") == SHARES
    return held


def an_order(side: str, quantity: float, **changes: Any) -> BrokerOrder:
    """An order for AAPL that is filled, and that this pipeline has not decided."""
    return traded("AAPL", quantity if side == "buy" else -quantity, SOLD_AT, **changes)


def told(paper: Paper, *orders: BrokerOrder) -> None:
    with paper.world.engine.begin() as connection:
        stream.put_orders(connection, ACCOUNT, orders)


def account(paper: Paper, now: datetime = TS) -> Account:
    with paper.world.engine.connect() as connection:
        return read_account(connection, now, paper.desk.calendar, broker=paper.desk.broker)


def a_minute_later(paper: Paper, close: float) -> datetime:
    """The next minute, at whose close AAPL is worth this; the account is followed still."""
    now = minute_later(paper, close)
    paper.world.execute("update stream_leases set alive_at = :at, passed_at = :at", at=now)
    return now


def by_hand(paper: Paper) -> list[tuple[Any, ...]]:
    return paper.world.ask("select ticker, side, qty, price from manual_fills order by id")


def closing(paper: Paper) -> list[tuple[Any, ...]]:
    return paper.orders("side, qty")[1:]


def test_what_was_sold_by_hand_is_not_sold_again_by_its_stop(
    held: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    told(held, an_order("sell", SHARES))
    with caplog.at_level(logging.WARNING):
        report = run_once(held.desk, a_minute_later(held, close=150.0))
    assert (report.exits, closing(held)) == ((), [])
    assert by_hand(held) == [("AAPL", "sell", SHARES, SOLD_AT)]
    assert "closed_by_hand" in caplog.messages
    found = account(held)
    assert (dict(found.book.positions), found.external) == ({}, {})
    assert (found.exposure_usd, found.open_tickers) == (0, frozenset())
    (profit,) = found.book.realised_usd.values()
    assert profit == pytest.approx(SHARES * (SOLD_AT - PRICE))


def test_of_a_position_that_was_sold_in_part_the_rest_is_sold(held: Followed) -> None:
    told(held, an_order("sell", 20.5))
    report = run_once(held.desk, a_minute_later(held, close=150.0))
    assert (report.exits, closing(held)) == (("stop",), [("sell", SHARES - 20)])
    assert by_hand(held) == [("AAPL", "sell", 20, SOLD_AT)]
    assert account(held).external["AAPL"].quantity == Decimal("-0.5")


def test_what_others_hold_is_sold_before_what_is_ours(held: Followed) -> None:
    told(held, an_order("buy", 30), an_order("sell", 30))
    run_once(held.desk, a_minute_later(held, close=200.0))
    assert by_hand(held) == []
    told(held, an_order("sell", 10))
    run_once(held.desk, TS)
    assert by_hand(held) == [("AAPL", "sell", 10, SOLD_AT)]


def test_it_leaves_the_ledger_once_whoever_looks(held: Followed) -> None:
    told(held, an_order("sell", SHARES))

    def settle(_: int) -> None:
        with held.world.engine.begin() as connection:
            read_settled_account(connection, TS, held.desk.calendar, held.desk.broker)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(settle, range(8)))
    assert by_hand(held) == [("AAPL", "sell", SHARES, SOLD_AT)]


def test_while_an_order_of_ours_is_at_work_nothing_is_concluded(held: Followed) -> None:
    held.broker.script = [ACCEPT]
    now = a_minute_later(held, close=150.0)
    assert run_once(held.desk, now).exits == ("stop",)
    held.follow(now)
    told(held, an_order("sell", SHARES))
    run_once(held.desk, now)
    assert by_hand(held) == []
    (order_id,) = [ticket.client_order_id for ticket in held.broker.posts[1:]]
    held.broker.change(order_id, state=OrderState.CANCELED)
    held.pass_time(60)
    held.follow(now)
    run_once(held.desk, now)
    assert by_hand(held) == [("AAPL", "sell", SHARES, SOLD_AT)]


def test_what_replaced_an_order_of_ours_counts_once(held: Followed) -> None:
    (ours,) = held.orders("client_order_id, broker_order_id")
    first = an_order(
        "buy",
        SHARES,
        broker_order_id=ours[1],
        client_order_id=ours[0],
        state=OrderState.CANCELED,
        filled_quantity=Decimal(0),
        filled_price=None,
        reason="replaced by hand-AAPL-49",
    )
    told(held, first, an_order("buy", SHARES))
    assert account(held).external == {}


@pytest.fixture
def lease(held: Followed) -> Lease:
    return Lease(ACCOUNT, held.world.ask("select epoch from stream_leases")[0][0])


def test_what_an_account_held_and_ordered_before_its_reset_ends_with_it(
    held: Followed, lease: Lease
) -> None:
    engine, at = held.world.engine, clock() + timedelta(minutes=1)
    client_id, broker_id = held.order("client_order_id, broker_order_id")
    ours = an_order(
        "buy",
        SHARES,
        client_order_id=client_id,
        broker_order_id=broker_id,
        filled_price=Decimal(str(PRICE)),
    )
    waiting = an_order(
        "buy", 5, state=OrderState.ACKED, filled_quantity=Decimal(0), filled_price=None
    )
    holding = {"AAPL": Holding(Decimal(SHARES), Decimal(201))}
    before = Books((ours, waiting), (), holding, (), frozenset(), at, account="one")
    take_in(engine, lease, before, TS)
    take_in(engine, lease, replace(before, orders=(), holdings={}, account="two"), TS)
    with engine.connect() as connection:
        assert stream.since(connection, ACCOUNT).oldest_open is None
    run_once(held.desk, a_minute_later(held, close=150.0))
    assert (closing(held), account(held).external) == ([], {})
    # Nobody tells what it was worth: it leaves without profit or loss.
    assert by_hand(held) == [("AAPL", "sell", SHARES, PRICE)]


@given(
    st.integers(-100, 100),
    st.decimals(-100, 100, places=2),
)
def test_what_is_closed_by_hand_is_never_more_than_either_side_has(
    held: int, others: Decimal
) -> None:
    closed = closed_by_hand(held, others)
    assert abs(closed) <= min(abs(held), abs(others))
    assert closed * held <= 0
    # Nothing whole is left that stands against ours.
    assert (held + closed) * int(others - closed) >= 0
