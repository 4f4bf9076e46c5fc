"""Sees each request of the platform's own site end: counts it, makes a span of it, and answers where that failed."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from typing import Any, Final

from starlette.requests import Request

from tenantry import tracing
from tenantry.web.api.problems import broken
from tenantry.web.metrics import Requests

UNKNOWN: Final = "none"
"""The route of requests that lead nowhere."""


class Watched:
    """Answers a fault of ours with what the site says of such, within the headers that every answer has."""

    def __init__(self, app: Any, requests: Requests) -> None:
        self.app = app
        self.requests = requests

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        with tracing.span(request.method, {"http.request.method": request.method}, request.headers) as note:
            start, status, seconds = time.perf_counter(), 0, 0.0

            async def watched(message: MutableMapping[str, Any]) -> None:
                nonlocal status, seconds
                if message["type"] == "http.response.start":
                    status, seconds = message["status"], time.perf_counter() - start
                await send(message)

            try:
                await self.app(scope, receive, watched)
            except Exception as error:
                if status:
                    raise
                await (await broken(request, error))(scope, receive, watched)
            finally:
                route = _route(scope)
                self.requests.count(request.method, route, status or 499, seconds)
                note("name", f"{request.method} {route}")
                note("http.route", route)
                note("http.response.status_code", status)


def _route(scope: MutableMapping[str, Any]) -> str:
    """The pattern of the address, such as /api/tenants/{slug}."""
    within = scope.get("fastapi", {}).get("effective_route_context")  # of a router, whose prefix it knows
    path = getattr(within, "path", None) or getattr(scope.get("route"), "path", None)
    if path is None and scope["path"].startswith("/admin/static/"):
        return "/admin/static"
    return path or UNKNOWN
