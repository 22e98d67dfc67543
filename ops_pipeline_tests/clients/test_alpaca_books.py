"""What an account was asked for and holds, page by page; and frames, read strictly."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from ops_pipeline.clients import alpaca_books
from ops_pipeline.clients.alpaca_books import (
    EVENTS,
    AlpacaBooks,
    is_control,
    read_activity,
    read_fill,
    read_frame,
    read_order,
)
from ops_pipeline.clients.alpaca_fields import STATES, Unreadable
from ops_pipeline.clients.alpaca_http import AlpacaSilent, Patience
from ops_pipeline.domain.errors import BadConfiguration, OperatorError
from ops_pipeline.domain.orders import OrderState
from ops_pipeline.domain.stream import Holding, positions
from ops_pipeline.sandbox.broker import Ticket
from ops_pipeline.sandbox.faults import Kind, Rule, Schedule
from ops_pipeline.sandbox.world import SandboxWorld
from ops_pipeline.settings import AlpacaAccess
from ops_pipeline_tests.clients.alpaca_stub import Answer, Asked, Script, serving
from ops_pipeline_tests.clients.told import BAD_FRAMES, ORDER_ID, a_frame, an_order
from ops_pipeline_tests.sandbox.served import served
from ops_pipeline_tests.sandbox.traders import eventually, flat_world
from ops_pipeline_tests.sandbox.worlds import ACCESS, NOW, Clock

LONG_AGO = NOW - timedelta(days=1)
AT = datetime(2021, 3, 16, 18, 38, 1, 942282, UTC)
CREATED_AT = datetime(2021, 3, 16, 18, 38, tzinfo=UTC)
# Fills are made by hand.
NEVER_SECONDS = 3_600.0


def books_at(url: str, access: tuple[str, str] = ACCESS) -> AlpacaBooks:
    return AlpacaBooks(AlpacaAccess(*access, url, url), lambda: NOW)


def traded(world: SandboxWorld, count: int, clock: Clock | None = None) -> None:
    """So many orders for three shares, all filled."""
    for _ in range(count):
        world.broker.submit(
            Ticket(symbol="AAPL", qty=Decimal(3), side="buy", type="market", time_in_force="day")
        )
        if clock:
            clock.now += timedelta(milliseconds=1)
    while world.broker.open_orders():
        world.broker.work()
        if clock:
            clock.now += timedelta(milliseconds=1)


def _of_account(name: str, others: dict[str, Any]) -> Answer:
    return Answer(others.get(name, {"id": "acc"} if name == "account" else []))


@contextmanager
def pages_of(*pages: Any, **others: Any) -> Iterator[AlpacaBooks]:
    """An Alpaca that answers each question for orders with the next of these."""
    left = list(pages)

    def answer(asked: Asked) -> Answer:
        name = asked.target.partition("?")[0].rpartition("/")[2]
        if asked.query.get("status") == "open":
            return Answer([])
        if name == "orders":
            return Answer(left.pop(0) if len(left) > 1 else left[0])
        return _of_account(name, others)

    script: Script = answer
    with serving(script) as stub:
        yield books_at(stub.url)


def test_orders_fills_and_positions_are_read_as_they_are() -> None:
    world = flat_world(fill_seconds=NEVER_SECONDS)
    traded(world, 3)
    with served(world) as url:
        books = books_at(url).read(LONG_AGO, LONG_AGO)
    assert [order.broker_order_id for order in books.orders] == [
        str(o) for o in world.broker.orders
    ]
    assert {order.state for order in books.orders} == {OrderState.FILLED}
    assert positions(books.orders) == {"AAPL": 9}
    assert books.holdings == {"AAPL": Holding(Decimal(9), Decimal(100))}
    assert [fill.key for fill in books.fills] == [
        str(fill.execution_id) for fill in world.broker.fills
    ]
    assert books.unreadable == ()


def test_positions_that_change_while_orders_are_read_are_moving() -> None:
    world = flat_world(fill_seconds=NEVER_SECONDS)
    world.faults.order(Schedule(rules=(Rule(kind=Kind.DELAY, match="/v2/orders", seconds=0.5),)))
    with served(world) as url, ThreadPoolExecutor(1) as pool:
        reading = pool.submit(books_at(url).read, LONG_AGO, LONG_AGO)
        eventually(lambda: len(world.log.entries), lambda count: count > 0)
        traded(world, 1)
        assert reading.result(10).moving == {"AAPL"}
        assert books_at(url).read(LONG_AGO, LONG_AGO).moving == frozenset()


def test_only_what_came_after_the_instants_is_asked_for() -> None:
    clock = Clock()
    world = flat_world(fill_seconds=NEVER_SECONDS, clock=clock)
    traded(world, 2)
    clock.now += timedelta(minutes=1)
    traded(world, 1)
    with served(world) as url:
        books = books_at(url).read(NOW, NOW)
        assert len(books.orders) == 1
        assert len({fill.broker_order_id for fill in books.fills}) == 1
        assert books.holdings["AAPL"].quantity == 9


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7, 9])
@pytest.mark.parametrize("at_once", [1, 2])
def test_pages_are_read_to_their_end_without_a_gap(
    count: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alpaca_books, "ORDERS_A_PAGE", 3)
    monkeypatch.setattr(alpaca_books, "FILLS_A_PAGE", 2)
    documents = []
    for number in range(count):
        # Two orders of one instant lie on both sides of a page's edge.
        second = number // at_once
        created_at = f"2021-03-16T18:38:{second:02}Z"
        documents.append(an_order(id=f"o{number}", created_at=created_at))

    def answer(asked: Asked) -> Answer:
        if "/orders" not in asked.target:
            return _of_account(asked.target.rpartition("/")[2], {})
        after = datetime.fromisoformat(asked.query["after"])
        rows = [d for d in documents if datetime.fromisoformat(d["created_at"]) > after]
        return Answer(rows[: int(asked.query["limit"])])

    with serving(answer) as stub:
        books = books_at(stub.url).read(LONG_AGO.replace(year=2020), LONG_AGO)
    assert [order.broker_order_id for order in books.orders] == [d["id"] for d in documents]


def test_pages_of_fills_are_read_to_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alpaca_books, "FILLS_A_PAGE", 2)
    world = flat_world(fill_seconds=NEVER_SECONDS)
    traded(world, 7)
    with served(world) as url:
        books = books_at(url).read(LONG_AGO, LONG_AGO)
    told = [str(fill.execution_id) for fill in world.broker.fills]
    assert [fill.key for fill in books.fills] == told
    assert len(told) > 7


def test_of_too_many_fills_the_first_are_read_and_up_to_when_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alpaca_books, "FILLS_A_PAGE", 2)
    monkeypatch.setattr(alpaca_books, "MAX_PAGES", 2)
    clock = Clock()
    world = flat_world(fill_seconds=NEVER_SECONDS, clock=clock)
    traded(world, 4, clock)
    fills = world.broker.fills
    assert len(fills) > 4
    with served(world) as url:
        first = books_at(url).read(LONG_AGO, LONG_AGO)
        assert first.fills_until is not None
        rest = books_at(url).read(LONG_AGO, first.fills_until)
    assert [fill.key for fill in first.fills] == [str(one.execution_id) for one in fills[:4]]
    assert first.fills_until == first.fills[-1].at
    assert len(first.orders) == 4
    assert [fill.key for fill in rest.fills] == [str(one.execution_id) for one in fills[4:]]
    assert rest.fills_until is None


def test_an_order_that_is_open_is_read_however_old_it_is() -> None:
    clock = Clock()
    world = flat_world(fill_seconds=NEVER_SECONDS, clock=clock)
    world.broker.submit(
        Ticket(symbol="AAPL", qty=Decimal(3), side="buy", type="market", time_in_force="day")
    )
    clock.now += timedelta(days=30)
    with served(world) as url:
        open_now = books_at(url).read(clock.now, clock.now)
        while world.broker.open_orders():
            world.broker.work()
        closed = books_at(url).read(clock.now, clock.now)
    assert [order.state for order in open_now.orders] == [OrderState.ACKED]
    assert closed.orders == ()


def test_pages_that_do_not_go_on_are_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alpaca_books, "ORDERS_A_PAGE", 2)
    page = [an_order(id="a"), an_order(id="b")]
    with pages_of(page) as books, pytest.raises(AlpacaSilent, match="does not end"):
        books.read(LONG_AGO, LONG_AGO)


def test_pages_without_an_end_are_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alpaca_books, "ORDERS_A_PAGE", 1)
    monkeypatch.setattr(alpaca_books, "FILLS_A_PAGE", 1)
    monkeypatch.setattr(alpaca_books, "MAX_PAGES", 3)
    ever = [[an_order(id=str(number))] for number in range(5)]
    with pages_of(*ever) as books, pytest.raises(AlpacaSilent, match="orders does not end"):
        books.read(LONG_AGO, LONG_AGO)
    with (
        pages_of([], FILL=[{"id": "x::y"}]) as books,
        pytest.raises(AlpacaSilent, match="fills does not end"),
    ):
        books.read(LONG_AGO, LONG_AGO)


def test_a_page_whose_end_cannot_be_read_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alpaca_books, "ORDERS_A_PAGE", 1)
    for last in (an_order(created_at="soon"), "nothing"):
        with pages_of([last]) as books, pytest.raises(AlpacaSilent, match="cannot be read"):
            books.read(LONG_AGO, LONG_AGO)


def test_what_cannot_be_read_is_told_and_the_rest_is_read() -> None:
    held = [
        {"symbol": "AAPL", "qty": "4", "avg_entry_price": "100", "side": "long"},
        {"symbol": "MSFT", "qty": "4", "avg_entry_price": "100", "side": "short"},
        {"symbol": "TSLA", "qty": "1e300", "avg_entry_price": "100"},
        {"symbol": "NVDA", "qty": "-4", "avg_entry_price": "100", "side": "short"},
        "nothing",
    ]
    orders = [an_order(), an_order(status="quantum"), 7]
    with pages_of(orders, positions=held, FILL=[{}]) as reader:
        books = reader.read(LONG_AGO, LONG_AGO)
    assert [order.broker_order_id for order in books.orders] == [ORDER_ID]
    assert {t: h.quantity for t, h in books.holdings.items()} == {"AAPL": 4, "MSFT": -4, "NVDA": -4}
    assert books.unreadable == ("status quantum", "no object", "id", "qty", "no object")


def test_an_answer_that_is_no_list_is_no_answer() -> None:
    with pages_of({"orders": []}) as books, pytest.raises(AlpacaSilent, match="no list"):
        books.read(LONG_AGO, LONG_AGO)


def test_a_request_that_fails_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alpaca_books, "ASKING", Patience(3.0, 3.0, 5.0, 3, 0.01))
    world = flat_world(fill_seconds=NEVER_SECONDS)
    traded(world, 1)
    once = [
        Rule(kind=Kind.STATUS, status=503, match="/v2/orders", times=1),
        Rule(kind=Kind.MALFORMED, match="/v2/positions", times=1),
        Rule(kind=Kind.DROP, match="/v2/account/activities", times=1),
    ]
    world.faults.order(Schedule(rules=tuple(once)))
    with served(world) as url:
        books = books_at(url).read(LONG_AGO, LONG_AGO)
    assert (len(books.orders), books.holdings["AAPL"].quantity) == (1, 3)


def test_a_key_that_is_refused_is_a_setting_that_is_wrong() -> None:
    with (
        served(flat_world()) as url,
        pytest.raises(BadConfiguration, match="refused the key") as error,
    ):
        books_at(url, ("sandbox-key", "another-secret")).read(LONG_AGO, LONG_AGO)
    assert isinstance(error.value, OperatorError)
    assert "another-secret" not in str(error.value)


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_frame_that_cannot_be_read_is_refused_and_none_of_the_connection(name: str) -> None:
    with pytest.raises(Unreadable) as error:
        read_frame(BAD_FRAMES[name])
    assert str(error.value).isprintable()
    assert not is_control(BAD_FRAMES[name])


def test_a_fill_is_read_with_its_order() -> None:
    update = read_frame(json.dumps(a_frame()).encode())
    assert update is not None
    event, order = update.event, update.order
    assert (event.key, event.name, event.quantity, event.price) == (
        "e-1",
        "partial_fill",
        Decimal(4),
        Decimal("187.25"),
    )
    assert event.at == order.told_at == AT
    assert (order.state, order.filled_quantity, order.quantity) == (OrderState.PARTIAL, 4, 10)
    assert order.filled_price == Decimal("187.25")
    assert order.created_at == CREATED_AT
    assert event.filled_quantity == 4


@pytest.mark.parametrize("event", sorted(EVENTS))
def test_each_event_is_read(event: str) -> None:
    update = read_frame(json.dumps(a_frame(event=event)))
    assert update is not None
    assert update.event.name == event
    assert (update.event.price is not None) == (event in ("fill", "partial_fill"))


@pytest.mark.parametrize("status", sorted(STATES))
def test_each_status_is_read(status: str) -> None:
    has_fill = "filled" in status
    order = an_order(status=status, filled_qty="4" if has_fill else "0", filled_avg_price=None)
    if has_fill:
        order["filled_avg_price"] = "187.25"
    found = read_order(order)
    assert found.state is STATES[status]
    assert found.filled_price == (Decimal("187.25") if has_fill else None)


def test_an_order_that_is_worked_on_and_partly_filled_is_partial() -> None:
    assert read_order(an_order(status="pending_cancel")).state is OrderState.PARTIAL


def test_an_order_that_was_replaced_is_over_and_says_by_which() -> None:
    order = read_order(an_order(status="replaced", replaced_by=ORDER_ID))
    assert (order.state, order.reason) == (OrderState.CANCELED, f"replaced by {ORDER_ID}")
    assert read_order(an_order(status="replaced")).reason == "replaced by another"


def test_an_order_for_an_amount_of_money_has_what_is_filled_of_it() -> None:
    found = read_order(an_order(qty=None, notional="1000"))
    assert (found.quantity, found.filled_quantity) == (4, 4)


def test_an_order_that_was_not_changed_was_told_when_it_was_made() -> None:
    assert read_order(an_order(updated_at=None)).told_at == CREATED_AT


def test_a_frame_without_an_execution_is_known_by_all_else() -> None:
    def key(**changes: Any) -> str:
        found = read_frame(json.dumps(a_frame(execution_id=None, **changes)))
        assert found is not None
        return found.event.key

    assert key() == key()
    different = [
        {},
        {"event": "new"},
        {"timestamp": "2021-03-16T18:38:02Z"},
        {"order": an_order(id="another")},
        {"order": an_order(filled_qty="5")},
    ]
    assert len({key(**change) for change in different}) == len(different)
    assert key(timestamp=None) == key(timestamp=None)


def test_frames_about_the_connection_tell_of_no_order() -> None:
    for stream in ("authorization", "listening"):
        text = json.dumps({"stream": stream, "data": {"status": "authorized"}})
        for frame in (text, text.encode()):
            assert read_frame(frame) is None
            assert is_control(frame)
    assert not is_control(json.dumps(a_frame()))


def test_a_fill_among_the_activities_has_the_key_of_its_frame() -> None:
    activity = {
        "id": "20210316143801942::e-1",
        "type": "partial_fill",
        "order_id": ORDER_ID,
        "symbol": "AAPL",
        "side": "buy",
        "cum_qty": "4",
        "qty": "4",
        "price": "187.25",
        "transaction_time": "2021-03-16T18:38:01.942282Z",
    }
    update = read_frame(json.dumps(a_frame()))
    assert update is not None
    assert read_fill(activity) == update.event
    assert read_fill(activity | {"side": "sell_short"}).side == "sell"
    assert read_fill(activity | {"side": "sell"}) == replace(update.event, side="sell")


def test_a_pair_of_currencies_is_written_as_alpaca_writes_its_position() -> None:
    of_order = read_order(an_order(symbol="BTC/USD", asset_class="crypto")).ticker
    with pages_of([], positions=[A_POSITION | {"symbol": "BTCUSD"}]) as books:
        held = books.read(LONG_AGO, LONG_AGO).holdings
    assert {of_order} == set(held) == {"BTCUSD"}
    assert read_order(an_order(symbol="BRK/B", asset_class="us_equity")).ticker == "BRK/B"


A_POSITION = {
    "symbol": "AAPL",
    "asset_class": "crypto",
    "qty": "0.5",
    "side": "long",
    "avg_entry_price": "100",
}
A_SPLIT = {
    "id": "20261201000000000::split-1",
    "activity_type": "SPLIT",
    "date": "2026-12-01",
    "symbol": "AAPL",
    "qty": "-10",
    "net_amount": "0",
    "status": "executed",
}


@pytest.mark.parametrize(
    ("changes", "quantity"),
    [
        ({}, -10),
        ({"activity_type": "CFEE", "symbol": "BTC/USD", "qty": "-0.25"}, Decimal("-0.25")),
        ({"activity_type": "DIV", "net_amount": "1.02"}, None),
        ({"activity_type": "DIV", "net_amount": "0", "qty": "1"}, 1),
        ({"activity_type": "CSD", "qty": None}, None),
        ({"activity_type": "FEE", "qty": ""}, None),
        ({"status": "canceled"}, None),
    ],
)
def test_an_activity_that_moves_shares_is_read(
    changes: dict[str, Any], quantity: Decimal | None
) -> None:
    found = read_activity(A_SPLIT | changes)
    assert (found and found.quantity) == quantity
    assert found is None or "/" not in found.ticker


@pytest.mark.parametrize("changes", [{"qty": "many"}, {"date": "soon"}, {"symbol": None}])
def test_an_activity_that_cannot_be_read_is_named(changes: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        read_activity(A_SPLIT | changes)


def test_a_broker_without_a_list_of_activities_is_read_all_the_same() -> None:
    def answer(asked: Asked) -> Answer:
        if asked.target.partition("?")[0].endswith("/account/activities"):
            return Answer({"message": "Not Found"}, 404)
        return _of_account(asked.target.partition("?")[0].rpartition("/")[2], {})

    with serving(answer) as stub:
        found = books_at(stub.url).read(LONG_AGO, LONG_AGO)
    assert found.activities == ()
    assert found.unreadable == ("account activities: the broker has no such list",)
