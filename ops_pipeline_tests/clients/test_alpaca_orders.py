"""Orders at Alpaca: handed over once, never doubted silently, and read strictly."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from alpaca.trading.enums import OrderStatus
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from ops_pipeline.clients.alpaca_http import Patience
from ops_pipeline.clients.alpaca_orders import (
    ASKING,
    HANDING_OVER,
    MAX_REPLACEMENTS,
    PAPER_URL,
    REPLACED,
    STATES,
    AlpacaOrders,
)
from ops_pipeline.clients.protocols import OrderGateway
from ops_pipeline.domain.errors import BadConfiguration, BadInput, NotRunning, OperatorError, Unsafe
from ops_pipeline.domain.orders import (
    BrokerAccount,
    OrderRefused,
    OrderReport,
    OrderState,
    OrderTicket,
    OrderUnknown,
)
from ops_pipeline.sandbox.faults import Kind, Rule, Schedule
from ops_pipeline.sandbox.world import SandboxWorld
from ops_pipeline.settings import AlpacaAccess
from ops_pipeline_tests.clients.alpaca_stub import DROP, HANG, Answer, Script, Stub, Time, serving
from ops_pipeline_tests.sandbox.served import served
from ops_pipeline_tests.sandbox.traders import flat_world
from ops_pipeline_tests.sandbox.worlds import ACCESS, trader

KEY, SECRET = "PKSECRETKEY", "a-very-secret-one"
TICKET = OrderTicket("op1-0123456789abcdef0123456789abcdef", "AAPL", "buy", 10)
ID = "61e69015-8549-4bfd-b9c3-01e75843f47d"
OTHER_ID = "eb9e2aaa-f71a-4f51-b5b4-52a6c565dad4"
FILLED_AT = datetime(2021, 3, 16, 18, 38, 1, 942282, UTC)
# Of each refusal, because Alpaca's side may quote what it was sent.
ECHO = f"no {KEY} and {SECRET} here"
FILLED = {
    "status": "filled",
    "filled_qty": "10",
    "filled_avg_price": "187.25",
    "filled_at": "2021-03-16T18:38:01.942282Z",
}
WORKED_ON = [
    "new",
    "accepted",
    "pending_new",
    "pending_review",
    "accepted_for_bidding",
    "held",
    "stopped",
    "calculated",
    "suspended",
    "pending_cancel",
    "pending_replace",
    "done_for_day",
]
# Its fills are made by hand.
NEVER_SECONDS = 3_600.0
PARTLY_FILLED_SEED = 2
SECONDS_TO_MINUTES_END = 30.0


def body(**changes: Any) -> dict[str, Any]:
    """An order as Alpaca tells of it: TICKET, accepted."""
    order = {
        "id": ID,
        "client_order_id": TICKET.client_order_id,
        "created_at": "2021-03-16T18:38:01.942282Z",
        "filled_at": None,
        "replaced_by": None,
        "replaces": None,
        "symbol": "AAPL",
        "notional": None,
        "qty": "10",
        "filled_qty": "0",
        "filled_avg_price": None,
        "order_class": "simple",
        "type": "market",
        "side": "buy",
        "time_in_force": "day",
        "status": "accepted",
    }
    return {**order, **changes}


def report(**changes: Any) -> OrderReport:
    """What `body` says."""
    return replace(OrderReport(TICKET, ID, OrderState.ACKED), **changes)


def error(status: int, message: str = ECHO, code: int = 0) -> Answer:
    return Answer({"code": code or status * 100_000, "message": message}, status)


def gateway(url: str, patience: Patience | None = None) -> AlpacaOrders:
    """Over loopback; what it waits for between requests passes at once."""
    time = Time()
    access = AlpacaAccess(KEY, SECRET, url, url)
    return AlpacaOrders(
        access, time.now, patience=patience or time.patience(), budget=time.budget()
    )


@contextmanager
def asking(*script: Answer | Script) -> Iterator[tuple[AlpacaOrders, Stub]]:
    with serving(*script) as stub:
        yield gateway(stub.url), stub


def raised(call: Callable[[], object], *secrets: str) -> Exception:
    """The error that a call ends with; no text of it, or of what it came of, holds a secret."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the type is the caller's claim
        call()
    told, waiting = "", [caught.value]
    while waiting:
        one = waiting.pop()
        told += f"{one}{one!r}{getattr(one, '__notes__', '')}"
        waiting += [of for of in (one.__cause__, one.__context__) if of]
    for secret in secrets or (KEY, SECRET):
        assert secret not in told
    assert "\n" not in str(caught.value)
    return caught.value


