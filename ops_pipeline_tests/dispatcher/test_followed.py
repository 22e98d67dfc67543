"""What the trade stream means to the dispatcher: what others hold counts, silence allows less."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from ops_pipeline.dispatcher.brokers import PaperBroker
from ops_pipeline.dispatcher.run import Desk, run_once
from ops_pipeline.dispatcher.snapshot import Account, read_account
from ops_pipeline.domain.orders import OrderState
from ops_pipeline.domain.stream import BrokerOrder, Holding
from ops_pipeline.storage import dispatch, stream
from ops_pipeline.storage.stream import Lease
from ops_pipeline_tests.dispatcher.paper import Paper
from ops_pipeline_tests.dispatcher.world import TS, World

SECOND = timedelta(seconds=1)


@dataclass
class Followed(Paper):
    """A desk with a real paper account, which somebody may follow."""

    @property
    def desk(self) -> Desk:
        broker = PaperBroker(self.broker, "replay", self.pace, needs_stream=True)
        return replace(self.world.desk, broker=broker)

    def account(self) -> Account:
        with self.world.engine.connect() as connection:
            return read_account(connection, TS, self.desk.calendar, broker=self.desk.broker)


@pytest.fixture
def followed(world: World) -> Followed:
    world.trade()
    return Followed(world)


def hear(engine: Engine, at: datetime, seconds: float = 60.0) -> Lease:
    """Somebody follows the account, and heard of it at an instant."""
    with engine.begin() as connection:
        lease = stream.take_lease(connection, dispatch.ACCOUNT, "test", "1", seconds)
        assert lease
        stream.keep_lease(connection, lease, seconds, connected_at=at, alive_at=at, reason="")
        stream.keep_pass(connection, lease, at, [])
    return lease


def traded(ticker: str, quantity: float, price: float = 200.0, **changes: Any) -> BrokerOrder:
    """An order that is filled, and that this pipeline has not decided; a sale is negative."""
    order = BrokerOrder(
        broker_order_id=f"hand-{ticker}-{quantity}",
        client_order_id=f"hand-{ticker}-{quantity}",
        ticker=ticker,
        side="buy" if quantity > 0 else "sell",
        quantity=Decimal(str(abs(quantity))),
        state=OrderState.FILLED,
        filled_quantity=Decimal(str(abs(quantity))),
        filled_price=Decimal(str(price)),
        created_at=TS,
        told_at=TS,
    )
    return replace(order, **changes)


def hold(engine: Engine, ticker: str, quantity: int, price: float = 200.0) -> None:
    """Somebody buys by hand."""
    with engine.begin() as connection:
        stream.put_orders(connection, dispatch.ACCOUNT, [traded(ticker, quantity, price)])


def decided(followed: Followed) -> None:
    followed.world.recommend()
    run_once(followed.desk, TS)


def test_while_the_stream_is_heard_the_operator_alone_decides(followed: Followed) -> None:
    hear(followed.world.engine, TS - 29 * SECOND)
    assert (followed.account().trading_state, followed.account().stream_reason) == ("ACTIVE", "")
    decided(followed)
    assert followed.world.outcomes() == [("EXECUTED", None)]
    followed.follow()
    assert followed.order() == ("FILLED", 1)


@pytest.mark.parametrize(
    ("heard", "reason"),
    [
        (None, "the trade stream was never started"),
        (31, "the trade stream is silent for 31 s"),
    ],
)
def test_without_the_stream_nothing_new_is_begun(
    followed: Followed, heard: int | None, reason: str
) -> None:
    if heard:
        hear(followed.world.engine, TS - heard * SECOND)
    found = followed.account()
    assert (found.trading_state, found.stream_reason) == ("REDUCING", reason)
    decided(followed)
    skipped = "trading_state: Only closing orders while reducing"
    assert followed.world.outcomes() == [("SKIPPED", skipped)]
    ((told,),) = followed.world.ask("select run_summary_json ->> 'stream' from dispatcher_runs")
    assert told == reason


def test_a_lease_that_ran_out_is_a_stream_that_nobody_follows(followed: Followed) -> None:
    hear(followed.world.engine, TS, seconds=-1.0)
    assert followed.account().stream_reason == "nobody follows the trade stream"


def test_an_order_that_was_decided_waits_for_the_stream(followed: Followed) -> None:
    hear(followed.world.engine, TS)
    decided(followed)
    followed.follow(TS + 31 * SECOND)
    assert (followed.order(), followed.broker.posts) == (("READY", 0), [])
    followed.follow(TS + 30 * SECOND)
    assert followed.order() == ("FILLED", 1)


def test_a_closing_order_does_not_wait(followed: Followed) -> None:
    hear(followed.world.engine, TS)
    decided(followed)
    followed.world.execute(
        "alter table order_intents disable trigger order_intents_guard;"
        " update order_intents set intent = 'close';"
        " alter table order_intents enable trigger order_intents_guard"
    )
    followed.follow(TS + 40 * SECOND)
    assert followed.order() == ("FILLED", 1)


def test_the_operators_halt_is_stricter_than_the_stream(followed: Followed) -> None:
    followed.world.execute("update trading_state set state = 'HALTED'")
    assert followed.account().trading_state == "HALTED"


def test_what_others_hold_counts_as_open_and_as_exposure(followed: Followed) -> None:
    hear(followed.world.engine, TS)
    before = followed.account()
    hold(followed.world.engine, "AAPL", 10, price=150.0)
    hold(followed.world.engine, "ZZZZ", -3, price=50.0)
    found = followed.account()
    assert found.external == {
        "AAPL": Holding(Decimal(10), Decimal(150)),
        "ZZZZ": Holding(Decimal(-3), Decimal(50)),
    }
    assert found.open_tickers == before.open_tickers | {"AAPL", "ZZZZ"}
    # AAPL at its newest bar, ZZZZ, of which there is none, at what was paid.
    assert found.exposure_usd == pytest.approx(10 * found.marks["AAPL"] + 150)
    assert found.book.positions == before.book.positions


def test_what_others_hold_refuses_where_a_limit_is_reached(followed: Followed) -> None:
    hear(followed.world.engine, TS)
    for number in range(followed.desk.config.max_open_positions):
        hold(followed.world.engine, f"H{number}", 1)
    decided(followed)
    ((status, reason),) = followed.world.outcomes()
    assert status == "SKIPPED"
    assert str(reason).startswith("max_positions")


def test_a_simulation_takes_no_part_in_the_account(world: World) -> None:
    hold(world.engine, "AAPL", 10)
    with world.engine.connect() as connection:
        found = read_account(connection, TS, world.desk.calendar, broker=world.desk.broker)
    assert (found.external, found.trading_state) == ({}, "ACTIVE")
