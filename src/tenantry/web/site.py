"""The platform's own pages and its API, at its bare domain; everything else there goes to the platform's front page."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI, HTTPException

from tenantry.config import Config
from tenantry.web import api
from tenantry.web.api.problems import Problem
from tenantry.web.house import House

OWN: Final = ("/api/", "/admin/")


def site(config: Config, front: Any = None) -> FastAPI:
    """The application; `front` is the ASGI application that answers everything that is none of its own."""
    app = FastAPI(
        title=config.platform.name,
        version=version("tenantry"),
        description="The API of a platform on Tenantry.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.house = House(config)
    api.install(app)
    _name_problem(app)
    if front is not None:
        app.mount("/", Elsewhere(front))
    return app


class Elsewhere:
    """The front page, and all else that is no part of the site; below the site's own paths there is nothing else."""

    def __init__(self, front: Any) -> None:
        self._front = front

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["type"] == "http" and path.startswith(OWN):
            raise HTTPException(404)
        await self._front(scope, receive, send)


def _name_problem(app: FastAPI) -> None:
    """Let the description hold what its answers refer to."""
    plain = app.openapi

    def described() -> dict[str, object]:
        known = plain()
        known["components"]["schemas"].setdefault("Problem", Problem.model_json_schema())
        return known

    app.openapi = described  # type: ignore[method-assign]
