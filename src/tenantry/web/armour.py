"""The headers of every answer of the platform's own pages and its API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
"""What every answer of the platform's own pages carries."""

HSTS: Final = "max-age=31536000"


class Armour:
    """Puts the headers on every answer: no script and no style but our own, in nobody's frame, kept by no cache."""

    def __init__(self, app: Asgi) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        static = scope.get("path", "").startswith("/admin/static/")
        known = dict(HEADERS)
        if scope.get("scheme") == "https":
            known["strict-transport-security"] = HSTS

        async def armoured(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message.setdefault("headers", [])}
                kept = static and message["status"] < 400
                known["cache-control"] = "public, max-age=3600" if kept else "no-store"
                missing = {name.encode(): value.encode() for name, value in known.items()}
                message["headers"] += [(name, value) for name, value in missing.items() if name not in there]
            await send(message)

        await self.app(scope, receive, armoured)
