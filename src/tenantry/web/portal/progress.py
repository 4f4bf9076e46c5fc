"""An operation's steps as they go, in any page: `{% include "_follow.html" %}` with `details` and `workers`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from tenantry.identity import acting_as
from tenantry.platform.operations import OperationDetails
from tenantry.web.hub import News
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visit, Visiting, client_of, rendered

router = APIRouter(route_class=Page)

STILL: Final = b": still there\n\n"
"""What is sent where nothing happens: a comment, which browsers pass over."""


async def progress(visit: Visit, operation_id: str) -> dict[str, Any]:
    """What the templates need to show an operation. Raises `OperationNotFound`."""
    with visit.acting():
        operations = visit.platform.operations
        return {"details": await operations.show(operation_id), "workers": await operations.workers()}


@router.get("/operations/{operation_id}/steps")
@asks("operation.follow")
async def steps(visit: Visiting, operation_id: str) -> StreamingResponse:
    """The steps now, then at every change, as server-sent events with HTML; `over` is the last."""

    async def allowed() -> OperationDetails:
        with acting_as(await visit.here.sign_in.by_session(visit.session)):
            return await visit.platform.operations.show(operation_id, 0)

    with visit.acting():
        found = await visit.platform.operations.show(operation_id, 0)
    seat = visit.here.hub.seat(visit.principal.admin_id, client_of(visit.request).address)

    async def stream() -> AsyncIterator[bytes]:
        async for news in visit.here.hub.listen(found.operation.id, seat, allowed):
            yield STILL if news is None else news.told(_event)

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)


def _event(news: News) -> bytes:
    shown = event("steps", rendered("_steps.html", details=news.details, workers=news.workers))
    return shown + event("over", "") if news.last else shown


def event(name: str, text: str) -> bytes:
    """One event (WHATWG HTML, section 9.2); a text of several lines is told line by line."""
    data = "".join(f"data: {line}\n" for line in text.splitlines() or [""])
    return f"event: {name}\n{data}\n".encode()
