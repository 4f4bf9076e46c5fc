"""The platform's own pages and its API."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI

from tenantry.config import Config
from tenantry.web import api, portal
from tenantry.web.api.problems import Problem
from tenantry.web.doors import doors
from tenantry.web.house import House


def site(config: Config) -> FastAPI:
    """The application."""
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
    portal.install(app)
    doors(app)  # each says its right, or nothing is served
    _name_problem(app)
    return app


def _name_problem(app: FastAPI) -> None:
    """Let the description hold what its answers refer to."""
    plain = app.openapi

    def described() -> dict[str, object]:
        known = plain()
        known["components"]["schemas"].setdefault("Problem", Problem.model_json_schema())
        return known

    app.openapi = described  # type: ignore[method-assign]
