"""The platform's own pages and its API."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.metadata import version

from fastapi import FastAPI, Request
from starlette.responses import Response

from tenantry import tracing
from tenantry.config import Config
from tenantry.runtime import Runtime
from tenantry.web import api, hooks, metrics, portal, scim, signup, sso
from tenantry.web.api.guard import count_stranger
from tenantry.web.api.problems import Problem
from tenantry.web.armour import Armour
from tenantry.web.bounds import Bounded
from tenantry.web.doors import doors
from tenantry.web.house import House
from tenantry.web.metrics import Requests
from tenantry.web.rates import Rates
from tenantry.web.watch import Watched


def site(config: Config, runtime: Runtime | None = None) -> FastAPI:
    """The application; the runtime is that of the tenants which are served beside it."""
    tracing.start()
    app = FastAPI(
        title=config.platform.name,
        version=version("tenantry"),
        description="The API of a platform on Tenantry.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.house = House(config, runtime)
    app.state.rates = Rates.of(config)
    api.install(app)
    app.add_middleware(Bounded)
    requests = Requests()
    metrics.add(app, requests)
    app.add_middleware(Watched, requests=requests)
    portal.install(app)
    signup.install(app)
    hooks.install(app)
    app.include_router(sso.router, include_in_schema=False)
    app.include_router(scim.router, include_in_schema=False)
    app.add_route("/api/openapi.json", _description(app))
    app.add_middleware(Armour)
    doors(app)  # each says its right, or nothing is served
    return app


def _description(app: FastAPI) -> Callable[[Request], Awaitable[Response]]:
    """What describes the API (OpenAPI 3.1), for everybody; with the problems that its answers refer to."""

    @cache
    def described() -> bytes:
        known = app.openapi()
        known["components"]["schemas"].setdefault("Problem", Problem.model_json_schema())
        return json.dumps(known, ensure_ascii=False).encode()

    async def answer(request: Request) -> Response:
        count_stranger(request)
        return Response(described(), media_type="application/json", headers=request.state.rate)

    return answer
