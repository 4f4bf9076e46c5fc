"""The application: `app` serves the laboratories behind TenantMiddleware, `platform_app` the bare domain."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import tenantry
from planner import api, site
from planner.web import HEADERS, HERE, pages, render
from tenantry.errors import TenantryError
from tenantry.integrations.fastapi import refusal

__all__ = ["app", "platform_app"]

TITLES = {403: "Not for you", 404: "Nothing here"}


async def fault(request: Request, error: Exception) -> Response:
    """What went wrong: for programs as JSON, for people as a page."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    said = error.detail if isinstance(error, HTTPException) else "Try again in a moment."
    if api.asked(request):
        return api.refused(status, said)
    return render(request, "fault.html", status, heading=TITLES.get(status, "That did not work"), said=said)


async def refused(request: Request, error: Exception) -> Response:
    """What Tenantry refuses: nobody is signed in, which leads people to its sign-in page, or no database can be had."""
    return await refusal(request, error, json=api.asked(request))


async def front(request: Request) -> Response:
    """The platform's own page: the laboratories it serves."""
    labs = [(found.tenant.name, found.tenant.slug) for found in tenantry.connected().environments()]
    style = "/static/style.css"
    html = pages.get_template("front.html").render(labs=labs[:200], count=len(labs), style=style)
    return HTMLResponse(html, headers=HEADERS)


class Id(IntegerConvertor):
    """The number of a row, which no column holds longer than that."""

    regex = "[0-9]{1,9}"


register_url_convertor("id", Id())
BOTH = ["GET", "POST"]
STATIC = Mount("/static", StaticFiles(directory=HERE / "static"))

app = Starlette(
    routes=[
        Route("/", site.home),
        STATIC,
        Route("/api/plan", api.year),
        Route("/api/{kind}", api.many, methods=BOTH),
        Route("/api/{kind}/{id:id}", api.single, methods=["GET", "PATCH", "DELETE"]),
        Route("/{kind}", site.listed),
        Route("/{kind}/new", site.new, methods=BOTH),
        Route("/{kind}/{id:id}", site.edit, methods=BOTH),
    ],
    exception_handlers={HTTPException: fault, TenantryError: refused},
)

platform_app = Starlette(routes=[Route("/", front), STATIC])
