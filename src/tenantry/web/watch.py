"""Sees each request of the platform's own site end, also those that end in a fault."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from starlette.requests import Request

from tenantry.web.api.problems import broken


class Watched:
    """Answers a fault of ours with what the site says of such, within the headers that every answer has."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = False

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            if began:
                raise
            await (await broken(Request(scope), error))(scope, receive, watched)
