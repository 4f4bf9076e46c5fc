"""The tenant of each request, for WSGI applications (PEP 3333)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tenantry.context import tenant_context
from tenantry.errors import TenantryError, UnknownHost
from tenantry.model import Environment
from tenantry.runtime import pages
from tenantry.runtime.resolver import Request, Resolution, location

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
        with tenant_context(environment):
            return _Body(self.app(environ, start_response), environment, self.runtime)

    def _platform(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if self.platform_app is not None:
            return self.platform_app(environ, start_response)
        error = UnknownHost(host=environ.get("HTTP_HOST", "")[:200])
        return _answer(
            environ, start_response, pages.refusal(error, environ.get("HTTP_ACCEPT", ""), self.runtime.settings.data)
        )

    def _location(self, environ: Environ, resolution: Resolution) -> str:
        scheme = environ.get("wsgi.url_scheme", "http")
        if environ.get("REMOTE_ADDR") in self.runtime.settings.trusted_proxies:
            scheme = environ.get("HTTP_X_FORWARDED_PROTO", scheme)
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        return location(
            resolution,
            scheme="https" if scheme == "https" else "http",
            host=environ.get("HTTP_HOST", "").encode("latin-1", "replace"),
            outer=environ.get("SCRIPT_NAME", ""),
            raw_path=path.replace("%", "%25").encode("latin-1"),  # what came decoded
            query=environ.get("QUERY_STRING", "").encode("latin-1"),
        )


class _Body:
    """A response whose parts are made within the tenant's context, and counted when it ends."""

    def __init__(self, body: Iterable[bytes], environment: Environment, runtime: Runtime) -> None:
        self._body = body
        self._parts: Iterator[bytes] = iter(body)
        self._environment = environment
        self._runtime = runtime
        self._sent = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with tenant_context(self._environment):
            part = next(self._parts)
        self._sent += len(part)
        return part

    def close(self) -> None:
        self._runtime.usage.add(self._environment.tenant.id, self._sent)
        if close := getattr(self._body, "close", None):
            with tenant_context(self._environment):
                close()


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


def _answer(environ: Environ, start_response: StartResponse, answer: pages.Answer) -> Iterable[bytes]:
    start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", answer.headers)
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [answer.body]
