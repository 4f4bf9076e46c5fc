"""Sees every response that a tenant was given while tests run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import pytest

from tenantry.context import _current
from tenantry.model import Environment
from tenantry.runtime.asgi import TenantMiddleware
from tenantry.runtime.wsgi import WsgiTenantMiddleware

SEEN: Final = 1_000_000
"""Bytes of one test's responses to one tenant that are looked through."""


class Responses:
    """The bodies of a test's responses, by the tenant whose address they came from."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytearray] = {}  # by environment id

    def clear(self) -> None:
        """Begin a test."""
        self.bodies = {}

    def add(self, environment: Environment, part: bytes) -> None:
        """Take in a part of a body."""
        body = self.bodies.setdefault(environment.id, bytearray())
        body += part[: max(0, SEEN - len(body))]

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """See what passes both middlewares."""
        serve_asgi, serve_wsgi = TenantMiddleware.__call__, WsgiTenantMiddleware._run
        add = self.add

        async def asgi(middleware: TenantMiddleware, scope: Any, receive: Any, send: Any) -> None:
            def seen(message: Any) -> Awaitable[None]:
                environment = _current.get()
                if environment is not None and message["type"] == "http.response.body":
                    add(environment, message.get("body", b""))
                answer: Awaitable[None] = send(message)
                return answer

            await serve_asgi(middleware, scope, receive, seen)

        def wsgi(middleware: WsgiTenantMiddleware, environ: Any, start: Any, environment: Any, prefix: str) -> Any:
            add(environment, b"")
            return _Seen(serve_wsgi(middleware, environ, start, environment, prefix), environment, add)

        patch.setattr(TenantMiddleware, "__call__", asgi)
        patch.setattr(WsgiTenantMiddleware, "_run", wsgi)


class _Seen:
    """A WSGI body that is looked at as it is sent."""

    def __init__(self, body: Any, environment: Environment, add: Callable[[Environment, bytes], None]) -> None:
        self._body = body
        self._environment = environment
        self._add = add

    def __iter__(self) -> Iterator[bytes]:
        for part in self._body:
            self._add(self._environment, part)
            yield part

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            close()
