"""The data desk: bars and corporate actions as the vendor's data host serves them."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ops_pipeline.sandbox.bars import BarsQuery, page_of
from ops_pipeline.sandbox.splits import answer_of
from ops_pipeline.sandbox.world import SandboxWorld


class DataDesk:
    """Endpoints of the data host."""

    def __init__(self, world: SandboxWorld) -> None:
        self._world = world

    async def bars(self, request: Request) -> Response:
        """Bars of several symbols."""
        query = BarsQuery.read(request.query_params, self._world.now())
        page, token = page_of(query, self._world.tape)
        return JSONResponse({"bars": page, "next_page_token": token})

    async def bars_of_symbol(self, request: Request) -> Response:
        """Bars of one symbol; none are null."""
        symbol = request.path_params["symbol"]
        params = {**request.query_params, "symbols": symbol}
        page, token = page_of(BarsQuery.read(params, self._world.now()), self._world.tape)
        found = page.get(symbol)
        return JSONResponse({"bars": found, "symbol": symbol, "next_page_token": token})

    async def corporate_actions(self, request: Request) -> Response:
        """The splits that the sandbox was told of."""
        return JSONResponse(answer_of(self._world.splits, request.query_params))
