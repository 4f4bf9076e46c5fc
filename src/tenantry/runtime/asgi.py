"""The tenant of each request, for ASGI applications (ASGI specification 3.0)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from tenantry.context import _current, support_context, tenant_context
from tenantry.errors import TenantryError, UnknownHost
from tenantry.model import Environment
from tenantry.refusals import SupportReadOnly
from tenantry.runtime import pages
from tenantry.runtime.asked import BODY, OWN, SAFE, Asked, Handler, client
from tenantry.runtime.banner import CONDITIONS, Page, bannered, headers_of_page, is_page
from tenantry.runtime.resolver import Request, Resolution, location
from tenantry.runtime.visit import Visit, _visit, visiting

if TYPE_CHECKING:
    from tenantry.runtime.runtime import Runtime

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class TenantMiddleware:
    """Sets the current tenant for each HTTP request and WebSocket, and answers itself where there is none.

    `app.add_middleware(TenantMiddleware, runtime=runtime)`. Requests to the platform's own domain go to
    `platform_app`, without a tenant; where none is given they get 404.
    """

    def __init__(self, app: Application, runtime: Runtime, platform_app: Application | None = None) -> None:
        self.app = app
        self.runtime = runtime
        self.platform_app = platform_app
        self._health = runtime.settings.health
        self._quick = runtime.resolver.quick

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901
        # Every tenth of a microsecond here shows in the throughput of a quick application: so this is written out.
        environment = None
        known = True  # whether it may say whose it is
        if scope["type"] == "http" and self.runtime.started and scope["path"] != self._health:
            host = None
            known = False
            for name, value in scope["headers"]:
                if name == b"host":
                    if host is not None:  # two of them: the long way round refuses it
                        host = None
                        break
                    host = value
                elif name == b"cookie" or name == b"authorization":
                    known = True
            environment = self._quick(host)
        if environment is None:
            routed = await self._route(scope, receive, send)
            if routed is None:
                return
            environment, scope = routed
            known = True
        if environment.tenant.support or OWN in scope["path"]:
            await self._apart(environment, scope, receive, send)
            return

        sent = 0
        began = False

        def counted(message: Message) -> Awaitable[None]:
            nonlocal sent, began
            began = True
            sent += len(message.get("body", b""))
            return send(message)

        visit = Visit(self.runtime, environment, self._asked, scope)
        token, whose = _current.set(environment), _visit.set(visit)
        try:
            if known:
                await visit.look()
            await self.app(scope, receive, counted)
        except TenantryError as error:
            if began:
                raise
            await _answer(scope, receive, counted, pages.refusal(error, _accept(scope), self.runtime.settings.data))
        finally:
            _visit.reset(whose)
            _current.reset(token)
            self.runtime.usage.add(environment.tenant.id, sent)

    async def _talk(self, environment: Environment, scope: Scope, receive: Receive, send: Send) -> None:
        """What goes the long way round. A WebSocket counts as one request when it ends, with all it sent."""
        sent = 0
        began = False

        def counted(message: Message) -> Awaitable[None]:
            nonlocal sent, began
            began = True
            sent += len(message.get("body") or message.get("bytes") or (message.get("text") or "").encode())
            return send(message)

        visit = Visit(self.runtime, environment, self._asked, scope)
        token, whose = _current.set(environment), _visit.set(visit)
        try:
            await visit.look()
            await self.app(scope, receive, counted)
        except TenantryError as error:
            if began:
                raise
            await _answer(scope, receive, counted, pages.refusal(error, _accept(scope), self.runtime.settings.data))
        finally:
            _visit.reset(whose)
            _current.reset(token)
            self.runtime.usage.add(environment.tenant.id, sent)

    # --- own pages, and support access ------------------------------------------------------------------------------

    async def _apart(self, environment: Environment, scope: Scope, receive: Receive, send: Send) -> None:
        """A request while support may look in, or to one of the middleware's own pages."""
        support, asked = self.runtime.support, self._asked(scope)
        page = self.runtime.page(asked.path) if scope["type"] == "http" else None
        with tenant_context(environment):
            access = None if page == support.answer else support.of(environment, asked)
            shown = support.banner(environment, access, asked) if scope["type"] == "http" else None
        if access is not None and not access.writes and asked.method not in SAFE:
            await _answer(scope, receive, send, pages.refusal(SupportReadOnly(), _accept(scope)))
            return
        with support_context(environment, access):
            if page is not None:
                visit = Visit(self.runtime, environment, self._asked, scope)
                with visiting(visit):
                    answer = await self._own(environment, asked, page, receive)
                await _answer(scope, receive, send, bannered(answer, shown))
                return
            if shown is not None:
                scope, send = _plain(scope), _Bannered(scope, send, shown)
            await self._talk(environment, scope, receive, send)

    async def _own(self, environment: Environment, asked: Asked, page: Handler, receive: Receive) -> pages.Answer:
        """One of the middleware's own pages."""
        with tenant_context(environment):
            try:
                return await page(environment, asked.with_body(await _body(receive)))
            except TenantryError as error:
                return pages.refusal(error, asked.headers.get("accept", ""), self.runtime.settings.data)

    def _asked(self, scope: Scope) -> Asked:
        """What a page of our own has to know; a WebSocket may ask for any change."""
        root: str = scope.get("root_path", "")
        headers: dict[str, str] = {}
        for raw, value in scope["headers"]:
            name, text = raw.decode("latin-1"), value.decode("latin-1")
            headers[name] = f"{headers[name]}{'; ' if name == 'cookie' else ', '}{text}" if name in headers else text
        peer = (scope.get("client") or ("",))[0]
        return Asked(
            scope.get("method", "CONNECT"),
            scope["path"].removeprefix(root),
            root,
            headers,
            scope.get("query_string", b"").decode("latin-1"),
            self._scheme(scope),
            client(peer, headers.get("x-forwarded-for", ""), self.runtime.settings.trusted_proxies),
        )

    # --- what is no tenant's --------------------------------------------------------------------------------------

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> tuple[Environment, Scope] | None:
        """The environment of an HTTP request and the scope it sees; None where everything has been done here."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return None
        resolution = await self._resolve(scope, receive, send)
        if resolution is None:
            return None
        if resolution.environment is None:
            await self._platform(scope, receive, send)
            return None
        if resolution.prefix:  # the path stays whole, as the specification wants it
            scope = {**scope, "root_path": scope.get("root_path", "") + resolution.prefix}
        if scope["type"] == "websocket":
            supported = bool(resolution.environment.tenant.support)
            await (self._apart if supported else self._talk)(resolution.environment, scope, receive, send)
            return None
        return resolution.environment, scope

    async def _resolve(self, scope: Scope, receive: Receive, send: Send) -> Resolution | None:
        """Where the request leads; None where it has been answered here."""
        health = scope["type"] == "http" and scope["path"] == self._health
        try:
            if not self.runtime.started:
                await self.runtime.start()
            if health:
                await _answer(scope, receive, send, pages.health(self.runtime.health()))
                return None
            resolution = self.runtime.resolver.resolve(_request(scope))
        except TenantryError as error:
            answer = (
                pages.health(self.runtime.health())
                if health
                else pages.refusal(error, _accept(scope), self.runtime.settings.data)
            )
            await _answer(scope, receive, send, answer)
            return None
        if resolution.redirect_host is None and resolution.redirect_path is None:
            return resolution
        await _answer(scope, receive, send, pages.redirect(self._location(scope, resolution)))
        return None

    def _location(self, scope: Scope, resolution: Resolution) -> str:
        return location(
            resolution,
            scheme=self._scheme(scope),
            host=next(_values(scope, b"host"), b""),
            outer=scope.get("root_path", ""),
            raw_path=scope.get("raw_path") or scope["path"].encode("utf-8", "replace"),
            query=scope.get("query_string", b""),
        )

    def _scheme(self, scope: Scope) -> str:
        client = scope.get("client")
        if client and client[0] in self.runtime.settings.trusted_proxies:
            forwarded = next(_values(scope, b"x-forwarded-proto"), None)
            if forwarded is not None:
                return "https" if forwarded == b"https" else "http"
        return "https" if scope.get("scheme") in ("https", "wss") else "http"

    async def _platform(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.platform_app is not None:
            return await self.platform_app(scope, receive, send)
        error = UnknownHost(host=next(_values(scope, b"host"), b"").decode("ascii", "replace")[:200])
        return await _answer(scope, receive, send, pages.refusal(error, _accept(scope), self.runtime.settings.data))

    # --- start and end --------------------------------------------------------------------------------------------

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start the runtime before the application and stop it after; an application may have no lifespan at all."""
        first: Message | None = await receive()
        try:
            await self.runtime.start()
        except TenantryError as error:
            await self.runtime.stop()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        answered = False

        async def replay() -> Message:
            nonlocal first
            message, first = first, None
            return message if message is not None else await receive()

        async def tell(message: Message) -> None:
            nonlocal answered
            answered = True
            if message["type"] != "lifespan.startup.complete":
                await self.runtime.stop()
            await send(message)

        try:
            await self.app(scope, replay, tell)
        except Exception:
            if answered:
                raise
        finally:
            if answered:
                await self.runtime.stop()
        if not answered:
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self.runtime.stop()
            await send({"type": "lifespan.shutdown.complete"})