def submitted(answer: Answer | Script, patience: Patience | None = None) -> Exception:
    """The error that handing over ends with; one order was sent, whatever came back."""
    with serving(answer) as stub:
        failure = raised(lambda: gateway(stub.url, patience).submit(TICKET))
        assert [(asked.method, asked.target) for asked in stub.asked] == [("POST", "/v2/orders")]
    return failure


def found(*script: Answer | Script) -> OrderReport | None:
    with asking(*script) as (orders, _):
        return orders.find(TICKET.client_order_id)


def not_found(*script: Answer | Script) -> Exception:
    return raised(lambda: found(*script))


# Where orders may go


@pytest.mark.parametrize(
    "url",
    [
        "https://api.alpaca.markets",
        "https://API.alpaca.markets",
        "https://data.alpaca.markets",
        "https://broker-api.alpaca.markets",
        "http://paper-api.alpaca.markets",
        "https://paper-api.alpaca.markets.evil.example",
        "https://paper-api.alpaca.markets@evil.example",
        "https://paper-api.alpaca.markets:443@evil.example",
        "https://key:secret@paper-api.alpaca.markets",
        "https://paper-api.alpaca.markets/",
        "https://paper-api.alpaca.markets/v2",
        "https://paper-api.alpaca.markets:8443",
        "https://paper-api.alpaca.markets\n",
        "https://paper-api.alpaca.markets\\@evil.example",
        "https://paper-api-alpaca.markets",
        "https://evil.example/https://paper-api.alpaca.markets",
        "https://evil.example#https://paper-api.alpaca.markets",
        "http://127.0.0.1@evil.example",
        "http://127.0.0.1:80@evil.example",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example:80",
        "http://[::1].evil.example",
        "http://127.0.0.1/?https://api.alpaca.markets",
        "http://127.0.0.1\\.evil.example",
        "http://127.0.0.2",
        "http://0.0.0.0",
        "http://127.0.0.1:80\n",
        "http://127.0.0.1:٣",
        "ftp://127.0.0.1",
        "127.0.0.1",
        "",
    ],
)
def test_orders_go_to_no_other_host(url: str) -> None:
    access = AlpacaAccess(KEY, SECRET, trading_url=url)
    failure = raised(lambda: AlpacaOrders(access, Time().now))
    assert isinstance(failure, Unsafe)
    assert "evil" not in str(failure)


@pytest.mark.parametrize(
    "url",
    [
        AlpacaAccess.trading_url,
        "http://127.0.0.1:8600",
        "https://127.0.0.1",
        "http://localhost:8600",
        "http://[::1]:8600",
    ],
)
def test_orders_go_to_the_paper_account_and_to_this_machine(url: str) -> None:
    orders: OrderGateway = AlpacaOrders(AlpacaAccess("key", "secret", trading_url=url), Time().now)
    assert orders


