"""How large a request to the platform's own pages and its API may be."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request

BODY_BYTES: Final = 2**20
"""The longest body."""

LIST_BYTES: Final = 16 * 2**20
"""The longest body of an import: a list of tenants with 4,000,000 characters fits, escaped as JSON."""


class Bounded:
    """Refuses a longer body: at once where the request says how long it is, else as soon as it is too long.

    FastAPI's own limit answers in plain text, past the handlers that make problems and pages of a refusal.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        came, limit = 0, LIST_BYTES if scope["path"].endswith("/tenants/-/import") else BODY_BYTES
        length = Request(scope).headers.get("content-length", "0")
        declared = int(length) if length.isascii() and length.isdigit() else 0

        async def bounded() -> Any:
            nonlocal came
            if declared > limit:
                raise HTTPException(413, str(limit))
            message = await receive()
            came += len(message.get("body", b""))
            if came > limit:
                raise HTTPException(413, str(limit))
            return message

        await self.app(scope, bounded, send)
