"""Orders at Alpaca's paper account: each handed over in one request, and asked for by its id."""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderClass, OrderSide, TimeInForce
from alpaca.trading.requests import MarketOrderRequest
from urllib3.exceptions import HTTPError

from ops_pipeline.clients.alpaca_fields import (
    SIDES,
    STATES,
    Unreadable,
    float_of,
    number_of,
    price_of,
    shares_of,
    text_of,
    time_of,
)
from ops_pipeline.clients.alpaca_http import (
    KEYS,
    AlpacaSilent,
    Patience,
    PatientAdapter,
    RateBudget,
    patient,
    refusal,
    told,
)
from ops_pipeline.domain.errors import BadConfiguration, OperatorError, Unsafe
from ops_pipeline.domain.orders import (
    BrokerAccount,
    OrderRefused,
    OrderReport,
    OrderState,
    OrderTicket,
    OrderUnknown,
)
from ops_pipeline.settings import AlpacaAccess

PAPER_URL = "https://paper-api.alpaca.markets"
# Matched whole and not taken apart: what parsers of addresses disagree on matches neither.
_THIS_MACHINE = re.compile(r"https?://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?")

# An order that was not answered by then is asked for by its id.
HANDING_OVER = Patience(connect=3.0, read=10.0, total=13.0)
ASKING = Patience(connect=3.0, read=5.0, total=6.0, attempts=3, first_wait=0.25)

UNAUTHORIZED, NOT_FOUND, UNPROCESSABLE = 401, 404, 422
# With these an order was looked at, and not taken.
REFUSALS = frozenset({400, 403, NOT_FOUND, UNPROCESSABLE})
# How a refusal speaks of an id that is taken; its code is not settled, and so not looked at.
_TAKEN = ("clientorderid", "unique", "duplicate")

CLIENT_ID = "client_order_id"
REPLACED = "replaced"
MAX_REPLACEMENTS = 2
ACTIVE = "ACTIVE"
BLOCKS = ("trading_blocked", "account_blocked", "trade_suspended_by_user")

# What may come out of a request besides a refusal: no connection, and an answer that is none.
_NO_ANSWER = (OSError, HTTPError, ValueError, RecursionError)

Ask = Callable[[TradingClient], Any]
Order = dict[str, Any]


class AlpacaOrders:
    """Alpaca's paper account as one that takes orders; threads may share it.

    It speaks to the paper account and to this machine only, and never answers in their stead.
    None of the errors it raises tells the key.

    Raises:
        Unsafe: the trading address is any other.
        BadConfiguration: a key is empty, or holds what no header may hold.
    """

    def __init__(
        self,
        access: AlpacaAccess,
        now: Callable[[], datetime],
        *,
        patience: Patience | None = None,
        budget: RateBudget | None = None,
    ) -> None:
        _require_paper(access.trading_url)
        _require_keys(access)
        self._access, self._now = access, now
        self._handing_over = patience or HANDING_OVER
        self._asking = patience or ASKING
        self._budget = budget or RateBudget(
            monotonic=self._asking.monotonic, sleep=self._asking.sleep
        )

    def account(self) -> BrokerAccount:
        """The account that orders go to; its equity is in USD.

        It is blocked when Alpaca or its owner lets it not trade, and when it is not active.

        Raises:
            OperatorError: Alpaca does not answer, refuses, or tells what cannot be read.
        """
        answer = self._answer(lambda client: client.get_account(), self._asking)
        if isinstance(answer, APIError):
            raise refusal(answer, self._access)
        if isinstance(answer, OperatorError):
            raise answer
        try:
            return _account(answer)
        except Unreadable as error:
            raise AlpacaSilent(f"its account cannot be read ({error})") from None

    def submit(self, ticket: OrderTicket) -> OrderReport:
        """Hand over a market order for the day, in at most one request.

        None is sent while Alpaca's rate limit holds for longer than patience lasts.

        Raises:
            OrderRefused: Alpaca looked at the order, and did not take it.
            OrderUnknown: Alpaca may have it: the answer was lost, late or unreadable, or is that
                the id is taken; also when Alpaca wants fewer requests.
            BadConfiguration: the key is refused, and the order was not taken.
        """
        request = MarketOrderRequest(
            symbol=ticket.ticker,
            qty=ticket.quantity,
            side=OrderSide(ticket.side),
            time_in_force=TimeInForce.DAY,
            order_class=OrderClass.SIMPLE,
            client_order_id=ticket.client_order_id,
        )
        answer = self._answer(lambda client: client.submit_order(request), self._handing_over)
        if isinstance(answer, APIError):
            raise self._refused(answer)
        if isinstance(answer, OperatorError):
            raise OrderUnknown(str(answer))
        return _report(_order(answer, CLIENT_ID, ticket.client_order_id), ticket.client_order_id)

    def find(self, client_order_id: str) -> OrderReport | None:
        """The order that carries this id, or the one that replaced it; None where there is none.

        Symbol, side and quantity are as Alpaca tells them, and to be compared.

        Raises:
            OrderUnknown: there was no answer, or none that can be read.
            BadConfiguration: the key is refused.
        """
        order = self._found(
            lambda client: client.get_order_by_client_id(client_order_id),
            CLIENT_ID,
            client_order_id,
        )
        for _ in range(MAX_REPLACEMENTS):
            if order and order.get("status") == REPLACED:
                order = self._replacement(order)
        return _report(order, client_order_id) if order else None

    def _replacement(self, order: Order) -> Order:
        """The order that came in the place of another; it has a client's id of its own."""
        try:
            replaced_by, filled = text_of(order, "replaced_by"), shares_of(order, "filled_qty")
        except Unreadable as error:
            raise _unknown(error) from None
        if filled:
            raise OrderUnknown("the order was replaced after a part of it had been filled")
        found = self._found(lambda client: client.get_order_by_id(replaced_by), "id", replaced_by)
        if not found:
            raise OrderUnknown("the order was replaced by one that is not there")
        return found

    def _found(self, ask: Ask, id_name: str, expected_id: str) -> Order | None:
        """The order that Alpaca was asked for; None where Alpaca itself says that it has none."""
        answer = self._answer(ask, self._asking)
        if isinstance(answer, APIError):
            if answer.status_code == UNAUTHORIZED:
                raise refusal(answer, self._access)
            if _is_absent(answer):
                return None
            raise OrderUnknown(self._words(answer))
        if isinstance(answer, OperatorError):
            raise OrderUnknown(str(answer))
        return _order(answer, id_name, expected_id)

    def _refused(self, error: APIError) -> Exception:
        """What it means that an order was answered with 4xx."""
        status, words = error.status_code, self._words(error)
        if status == UNAUTHORIZED:
            return refusal(error, self._access)
        if status == UNPROCESSABLE and _is_of_taken_id(words):
            return OrderUnknown(f"the id is taken ({words})")
        return OrderRefused(words) if status in REFUSALS else OrderUnknown(words)

    def _words(self, error: APIError) -> str:
        return f"{told(error, self._access)} ({error.status_code})"

    def _answer(self, ask: Ask, patience: Patience) -> Any:
        """The body of an answer, or an APIError or OperatorError as a value.

        As a value, because what is raised while an error is handled carries that error along, and
        alpaca-py's hold the request with its keys.
        """
        access = self._access
        client = TradingClient(
            access.key, access.secret, url_override=access.trading_url, raw_data=True
        )
        try:
            with patient(client, PatientAdapter(patience, self._budget, self._now)):
                return ask(client)
        except (APIError, OperatorError) as error:
            return error
        except _NO_ANSWER as error:
            return AlpacaSilent(f"what it sends cannot be read ({type(error).__name__})")


