"""The platform's own pages and its API, at its bare domain; everything else there goes to the platform's front page."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version

from fastapi import FastAPI

from tenantry.config import Config
from tenantry.identity.signin import SignIn
from tenantry.platform import Platform
from tenantry.web import api
from tenantry.web.api.follow import Hub
from tenantry.web.api.problems import Problem


def site(config: Config) -> FastAPI:
    """The application."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Platform.open(config, actor="web") as platform:
            app.state.platform = platform
            app.state.sign_in = SignIn(platform.registry)
            app.state.hub = Hub(platform)
            try:
                yield
            finally:
                await app.state.hub.close()

    app = FastAPI(
        title=config.platform.name,
        version=version("tenantry"),
        description="The API of a platform on Tenantry.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.config = config
    api.install(app)
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
