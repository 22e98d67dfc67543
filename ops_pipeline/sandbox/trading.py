"""The trading desk: account, orders, positions, clock as the vendor's trading host serves them."""

from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ops_pipeline.sandbox.answers import (
    account_answer,
    activity_answer,
    activity_id,
    order_answer,
    position_answer,
    told,
)
from ops_pipeline.sandbox.broker import Broker, Refused, Ticket
from ops_pipeline.sandbox.front import reason
from ops_pipeline.sandbox.query import BadQuery, choice, number, time
from ops_pipeline.sandbox.world import SandboxWorld

_FIRST_DAY, _LAST_DAY = date(1970, 1, 1), date(2029, 12, 31)
_BAD_REQUEST = 40010001


class TradingDesk:
    """Endpoints of the trading host."""

    def __init__(self, world: SandboxWorld) -> None:
        self._world = world

    @property
    def _broker(self) -> Broker:
        return self._world.broker

    async def account(self, _: Request) -> Response:
        """The account."""
        return JSONResponse(account_answer(self._broker, self._world.created_at))

    async def clock(self, _: Request) -> Response:
        """The time, which faults may shift; the market never closes."""
        now = self._world.now() + self._world.faults.skew()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        told_midnight = told(midnight)
        ends = {"next_open": told_midnight, "next_close": told_midnight}
        return JSONResponse({"timestamp": told(now), "is_open": True, **ends})

    async def calendar(self, request: Request) -> Response:
        """Every day, open for as much of it as the vendor's format can say."""
        today = self._world.now().date()
        first = max(_FIRST_DAY, _date(request, "start", today.replace(month=1, day=1)))
        last = min(_LAST_DAY, _date(request, "end", today.replace(month=12, day=31)))
        days = (first + timedelta(days=number) for number in range((last - first).days + 1))
        hours = {"open": "00:00", "close": "23:59"}
        return JSONResponse([{"date": day.isoformat(), **hours} for day in days])

    async def submit(self, request: Request) -> Response:
        """Take an order."""
        try:
            ticket = Ticket.model_validate_json(await request.body())
        except ValidationError as error:
            raise Refused(422, _BAD_REQUEST, reason(error)) from None
        return JSONResponse(order_answer(self._broker.submit(ticket)))

    async def orders(self, request: Request) -> Response:
        """Orders by status, time and symbol, newest first."""
        params = request.query_params
        status = choice(params, "status", ("open", "closed", "all"))
        after, until = time(params, "after"), time(params, "until")
        symbols = set(filter(None, params.get("symbols", "").split(",")))
        found = [
            order_answer(order)
            for order in self._broker.orders.values()
            if (status == "all" or order.is_open == (status == "open"))
            and (after is None or order.created_at > after)
            and (until is None or order.created_at < until)
            and (not symbols or order.ticket.symbol in symbols)
        ]
        return JSONResponse(_directed(request, found)[: number(params, "limit", 50, 500)])

    async def order(self, request: Request) -> Response:
        """One order."""
        return JSONResponse(order_answer(self._broker.order(_order_id(request))))

    async def order_of_client(self, request: Request) -> Response:
        """One order, by the client's own id."""
        client_order_id = request.query_params.get("client_order_id", "")
        return JSONResponse(order_answer(self._broker.order_of_client(client_order_id)))

    async def cancel(self, request: Request) -> Response:
        """Cancel an order."""
        self._broker.cancel(_order_id(request))
        return Response(status_code=204)

    async def cancel_all(self, _: Request) -> Response:
        """Cancel all open orders."""
        canceled = [order.id for order in self._broker.open_orders()]
        for order_id in canceled:
            self._broker.cancel(order_id)
        return JSONResponse([{"id": str(one), "status": 200} for one in canceled], 207)

    async def positions(self, _: Request) -> Response:
        """All positions."""
        held = self._broker.positions.values()
        return JSONResponse([position_answer(self._broker, position) for position in held])

    async def position(self, request: Request) -> Response:
        """The position in one symbol."""
        position = self._broker.position(request.path_params["symbol"])
        return JSONResponse(position_answer(self._broker, position))

    async def activities(self, request: Request) -> Response:
        """Fills, newest first, a page at a time; the token is the id of the last one told."""
        params = request.query_params
        # Nothing but a trade moves what this account holds.
        usual = "" if params.get("category") == "non_trade_activity" else "FILL"
        kinds = request.path_params.get("kind") or params.get("activity_types", usual)
        after, until = time(params, "after"), time(params, "until")
        fills = [
            fill
            for fill in self._broker.fills
            if "FILL" in kinds.split(",")
            and (after is None or fill.at > after)
            and (until is None or fill.at < until)
        ]
        ordered = _directed(request, fills)
        if token := params.get("page_token"):
            ordered = ordered[_index([activity_id(fill) for fill in ordered], token) + 1 :]
        page = ordered[: number(params, "page_size", 100, 100)]
        account_id = str(self._broker.account_id)
        return JSONResponse([activity_answer(fill, account_id) for fill in page])


def _directed(request: Request, oldest_first: list[Any]) -> list[Any]:
    direction = choice(request.query_params, "direction", ("desc", "asc"))
    return oldest_first if direction == "asc" else oldest_first[::-1]


def _index(ids: list[str], token: str) -> int:
    try:
        return ids.index(token)
    except ValueError:
        raise BadQuery("invalid page_token", 422) from None


def _order_id(request: Request) -> UUID:
    text = request.path_params["order_id"]
    try:
        return UUID(text)
    except ValueError:
        raise Refused(422, _BAD_REQUEST, "order_id is no UUID") from None


def _date(request: Request, name: str, default: date) -> date:
    text = request.query_params.get(name, default.isoformat())
    try:
        return datetime.fromisoformat(text).date()
    except ValueError:
        raise BadQuery(f"invalid {name}: {text}", 422) from None
