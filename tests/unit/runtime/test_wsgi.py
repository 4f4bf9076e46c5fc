"""The middleware for WSGI applications."""

from __future__ import annotations

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from tenantry.context import _current, current_tenant
from tenantry.errors import NoTenant
from tenantry.model import Status
from tenantry.runtime import WsgiTenantMiddleware


def app(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("content-type", "text/plain")])

    def parts() -> Any:
        for part in (current_tenant().slug, environ.get("SCRIPT_NAME", ""), environ["PATH_INFO"]):
            yield f"{part} ".encode("latin-1")

    return parts()


def get(middleware: Any, host: str | None, path: str = "/", **more: str) -> tuple[int, dict[str, str], bytes]:
    """One request through PEP 333's own validator."""
    environ: dict[str, Any] = {"SCRIPT_NAME": "", "QUERY_STRING": "", "wsgi.input": io.BytesIO(), **more}
    environ["PATH_INFO"] = path.encode().decode("latin-1")
    if host is not None:
        environ["HTTP_HOST"] = host
    setup_testing_defaults(environ)
    if host is None:
        del environ["HTTP_HOST"]
    seen: list[Any] = []
    body = validator(middleware)(environ, lambda status, headers, error=None: seen.extend((status, headers)))
    try:
        content = b"".join(body)
    finally:
        body.close()
    return int(seen[0][:3]), {name.lower(): value for name, value in seen[1]}, content


def test_the_tenant_of_a_request(world: Any) -> None:
    """Handler and streamed parts run for the tenant of the host or the path; afterwards there is none."""
    acme = world.tenant("acme")
    runtime = world.runtime()
    middleware = WsgiTenantMiddleware(app, runtime)
    assert get(middleware, "ACME.example.com:80", "/ä")[2].split() == [b"acme", b"/\xc3\xa4"]
    assert get(middleware, "example.com", "/t/acme/ä")[2].split() == [b"acme", b"/t/acme", b"/\xc3\xa4"]
    assert runtime.usage.take() == {acme.tenant.id: (2, 10 + 17)}
    with pytest.raises(NoTenant):
        current_tenant()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("nobody.example.com", 404),
        ("a.example.com,b.example.com", 400),
        (None, 400),
        ("shut.example.com", 403),
        ("example.com", 404),
        ("a\xff", 400),
    ],
)
def test_refusals(world: Any, host: str | None, status: int) -> None:
    """What has no served tenant is refused with a page."""
    world.tenant("acme")
    world.tenant("shut", status=Status.SUSPENDED)
    found, headers, body = get(WsgiTenantMiddleware(app, world.runtime()), host)
    assert (found, headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert b"<h1>" in body


def test_redirects(world: Any) -> None:
    """Former hostnames and slugs without a slash at the end lead on."""
    acme = world.tenant("acme")
    world.change(acme, hostnames=("www.acme.org",), former_hosts=("acme.example.com",))
    middleware = WsgiTenantMiddleware(app, world.runtime())
    status, headers, _ = get(middleware, "acme.example.com:8080", "/a b%ä", QUERY_STRING="x=1&y=%20")
    assert (status, headers["location"]) == (308, "http://www.acme.org:8080/a%20b%25%C3%A4?x=1&y=%20")
    assert get(middleware, "example.com", "/t/acme")[1]["location"] == "/t/acme/"


def test_health_and_platform(world: Any) -> None:
    """The health path answers on any host; the platform's domain goes to the platform's application."""
    world.tenant("acme")
    middleware = WsgiTenantMiddleware(app, world.runtime(), platform_app=platform)
    assert b'"status": "ok"' in get(middleware, "127.0.0.1", "/.tenantry/health")[2]
    assert get(middleware, "example.com")[2] == b"the platform"
    world.feed.gone = True
    assert get(WsgiTenantMiddleware(app, world.runtime()), "x.y", "/.tenantry/health")[0] == 503
    assert get(WsgiTenantMiddleware(app, world.runtime()), "acme.example.com")[0] == 503


def platform(environ: Any, start_response: Any) -> Any:
    assert _current.get() is None
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"the platform"]


def test_threads(world: Any) -> None:
    """Requests of two tenants in many threads never see each other, and every one is counted."""
    slugs = ["acme", "other"]
    made = {slug: world.tenant(slug).tenant.id for slug in slugs}
    runtime = world.runtime()
    barrier = threading.Barrier(8)

    def slow(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", "text/plain")])
        for _ in range(5):
            barrier.wait(20)
            yield current_tenant().slug.encode()

    middleware = WsgiTenantMiddleware(slow, runtime)
    with ThreadPoolExecutor(8) as pool:
        wanted = [slugs[number % 2] for number in range(80)]
        found = list(pool.map(lambda slug: get(middleware, f"{slug}.example.com")[2], wanted))
    assert found == [slug.encode() * 5 for slug in wanted]
    assert {tenant: usage.requests for tenant, usage in runtime.usage.take().items()} == dict.fromkeys(
        made.values(), 40
    )


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork(world: Any) -> None:
    """A forked process starts a thread of its own with its first request, and counts anew."""
    world.tenant("acme")
    runtime = world.runtime()
    middleware = WsgiTenantMiddleware(app, runtime)
    assert get(middleware, "acme.example.com")[0] == 200
    child = os.fork()
    if not child:  # pragma: no cover -- another process
        before = runtime.started
        right = get(middleware, "acme.example.com")[0] == 200 and not before and runtime.started
        right = right and [usage.requests for usage in runtime.usage.take().values()] == [1]
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert runtime.started
