"""The platform's own pages and its API."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI
from starlette.responses import Response

from tenantry.config import Config
from tenantry.errors import TenantryError
from tenantry.web import api, portal
from tenantry.web.api import problems
from tenantry.web.api.problems import Problem
from tenantry.web.armour import Armour, Bounded, Scope
from tenantry.web.house import House
from tenantry.web.portal.frame import anonymous


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
    _name_problem(app)
    _shut(app, config)
    return app


def _shut(app: FastAPI, config: Config) -> None:
    """Put the armour before everything, also before what answers a fault of ours."""
    plain = app.build_middleware_stack

    def refusal(scope: Scope, error: TenantryError) -> Response:
        page = scope["path"].startswith("/admin/")
        return anonymous(config, error) if page else problems.of(error)

    app.build_middleware_stack = lambda: Armour(Bounded(plain(), refusal))  # type: ignore[method-assign]


def _name_problem(app: FastAPI) -> None:
    """Let the description hold what its answers refer to."""
    plain = app.openapi

    def described() -> dict[str, object]:
        known = plain()
        known["components"]["schemas"].setdefault("Problem", Problem.model_json_schema())
        return known

    app.openapi = described  # type: ignore[method-assign]
