import json
from datetime import date, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
import websockets.sync.client
from alpaca.common.exceptions import APIError
from alpaca.trading.enums import OrderSide, OrderStatus, QueryOrderStatus, TimeInForce
from alpaca.trading.models import TradeActivity
from alpaca.trading.requests import (
    GetCalendarRequest,
    GetOrdersRequest,
)

from ops_pipeline_tests.sandbox.served import served
from ops_pipeline_tests.sandbox.traders import (
    eventually,
    filled,
    flat_world,
    heard,
    limit_order,
    market_order,
    subscribers,
)
from ops_pipeline_tests.sandbox.worlds import (
    ACCESS,
    HEADERS,
    NOW,
    WEB,
    Clock,
    trader,
)

BUY, SELL = OrderSide.BUY, OrderSide.SELL


def test_the_account_is_read_by_the_client() -> None:
    with served(flat_world()) as url:
        account = trader(url).get_account()
    assert (account.cash, account.equity, account.buying_power) == ("100000",) * 3
    assert account.status.value == "ACTIVE"


def test_a_market_order_is_filled_at_the_newest_price() -> None:
    with served(flat_world()) as url:
        client = trader(url)
        order = client.submit_order(market_order())
        assert order.status is OrderStatus.ACCEPTED
        done = eventually(lambda: client.get_order_by_id(order.id), lambda o: bool(o.filled_at))
        assert (done.status, done.filled_qty, done.filled_avg_price) == (
            OrderStatus.FILLED,
            "10",
            "100",
        )
        assert client.get_order_by_client_id(order.client_order_id).id == order.id
        position = client.get_open_position("AAPL")
        assert (position.qty, position.avg_entry_price, position.market_value) == (
            "10",
            "100",
            "1000",
        )
        assert [p.symbol for p in client.get_all_positions()] == ["AAPL"]
        assert client.get_account().cash == "99000"


def test_fractions_of_shares_are_traded() -> None:
    with served(flat_world()) as url:
        client = trader(url)
        assert filled(client, market_order(qty=2.5)).filled_qty == "2.5"
        assert client.get_open_position("AAPL").qty == "2.5"


def test_a_limit_order_rests_until_the_price_comes() -> None:
    with served(flat_world()) as url:
        client = trader(url)
        order = client.submit_order(limit_order(90))
        eventually(lambda: client.get_order_by_id(order.id), lambda o: o.status is OrderStatus.NEW)
        assert filled(client, limit_order(101)).filled_avg_price == "100"
        assert client.get_order_by_id(order.id).status is OrderStatus.NEW


def test_a_short_sale_is_refused_unless_allowed() -> None:
    with (
        served(flat_world()) as url,
        pytest.raises(APIError, match="not allowed to short") as error,
    ):
        trader(url).submit_order(market_order(SELL))
    assert (error.value.status_code, error.value.code) == (403, 40310000)
    with served(flat_world(shorting=True)) as url:
        filled(trader(url), market_order(SELL))
        position = trader(url).get_open_position("AAPL")
        assert (position.qty, position.side.value, position.market_value) == (
            "-10",
            "short",
            "-1000",
        )


@pytest.mark.parametrize(
    ("order", "status", "code", "message"),
    [
        (market_order(qty=1001), 403, 40310000, "insufficient buying power"),
        (market_order(symbol="ZZZZ"), 422, 42210000, "not found"),
        (limit_order(10.001), 422, 40010001, "sub-penny"),
        (market_order(time_in_force=TimeInForce.FOK), 422, 40010001, "time_in_force"),
    ],
)
def test_a_refusal_has_status_and_code(order: Any, status: int, code: int, message: str) -> None:
    with served(flat_world()) as url, pytest.raises(APIError, match=message) as error:
        trader(url).submit_order(order)
    assert (error.value.status_code, error.value.code) == (status, code)


def test_a_client_order_id_is_used_once() -> None:
    with served(flat_world()) as url:
        trader(url).submit_order(market_order(client_order_id="mine"))
        body = market_order(client_order_id="mine").to_request_fields()
        answer = WEB.post(f"{url}/v2/orders", json=body, headers=HEADERS)
    assert answer.status_code == 422
    assert answer.json() == {"code": 40010001, "message": "client_order_id must be unique"}


def test_an_open_order_is_canceled_and_a_done_one_is_not() -> None:
    with served(flat_world()) as url:
        client = trader(url)
        order = client.submit_order(limit_order(90))
        client.cancel_order_by_id(order.id)
        assert client.get_order_by_id(order.id).status is OrderStatus.CANCELED
        for order_id, status in ((order.id, 422), (uuid4(), 404)):
            with pytest.raises(APIError) as error:
                client.cancel_order_by_id(order_id)
            assert error.value.status_code == status
        assert WEB.delete(f"{url}/v2/orders/7", headers=HEADERS).status_code == 422