def unconnected(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> tuple[AlpacaOrders, list[requests.PreparedRequest]]:
    """A gateway to the paper account whose requests all end so, and are kept."""
    sent: list[requests.PreparedRequest] = []

    def send(_: Any, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        sent.append(request)
        raise failure

    monkeypatch.setattr(HTTPAdapter, "send", send)
    return gateway(PAPER_URL), sent


def test_only_the_paper_host_is_ever_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    orders, sent = unconnected(monkeypatch, requests.ConnectionError())
    for call in (orders.account, lambda: orders.submit(TICKET), lambda: orders.find("mine")):
        raised(call)
    urls = {str(request.url) for request in sent}
    assert {url.partition("?")[0] for url in urls} == {
        f"{PAPER_URL}/v2/account",
        f"{PAPER_URL}/v2/orders",
        f"{PAPER_URL}/v2/orders:by_client_order_id",
    }
    assert not [url for url in urls if "//api.alpaca.markets" in url]


@pytest.mark.parametrize(
    "failure", [OSError("no certificates"), HTTPError(), requests.exceptions.InvalidHeader()]
)
def test_a_market_order_for_the_day_is_sent_once_whatever_fails(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    orders, sent = unconnected(monkeypatch, failure)
    assert type(raised(lambda: orders.submit(TICKET))) is OrderUnknown
    [request] = sent
    assert request.method == "POST"
    assert json.loads(request.body or "") == {
        "symbol": "AAPL",
        "qty": 10,
        "side": "buy",
        "type": "market",
        "time_in_force": "day",
        "order_class": "simple",
        "client_order_id": TICKET.client_order_id,
    }


@pytest.mark.parametrize(("key", "secret"), [("", "s"), ("k", ""), ("k\n", "s"), ("k", "sé")])
def test_a_key_that_no_header_may_hold_is_refused(key: str, secret: str) -> None:
    with pytest.raises(BadConfiguration, match="cannot be one"):
        AlpacaOrders(AlpacaAccess(key, secret), Time().now)


def test_patience_with_an_order_lasts_seconds() -> None:
    assert (HANDING_OVER.connect, HANDING_OVER.read) == (3.0, 10.0)
    assert HANDING_OVER.total == HANDING_OVER.connect + HANDING_OVER.read
    assert ASKING.total <= 6


# Handing over


def test_an_order_that_is_taken_is_told_as_the_broker_says() -> None:
    with asking(Answer(body(symbol="MSFT", side="sell", qty=7))) as (orders, stub):
        told = orders.submit(TICKET)
    assert told == report(ticket=replace(TICKET, ticker="MSFT", side="sell", quantity=7))
    assert len(stub.asked) == 1


@pytest.mark.parametrize(
    ("answer", "outcome", "words"),
    [
        (error(403, "insufficient buying power"), OrderRefused, "insufficient buying power (403)"),
        (error(403), OrderRefused, "no ... and ... here (403)"),
        (error(422, "asset not found"), OrderRefused, "asset not found (422)"),
        (error(404), OrderRefused, "(404)"),
        (error(400), OrderRefused, "(400)"),
        (Answer(f"<html>\n{ECHO}</html>", 403), OrderRefused, "<html> no ... and ... here</html>"),
        (error(401), BadConfiguration, "refused the key"),
        (error(408), OrderUnknown, "(408)"),
        (error(409), OrderUnknown, "(409)"),
        (error(429), OrderUnknown, "429"),
        (error(500), OrderUnknown, "status 500"),
        (error(502), OrderUnknown, "status 502"),
        (error(503), OrderUnknown, "status 503"),
        (error(504), OrderUnknown, "status 504"),
        (DROP, OrderUnknown, "the connection failed"),
        (Answer(body(), is_cut_off=True), OrderUnknown, "the connection failed"),
        (Answer(body(), headers={"Content-Encoding": "gzip"}), OrderUnknown, "connection failed"),
        (Answer("", 204), OrderUnknown, "not the order"),
        (Answer("<html>moved</html>", 302, {"Location": "/v2/orders"}), OrderUnknown, "read"),
        (Answer(f"<html>{ECHO}</html>"), OrderUnknown, "cannot be read"),
        (Answer(json.dumps(body())[:-20]), OrderUnknown, "cannot be read"),
        (Answer("[" * 100_000), OrderUnknown, "cannot be read (RecursionError)"),
        (Answer('{"qty": ' + "9" * 5_000 + "}"), OrderUnknown, "cannot be read (ValueError)"),
        (Answer(b'{"id": "\xff\xfe'), OrderUnknown, "cannot be read"),
        (Answer("null"), OrderUnknown, "not the order"),
        (Answer([body()]), OrderUnknown, "not the order"),
        (Answer(body(client_order_id="another")), OrderUnknown, "not the order"),
        (Answer(body(client_order_id=None)), OrderUnknown, "not the order"),
    ],
    ids=str,
)
def test_each_answer_to_an_order_has_its_outcome_after_one_request(
    answer: Answer, outcome: type[Exception], words: str
) -> None:
    failure = submitted(answer)
    assert type(failure) is outcome
    assert words in str(failure)


@pytest.mark.parametrize("code", [40010001, 42210000])
@pytest.mark.parametrize(
    "message",
    [
        "client_order_id must be unique",
        "Client order ID is already in use",
        "clientOrderId must be unique",
        "duplicate id",
    ],
)
def test_a_taken_id_means_that_there_may_be_an_order(code: int, message: str) -> None:
    failure = submitted(error(422, message, code))
    assert type(failure) is OrderUnknown
    assert str(failure) == f"the id is taken ({message} (422))"


def test_a_late_answer_is_no_answer() -> None:
    failure = submitted(HANG, Patience(read=0.05))
    assert type(failure) is OrderUnknown
    assert "nothing came in time" in str(failure)


def test_without_a_connection_nothing_is_known() -> None:
    with serving(Answer()) as stub:
        pass
    orders = gateway(stub.url)
    for call in (lambda: orders.submit(TICKET), lambda: orders.find("mine")):
        assert type(raised(call)) is OrderUnknown
    assert type(raised(orders.account)) is not OrderUnknown


def test_while_the_rate_limit_holds_no_order_is_sent() -> None:
    with asking(Answer({}, 429, {"Retry-After": "3600"})) as (orders, stub):
        for _ in range(2):
            assert type(raised(lambda: orders.submit(TICKET))) is OrderUnknown
        assert type(raised(lambda: orders.find("mine"))) is OrderUnknown
    assert [asked.method for asked in stub.asked] == ["POST"]


@pytest.mark.parametrize(
    "ticket", [replace(TICKET, side="hold"), replace(TICKET, side="BUY"), replace(TICKET, side="")]
)
def test_an_order_without_a_side_is_never_sent(ticket: OrderTicket) -> None:
    with asking(Answer(body())) as (orders, stub), pytest.raises(ValueError, match="OrderSide"):
        orders.submit(ticket)
    assert stub.asked == []


# Reading


@pytest.mark.parametrize("status", WORKED_ON)
def test_an_order_that_is_worked_on_may_be_filled_in_part(status: str) -> None:
    assert found(Answer(body(status=status))) == report()
    told = found(Answer(body(status=status, filled_qty="4", filled_avg_price="187.25")))
    assert told == report(state=OrderState.PARTIAL, filled_quantity=4, filled_price=187.25)


@pytest.mark.parametrize(
    ("status", "filled", "state", "reason"),
    [
        ("partially_filled", 4, OrderState.PARTIAL, ""),
        ("filled", 10, OrderState.FILLED, ""),
        ("canceled", 0, OrderState.CANCELED, "Alpaca calls it canceled"),
        ("expired", 0, OrderState.CANCELED, "Alpaca calls it expired"),
        ("rejected", 0, OrderState.REJECTED, "Alpaca calls it rejected"),
    ],
)
def test_each_other_word_has_its_state(
    status: str, filled: int, state: OrderState, reason: str
) -> None:
    told = found(Answer(body(**{**FILLED, "status": status, "filled_qty": filled})))
    assert told is not None
    assert (told.state, told.filled_quantity, told.reason) == (state, filled, reason)
    assert (told.filled_price, told.filled_at) == ((187.25, FILLED_AT) if filled else (None, None))


def test_each_word_of_alpacas_is_known() -> None:
    assert {status.value for status in OrderStatus} == {*STATES, REPLACED}
    assert len(STATES) == len(WORKED_ON) + 5


def test_what_was_filled_before_a_cancel_is_kept() -> None:
    told = found(Answer(body(status="expired", filled_qty="4", filled_avg_price=187)))
    assert told == report(
        state=OrderState.CANCELED,
        filled_quantity=4,
        filled_price=187.0,
        reason="Alpaca calls it expired",
    )


@pytest.mark.parametrize(
    "at",
    [
        "2021-03-16T18:38:01.942282Z",
        "2021-03-16T18:38:01.942282999Z",
        "2021-03-16T14:38:01.942282-04:00",
    ],
)
def test_a_fill_has_quantity_price_and_a_time_in_utc(at: str) -> None:
    told = found(Answer(body(**{**FILLED, "filled_at": at})))
    assert told == report(
        state=OrderState.FILLED, filled_quantity=10, filled_price=187.25, filled_at=FILLED_AT
    )
    assert told.filled_at is not None
    assert told.filled_at.tzinfo is UTC


NO_NUMBERS = [None, "", "x", "NaN", "Infinity", float("nan"), float("inf"), True, [], {}, "-1"]


@pytest.mark.parametrize(
    "changes",
    [
        *({"qty": value} for value in [*NO_NUMBERS, 0, "1.5", 1.5, 2**31, "1e9999", "1e999999999"]),
        *(
            {"filled_qty": value, "filled_avg_price": "187.25"}
            for value in [*NO_NUMBERS, "0.5", "11", "1e999999999"]
        ),
        *({**FILLED, "filled_avg_price": v} for v in [*NO_NUMBERS, 0, "1e9999", "1e-9999"]),
        {**FILLED, "filled_qty": "9"},
        {**FILLED, "filled_qty": "0"},
        *(
            {**FILLED, "filled_at": value}
            for value in [
                None,
                7,
                "",
                "soon",
                "2021-03-16T18:38:01",
                "2021-03-16",
                "0001-01-01T00:00:00+14:00",
            ]
        ),
        {"status": "partially_filled"},
        {"status": "partially_filled", "filled_qty": "4"},
        {"status": "new", "filled_qty": "4"},
        {**FILLED, "status": "rejected"},
        *({"status": value} for value in [None, "", "eaten", "FILLED", 7, [], "new "]),
        *({"side": value} for value in [None, "", "BUY", "hold", 1]),
        *({"symbol": value} for value in [None, "", 7, "A\nB", "\ud800", "A" * 129]),
        *({"id": value} for value in [None, "", 7, [], "A\0B"]),
    ],
    ids=str,
)
def test_an_order_that_cannot_be_read_is_unknown(changes: dict[str, Any]) -> None:
    with asking(Answer(body(**changes))) as (orders, _):
        for call in (lambda: orders.submit(TICKET), lambda: orders.find(TICKET.client_order_id)):
            assert type(raised(call)) is OrderUnknown


@pytest.mark.parametrize(
    "name", ["id", "client_order_id", "symbol", "qty", "filled_qty", "side", "status"]
)
def test_an_order_that_lacks_a_field_is_unknown(name: str) -> None:
    order = body()
    del order[name]
    assert type(submitted(Answer(order))) is OrderUnknown


# Asking


def test_an_order_is_asked_for_by_its_id() -> None:
    with asking(Answer(body())) as (orders, stub):
        assert orders.find(TICKET.client_order_id) == report()
    assert [(asked.method, asked.query) for asked in stub.asked] == [
        ("GET", {"client_order_id": TICKET.client_order_id})
    ]


def test_an_order_that_alpaca_does_not_have_is_none() -> None:
    assert found(error(404, "order not found", 40410000)) is None


@pytest.mark.parametrize(
    "answer",
    [
        Answer("<html>Not Found</html>", 404),
        Answer("", 404),
        Answer("[]", 404),
        Answer({"message": "Not Found"}, 404),
        Answer({"code": None, "message": "Not Found"}, 404),
        Answer("null"),
        Answer("[]"),
        Answer("{}"),
        Answer("", 204),
        Answer(body(client_order_id="another")),
        error(400),
        error(403),
        error(410),
        error(422, code=40410000),
        error(429),
        error(500),
        error(503),
        DROP,
        Answer(f"<html>{ECHO}</html>"),
        Answer(body(), 200, is_cut_off=True),
    ],
    ids=str,
)
def test_only_alpacas_own_word_means_that_there_is_no_order(answer: Answer) -> None:
    assert type(not_found(answer)) is OrderUnknown


def test_a_refused_key_is_told_as_such() -> None:
    assert type(not_found(error(401))) is BadConfiguration


@pytest.mark.parametrize(
    "first", [error(503), error(429), DROP, Answer("{")], ids=["503", "429", "drop", "cut"]
)
def test_asking_is_repeated(first: Answer) -> None:
    assert found(first, Answer(body())) == report()


def replacing(**orders: dict[str, Any]) -> Script:
    """Orders by the last part of the address, and else the one that was replaced."""

    def answer(asked: Any) -> Answer:
        by_id = orders.get(asked.target.rpartition("/")[2])
        return Answer(by_id or body(status=REPLACED, replaced_by=ID))

    return answer


def test_a_replaced_order_is_followed_under_the_id_that_was_asked_for() -> None:
    new = body(**FILLED, client_order_id="alpacas-own", replaces=OTHER_ID)
    told = found(replacing(**{ID: new}))
    assert told is not None
    assert (told.ticket, told.broker_order_id, told.state) == (TICKET, ID, OrderState.FILLED)


def test_replacements_are_followed_so_far_and_no_further() -> None:
    again = body(status=REPLACED, replaced_by=ID, client_order_id="alpacas-own")
    with asking(replacing(**{ID: again})) as (orders, stub):
        failure = raised(lambda: orders.find(TICKET.client_order_id))
    assert type(failure) is OrderUnknown
    assert len(stub.asked) == 1 + MAX_REPLACEMENTS


@pytest.mark.parametrize(
    "old", [{"replaced_by": None}, {"replaced_by": "no uuid"}, {"filled_qty": "4"}], ids=str
)
def test_a_replaced_order_that_cannot_be_followed_is_unknown(old: dict[str, Any]) -> None:
    first = Answer(body(**{"status": REPLACED, "replaced_by": ID, **old}))
    assert type(not_found(first, Answer(body()))) is OrderUnknown


@pytest.mark.parametrize("second", [error(404), error(500), Answer(body(id=OTHER_ID))], ids=str)
def test_a_replacement_that_is_not_told_of_is_unknown(second: Answer) -> None:
    first = Answer(body(status=REPLACED, replaced_by=ID))
    assert type(not_found(first, second)) is OrderUnknown


# The account

ACCOUNT = {
    "account_number": "PA123",
    "equity": "103820.56",
    "status": "ACTIVE",
    "trading_blocked": False,
    "account_blocked": False,
    "trade_suspended_by_user": False,
}


def account(answer: Answer) -> BrokerAccount:
    with asking(answer) as (orders, _):
        return orders.account()


def test_an_account_has_number_and_equity() -> None:
    assert account(Answer(ACCOUNT)) == BrokerAccount("PA123", 103820.56, is_blocked=False)
    assert account(Answer({**ACCOUNT, "equity": "-7.5"})).equity_usd == -7.5


@pytest.mark.parametrize(
    "change",
    [
        {"trading_blocked": True},
        {"account_blocked": True},
        {"trade_suspended_by_user": True},
        {"status": "ACCOUNT_CLOSED"},
        {"status": "active"},
    ],
    ids=str,
)
def test_an_account_that_may_not_trade_is_blocked(change: dict[str, Any]) -> None:
    assert account(Answer({**ACCOUNT, **change})).is_blocked


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (error(401), BadConfiguration),
        (error(403), BadConfiguration),
        (error(404), BadInput),
        (error(429), OperatorError),
        (error(500), NotRunning),
        (DROP, NotRunning),
        (Answer("null"), NotRunning),
        (Answer([ACCOUNT]), NotRunning),
        *(
            (Answer({**ACCOUNT, name: value}), NotRunning)
            for name, value in [
                ("equity", "NaN"),
                ("equity", None),
                ("equity", "1e9999"),
                ("account_number", ""),
                ("status", None),
                ("trading_blocked", None),
                ("account_blocked", "false"),
                ("trade_suspended_by_user", 0),
            ]
        ),
    ],
    ids=str,
)
def test_an_account_that_is_not_told_is_the_operators(
    answer: Answer, outcome: type[Exception]
) -> None:
    failure = raised(lambda: account(answer))
    assert isinstance(failure, outcome)


def test_the_log_holds_no_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    submitted(error(403))
    not_found(error(401))
    assert caplog.text
    assert KEY not in caplog.text
    assert SECRET not in caplog.text


# Bodies that were recorded


@pytest.mark.recorded
def test_each_recorded_error_has_its_outcome(recorded: Path) -> None:
    text = (recorded / "alpaca_error_bodies" / "errors.json").read_text()
    errors = [one for one in json.loads(text) if one["api"] == "trading"]
    assert len(errors) == 10
    for one in errors:
        answer = Answer(one["body"], one["http"])
        failure, message = submitted(answer), one["body"]["message"]
        is_unclear = one["http"] == 429 or "unique" in message
        assert type(failure) is (OrderUnknown if is_unclear else OrderRefused), one
        assert message in str(failure) or one["http"] == 429
        if one["http"] == 404:
            assert found(answer) is None
        else:
            assert type(not_found(answer)) is OrderUnknown


@pytest.mark.recorded
@pytest.mark.parametrize(
    ("name", "ticker", "side"),
    [
        ("market_order", "AAPL`", "buy"),
        ("limit_order", "AAPL`", "buy"),
        ("order_position_intent", "SPY`", "buy"),
        ("order_position_intent_1", "AAPL`", "sell"),
        ("get_order_by_client_id", "AAPL`", "buy"),
        ("get_order_by_id", "AAPL`", "buy"),
        ("replace_order", "AAPL`", "buy"),
    ],
)
def test_each_recorded_order_is_read(recorded: Path, name: str, ticker: str, side: str) -> None:
    ticket = OrderTicket(OTHER_ID, ticker, side, 1)
    with asking(Answer(recorded_body(recorded, f"order_routes__test_{name}"))) as (orders, _):
        told = orders.submit(replace(ticket, ticker="X"))
        assert told == orders.find(OTHER_ID) == OrderReport(ticket, ID, OrderState.ACKED)


@pytest.mark.recorded
@pytest.mark.parametrize(
    ("name", "client_id"),
    [
        ("order_routes__test_get_orders", "string"),
        ("order_routes__test_cancel_orders", OTHER_ID),
        ("position_routes__test_close_position_with_qty", OTHER_ID),
    ],
)
def test_a_recorded_body_that_is_no_order_of_shares_is_unknown(
    recorded: Path, name: str, client_id: str
) -> None:
    with asking(Answer(recorded_body(recorded, name))) as (orders, _):
        for call in (
            lambda: orders.find(client_id),
            lambda: orders.submit(replace(TICKET, client_order_id=client_id)),
        ):
            assert type(raised(call)) is OrderUnknown


@pytest.mark.recorded
def test_a_recorded_order_of_a_list_is_read(recorded: Path) -> None:
    [order] = json.loads(recorded_body(recorded, "order_routes__test_get_orders"))
    with asking(Answer(order)) as (orders, _):
        told = orders.find("string")
    ticket = OrderTicket("string", "SPY", "buy", 1)
    assert told == OrderReport(ticket, order["id"], OrderState.ACKED)


@pytest.mark.recorded
def test_the_recorded_account_is_read(recorded: Path) -> None:
    told = account(Answer(recorded_body(recorded, "account_routes__test_get_account")))
    assert told == BrokerAccount("010203ABCD", 103820.56, is_blocked=False)


def recorded_body(recorded: Path, name: str) -> str:
    return (recorded / "alpaca_py_responses" / f"test_{name}.json").read_text()


# A whole broker: the sandbox, over HTTP


class Floor:
    """A sandbox whose orders move only when a test says so, and a gateway to it."""

    def __init__(self, world: SandboxWorld, url: str) -> None:
        self.world, self.url, self.time = world, url, Time()
        access, patience = AlpacaAccess(*ACCESS, url, url), self.time.patience()
        # Dates go by the sandbox's clock, because it tells until when its rate limit holds.
        self.orders = AlpacaOrders(access, world.now, patience=patience, budget=self.time.budget())

    def strike(self, kind: Kind, **how: Any) -> None:
        """One fault for each order that is handed over from now on."""
        rule = Rule(kind=kind, match="/v2/orders", methods=("POST",), **how)
        self.world.faults.order(Schedule(rules=(rule,)))

    def work(self) -> OrderReport | None:
        """What is told of TICKET after the broker has moved each order one step."""
        self.world.broker.work()
        return self.orders.find(TICKET.client_order_id)

    @property
    def posts(self) -> int:
        return sum(line["method"] == "POST" for line in self.world.log.entries)


@pytest.fixture
def floor() -> Iterator[Floor]:
    world = flat_world(fill_seconds=NEVER_SECONDS)
    with served(world) as url:
        yield Floor(world, url)


def test_an_order_at_a_broker_is_what_was_asked_for(floor: Floor) -> None:
    told = floor.orders.submit(TICKET)
    [order] = floor.world.broker.orders.values()
    assert told == report(broker_order_id=str(order.id))
    assert trader(floor.url).get_order_by_client_id(TICKET.client_order_id).id == order.id
    asked = order.ticket
    assert (asked.symbol, asked.side, asked.qty) == ("AAPL", "buy", 10)
    assert (asked.type, asked.time_in_force, asked.order_class) == ("market", "day", "simple")
    assert not asked.extended_hours
    assert floor.orders.account() == BrokerAccount("PA0SANDBOX", 100_000.0, is_blocked=False)


def test_an_order_whose_answer_was_dropped_is_found_and_not_taken_twice(floor: Floor) -> None:
    floor.strike(Kind.DROP)
    assert type(raised(lambda: floor.orders.submit(TICKET), *ACCESS)) is OrderUnknown
    told = floor.orders.find(TICKET.client_order_id)
    assert told is not None
    assert (told.ticket, told.state) == (TICKET, OrderState.ACKED)
    floor.world.faults.order(Schedule())
    again = raised(lambda: floor.orders.submit(TICKET), *ACCESS)
    assert type(again) is OrderUnknown
    assert "the id is taken" in str(again)
    assert len(floor.world.broker.orders) == 1
    assert floor.posts == 2


def test_after_a_strike_the_broker_is_asked(floor: Floor) -> None:
    rules: list[tuple[dict[str, Any], int]] = [
        ({"kind": Kind.MALFORMED}, 1),
        ({"kind": Kind.BODY, "body": "<html>down</html>"}, 0),
        ({"kind": Kind.BODY, "body": '{"qty": NaN}'}, 0),
        ({"kind": Kind.STATUS, "status": 503}, 0),
        ({"kind": Kind.STATUS, "status": 504}, 0),
    ]
    for number, (rule, taken) in enumerate(rules):
        ticket = replace(TICKET, client_order_id=f"mine-{number}")
        before = len(floor.world.broker.orders)
        floor.strike(**rule)
        assert type(raised(lambda sent=ticket: floor.orders.submit(sent), *ACCESS)) is OrderUnknown
        assert floor.posts == number + 1
        assert len(floor.world.broker.orders) == before + taken
        assert (floor.orders.find(ticket.client_order_id) is not None) == bool(taken)


def test_after_a_rate_limit_the_order_can_be_sent_again(floor: Floor) -> None:
    floor.strike(Kind.STATUS, status=429, times=1)
    assert type(raised(lambda: floor.orders.submit(TICKET), *ACCESS)) is OrderUnknown
    # It says until when, and is not even asked before.
    assert type(raised(lambda: floor.orders.find(TICKET.client_order_id), *ACCESS)) is OrderUnknown
    assert len(floor.world.log.entries) == 1
    floor.time.sleep(SECONDS_TO_MINUTES_END)
    assert floor.orders.find(TICKET.client_order_id) is None
    assert floor.orders.submit(TICKET).state is OrderState.ACKED
    assert floor.posts == 2


def test_a_rejected_order_tells_so(floor: Floor) -> None:
    ticket = replace(TICKET, ticker="REJX")
    assert floor.orders.submit(ticket).state is OrderState.ACKED
    told = floor.work()
    assert told is not None
    assert (told.ticket, told.state) == (ticket, OrderState.REJECTED)
    assert told.reason == "Alpaca calls it rejected"


def test_an_order_is_filled_in_part_and_then_whole() -> None:
    # The account's seed decides that there are two parts.
    world = flat_world(fill_seconds=NEVER_SECONDS, seed=PARTLY_FILLED_SEED)
    with served(world) as url:
        floor = Floor(world, url)
        floor.orders.submit(TICKET)
        told = [floor.work() for _ in range(3)]
    states = [one.state for one in told if one]
    assert states == [OrderState.ACKED, OrderState.PARTIAL, OrderState.FILLED]
    _, part, whole = told
    assert part is not None
    assert whole is not None
    assert 0 < part.filled_quantity < whole.filled_quantity == TICKET.quantity
    assert part.filled_price == whole.filled_price == 100.0
    assert (part.filled_at, whole.filled_at) == (None, world.now())


def test_a_canceled_order_tells_so(floor: Floor) -> None:
    told = floor.orders.submit(TICKET)
    trader(floor.url).cancel_order_by_id(told.broker_order_id)
    told_then = floor.orders.find(TICKET.client_order_id)
    assert told_then is not None
    assert (told_then.state, told_then.reason) == (OrderState.CANCELED, "Alpaca calls it canceled")


def test_an_order_that_the_broker_does_not_take_is_not_there(floor: Floor) -> None:
    changes: list[tuple[dict[str, Any], str]] = [
        ({"quantity": 100_000}, "insufficient buying power (403)"),
        ({"side": "sell"}, "account is not allowed to short (403)"),
        ({"ticker": "ZZZZ"}, 'asset "ZZZZ" not found (422)'),
        ({"quantity": 0}, "(422)"),
    ]
    for change, words in changes:
        ticket = replace(TICKET, **change)
        failure = raised(lambda sent=ticket: floor.orders.submit(sent), *ACCESS)
        assert type(failure) is OrderRefused
        assert words in str(failure)
        assert floor.orders.find(TICKET.client_order_id) is None


def test_a_wrong_key_takes_no_order(floor: Floor) -> None:
    orders = gateway(floor.url)
    for call in (lambda: orders.submit(TICKET), lambda: orders.find("mine"), orders.account):
        assert type(raised(call)) is BadConfiguration
    assert floor.world.broker.orders == {}
