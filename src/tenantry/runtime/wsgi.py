"""The tenant of each request, for WSGI applications (PEP 3333)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tenantry.context import support_context, tenant_context
from tenantry.errors import TenantryError, UnknownHost
from tenantry.model import Environment, SupportAccess
from tenantry.refusals import SupportReadOnly
from tenantry.runtime import pages
from tenantry.runtime.asked import BODY, OWN, SAFE, Asked, Handler, client
from tenantry.runtime.banner import CONDITIONS, Page, bannered, headers_of_page, is_page
from tenantry.runtime.resolver import Request, Resolution, location
from tenantry.runtime.visit import Visit, visiting

if TYPE_CHECKING:
    from tenantry.runtime.runtime import Runtime

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class WsgiTenantMiddleware:
    """Sets the current tenant for each request, and answers itself where there is none.

    `app.wsgi_app = WsgiTenantMiddleware(app.wsgi_app, runtime)`. The first request of a process starts a thread that
    follows the control database, so it works behind servers that fork.
    """

    def __init__(self, app: Application, runtime: Runtime, platform_app: Application | None = None) -> None:
        self.app = app
        self.runtime = runtime
        self.platform_app = platform_app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = _path(environ)
        health = path == self.runtime.settings.health
        try:
            if not self.runtime.started:
                self.runtime.start_thread()
            if health:
                return _answer(environ, start_response, pages.health(self.runtime.health()))
            resolution = self.runtime.resolver.resolve(_request(environ, path))
        except TenantryError as error:
            refusal = pages.refusal(error, environ.get("HTTP_ACCEPT", ""), self.runtime.settings.data)
            return _answer(environ, start_response, pages.health(self.runtime.health()) if health else refusal)
        if resolution.redirect_host is not None or resolution.redirect_path is not None:
            return _answer(environ, start_response, pages.redirect(self._location(environ, resolution)))
        if resolution.environment is None:
            return self._platform(environ, start_response)
        return self._run(environ, start_response, resolution.environment, resolution.prefix)

    def _run(
        self, environ: Environ, start_response: StartResponse, environment: Environment, prefix: str
    ) -> Iterable[bytes]:
        if prefix:
            length = len(prefix.encode())  # WSGI text holds one character for each byte
            outer = environ.get("SCRIPT_NAME", "")
            environ["SCRIPT_NAME"] = outer + environ["PATH_INFO"][:length]
            environ["PATH_INFO"] = environ["PATH_INFO"][length:]
        if environment.tenant.support or OWN in environ.get("PATH_INFO", ""):
            return self._apart(environ, start_response, environment)
        visit = self._visit(environ, environment)
        with tenant_context(environment), visiting(visit):
            return _Body(self.app(environ, start_response), environment, self.runtime, visit)

    def _visit(self, environ: Environ, environment: Environment) -> Visit:
        return Visit(self.runtime, environment, self._asked, environ, waits=True)

    def _apart(self, environ: Environ, start_response: StartResponse, environment: Environment) -> Iterable[bytes]:
        """A request while support may look in, or to one of the middleware's own pages."""
        support, asked = self.runtime.support, self._asked(environ)
        own = self.runtime.page(asked.path)
        with tenant_context(environment):
            access = None if own == support.answer else support.of(environment, asked)
            shown = support.banner(environment, access, asked)
        if access is not None and not access.writes and asked.method not in SAFE:
            return _answer(environ, start_response, pages.refusal(SupportReadOnly(), environ.get("HTTP_ACCEPT", "")))
        if own is not None:
            visit = self._visit(environ, environment)
            with support_context(environment, access), tenant_context(environment), visiting(visit):
                answer = self._own(environ, environment, asked, own)
            return _answer(environ, start_response, bannered(answer, shown))
        page = None if shown is None else _Bannered(environ, start_response, shown)
        visit = self._visit(environ, environment)
        with support_context(environment, access), tenant_context(environment), visiting(visit):
            body = self.app(environ, page or start_response)
        return _Body(body, environment, self.runtime, visit, access, page)

    def _own(self, environ: Environ, environment: Environment, asked: Asked, page: Handler) -> pages.Answer:
        """One of the middleware's own pages."""
        length = environ.get("CONTENT_LENGTH") or "0"
        wanted = min(int(length), BODY + 1) if length.isdecimal() else 0
        try:
            body = environ["wsgi.input"].read(wanted) if wanted else b""
            return self.runtime.wait(_called(page, environment, asked.with_body(body)))
        except TenantryError as error:
            return pages.refusal(error, environ.get("HTTP_ACCEPT", ""), self.runtime.settings.data)

    def _asked(self, environ: Environ) -> Asked:
        """What a page of our own has to know."""
        given = {name[5:].replace("_", "-").lower(): text for name, text in environ.items() if name[:5] == "HTTP_"}
        headers = given | {"content-type": environ.get("CONTENT_TYPE", "")}
        return Asked(
            environ.get("REQUEST_METHOD", "GET"),
            _path(environ),
            environ.get("SCRIPT_NAME", "").encode("latin-1").decode("utf-8", "replace"),
            headers,
            environ.get("QUERY_STRING", ""),
            self._scheme(environ),
            client(
                environ.get("REMOTE_ADDR", ""),
                headers.get("x-forwarded-for", ""),
                self.runtime.settings.trusted_proxies,
            ),
        )

    def _platform(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if self.platform_app is not None:
            return self.platform_app(environ, start_response)
        error = UnknownHost(host=environ.get("HTTP_HOST", "")[:200])
        return _answer(
            environ, start_response, pages.refusal(error, environ.get("HTTP_ACCEPT", ""), self.runtime.settings.data)
        )

    def _scheme(self, environ: Environ) -> str:
        scheme = environ.get("wsgi.url_scheme", "http")
        if environ.get("REMOTE_ADDR") in self.runtime.settings.trusted_proxies:
            scheme = environ.get("HTTP_X_FORWARDED_PROTO", scheme)
        return "https" if scheme == "https" else "http"

    def _location(self, environ: Environ, resolution: Resolution) -> str:
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        return location(
            resolution,
            scheme=self._scheme(environ),
            host=environ.get("HTTP_HOST", "").encode("latin-1", "replace"),
            outer=environ.get("SCRIPT_NAME", ""),
            raw_path=path.replace("%", "%25").encode("latin-1"),  # what came decoded
            query=environ.get("QUERY_STRING", "").encode("latin-1"),
        )


class _Body:
    """A response whose parts are made within the tenant's context, and counted when it ends."""

    def __init__(
        self,
        body: Iterable[bytes],
        environment: Environment,
        runtime: Runtime,
        visit: Visit,
        access: SupportAccess | None = None,
        page: _Bannered | None = None,
    ) -> None:
        self._body = body
        self._parts: Iterator[bytes] = iter(body) if page is None else page.parts(body)
        self._environment = environment
        self._runtime = runtime
        self._visit = visit
        self._access = access
        self._sent = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._within():
            part = next(self._parts)
        self._sent += len(part)
        return part

    def close(self) -> None:
        self._runtime.usage.add(self._environment.tenant.id, self._sent)
        if close := getattr(self._body, "close", None):
            with self._within():
                close()

    @contextmanager
    def _within(self) -> Iterator[None]:
        environment = self._environment
        with support_context(environment, self._access), tenant_context(environment), visiting(self._visit):
            yield


class _Bannered:
    """Stands for `start_response`, and puts the banner at the end of a page."""

    def __init__(self, environ: Environ, start_response: StartResponse, shown: bytes) -> None:
        for name in CONDITIONS:
            environ.pop(f"HTTP_{name.upper().replace('-', '_')}", None)
        environ.pop("wsgi.file_wrapper", None)
        self._start = start_response
        self._shown = shown
        self._method: str = environ.get("REQUEST_METHOD", "GET")
        self._page = Page(environ.get("HTTP_SEC_FETCH_DEST", ""))
        self._may = False

    def __call__(self, status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
        self._may = is_page(headers, int(status[:3]), self._method)
        return self._start(status, headers_of_page(headers) if self._may else headers, *error)

    def parts(self, body: Iterable[bytes]) -> Iterator[bytes]:
        """The body, and after it the banner."""
        for part in body:
            self._page.look(part)
            yield part
        if self._may and self._page.is_whole:
            yield self._shown


def _path(environ: Environ) -> str:
    path: str = environ.get("PATH_INFO", "")
    return path.encode("latin-1").decode("utf-8", "replace")


def _request(environ: Environ, path: str) -> Request:
    host, authorization = environ.get("HTTP_HOST"), environ.get("HTTP_AUTHORIZATION")
    return Request(
        () if host is None else (host.encode("latin-1", "replace"),),
        path,
        () if authorization is None else (authorization.encode("latin-1", "replace"),),
    )


async def _called(page: Handler, environment: Environment, asked: Asked) -> pages.Answer:
    return await page(environment, asked)


def _answer(environ: Environ, start_response: StartResponse, answer: pages.Answer) -> Iterable[bytes]:
    start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", answer.headers)
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [answer.body]
