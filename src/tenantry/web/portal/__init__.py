"""The admin portal at /admin/: pages for the people who run the platform."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from tenantry.web.portal import (
    admins,
    audit,
    create,
    mails,
    me,
    migrations,
    operations,
    organizations,
    palette,
    progress,
    scim,
    servers,
    settings,
    signin,
    signups,
    sso,
    statistics,
    tenant,
    tenants,
    verify,
)

__all__ = ["install"]

PARTS: Final = (
    signin,
    progress,
    tenants,
    create,
    tenant,
    sso,
    scim,
    organizations,
    signups,
    admins,
    mails,
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


def install(app: FastAPI) -> None:
    """Add all of it to the application."""
    for part in PARTS:
        app.include_router(part.router, prefix="/admin", include_in_schema=False)
    app.mount(
        "/admin/static",
        StaticFiles(directory=STATIC, packages=[("tenantry.runtime.entrance", "static")]),
        name="static",
    )

    async def slash(_: Request) -> Response:
        return RedirectResponse("/admin/", 308)

    app.add_route("/admin", slash)
