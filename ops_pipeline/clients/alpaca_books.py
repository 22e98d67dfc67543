"""What Alpaca's paper account holds and was asked for, by request; and its frames, read."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NoReturn

from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient

from ops_pipeline.clients.alpaca_fields import (
    SIDES,
    STATES,
    Unreadable,
    number_of,
    symbol_of,
    text_of,
    time_of,
)
from ops_pipeline.clients.alpaca_http import (
    AlpacaSilent,
    Patience,
    PatientAdapter,
    RateBudget,
    patient,
    refusal,
)
from ops_pipeline.domain.adjustments import Activity
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.orders import OrderState
from ops_pipeline.domain.stream import FILLS, ZERO, BrokerEvent, BrokerOrder, Holding
from ops_pipeline.settings import AlpacaAccess

ASKING = Patience(connect=3.0, read=10.0, total=20.0, attempts=3, first_wait=0.5)
ORDERS_A_PAGE, FILLS_A_PAGE = 500, 100
# So many pages are read at once: 100,000 orders, 20,000 fills. What an account has more of these
# fills is asked for the next time; one that repeats its pages for ever gives no answer.
MAX_PAGES = 200
MAX_AMOUNT = Decimal(2**53)
# A corporate action may be posted days after it changed the position.
ACTIVITY_LOOKBACK = timedelta(days=7)
CANCELED_ACTIVITY = "canceled"
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
STREAM, REPLACED = "trade_updates", "replaced"
# Longer frames are of an order.
LONGEST_CONTROL = 300
CONTROL = frozenset({"authorization", "listening"})
EVENTS = FILLS | frozenset(
    {
        *("new", "accepted", "pending_new", "canceled", "expired", "rejected", "replaced"),
        *("done_for_day", "stopped", "suspended", "calculated", "held", "restated"),
        *("pending_cancel", "pending_replace", "order_cancel_rejected", "order_replace_rejected"),
        # What an order has less by them is read with the whole account.
        *("trade_bust", "trade_correct"),
    }
)


@dataclass(frozen=True)
class Update:
    """A frame that tells of an order."""

    event: BrokerEvent
    order: BrokerOrder


@dataclass(frozen=True)
class Books:
    """What an account was asked for and holds; `unreadable` says what of it could not be read.

    `account` is the broker's own id of it: one that was reset is another one. `moving` are the
    tickers whose positions changed while orders were read, which began at `begun_at`. Of fills
    there may be more than `fills_until`, where they were too many; None where all were read.
    """

    orders: tuple[BrokerOrder, ...]
    fills: tuple[BrokerEvent, ...]
    holdings: Mapping[str, Holding]
    unreadable: tuple[str, ...] = ()
    moving: frozenset[str] = frozenset()
    begun_at: datetime | None = None
    account: str = ""
    fills_until: datetime | None = None
    activities: tuple[Activity, ...] = ()


class NotThere(BadInput):
    """Alpaca has no such list."""


class AlpacaBooks:
    """An account's orders, fills and positions; read only."""

    def __init__(self, access: AlpacaAccess, now: Callable[[], datetime]) -> None:
        self._access, self._now, self._budget = access, now, RateBudget()

    def read(self, orders_after: datetime, fills_after: datetime) -> Books:
        """Orders that were made and fills that came after these instants, and all positions.

        Orders that are open are read however old they are: what is filled of them is told as a sum
        from their beginning. Positions are read before the orders and after them: what differs has
        moved meanwhile, and orders that were read may lack it.

        Raises:
            OperatorError: Alpaca does not answer, or refuses the key.
        """
        faults: list[str] = []
        begun_at = self._now()
        before = self._positions([])
        try:
            orders = {
                order.broker_order_id: order
                for pages in (self._pages_of_open_orders(), self._pages_of_orders(orders_after))
                for order in _readable(pages, read_order, faults)
            }
            fills, is_cut = self._fills(fills_after, faults)
            activities = self._activities(begun_at - ACTIVITY_LOOKBACK, faults)
        except Unreadable as error:
            raise AlpacaSilent(f"the end of a page cannot be read ({error})") from None
        held = self._positions(faults)
        moving = {t for t in {*before, *held} if before.get(t) != held.get(t)}
        return Books(
            tuple(orders.values()),
            tuple(fills),
            held,
            tuple(faults),
            frozenset(moving),
            begun_at,
            self._account(),
            fills[-1].at if is_cut else None,
            tuple(activities),
        )

    def _account(self) -> str:
        try:
            return text_of(_document(self._get("/account", {})), "id")
        except Unreadable as error:
            raise AlpacaSilent(f"its account cannot be read ({error})") from None

    def _positions(self, faults: list[str]) -> dict[str, Holding]:
        return dict(_readable(self._list("/positions", {}), _read_holding, faults))

    def _pages_of_open_orders(self) -> Iterator[Any]:
        return self._pages_of_orders(LONG_AGO, "open")

    def _pages_of_orders(self, after: datetime, status: str = "all") -> Iterator[Any]:
        # The edge of a page lies between orders of one instant, too.
        seen: set[str] = set()
        words = {"status": status, "direction": "asc", "limit": ORDERS_A_PAGE, "nested": False}
        for _ in range(MAX_PAGES):
            page = self._list("/orders", {**words, "after": _told(after)})
            new = [one for one in page if not (isinstance(one, dict) and one.get("id") in seen)]
            yield from new
            seen |= {str(one.get("id")) for one in page if isinstance(one, dict)}
            if len(page) < ORDERS_A_PAGE:
                return
            if not new:
                break
            after = time_of(_document(page[-1]), "created_at") - timedelta(microseconds=1)
        raise AlpacaSilent("its list of orders does not end")

    def _fills(self, after: datetime, faults: list[str]) -> tuple[list[BrokerEvent], bool]:
        """The first fills after an instant, and whether there are more of them."""
        found: list[BrokerEvent] = []
        for count, page in enumerate(self._pages_of_activities("/account/activities/FILL", after)):
            found += _readable(page, read_fill, faults)
            if count + 1 == MAX_PAGES and len(page) == FILLS_A_PAGE:
                return found, bool(found)
        return found, False

    def _activities(self, after: datetime, faults: list[str]) -> list[Activity]:
        """What moved shares without a trade; a broker that keeps no such list names none."""
        pages = self._pages_of_activities(
            "/account/activities", after, category="non_trade_activity"
        )
        try:
            found = [one for page in pages for one in _readable(page, read_activity, faults)]
        except NotThere:
            faults.append("account activities: the broker has no such list")
            return []
        return [one for one in found if one]

    def _pages_of_activities(
        self, path: str, after: datetime, **more: str
    ) -> Iterator[Sequence[Any]]:
        words: dict[str, Any] = {"direction": "asc", "page_size": FILLS_A_PAGE, **more}
        words["after"] = _told(after)
        seen: set[str] = set()
        for _ in range(MAX_PAGES):
            page = self._list(path, words)
            yield page
            if len(page) < FILLS_A_PAGE:
                return
            last = text_of(_document(page[-1]), "id")
            if last in seen:
                raise AlpacaSilent("its list of fills does not end")
            seen.add(last)
            words["page_token"] = last

    def _list(self, path: str, words: Mapping[str, Any]) -> list[Any]:
        answer = self._get(path, words)
        if not isinstance(answer, list):
            raise AlpacaSilent(f"{path} is no list")
        return answer

    def _get(self, path: str, words: Mapping[str, Any]) -> Any:
        access = self._access
        client = TradingClient(
            access.key, access.secret, url_override=access.trading_url, raw_data=True
        )
        with patient(client, PatientAdapter(ASKING, self._budget, self._now)):
            try:
                return client.get(path, dict(words))
            except APIError as error:
                refused = refusal(error, access)
                if error.status_code == 404:
                    raise NotThere(str(refused), refused.hint) from None
                raise refused from None