def _values(scope: Scope, wanted: bytes) -> Iterator[Any]:
    return (value for name, value in scope["headers"] if name == wanted)


async def _body(receive: Receive) -> bytes:
    """The body of a request, and nothing of what is beyond the longest."""
    parts, size, more = [], 0, True
    while more and size <= BODY:
        message = await receive()
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def _plain(scope: Scope) -> Scope:
    """The same request, whose answer comes whole and can be read."""
    extensions = {name: value for name, value in scope.get("extensions", {}).items() if "send" not in name}
    headers = [(name, value) for name, value in scope["headers"] if name.decode("latin-1") not in CONDITIONS]
    return {**scope, "headers": headers, "extensions": extensions}


class _Bannered:
    """Sends an answer on, with the banner at the end of a page."""

    def __init__(self, scope: Scope, send: Send, shown: bytes) -> None:
        self._send = send
        self._shown = shown
        self._method: str = scope.get("method", "GET")
        self._page = Page(next(_values(scope, b"sec-fetch-dest"), b"").decode("latin-1"))
        self._may = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
            self._may = is_page(headers, message["status"], self._method)
            if self._may:
                kept = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers_of_page(headers)]
                message = {**message, "headers": kept}
        elif message["type"] == "http.response.body" and self._may:
            self._page.look(message.get("body", b""))
            if not message.get("more_body") and self._page.is_whole:
                message = {**message, "body": message.get("body", b"") + self._shown}
        await self._send(message)


def _accept(scope: Scope) -> str:
    return b",".join(_values(scope, b"accept")).decode("latin-1")


def _request(scope: Scope) -> Request:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return Request(tuple(_values(scope, b"host")), path, tuple(_values(scope, b"authorization")))


async def _answer(scope: Scope, receive: Receive, send: Send, answer: pages.Answer) -> None:
    """Send a whole answer; a WebSocket gets it as its denial, or is closed with 1008 (RFC 6455 section 7.4.1)."""
    if scope["type"] == "websocket":
        await receive()
        if "websocket.http.response" not in scope.get("extensions", {}):
            return await send({"type": "websocket.close", "code": 1008, "reason": ""})
    prefix = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    await send({"type": f"{prefix}.start", "status": answer.status, "headers": headers})
    body = b"" if scope.get("method") == "HEAD" else answer.body
    return await send({"type": f"{prefix}.body", "body": body})
