"""The middleware for ASGI applications, called as servers call it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tenantry.context import _current, current_tenant
from tenantry.errors import LimitReached, NoTenant
from tenantry.model import Place, Status
from tenantry.runtime import TenantMiddleware


async def whoami(request: Any) -> JSONResponse:
    return JSONResponse(
        {"slug": current_tenant().slug, "path": request.url.path, "root": request.scope.get("root_path", "")}
    )


async def stream(_: Any) -> StreamingResponse:
    async def parts() -> Any:
        for _ in range(3):
            await asyncio.sleep(0)
            yield current_tenant().slug.encode()

    return StreamingResponse(parts())


async def fail(_: Any) -> None:
    raise ZeroDivisionError


async def limited(_: Any) -> None:
    raise LimitReached(limit="pages", value=100)


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(f"{current_tenant().slug} {await socket.receive_text()}")
    await socket.close()


ROUTES = [
    Route("/", whoami),
    Route("/pages/{n}", whoami),
    Route("/stream", stream),
    Route("/fail", fail),
    WebSocketRoute("/ws", echo),
]


def client(runtime: Any, **options: Any) -> httpx.AsyncClient:
    app = TenantMiddleware(Starlette(routes=ROUTES), runtime, **options)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://acme.example.com")


async def test_the_tenant_of_a_request(world: Any, started: Any) -> None:
    """The handler runs for the tenant of the host; afterwards there is none."""
    world.tenant("acme")
    async with client(await started()) as http:
        answer = await http.get("/pages/1")
        assert answer.json() == {"slug": "acme", "path": "/pages/1", "root": ""}
        assert (await http.get("/stream")).text == "acme" * 3
    with pytest.raises(NoTenant):
        current_tenant()


async def test_a_tenant_that_is_behind_is_refused(world: Any, started: Any) -> None:
    """Code that wants a newer schema than a tenant has gets 503 and the remedy, before the application is asked."""
    world.tenant("acme", places=(Place("db", "sqlite", "db.sqlite", "0001_one"),))
    world.tenant("other", places=(Place("db", "sqlite", "db.sqlite", "0002_two"),))
    wanted = {("site", "db"): "0002_two"}
    runtime = await started(needs=wanted, versions={("site", "db"): ("0001_one", "0002_two")})
    async with client(runtime) as http:
        refused = await http.get("/pages/1", headers={"accept": "application/json"})
        assert (refused.status_code, refused.json()["code"]) == (503, "schema.behind")
        assert (await http.get("http://other.example.com/pages/1")).status_code == 200


async def test_a_suspended_tenant_shows_its_own_page(world: Any, started: Any) -> None:
    """`suspended.html` in the tenant's home is the body of its 403; without it, with a link there, ours is."""
    acme = world.tenant("acme", status=Status.SUSPENDED)
    home = world.root / acme.home
    page, secret = home / "suspended.html", world.root / "secret.html"
    async with client(await started()) as http:
        assert "closed at the moment" in (await http.get("/")).text
        page.write_text("<h1>Back on Monday</h1>")
        own = await http.get("/")
        assert (own.status_code, own.text) == (403, "<h1>Back on Monday</h1>")
        assert (await http.get("/", headers={"accept": "application/json"})).json()["code"] == "tenant.not_served"
        page.unlink()
        secret.write_text("the platform's own")
        page.symlink_to(secret)
        assert "the platform's own" not in (await http.get("/")).text


async def test_an_error_of_tenantry_is_answered(world: Any, started: Any) -> None:
    """An error of ours that an application lets through becomes its status and page, not a 500."""
    world.tenant("acme")
    inner = TenantMiddleware(ExceptionMiddleware(limited_app), await started())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(inner), base_url="http://acme.example.com") as http:
        answer = await http.get("/limited")
    assert answer.status_code == 409
    assert "limit.reached" in answer.text


async def limited_app(scope: Any, receive: Any, send: Any) -> None:
    await limited(scope)