def test_all_open_orders_are_canceled_at_once() -> None:
    with served(flat_world()) as url:
        client = trader(url)
        orders = [client.submit_order(limit_order(price)) for price in (90, 91)]
        answers = client.cancel_orders()
        assert [(a.id, a.status) for a in answers] == [(order.id, 200) for order in orders]
        assert client.get_orders() == []


def test_orders_are_listed_by_status_time_and_symbol() -> None:
    clock = Clock()
    with served(flat_world(clock=clock)) as url:
        client = trader(url)
        done = filled(client, market_order())
        clock.now += timedelta(seconds=1)
        resting = [
            client.submit_order(limit_order(40, symbol="MSFT")),
            client.submit_order(limit_order(90)),
        ]

        def ids(**how: Any) -> list[Any]:
            return [order.id for order in client.get_orders(GetOrdersRequest(**how))]

        assert ids() == [resting[1].id, resting[0].id]
        assert ids(status=QueryOrderStatus.CLOSED) == [done.id]
        assert ids(status=QueryOrderStatus.ALL, direction="asc") == [
            done.id,
            *[o.id for o in resting],
        ]
        assert ids(status=QueryOrderStatus.ALL, limit=1) == [resting[1].id]
        assert ids(symbols=["MSFT"]) == [resting[0].id]
        assert ids(status=QueryOrderStatus.ALL, until=clock.now) == [done.id]
        assert done.id not in ids(status=QueryOrderStatus.ALL, after=NOW)


def test_what_is_not_there_is_not_found() -> None:
    with served(flat_world()) as url:
        for ask, code in (
            (lambda: trader(url).get_open_position("AAPL"), 40410000),
            (lambda: trader(url).get_order_by_id(uuid4()), 40410000),
            (lambda: trader(url).get_order_by_client_id("nobody"), 40410000),
        ):
            with pytest.raises(APIError) as error:
                ask()
            assert (error.value.status_code, error.value.code) == (404, code)
        assert WEB.get(f"{url}/v2/assets").status_code == 404


def test_fills_are_told_page_by_page() -> None:
    with served(flat_world()) as url:
        client = trader(url)
        orders = [filled(client, market_order(qty=qty)) for qty in (1, 1.5, 10, 20)]

        def page(**how: Any) -> list[dict[str, Any]]:
            return client.get("/account/activities/FILL", how)

        whole = page(direction="asc")
        assert sum(float(fill["qty"]) for fill in whole) == 32.5
        assert TradeActivity(**whole[0]).order_id == orders[0].id
        first = page(page_size=2)
        rest = page(page_token=first[-1]["id"])
        assert first + rest == whole[::-1]
        assert client.get("/account/activities", {"activity_types": "DIV"}) == []
        assert page(after="2025-03-12") == page(until="2025-03-10") == []
        with pytest.raises(APIError, match="invalid page_token"):
            page(page_token="nonsense")


def test_the_market_is_always_open() -> None:
    with served(flat_world()) as url:
        clock = trader(url).get_clock()
        days = trader(url).get_calendar(
            GetCalendarRequest(start=date(2025, 3, 15), end=date(2025, 3, 16))
        )
        year = trader(url).get_calendar()
    assert clock.timestamp == NOW
    assert clock.is_open
    assert clock.next_close.isoformat() == "2025-03-12T00:00:00+00:00"
    assert [(day.date.day, day.open.hour, day.close.hour) for day in days] == [
        (15, 0, 23),
        (16, 0, 23),
    ]
    assert len(year) == 365


@pytest.mark.parametrize("path", ["/v2/account", "/v2/stocks/bars", "/v1/corporate-actions"])
@pytest.mark.parametrize(
    "headers",
    [{}, {**HEADERS, "APCA-API-SECRET-KEY": "wrong"}, {**HEADERS, "APCA-API-KEY-ID": "wrong"}],
)
def test_without_the_key_nothing_is_told(path: str, headers: dict[str, str]) -> None:
    with served(flat_world()) as url:
        answer = WEB.get(url + path, headers=headers)
    assert answer.status_code == 401
    assert answer.json() == {"code": 40110000, "message": "request is not authorized"}


def test_each_host_has_a_rate_limit_of_its_own() -> None:
    clock = Clock()
    with served(flat_world(clock=clock, requests_per_minute=2)) as url:

        def ask(path: str = "/v2/account") -> httpx.Response:
            return WEB.get(url + path, headers=HEADERS)

        assert [ask().headers["x-ratelimit-remaining"] for _ in range(2)] == ["1", "0"]
        over = ask()
        assert (over.status_code, over.headers["retry-after"]) == (429, "30")
        assert over.json() == {"code": 42910000, "message": "rate limit exceeded"}
        assert over.headers["x-ratelimit-reset"] == str(int(NOW.timestamp()) + 30)
        data = [ask("/v1/corporate-actions") for _ in range(3)]
        assert [answer.status_code for answer in data] == [200, 200, 429]
        assert data[-1].json() == {"message": "too many requests."}
        clock.now += timedelta(seconds=30)
        assert ask().headers["x-ratelimit-limit"] == "2"
        assert ask().status_code == 200


