"""The control desk: the log of requests, faults and splits; only for who has the token."""

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ops_pipeline.sandbox.faults import Schedule
from ops_pipeline.sandbox.front import reason
from ops_pipeline.sandbox.splits import Split
from ops_pipeline.sandbox.world import SandboxWorld


class ControlDesk:
    """Endpoints for whoever stages a rehearsal."""

    def __init__(self, world: SandboxWorld) -> None:
        self._world = world

    async def requests(self, request: Request) -> Response:
        """The log of requests, newest last; DELETE clears it."""
        if request.method == "DELETE":
            self._world.log.entries.clear()
            return Response(status_code=204)
        return JSONResponse(list(self._world.log.entries))

    async def faults(self, request: Request) -> Response:
        """The schedule of faults and its counts; POST replaces it, DELETE ends it."""
        faults = self._world.faults
        try:
            if request.method == "POST":
                faults.order(Schedule.model_validate_json(await request.body()))
        except ValidationError as error:
            return JSONResponse({"message": reason(error)}, 422)
        if request.method == "DELETE":
            faults.order(Schedule())
            return Response(status_code=204)
        return JSONResponse(faults.report())

    async def splits(self, request: Request) -> Response:
        """Put a split among the corporate actions."""
        try:
            split = Split.model_validate_json(await request.body())
        except ValidationError as error:
            return JSONResponse({"message": reason(error)}, 422)
        self._world.splits.append(split)
        return JSONResponse(split.answer(), 201)