async def test_a_failing_handler_leaves_no_tenant(world: Any, started: Any) -> None:
    """After an exception nobody's context stays behind."""
    world.tenant("acme")
    app = TenantMiddleware(Starlette(routes=ROUTES), await started())
    scope = raw_scope([(b"host", b"acme.example.com")], "/fail")
    with pytest.raises(ZeroDivisionError):
        await app(scope, receive, discard)
    assert _current.get() is None


async def test_path_prefix(world: Any, started: Any) -> None:
    """A tenant that is reached by path sees its prefix as root_path, and links keep it."""
    world.tenant("acme")
    async with client(await started()) as http:
        answer = await http.get("http://example.com/t/acme/pages/7")
        assert answer.json() == {"slug": "acme", "path": "/t/acme/pages/7", "root": "/t/acme"}
        bare = await http.get("http://example.com:81/t/acme?x=1")
        assert (bare.status_code, bare.headers["location"]) == (308, "/t/acme/?x=1")


async def test_redirect_to_the_canonical_host(world: Any, started: Any, until: Any) -> None:
    """A former hostname answers 308 with scheme, port, path and query kept, and only for minutes."""
    acme = world.tenant("acme")
    runtime = await started(trusted_proxies=("10.0.0.1",))
    world.change(acme, hostnames=("www.acme.org",), former_hosts=("acme.example.com",))
    await until(lambda: b"www.acme.org" in runtime.resolver.table.live)
    async with client(runtime) as http:
        answer = await http.post("http://acme.example.com:8080/a%20b?q=%C3%A4", content=b"x")
        assert answer.status_code == 308
        assert answer.headers["location"] == "http://www.acme.org:8080/a%20b?q=%C3%A4"
        assert "max-age=300" in answer.headers["cache-control"]
    for client_host, scheme in (("10.0.0.1", b"https"), ("10.0.0.2", b"http")):
        headers = [(b"host", b"acme.example.com"), (b"x-forwarded-proto", b"https")]
        sent = await call(runtime, raw_scope(headers, "/", client=(client_host, 1)))
        assert dict(sent[0]["headers"])[b"location"] == scheme + b"://www.acme.org/"


@pytest.mark.parametrize(
    ("host", "status", "words"),
    [
        ("nobody.example.com", 404, "Nothing is here"),
        ("a..b", 400, "not valid"),
        ("shut.example.com", 403, "Shut &amp; Söhne is closed at the moment"),
        ("soon.example.com", 403, "is being set up"),
        ("example.com", 404, "Nothing is here"),
    ],
)
async def test_refusals(world: Any, started: Any, host: str, status: int, words: str) -> None:
    """A refusal is a page of its own that loads nothing from elsewhere, or problem+json for who prefers that."""
    world.tenant("shut", name="Shut & Söhne", status=Status.SUSPENDED)
    world.tenant("soon", status=Status.CREATING)
    async with client(await started()) as http:
        page = await http.get("/", headers={"host": host, "accept": "text/html,*/*;q=0.8"})
        assert page.status_code == status
        assert words in page.text
        assert "http" not in page.text.replace("http-equiv", "")
        assert "tenantry " not in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        problem = await http.get("/", headers={"host": host, "accept": "text/html;q=0.5, application/json"})
        assert problem.status_code == problem.json()["status"] == status
        assert problem.headers["content-type"] == "application/problem+json"
        head = await http.head("/", headers={"host": host})
        assert (head.status_code, head.content) == (status, b"")


async def test_forged_headers(world: Any, started: Any) -> None:
    """X-Forwarded-Host, a query parameter and a body name no tenant; two Host headers are refused."""
    world.tenant("acme")
    world.tenant("other")
    runtime = await started()
    async with client(runtime) as http:
        forged = {"x-forwarded-host": "other.example.com", "forwarded": "host=other.example.com"}
        answer = await http.get("/?tenant=other&host=other.example.com", headers=forged)
        assert answer.json()["slug"] == "acme"
    for hosts in (
        [b"acme.example.com"] * 2,
        [b"acme.example.com", b"other.example.com"],
        [],
        [b"acme.example.com"] * 3,
    ):
        assert (await call(runtime, raw_scope([(b"host", host) for host in hosts])))[0]["status"] == 400


