"""The platform's own page at the bare domain: what this is, and the sites that like to be named."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import tenantry
from storyfront import art, site
from storyfront.public import icon_of
from storyfront.site import LOOKS
from storyfront.web import HEADERS, HERE, static_version, templates
from tenantry.errors import TenantryError
from tenantry.model import Environment

PER_PAGE: Final = 24
NAME: Final = "Storyfront"
COLOUR: Final = "#2b4bf2"
OWN: Final = site.site_of({"site_name": NAME}, {"look": "studio", "accent": COLOUR})


async def sites(request: Request) -> Response:
    number = request.query_params.get("page", "1")
    if not re.fullmatch(r"[1-9]\d{0,3}", number):
        raise HTTPException(404)
    served = tenantry.connected().environments()
    first = (int(number) - 1) * PER_PAGE
    cards = await asyncio.gather(*(_card(request, environment) for environment in served[first : first + PER_PAGE]))
    return _page(
        "A house full of websites.",
        "Each has a name, a look, pages, pictures and people of its own. "
        "One installation serves them all, and none can see another.",
        sites=[card for card in cards if card],
        count=len(served),
        number=int(number),
        more=len(served) > first + PER_PAGE,
    )


async def _card(request: Request, environment: Environment) -> dict[str, Any] | None:
    """What a site's own settings say about it; None where it does not want to be named, or cannot answer."""
    try:
        with tenantry.tenant_context(environment):
            async with tenantry.tenant_session() as session:
                found = await site.load(session, tenantry.tenant_values())
    except TenantryError:
        return None
    if not found.listed:
        return None
    host = environment.hostnames[0] if environment.hostnames else None
    port = f":{request.url.port}" if request.url.port else ""
    address = f"{request.url.scheme}://{host}{port}/" if host else f"/t/{environment.tenant.slug}/"
    drawing = art.cover(found.title, found.accent, LOOKS[found.look].art)
    return {
        "title": found.title,
        "tagline": found.tagline,
        "look": found.look,
        "address": address,
        "drawing": drawing,
        "host": host or address,
    }


def _page(heading: str, lead: str, status: int = 200, **context: Any) -> Response:
    drawing = art.cover(heading, COLOUR, "tiles")
    context = {"sites": [], "count": 0, "number": 1, "more": False} | context
    html = templates.get_template("front.html").render(
        title=NAME, heading=heading, lead=lead, status=status, drawing=drawing, static=_static, **context
    )
    return HTMLResponse(html, status, HEADERS)


def _static(name: str) -> Markup:
    return Markup(f"/static/{name}?v={static_version(name)}")


async def _look(request: Request) -> Response:
    return Response(OWN.stylesheet, media_type="text/css")


async def _icon(request: Request) -> Response:
    return Response(icon_of(NAME, COLOUR), media_type="image/svg+xml")


async def _lost(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _page(
        "Nobody lives here.",
        "There is no page at this address.",
        status,
    )


platform_app = Starlette(
    routes=[
        Route("/", sites),
        Route("/look.css", _look),
        Route("/icon.svg", _icon),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ],
    exception_handlers={HTTPException: _lost},
)
"""Give it to the middleware as `platform_app`."""