def test_events_reach_every_connection() -> None:
    with heard(flat_world(), 2) as (url, listeners):
        order = filled(trader(url), market_order())
        for listener in listeners:
            seen = listener.seen
            eventually(lambda seen=seen: [u.event for u in seen], lambda names: "fill" in names)
            fills = [update for update in seen if update.qty]
            assert seen[0].event == "new"
            assert {update.order.id for update in seen} == {order.id}
            assert sum(update.qty for update in fills) == fills[-1].position_qty == 10
            assert {update.price for update in fills} == {100.0}
            assert len({update.execution_id for update in seen}) == len(seen)
            assert fills[-1].order.status is OrderStatus.FILLED
            assert all(update.timestamp == NOW for update in seen)


def test_partial_fills_are_told_before_the_whole() -> None:
    with heard(flat_world(seed=1)) as (url, [listener]):
        for _ in range(6):
            filled(trader(url), market_order())
        eventually(lambda: [u.event for u in listener.seen].count("fill"), lambda count: count == 6)
    names = [update.event for update in listener.seen]
    assert "partial_fill" in names
    assert all(names[place + 1] == "fill" for place, n in enumerate(names) if n == "partial_fill")


@pytest.mark.parametrize("end", ["canceled", "rejected"])
def test_an_order_that_is_not_filled_is_told_too(end: str) -> None:
    with heard(flat_world()) as (url, [listener]):
        client = trader(url)
        if end == "canceled":
            client.cancel_order_by_id(client.submit_order(limit_order(90)).id)
        else:
            assert client.submit_order(market_order(symbol="REJX")).status is OrderStatus.ACCEPTED
        eventually(lambda: [update.event for update in listener.seen], lambda names: end in names)
        assert listener.seen[-1].order.status.value == end


def test_frames_are_binary_json() -> None:
    with served(flat_world()) as url, websockets.sync.client.connect(f"ws{url[4:]}/stream") as ws:
        data = {"key_id": ACCESS[0], "secret_key": ACCESS[1]}
        ws.send(json.dumps({"action": "authenticate", "data": data}))
        welcome = ws.recv(5)
        ws.send(json.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}).encode())
        listens = ws.recv(5)
    assert isinstance(welcome, bytes)
    told = {"status": "authorized", "action": "authenticate"}
    assert json.loads(welcome) == {"stream": "authorization", "data": told}
    assert json.loads(listens) == {"stream": "listening", "data": {"streams": ["trade_updates"]}}


@pytest.mark.parametrize(
    "first",
    [
        '{"action": "authenticate", "data": {"key_id": "sandbox-key", "secret_key": "wrong"}}',
        '{"action": "authenticate", "data": []}',
        '{"action": "listen", "data": {"streams": ["trade_updates"]}}',
        "no json",
        "[]",
    ],
)
def test_who_has_no_key_is_told_so_and_shown_out(first: str) -> None:
    with served(flat_world()) as url, websockets.sync.client.connect(f"ws{url[4:]}/stream") as ws:
        ws.send(first)
        assert json.loads(ws.recv(5))["data"]["status"] == "unauthorized"
        with pytest.raises(websockets.ConnectionClosed) as closed:
            ws.recv(5)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


def test_who_went_away_is_forgotten() -> None:
    world = flat_world()
    with served(world) as url:
        with websockets.sync.client.connect(f"ws{url[4:]}/stream") as ws:
            data = {"key_id": ACCESS[0], "secret_key": ACCESS[1]}
            ws.send(json.dumps({"action": "authenticate", "data": data}))
            ws.send(json.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}))
            eventually(subscribers(world), lambda count: count == 1)
        eventually(subscribers(world), lambda count: count == 0)
        filled(trader(url), market_order())


def test_who_no_longer_listens_is_told_nothing() -> None:
    world = flat_world()
    with served(world) as url, websockets.sync.client.connect(f"ws{url[4:]}/stream") as ws:
        data = {"key_id": ACCESS[0], "secret_key": ACCESS[1]}
        ws.send(json.dumps({"action": "authenticate", "data": data}))
        for streams in (["trade_updates"], []):
            ws.send(json.dumps({"action": "listen", "data": {"streams": streams}}))
        told = [json.loads(ws.recv(5))["data"] for _ in range(3)]
        assert told[1:] == [{"streams": ["trade_updates"]}, {"streams": []}]
        filled(trader(url), market_order())
        with pytest.raises(TimeoutError):
            ws.recv(0.05)
