"""The progress of an operation as server-sent events: one look at the registry for everybody who follows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import Depends, FastAPI, Path, Request
from fastapi.security.utils import get_authorization_scheme_param
from pydantic import TypeAdapter
from starlette.responses import StreamingResponse

from tenantry.identity import Principal, acting_as
from tenantry.platform.operations import OperationDetails
from tenantry.web.api import wire
from tenantry.web.api.access import bearer
from tenantry.web.api.guard import Guarded
from tenantry.web.api.problems import problems_of
from tenantry.web.doors import Says, says
from tenantry.web.house import opened
from tenantry.web.hub import News
from tenantry.web.portal.progress import STILL

_details: Final = TypeAdapter(wire.model(OperationDetails))


def event(news: News) -> bytes:
    """One event (WHATWG HTML, section 9.2)."""
    text = _details.dump_json(_details.validate_python(news.details, from_attributes=True))
    return b"event: operation\ndata: " + text + b"\n\n"


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
        token = get_authorization_scheme_param(request.headers["authorization"])[1]

        async def allowed() -> OperationDetails:
            with acting_as(await here.sign_in.by_token(token)):
                return await here.platform.operations.show(operation_id, 0)

        with acting_as(principal):
            found = await here.platform.operations.show(operation_id, 0)
        seat = here.hub.seat(principal.admin_id, request.client.host if request.client else "")

        async def stream() -> AsyncIterator[bytes]:
            async for news in here.hub.listen(found.operation.id, seat, allowed):
                yield STILL if news is None else news.told(event)

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
