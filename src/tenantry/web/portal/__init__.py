"""The admin portal at /admin/: pages for the people who run the platform."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from tenantry.web.portal import (
    admins,
    audit,
    create,
    me,
    migrations,
    operations,
    organizations,
    palette,
    progress,
    servers,
    settings,
    signin,
    statistics,
    tenant,
    tenants,
    verify,
)

__all__ = ["Armour", "install"]

PARTS: Final = (
    signin,
    progress,
    tenants,
    create,
    tenant,
    organizations,
    admins,
    me,
    statistics,
    operations,
    migrations,
    servers,
    audit,
    verify,
    settings,
    palette,
)

STATIC: Final = Path(__file__).parents[1] / "static"

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
"""What every answer of the platform's own pages carries."""

HSTS: Final = "max-age=31536000"


class Armour:
    """Puts the headers on every answer: no script and no style but our own, in nobody's frame, kept by no cache."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answer."""
        static = scope.get("path", "").startswith("/admin/static/")
        known = dict(HEADERS) | {"cache-control": "public, max-age=3600" if static else "no-store"}
        if scope.get("scheme") == "https":
            known["strict-transport-security"] = HSTS

        async def armoured(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message.setdefault("headers", [])}
                missing = {name.encode(): value.encode() for name, value in known.items()}
                message["headers"] += [(name, value) for name, value in missing.items() if name not in there]
            await send(message)

        await self.app(scope, receive, armoured)


def install(app: FastAPI) -> None:
    """Add all of it to the application."""
    for part in PARTS:
        app.include_router(part.router, prefix="/admin", include_in_schema=False)
    app.mount("/admin/static", StaticFiles(directory=STATIC), name="static")

    async def slash(_: Request) -> Response:
        return RedirectResponse("/admin/", 308)

    app.add_route("/admin", slash)
    app.add_middleware(Armour)