def _require_paper(url: str) -> None:
    if url != PAPER_URL and not _THIS_MACHINE.fullmatch(url):
        raise Unsafe(
            f"orders go to {PAPER_URL} or to this machine, and nowhere else",
            "unset ALPACA_BASE_URL: the default is right",
        )


def _require_keys(access: AlpacaAccess) -> None:
    # What no header may hold, requests would tell in its error.
    for text in (access.key, access.secret):
        if not text or not text.isascii() or not text.isprintable() or text != text.strip():
            raise BadConfiguration("the key for Alpaca cannot be one", KEYS)


def _is_absent(error: APIError) -> bool:
    """Whether Alpaca itself has no such order, and not something before it no such page."""
    with suppress(ValueError, LookupError, TypeError, RecursionError):
        # Alpaca's codes begin with the status.
        return error.status_code == NOT_FOUND and str(error.code).startswith(str(NOT_FOUND))
    return False


def _is_of_taken_id(words: str) -> bool:
    letters = re.sub("[^a-z]", "", words.lower())
    return any(sign in letters for sign in _TAKEN)


def _unknown(error: Unreadable) -> OrderUnknown:
    return OrderUnknown(f"Alpaca's answer cannot be read ({error})")


def _order(answer: Any, id_name: str, expected_id: str) -> Order:
    """An answer that is the order with this id."""
    if not isinstance(answer, dict) or answer.get(id_name) != expected_id:
        raise OrderUnknown("Alpaca's answer is not the order that it was asked about")
    return answer


def _report(order: Order, client_order_id: str) -> OrderReport:
    """What Alpaca says of an order that was handed over under this id."""
    try:
        return _read(order, client_order_id)
    except Unreadable as error:
        raise _unknown(error) from None


def _read(order: Order, client_order_id: str) -> OrderReport:
    quantity, filled = shares_of(order, "qty"), shares_of(order, "filled_qty")
    side, state = text_of(order, "side"), _state(order, quantity, filled)
    if side not in SIDES:
        raise Unreadable("side")
    is_named = state in (OrderState.CANCELED, OrderState.REJECTED)
    return OrderReport(
        OrderTicket(client_order_id, text_of(order, "symbol"), side, quantity),
        text_of(order, "id"),
        state,
        filled,
        price_of(order, "filled_avg_price") if filled else None,
        _filled_at(order, state) if filled else None,
        f"Alpaca calls it {order['status']}" if is_named else "",
    )


def _state(order: Order, quantity: int, filled: int) -> OrderState:
    state = STATES.get(text_of(order, "status"))
    if state is None:
        raise Unreadable("status")
    if not quantity or filled > quantity:
        raise Unreadable(f"{filled} of {quantity} shares filled")
    if state is OrderState.ACKED and filled:
        state = OrderState.PARTIAL
    fits = {
        OrderState.PARTIAL: filled > 0,
        OrderState.FILLED: filled == quantity,
        OrderState.REJECTED: filled == 0,
    }
    if not fits.get(state, True):
        raise Unreadable(f"{state} with {filled} of {quantity} shares filled")
    return state


def _filled_at(order: Order, state: OrderState) -> datetime | None:
    """When it was filled; a part of an order need not have a time."""
    if order.get("filled_at") is None and state is not OrderState.FILLED:
        return None
    return time_of(order, "filled_at")


def _account(answer: Any) -> BrokerAccount:
    if not isinstance(answer, dict):
        raise Unreadable("no account")
    blocks = [answer.get(name) for name in BLOCKS]
    if not all(isinstance(block, bool) for block in blocks):
        raise Unreadable(", ".join(BLOCKS))
    is_blocked = any(blocks) or text_of(answer, "status") != ACTIVE
    number, equity = text_of(answer, "account_number"), number_of(answer, "equity")
    return BrokerAccount(number, float_of(equity, "equity"), is_blocked)
