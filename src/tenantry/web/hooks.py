"""Webhooks that come to the platform: whoever takes payments activates tenants."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import JSONResponse, Response

from tenantry.errors import TenantryError
from tenantry.web.house import opened
from tenantry.web.portal.asking import Page, anybody

router = APIRouter(route_class=Page)


def install(app: FastAPI) -> None:
    """Add them to the application."""
    app.include_router(router, prefix="/hooks", include_in_schema=False)


@router.post("/payment")
@anybody(gives=401)
async def payment(request: Request) -> Response:
    """Activate the tenant that a signed message names."""
    here = await opened(request)
    try:
        done = await here.platform.payments.take(await request.body(), request.headers)
    except TenantryError as error:
        return JSONResponse(error.as_dict(), error.status)
    return JSONResponse({"done": done})
