"""The application: `app` serves the sites behind TenantMiddleware, `platform_app` the bare domain."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import tenantry
from storyfront import desk, public
from storyfront.front import platform_app
from storyfront.web import HEADERS, HERE, here
from tenantry.errors import TenantryError
from tenantry.integrations.fastapi import refusal

__all__ = ["app", "platform_app"]


class SafeHeaders:
    """Every answer says what a browser may do with it, unless it says so more strictly itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, sent)


WORDS = {
    403: ("Not for you", "This is not yours to see or do."),
    404: ("Nothing here", "The page was moved, renamed, or never was. Search may find it."),
    413: ("Too large", "That was more than this site takes at once."),
}


async def fault(request: Request, error: Exception) -> Response:
    """A page of the site's own look for what went wrong."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    async with tenantry.tenant_session() as session:
        at = await here(request, session)
    title, words = WORDS.get(status, ("That did not work", "Try again in a moment."))
    told = (
        isinstance(error, HTTPException) and status in (400, 403) and error.detail not in ("Forbidden", "Bad Request")
    )
    return at.render("fault.html", status, title=title, words=error.detail if told else words, status=status)


BOTH = ["GET", "POST"]

app = Starlette(
    routes=[
        Route("/", public.home),
        Route("/stories", public.stories),
        Route("/search", public.search),
        Route("/feed.xml", public.feed),
        Route("/look.css", public.look),
        Route("/icon.svg", public.icon),
        Route("/media/{name}", public.file),
        Mount("/static", StaticFiles(directory=HERE / "static")),
        Route("/desk", desk.overview),
        Route("/desk/preview", desk.preview, methods=["POST"]),
        Route("/desk/pages/new", desk.edit, methods=BOTH),
        Route("/desk/pages/{id:int}", desk.edit, methods=BOTH),
        Route("/desk/pages/{id:int}/remove", desk.remove, methods=["POST"]),
        Route("/desk/pages/{id:int}/history", desk.history, methods=BOTH),
        Route("/desk/media", desk.library, methods=BOTH),
        Route("/desk/media/remove", desk.remove_file, methods=["POST"]),
        Route("/desk/settings", desk.settings, methods=BOTH),
        Route("/{slug}", public.page),
    ],
    middleware=[Middleware(SafeHeaders)],
    exception_handlers={HTTPException: fault, TenantryError: refusal},
)
