"""The application: `app` serves the agencies behind TenantMiddleware, `platform_app` the bare domain."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

import tenantry
from agency import site
from agency.web import HEADERS, HERE, pages, render
from tenantry.errors import TenantryError
from tenantry.integrations.fastapi import refusal

__all__ = ["app", "platform_app"]

app = FastAPI(title="Agency", openapi_url=None)
app.mount("/static", StaticFiles(directory=HERE / "static"))
app.include_router(site.pages)
app.add_exception_handler(TenantryError, refusal)  # nobody signed in, no database to be had

platform_app = FastAPI(title="Agencies", openapi_url=None)
platform_app.mount("/static", StaticFiles(directory=HERE / "static"))


@app.exception_handler(HTTPException)
async def refused(request: Request, error: HTTPException) -> Response:
    """What went wrong, as a page."""
    heading = {403: "Not for you", 404: "Nothing here"}.get(error.status_code, "That did not work")
    said = "There is no such page." if error.detail == "Not Found" else error.detail  # Starlette's own words
    return render(request, "fault.html", error.status_code, heading=heading, said=said)


@app.exception_handler(RequestValidationError)
async def no_such_address(request: Request, _: RequestValidationError) -> Response:
    """An id that is no number leads nowhere."""
    return await refused(request, HTTPException(404, "There is no such page."))


@platform_app.get("/")
async def front() -> Response:
    """The platform's own page: the agencies it serves."""
    served = [found.tenant for found in tenantry.connected().environments()]
    agencies = [(found.name, found.slug, found.settings) for found in served]
    html = pages.get_template("front.html").render(agencies=agencies[:200], count=len(agencies))
    return HTMLResponse(html, headers=HEADERS)