async def test_gates(world: Any, started: Any) -> None:
    """A refused tenant gets the gate's status until it is admitted again."""
    acme = world.tenant("acme")
    runtime = await started()
    async with client(runtime) as http:
        runtime.refuse(acme.tenant.id, LimitReached(limit="bandwidth", value=1))
        assert (await http.get("/")).status_code == 409
        runtime.admit(acme.tenant.id)
        assert (await http.get("/")).status_code == 200


async def test_platform_application(world: Any, started: Any) -> None:
    """The platform's own domain goes to the platform's application, where no tenant is set."""
    world.tenant("acme")

    async def platform(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(NoTenant):
            current_tenant()
        await PlainTextResponse("the platform")(scope, receive, send)

    async with client(await started(), platform_app=platform) as http:
        assert (await http.get("http://example.com/")).text == "the platform"
        assert (await http.get("http://nobody.example.com/")).status_code == 404
        assert (await http.get("/")).json()["slug"] == "acme"


async def test_health(world: Any, started: Any) -> None:
    """Every host answers the health path, known or not."""
    world.tenant("acme")
    async with client(await started()) as http:
        for host in ("acme.example.com", "127.0.0.1", "example.com"):
            answer = await http.get(f"http://{host}/.tenantry/health")
            assert answer.status_code == 200
            assert answer.json() == {"status": "ok", "seq": 1, "age": 0.0, "tenants": 1, "hostnames": 1}


async def test_health_before_anything_is_known(world: Any) -> None:
    """Without control database and snapshot health and requests answer 503, and start again when it is back."""
    world.tenant("acme")
    world.feed.gone = True
    runtime = world.runtime()
    async with client(runtime) as http:
        health = await http.get("/.tenantry/health")
        assert (health.status_code, health.json()["status"]) == (503, "starting")
        answer = await http.get("/")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        world.feed.gone = False
        assert (await http.get("/")).status_code == 200
    await runtime.stop()


async def test_usage(world: Any, started: Any) -> None:
    """Requests and bytes are counted by tenant, and taken once."""
    acme, other = world.tenant("acme"), world.tenant("other")
    runtime = await started()
    async with client(runtime) as http:
        sizes = [len((await http.get(path)).content) for path in ("/", "/stream", "/nowhere")]
        await http.get("http://other.example.com/stream")
        await http.get("http://nobody.example.com/")
    assert runtime.usage.take() == {acme.tenant.id: (3, sum(sizes)), other.tenant.id: (1, 15)}
    assert runtime.usage.take() == {}


async def test_requests_at_the_same_time(world: Any, started: Any) -> None:
    """Interleaved requests of two tenants never see each other."""
    world.tenant("acme")
    world.tenant("other")
    turn = asyncio.Barrier(2)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen = []
        for _ in range(20):
            seen.append(current_tenant().slug)
            await turn.wait()
        await asyncio.to_thread(lambda: seen.append(current_tenant().slug))
        await PlainTextResponse(" ".join(sorted(set(seen))))(scope, receive, send)

    wrapped = TenantMiddleware(app, await started())
    hosts = [b"acme.example.com", b"OTHER.example.com"] * 5
    async with asyncio.timeout(120):
        for pair in zip(hosts[::2], hosts[1::2], strict=True):
            found = await asyncio.gather(*(call(wrapped.runtime, raw_scope([(b"host", h)]), wrapped) for h in pair))
            assert [sent[1]["body"] for sent in found] == [b"acme", b"other"]


async def test_websocket(world: Any, started: Any) -> None:
    """A WebSocket works for its tenant and is counted; a refused one is told why."""
    acme = world.tenant("acme")
    world.tenant("shut", status=Status.SUSPENDED)
    runtime = await started()
    extensions = {"extensions": {"websocket.http.response": {}}, "type": "websocket"}
    messages = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hällo"}]
    sent = await call(runtime, {**raw_scope([(b"host", b"acme.example.com")], "/ws"), **extensions}, messages=messages)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert sent[1]["text"] == "acme hällo"
    assert runtime.usage.take() == {acme.tenant.id: (1, len("acme hällo".encode()))}
    sent = await call(runtime, {**raw_scope([(b"host", b"shut.example.com")], "/ws"), **extensions})
    assert [message["type"] for message in sent] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert sent[0]["status"] == 403


async def test_websocket_without_denials(world: Any, started: Any) -> None:
    """Where the server cannot send a denial, a refused WebSocket is closed with 1008."""
    world.tenant("acme")
    scope = {**raw_scope([(b"host", b"nobody.example.com")]), "type": "websocket"}
    assert await call(await started(), scope) == [{"type": "websocket.close", "code": 1008, "reason": ""}]


# --- lifespan -----------------------------------------------------------------------------------------------------


async def live(app: Any, during: Any) -> list[str]:
    """Start an application as servers do, run something meanwhile, stop it; the messages it sent."""
    inbox: asyncio.Queue[Any] = asyncio.Queue()
    outbox: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}}, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    sent = [(await outbox.get())["type"]]
    if sent == ["lifespan.startup.complete"]:
        await during()
        await inbox.put({"type": "lifespan.shutdown"})
        sent.append((await outbox.get())["type"])
    await task
    return sent


