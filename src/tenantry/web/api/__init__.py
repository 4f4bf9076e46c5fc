"""The API under /api/: every verb of `Platform` at an address of its own."""

from __future__ import annotations

from fastapi import FastAPI

from tenantry.web.api import endpoints, follow, problems
from tenantry.web.api.routes import PROVISION, ROUTES

__all__ = ["install"]


def install(app: FastAPI) -> None:
    """Add all of it to the application, whose state holds the platform while it runs."""
    problems.install(app)
    for route in ROUTES:
        endpoints.add(app, route)
    endpoints.add(app, PROVISION, below="/admin", name="tenant_provision")
    follow.add(app)
