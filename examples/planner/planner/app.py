"""The application: `app` serves the laboratories behind TenantMiddleware, `platform_app` the bare domain."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from planner import api, site
from planner.web import HEADERS, HERE, go, pages, render, root_of
from tenantry.errors import TenantryError
from tenantry.runtime.runtime import connected

__all__ = ["app", "platform_app"]

TITLES = {403: "Not for you", 404: "Nothing here"}


async def fault(request: Request, error: Exception) -> Response:
    """What went wrong: for programs as JSON, for people as a page; who is not signed in is led to do so."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    said = error.detail if isinstance(error, HTTPException) else "Try again in a moment."
    if request.url.path.removeprefix(root_of(request)).startswith("/api/"):
        return api.refused(status, said)
    if status == 401:
        return go(request, "/sign-in")
    return render(request, "fault.html", status, heading=TITLES.get(status, "That did not work"), said=said)


async def unavailable(request: Request, error: Exception) -> Response:
    """The laboratory's own database cannot be used now."""
    assert isinstance(error, TenantryError)
    answer = api.refused(error.status, error.message, code=error.code)
    answer.headers["retry-after"] = "5"
    return answer


async def front(request: Request) -> Response:
    """The platform's own page: the laboratories it serves."""
    served = [found for found in connected().resolver.table.environments() if found.tenant.status.served]
    labs = sorted((found.tenant.name, found.tenant.slug) for found in served)
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
        Route("/sign-in", site.sign_in, methods=BOTH),
        Route("/sign-out", site.sign_out, methods=["POST"]),
        Route("/api/sign-in", api.sign_in, methods=["POST"]),
        Route("/api/plan", api.year),
        Route("/api/{kind}", api.many, methods=BOTH),
        Route("/api/{kind}/{id:id}", api.single, methods=["GET", "PATCH", "DELETE"]),
        Route("/{kind}", site.listed),
        Route("/{kind}/new", site.new, methods=BOTH),
        Route("/{kind}/{id:id}", site.edit, methods=BOTH),
    ],
    exception_handlers={HTTPException: fault, TenantryError: unavailable},
)

platform_app = Starlette(routes=[Route("/", front), STATIC])
