"""The sandbox as a web server: Alpaca's data and trading hosts, RSS feeds, and its controls."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from ops_pipeline.engine.guard import METHODS, Guard, allowed_hosts
from ops_pipeline.engine.login import Login
from ops_pipeline.sandbox.broker import STEPS
from ops_pipeline.sandbox.control import ControlDesk
from ops_pipeline.sandbox.data import DataDesk
from ops_pipeline.sandbox.faults import STREAM
from ops_pipeline.sandbox.feeds import MARKETS, document
from ops_pipeline.sandbox.front import Endpoint, Part, guarded
from ops_pipeline.sandbox.trading import TradingDesk
from ops_pipeline.sandbox.world import SandboxWorld

LOOPBACK = "127.0.0.1"
_GRACE_SECONDS = 1


def application(world: SandboxWorld, port: int, token_file: Path | None) -> Starlette:
    """The sandbox as an ASGI application; its orders are filled while it runs.

    Without a token it has no controls.
    """

    @asynccontextmanager
    async def fills(_: Starlette) -> AsyncIterator[None]:
        working = asyncio.create_task(_work(world))
        yield
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working

    stream = WebSocketRoute(STREAM, world.updates.serve)
    controls = [_controls(world, port, token_file)] if token_file else []
    routes = [*_data(world), *_trading(world), *controls, stream, *_others(world)]
    return Starlette(routes=routes, lifespan=fills)


def server_of(world: SandboxWorld, port: int = 0, token_file: Path | None = None) -> uvicorn.Server:
    """A quiet server of one process on loopback; it does not run yet."""
    config = uvicorn.Config(
        application(world, port, token_file),
        host=LOOPBACK,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    return uvicorn.Server(config)


def serve(world: SandboxWorld, port: int, token_file: Path | None = None) -> None:
    """Answer on this port of 127.0.0.1 until the process is told to end."""
    server_of(world, port, token_file).run()


async def _work(world: SandboxWorld) -> None:
    while True:
        await asyncio.sleep(world.fill_seconds / STEPS)
        world.broker.work()


def _data(world: SandboxWorld) -> list[BaseRoute]:
    desk, part = DataDesk(world), Part.DATA
    return [
        _route(world, part, "/v2/stocks/bars", desk.bars),
        _route(world, part, "/v2/stocks/{symbol}/bars", desk.bars_of_symbol),
        _route(world, part, "/v1/corporate-actions", desk.corporate_actions),
    ]


def _trading(world: SandboxWorld) -> list[BaseRoute]:
    desk, part = TradingDesk(world), Part.TRADING
    return [
        _route(world, part, "/v2/account", desk.account),
        _route(world, part, "/v2/account/activities", desk.activities),
        _route(world, part, "/v2/account/activities/{kind}", desk.activities),
        _route(world, part, "/v2/clock", desk.clock),
        _route(world, part, "/v2/calendar", desk.calendar),
        _route(world, part, "/v2/orders", desk.orders),
        _route(world, part, "/v2/orders", desk.submit, ["POST"]),
        _route(world, part, "/v2/orders", desk.cancel_all, ["DELETE"]),
        _route(world, part, "/v2/orders:by_client_order_id", desk.order_of_client),
        _route(world, part, "/v2/orders/{order_id}", desk.order),
        _route(world, part, "/v2/orders/{order_id}", desk.cancel, ["DELETE"]),
        _route(world, part, "/v2/positions", desk.positions),
        _route(world, part, "/v2/positions/{symbol}", desk.position),
    ]


def _controls(world: SandboxWorld, port: int, token_file: Path) -> BaseRoute:
    desk = ControlDesk(world)
    routes = [
        Route("/requests", desk.requests, methods=["GET", "DELETE"]),
        Route("/faults", desk.faults, methods=["GET", "POST", "DELETE"]),
        Route("/splits", desk.splits, methods=["POST"]),
    ]
    behind = Login(Starlette(routes=routes), token_file, port)
    return Mount("/control", Guard(behind, allowed_hosts(port), [*METHODS, "DELETE"]))


def _others(world: SandboxWorld) -> list[BaseRoute]:
    async def feed(request: Request) -> Response:
        name = request.path_params["name"]
        if name != MARKETS and name not in world.market.tickers:
            return JSONResponse({"message": "Not Found"}, 404)
        told = document(name, world.market.news(), world.market.tickers)
        if told.is_known(request.headers):
            return Response(status_code=304, headers=told.headers)
        return Response(told.content, headers=told.headers)

    async def nothing(_: Request) -> Response:
        return JSONResponse({"message": "Not Found"}, 404)

    return [
        _route(world, Part.FEEDS, "/feeds/{name}.rss", feed),
        _route(world, Part.FEEDS, "/{path:path}", nothing, ["GET", "POST", "DELETE"]),
    ]


def _route(
    world: SandboxWorld,
    part: Part,
    path: str,
    endpoint: Endpoint,
    methods: Sequence[str] = ("GET",),
) -> Route:
    return Route(path, guarded(world, part, endpoint), methods=list(methods))
