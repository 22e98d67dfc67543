"""What every request meets first: faults on order, the key, the rate limit and the log."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ops_pipeline.sandbox.broker import Refused
from ops_pipeline.sandbox.faults import Kind, Rule
from ops_pipeline.sandbox.query import BadQuery
from ops_pipeline.sandbox.traffic import Budget
from ops_pipeline.sandbox.world import SandboxWorld

Endpoint = Callable[[Request], Awaitable[Response]]
_MESSAGES = {
    401: (40110000, "request is not authorized"),
    403: (40310000, "forbidden."),
    429: (42910000, "rate limit exceeded"),
    500: (50010000, "internal server error occurred"),
    502: (50210000, "bad gateway"),
    503: (50310000, "service unavailable"),
    504: (50410000, "gateway timeout"),
}
_DATA_MESSAGES = {429: "too many requests."}


class Part(StrEnum):
    """A part of the sandbox; the vendor's two hosts each have a rate limit of their own."""

    DATA = "data"
    TRADING = "trading"
    FEEDS = "feeds"

    @property
    def is_vendor(self) -> bool:
        """Whether it asks for a key, and counts requests."""
        return self is not Part.FEEDS


class Hangup(Response):
    """No answer at all: the connection is closed."""

    async def __call__(
        self,
        scope: Scope,  # noqa: ARG002 - nothing is answered
        receive: Receive,
        send: Send,  # noqa: ARG002 - nothing is answered
    ) -> None:
        """Close the connection, and wait until it is."""
        # ASGI has no word for this; the server's own request object has the connection.
        receive.__self__.transport.close()  # type: ignore[attr-defined]
        while (await receive())["type"] != "http.disconnect":
            pass


def guarded(world: SandboxWorld, part: Part, endpoint: Endpoint) -> Endpoint:
    """The endpoint behind all that every request meets; what it refuses becomes an answer."""

    async def answer(request: Request) -> Response:
        struck = world.faults.on_request(request.url.path, request.method)
        await asyncio.sleep(sum(rule.seconds for rule in struck if rule.kind is Kind.DELAY))
        budget = world.rate_limit.take(part) if part.is_vendor else None
        response = await _answered(world, part, endpoint, request, struck, budget)
        if budget:
            response.headers.update(budget.headers)
        _note(world, request, response)
        return response

    return answer


def refusal(part: Part, status: int, headers: dict[str, str] | None = None) -> Response:
    """The vendor's words for a status."""
    code, message = _MESSAGES[status]
    if part is Part.TRADING or status == 401:
        return JSONResponse({"code": code, "message": message}, status, headers)
    return JSONResponse({"message": _DATA_MESSAGES.get(status, message)}, status, headers)


def reason(error: ValidationError) -> str:
    """One line that says what is wrong with a body."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])


async def _answered(
    world: SandboxWorld,
    part: Part,
    endpoint: Endpoint,
    request: Request,
    struck: list[Rule],
    budget: Budget | None,
) -> Response:
    for rule in struck:
        if (instead := _instead(part, rule)) is not None:
            return instead
    response = await _honest(world, part, endpoint, request, budget)
    kinds = {rule.kind for rule in struck}
    if Kind.DROP in kinds:
        return Hangup(status_code=0)
    if Kind.MALFORMED in kinds:
        body = bytes(response.body)
        return Response(body[: len(body) // 2], response.status_code, media_type="application/json")
    return response


async def _honest(
    world: SandboxWorld, part: Part, endpoint: Endpoint, request: Request, budget: Budget | None
) -> Response:
    if budget is not None:
        headers = request.headers
        given = headers.get("apca-api-key-id", ""), headers.get("apca-api-secret-key", "")
        if not world.is_authorized(*given):
            return refusal(part, 401)
        if budget.is_exceeded:
            seconds = (budget.resets_at - world.now()).total_seconds()
            return refusal(part, 429, {"Retry-After": str(max(1, round(seconds)))})
    try:
        return await endpoint(request)
    except BadQuery as error:
        return JSONResponse({"message": str(error)}, error.status)
    except Refused as error:
        return JSONResponse({"code": error.code, "message": str(error)}, error.status)


def _instead(part: Part, rule: Rule) -> Response | None:
    """What a rule answers in place of the endpoint; none where it lets the request through."""
    retry = {} if rule.retry_after is None else {"Retry-After": str(rule.retry_after)}
    if rule.kind is Kind.BODY:
        return Response(rule.body, rule.status or 200, retry, media_type="application/json")
    if rule.kind is Kind.STATUS and rule.status:
        return refusal(part, rule.status, retry)
    return None


def _note(world: SandboxWorld, request: Request, response: Response) -> None:
    query = request.query_params.multi_items()
    at, size = world.now(), len(response.body)
    world.log.add(at, request.method, request.url.path, query, response.status_code, size)
