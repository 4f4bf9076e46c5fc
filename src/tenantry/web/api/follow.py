"""The progress of an operation as server-sent events: one look at the registry for everybody who follows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import Depends, FastAPI, Path, Request
from pydantic import TypeAdapter
from starlette.responses import StreamingResponse

from tenantry.identity import RIGHTS, Principal, acting_as
from tenantry.platform.operations import OperationDetails
from tenantry.web.api import wire
from tenantry.web.api.access import bearer
from tenantry.web.api.guard import Guarded, again
from tenantry.web.api.problems import problems_of
from tenantry.web.doors import Says, says
from tenantry.web.house import opened

_details: Final = TypeAdapter(wire.model(OperationDetails))


def event(details: OperationDetails | None) -> bytes:
    """One event (WHATWG HTML, section 9.2)."""
    if details is None:
        return b": still there\n\n"
    return (
        b"event: operation\ndata: "
        + _details.dump_json(_details.validate_python(details, from_attributes=True))
        + b"\n\n"
    )


def add(app: FastAPI) -> None:
    """Let the application answer at /api/operations/{operation_id}/events."""

    @says(Says(("operation.follow",)))
    async def events(
        operation_id: Annotated[str, Path(min_length=1, max_length=300)],
        request: Request,
        principal: Annotated[Principal, Depends(bearer)],
    ) -> StreamingResponse:
        """The operation now, then at every change, as server-sent events; the stream ends when it is over."""
        here = await opened(request)
        with acting_as(principal):
            found = await here.platform.operations.show(operation_id)

        async def allowed() -> None:
            with acting_as(await again(request)):
                await RIGHTS["operation.follow"].check(here.platform.operations, operation_id)

        async def stream() -> AsyncIterator[bytes]:
            async for details in here.hub.watch(found.operation.id, allowed):
                yield event(details)

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)

    content = {200: {"description": "A stream of events.", "content": {"text/event-stream": {}}}, **problems_of()}
    app.router.add_api_route(
        "/api/operations/{operation_id}/events",
        events,
        methods=["GET"],
        operation_id="operation_follow",
        summary="Operation: follow",
        tags=["operation"],
        response_class=StreamingResponse,
        responses=content,
        route_class_override=Guarded,
    )