async def test_lifespan_of_the_application(world: Any) -> None:
    """The runtime lives before the application starts and after it has stopped."""
    world.tenant("acme")
    runtime = world.runtime()
    seen = []

    @asynccontextmanager
    async def life(_: Any) -> AsyncIterator[None]:
        seen.append(runtime.started)
        yield
        seen.append(runtime.started)

    app = Starlette(routes=ROUTES, lifespan=life)
    app.add_middleware(TenantMiddleware, runtime=runtime)

    async def during() -> None:
        sent = await call(runtime, raw_scope([(b"host", b"acme.example.com")]), app)
        assert b'"acme"' in sent[1]["body"]

    assert await live(app, during) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert [*seen, runtime.started] == [True, True, False]


async def test_application_without_lifespan(world: Any) -> None:
    """An application that knows no lifespan still gets a runtime that starts and stops."""
    world.tenant("acme")
    runtime = world.runtime()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await PlainTextResponse(current_tenant().slug)(scope, receive, send)

    wrapped = TenantMiddleware(app, runtime)

    async def during() -> None:
        assert runtime.started
        sent = await call(runtime, raw_scope([(b"host", b"acme.example.com")]), wrapped)
        assert sent[1]["body"] == b"acme"

    assert await live(wrapped, during) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert not runtime.started


async def test_failing_startup(world: Any) -> None:
    """A start without control database and snapshot fails."""
    world.feed.gone = True
    assert await live(TenantMiddleware(Starlette(), world.runtime()), None) == ["lifespan.startup.failed"]


async def test_failing_application(world: Any) -> None:
    """An application that fails while it starts is not taken for one without a lifespan."""
    runtime = world.runtime()

    @asynccontextmanager
    async def life(_: Any) -> AsyncIterator[None]:
        raise ZeroDivisionError
        yield

    with pytest.raises(ZeroDivisionError):
        await live(TenantMiddleware(Starlette(lifespan=life), runtime), None)
    assert not runtime.started


# --- raw calls ----------------------------------------------------------------------------------------------------


def raw_scope(headers: list[tuple[bytes, bytes]], path: str = "/", **more: Any) -> dict[str, Any]:
    return {"type": "http", "method": "GET", "scheme": "http", "path": path, "headers": headers, **more}


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def discard(message: Any) -> None: ...


async def call(runtime: Any, scope: Any, app: Any = None, messages: Any = ()) -> list[Any]:
    """The messages sent in answer to a scope."""
    sent: list[Any] = []
    left = iter(messages)

    async def next_message() -> Any:
        return next(left, None) or await receive()

    async def send(message: Any) -> None:
        sent.append(message)

    await (app or TenantMiddleware(Starlette(routes=ROUTES), runtime))(scope, next_message, send)
    return sent
