"""An operation's steps as they go, in any page: `{% include "_follow.html" %}` with `details` and `workers`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from tenantry.identity import RIGHTS
from tenantry.platform.operations import OperationDetails
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visit, Visiting, rendered
from tenantry.web.portal.frame import visit as signed_in

router = APIRouter(route_class=Page)


async def progress(visit: Visit, operation_id: str) -> dict[str, Any]:
    """What the templates need to show an operation. Raises `OperationNotFound`."""
    with visit.acting():
        operations = visit.platform.operations
        return {"details": await operations.show(operation_id), "workers": await operations.workers()}


@router.get("/operations/{operation_id}/steps")
@asks("operation.follow")
async def steps(visit: Visiting, operation_id: str) -> StreamingResponse:
    """The steps now, then at every change, as server-sent events with HTML; `over` is the last."""
    found: OperationDetails = (await progress(visit, operation_id))["details"]

    async def allowed() -> None:
        with (await signed_in(visit.request)).acting():
            await RIGHTS["operation.follow"].check(visit.platform.operations, operation_id)

    async def stream() -> AsyncIterator[bytes]:
        async for details in visit.here.hub.watch(found.operation.id, allowed):
            with visit.acting():
                workers = await visit.platform.operations.workers()
            last = details or found
            yield event("steps", rendered("_steps.html", details=last, workers=workers))
            if details is not None and not details.operation.state.live:
                yield event("over", "")

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)


def event(name: str, text: str) -> bytes:
    """One event (WHATWG HTML, section 9.2); a text of several lines is told line by line."""
    data = "".join(f"data: {line}\n" for line in text.splitlines() or [""])
    return f"event: {name}\n{data}\n".encode()