def read_frame(raw: str | bytes) -> Update | None:
    """What a frame of the stream tells; None where it is about the connection.

    Raises:
        Unreadable: it cannot be read; the text says what of it.
    """
    try:
        frame = json.loads(raw, parse_constant=_refused)
    except (ValueError, RecursionError):
        raise Unreadable("no JSON") from None
    stream = _document(frame).get("stream")
    if stream in CONTROL:
        return None
    if stream != STREAM:
        raise Unreadable("stream")
    data = _document(frame.get("data"))
    name, order = text_of(data, "event"), _document(data.get("order"))
    if name not in EVENTS:
        raise Unreadable(f"event {name}")
    told = read_order(order)
    at = time_of(data, "timestamp") if data.get("timestamp") else told.told_at
    is_fill = name in FILLS
    event = BrokerEvent(
        key=_key(data, name, told, at),
        name=name,
        broker_order_id=told.broker_order_id,
        ticker=told.ticker,
        side=told.side,
        filled_quantity=told.filled_quantity,
        at=at,
        quantity=_amount(data, "qty") if is_fill and data.get("qty") else None,
        price=_amount(data, "price") if is_fill and data.get("price") else None,
    )
    return Update(event, told)


def is_control(raw: str | bytes) -> bool:
    """Whether a frame is about the connection alone."""
    if len(raw) > LONGEST_CONTROL:
        return False
    try:
        return read_frame(raw) is None
    except Unreadable:
        return False


