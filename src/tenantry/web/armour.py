"""What stands before the platform's own pages: headers on every answer, and no body without an end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from starlette.responses import Response

from tenantry.errors import TenantryError
from tenantry.refusals import BodyTooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Refusal = Callable[[Scope, TenantryError], Response]

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

BODY: Final = 1_000_000
"""Octets of a request's body that are taken."""

LISTS: Final = 5_000_000
"""The same where a list of tenants is imported."""


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


class Bounded:
    """Refuses a body that is too large: at once where it says so itself, else when it has become so."""

    def __init__(self, app: Asgi, refusal: Refusal) -> None:
        self.app = app
        self.refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        most = LISTS if scope["path"].endswith("/tenants/-/import") else BODY
        refuse = self.refusal(scope, BodyTooLarge(most=most))
        if _announced(scope) > most:
            return await refuse(scope, receive, send)
        came, began, over = 0, False, False

        async def counted() -> Message:
            nonlocal came, began, over
            message = await receive()
            came += len(message.get("body", b""))
            if came <= most:
                return message
            if not began:
                began = over = True
                await refuse(scope, receive, send)
            return {"type": "http.disconnect"}  # whoever reads it reads no further

        async def answered(message: Message) -> None:
            nonlocal began
            began = True
            if not over:
                await send(message)

        return await self.app(scope, counted, answered)


def _announced(scope: Scope) -> int:
    given = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(given) if given.isdigit() else 0