def read_order(order: Any) -> BrokerOrder:
    """An order as Alpaca tells of it.

    Raises:
        Unreadable: it cannot be read; the text says what of it.
    """
    fields = _document(order)
    filled = _amount(fields, "filled_qty")
    quantity = filled if fields.get("qty") is None else _amount(fields, "qty")
    state, reason = _state(fields, filled)
    side = text_of(fields, "side")
    if side not in SIDES:
        raise Unreadable("side")
    created_at = time_of(fields, "created_at")
    return BrokerOrder(
        broker_order_id=text_of(fields, "id"),
        client_order_id=text_of(fields, "client_order_id"),
        ticker=symbol_of(fields),
        side=side,
        quantity=quantity,
        state=state,
        filled_quantity=filled,
        filled_price=_amount(fields, "filled_avg_price") if filled else None,
        created_at=created_at,
        told_at=time_of(fields, "updated_at") if fields.get("updated_at") else created_at,
        reason=reason,
    )


def read_fill(activity: Any) -> BrokerEvent:
    """A fill among the activities.

    Raises:
        Unreadable: it cannot be read; the text says what of it.
    """
    fields = _document(activity)
    # The id is a time and what the stream calls the execution.
    key = text_of(fields, "id").rpartition("::")[2]
    side = text_of(fields, "side")
    return BrokerEvent(
        key=key,
        name=text_of(fields, "type"),
        broker_order_id=text_of(fields, "order_id"),
        ticker=symbol_of(fields),
        side="sell" if side.startswith("sell") else side,
        filled_quantity=_amount(fields, "cum_qty"),
        at=time_of(fields, "transaction_time"),
        quantity=_amount(fields, "qty"),
        price=_amount(fields, "price"),
    )


def read_activity(activity: Any) -> Activity | None:
    """A non-trade activity; None where it moved no shares, or was taken back.

    Raises:
        Unreadable: it cannot be read; the text says what of it.
    """
    fields = _document(activity)
    kind = text_of(fields, "activity_type")
    # Of a dividend in cash, `qty` are the shares that it was paid for.
    is_cash = kind.startswith("DIV") and _signed(fields, "net_amount")
    quantity = _signed(fields, "qty")
    if kind == "FILL" or is_cash or not quantity or fields.get("status") == CANCELED_ACTIVITY:
        return None
    return Activity(text_of(fields, "id"), kind, symbol_of(fields), quantity, _day(fields))


def _signed(fields: dict[str, Any], name: str) -> Decimal:
    """A number that may be missing, or negative."""
    number = number_of(fields, name) if fields.get(name) not in (None, "") else ZERO
    if abs(number) > MAX_AMOUNT:
        raise Unreadable(name)
    return number


def _day(fields: dict[str, Any]) -> date:
    try:
        return date.fromisoformat(text_of(fields, "date")[:10])
    except ValueError:
        raise Unreadable("date") from None


def _read_holding(position: Any) -> tuple[str, Holding]:
    fields = _document(position)
    quantity = number_of(fields, "qty")
    if abs(quantity) > MAX_AMOUNT:
        raise Unreadable("qty")
    # Some of Alpaca's answers tell a short position by its side alone.
    if fields.get("side") == "short" and quantity > 0:
        quantity = -quantity
    return symbol_of(fields), Holding(quantity, _amount(fields, "avg_entry_price"))


def _readable(documents: Any, read: Callable[[Any], Any], faults: list[str]) -> list[Any]:
    found = []
    for document in documents:
        try:
            found.append(read(document))
        except Unreadable as error:
            faults.append(str(error))
    return found


def _key(data: dict[str, Any], name: str, order: BrokerOrder, at: datetime) -> str:
    """What is told again has the same key; frames without an execution are known by all else."""
    if data.get("execution_id"):
        return text_of(data, "execution_id")
    return f"{order.broker_order_id}/{name}/{at.isoformat()}/{order.filled_quantity}"


def _state(fields: dict[str, Any], filled: Decimal) -> tuple[OrderState, str]:
    status = text_of(fields, "status")
    if status == REPLACED:
        other = text_of(fields, "replaced_by") if fields.get("replaced_by") else "another"
        return OrderState.CANCELED, f"replaced by {other}"
    state = STATES.get(status)
    if state is None:
        raise Unreadable(f"status {status}")
    if state is OrderState.ACKED and filled:
        state = OrderState.PARTIAL
    if not filled and state in (OrderState.PARTIAL, OrderState.FILLED):
        raise Unreadable(f"{status} without a fill")
    is_named = state in (OrderState.CANCELED, OrderState.REJECTED)
    return state, f"Alpaca calls it {status}" if is_named else ""


def _amount(fields: dict[str, Any], name: str) -> Decimal:
    """A number that is not negative, of shares or of USD."""
    number = number_of(fields, name)
    if not ZERO <= number <= MAX_AMOUNT:
        raise Unreadable(name)
    return number


def _document(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unreadable("no object")
    return value


def _refused(text: str) -> NoReturn:
    raise ValueError(text)


def _told(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
