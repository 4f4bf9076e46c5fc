"""Who makes a request: looked up where it says whose it is, the same by ASGI and by WSGI."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

import tenantry
from tenantry.context import tenant_context
from tenantry.credentials import Role
from tenantry.errors import NoTenant, RuntimeMissing
from tenantry.model import Status
from tenantry.runtime import TenantMiddleware, WsgiTenantMiddleware
from tenantry.runtime.sessions import Client

ACME = "http://acme.example.com"
PAGE = {"accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "sec-fetch-dest": "document"}


def whoami() -> str | None:
    user = tenantry.current_user()
    return user.login if user else None


async def home(_: Any) -> JSONResponse:
    return JSONResponse("open to all")


async def me(_: Any) -> JSONResponse:
    return JSONResponse(whoami())


async def admins(_: Any) -> JSONResponse:
    return JSONResponse(tenantry.require(Role.ADMIN).login)


async def elsewhere(request: Any) -> JSONResponse:
    with tenant_context(request.app.state.other):
        return JSONResponse(whoami())


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(str(whoami()))
    await socket.close()


ROUTES = [
    Route("/", home),
    Route("/me", me),
    Route("/admins", admins, methods=["GET", "POST"]),
    Route("//evil.example/x", admins),
    Route("/elsewhere", elsewhere),
    WebSocketRoute("/talk", talk),
]


@pytest.fixture
async def here(world: Any, started: Any) -> Any:
    """Two tenants with a user eva each, who is an admin of the second, and an ASGI application."""
    acme, other = world.tenant("acme"), world.tenant("other")
    made = await started()
    for environment, role in ((acme, Role.USER), (other, Role.ADMIN)):
        with tenant_context(environment):
            await made.accounts.create("eva", "correct horse", role=role)
    app = Starlette(routes=ROUTES)
    app.state.other = other
    app.add_middleware(TenantMiddleware, runtime=made)
    return made, acme, other, app


def client(app: Any, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ACME, headers=headers)


async def session_of(made: Any, environment: Any) -> str:
    with tenant_context(environment):
        (eva,) = await made.accounts.list()
        return f"tenantry_session={await made.accounts.begin(eva, Client('192.0.2.1'))}"


async def test_the_user_of_a_request(here: Any) -> None:
    """The cookie of this tenant names its user; none, an odd or an ended one nobody; another tenant's is refused."""
    made, acme, other, app = here
    cookie = await session_of(made, acme)
    async with client(app) as request:
        assert (await request.get("/me")).json() is None
        assert (await request.get("/me", headers={"cookie": f'odd="a;b"{{}}; {cookie}; x'})).json() == "eva"
        assert (await request.get("/me", headers={"cookie": "tenantry_session=x.y.z"})).json() is None
        foreign = await request.get("/me", headers={"cookie": await session_of(made, other)})
        assert (foreign.status_code, foreign.headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert (await request.get("/", headers={"cookie": await session_of(made, other)})).status_code == 200
        assert (await request.get("/elsewhere", headers={"cookie": cookie})).json() is None
        with tenant_context(acme):
            await made.accounts.end_session(*made.sessions.read(cookie.partition("=")[2]))
        assert (await request.get("/me", headers={"cookie": cookie})).json() is None


async def test_a_role_is_wanted(here: Any) -> None:
    """A smaller role gets 403, nobody 401; an admin of another tenant is nobody here."""
    made, acme, other, app = here
    async with client(app, accept="application/json") as request:
        nobody = await request.get("/admins")
        assert (nobody.status_code, nobody.json()["code"]) == (401, "user.unknown")
        assert (nobody.headers["www-authenticate"], nobody.headers["cache-control"]) == ("Bearer", "no-store")
        cookie = {"cookie": await session_of(made, acme)}
        small = await request.get("/admins", headers=cookie)
        assert (small.status_code, small.json()["code"]) == (403, "user.forbidden")
        at_other = {"cookie": await session_of(made, other)}
        assert (await request.get("http://other.example.com/admins", headers=at_other)).json() == "eva"
        assert (await request.get("/admins", headers=at_other)).json()["code"] == "session.foreign"
    with tenant_context(acme), pytest.raises(ValueError, match="root"):
        tenantry.require("root")


async def test_where_a_browser_is_sent(here: Any) -> None:
    """To sign in, and from there to a path of the same tenant, never to another host; a form sent leads nowhere."""
    made, _, other, app = here
    async with client(app, **PAGE) as request:
        unsent = await request.get("/admins")
        assert (unsent.status_code, "Please sign in" in unsent.text) == (401, True)  # there is no such page
        made.sign_in = "/sign-in"
        for method, path, where in (
            ("GET", "/admins?x=%2F%0d%0a", "/sign-in?next=/admins%3Fx%3D%252F%250d%250a"),
            ("GET", "//evil.example/x", "/sign-in?next=/evil.example/x"),
            ("GET", "/admins?" + "x" * 2000, "/sign-in"),
            ("POST", "/admins", "/sign-in"),
        ):
            sent = await request.request(method, ACME + path)
            assert (sent.status_code, sent.headers["location"]) == (303, where), path
        for headers in ({"accept": "*/*"}, {"accept": "application/json"}, {"sec-fetch-dest": "empty"}):
            assert (await request.get("/admins", headers=headers)).status_code == 401
        foreign = await request.get("/admins", headers={"cookie": await session_of(made, other)})
        assert foreign.headers["location"] == "/sign-in?next=/admins"  # of a tenant that was here before, for instance
        below = await request.get("http://example.com/t/acme/admins")
        assert below.headers["location"] == "/t/acme/sign-in?next=/t/acme/admins"


async def test_what_cannot_be_looked_up(world: Any, here: Any) -> None:
    """Where the users' database is gone, what needs no user is answered all the same."""
    made, acme, _, app = here
    cookie = {"cookie": await session_of(made, acme), "accept": "application/json"}
    await made.databases.forget()
    (world.root / acme.home / "db.sqlite").unlink()
    async with client(app) as request:
        assert (await request.get("/", headers=cookie)).status_code == 200
        assert (await request.get("/me")).json() is None
        lost = await request.get("/me", headers=cookie)
        assert (lost.status_code >= 500, lost.json()["code"]) == (True, "resource.failed")


async def test_a_suspension_ends_it(world: Any, here: Any, until: Any) -> None:
    """A session of a tenant that is suspended opens nothing as soon as the change is known."""
    made, acme, _, app = here
    cookie = {"cookie": await session_of(made, acme)}
    async with client(app) as request:
        assert (await request.get("/me", headers=cookie)).json() == "eva"
        world.change(acme, status=Status.SUSPENDED)
        await until(lambda: not made.resolver.table.current(acme).tenant.status.served)
        assert (await request.get("/me", headers=cookie)).status_code == 403


async def test_a_user_is_not_looked_up_again_at_once(world: Any, here: Any, until: Any) -> None:
    """A cookie or token is known for a moment, at its tenant alone, until a user or the tenant changes."""
    made, acme, other, app = here
    made.recent.seconds = 3600.0
    with tenant_context(acme):
        (eva,) = await made.accounts.list()
        token = (await made.grants.give(eva)).access
    shown = {"cookie": await session_of(made, acme)}, {"authorization": f"Bearer {token}"}
    end = ("DELETE FROM tenantry_session", "DELETE FROM tenantry_refresh")
    async with client(app) as request:

        async def who() -> list[Any]:
            return [(await request.get("/me", headers=one)).json() for one in shown]

        assert await who() == ["eva", "eva"]
        with contextlib.closing(sqlite3.connect(world.root / acme.home / "db.sqlite")) as past, past:
            before = [past.execute(query.replace("DELETE", "SELECT *")).fetchall() for query in end]
            for query in end:
                past.execute(query)
        assert all(before)
        assert await who() == ["eva", "eva"]
        elsewhere = [await request.get("http://other.example.com/me", headers=one) for one in shown]
        assert [one.status_code for one in elsewhere] == [401, 401]
        with tenant_context(acme):
            await made.accounts.call(eva.id, "Eva")
        assert (await request.get("/me", headers=shown[0])).json() is None
        assert (await request.get("/me", headers=shown[1])).status_code == 401
        made.recent.seconds = 0.0
        fresh = {"cookie": await session_of(made, other)}
        assert (await request.get("http://other.example.com/me", headers=fresh)).json() == "eva"
        with contextlib.closing(sqlite3.connect(world.root / other.home / "db.sqlite")) as past, past:
            past.execute(end[0])
        assert (await request.get("http://other.example.com/me", headers=fresh)).json() is None
        made.recent.seconds = 3600.0
        again = {"cookie": await session_of(made, acme)}
        assert (await request.get("/me", headers=again)).json() == "eva"
        world.change(acme, name="Another")
        await until(lambda: made.resolver.table.current(acme).tenant.name == "Another")
        with contextlib.closing(sqlite3.connect(world.root / acme.home / "db.sqlite")) as past, past:
            past.execute(end[0])
        assert (await request.get("/me", headers=again)).json() is None


async def test_a_websocket_knows_its_user(here: Any) -> None:
    """A WebSocket belongs to whoever opened it."""
    made, acme, _, app = here
    cookie = (await session_of(made, acme)).encode()
    said = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message.get("text"))

    for headers, who in (([(b"cookie", cookie)], "eva"), ([], "None")):
        scope = {"type": "websocket", "path": "/talk", "headers": [(b"host", b"acme.example.com"), *headers]}
        scope["subprotocols"] = []
        await app({**scope, "query_string": b"", "scheme": "ws"}, receive, send)
        assert who in said


async def test_users_without_a_table(world: Any, started: Any) -> None:
    """At a tenant without users nobody is signed in, whatever a request carries."""
    acme = world.tenant("acme")
    made = await started()
    with tenant_context(acme):
        cookie = made.sessions.issue("user", "secret")
    app = TenantMiddleware(Starlette(routes=ROUTES), await started(users={"site": None}))
    async with client(app, cookie=f"tenantry_session={cookie}") as request:
        assert (await request.get("/me")).json() is None


def test_without_a_request(world: Any) -> None:
    """Outside of a request nobody makes one; without a tenant the question has no answer."""
    acme = world.tenant("acme")
    with tenant_context(acme):
        assert tenantry.current_user() is None
    with pytest.raises(NoTenant):
        tenantry.current_user()
    with pytest.raises(NoTenant):
        tenantry.require()


def test_by_wsgi(world: Any) -> None:
    """A view without an event loop asks when it needs to, and while its answer is sent, too."""
    acme = world.tenant("acme")
    made = world.runtime().install()

    async def inside() -> str | None:
        return whoami()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/wait":
            with pytest.raises(RuntimeMissing, match="not known"):
                made.wait(inside())
        yield str(whoami()).encode()
        yield str(made.wait(inside())).encode()

    with tenant_context(acme):
        eva = made.wait(made.accounts.create("eva", "correct horse"))
        cookie = made.wait(made.accounts.begin(eva))
    transport = httpx.WSGITransport(WsgiTenantMiddleware(app, made))
    with httpx.Client(transport=transport, base_url=ACME) as request:
        for path in ("/", "/wait"):
            found = request.get(path, headers={"cookie": f"tenantry_session={cookie}"})
            assert found.text == "evaeva"
        assert request.get("/").text == "NoneNone"


async def test_many_at_once(here: Any) -> None:
    """Requests of two tenants' users at the same moment are each answered for their own."""
    made, acme, other, app = here
    cookies = {"acme": await session_of(made, acme), "other": await session_of(made, other)}

    async def ask(slug: str, number: int) -> None:
        async with client(app) as request:
            headers = {"cookie": cookies[slug]} if number % 3 else {}
            found = await request.get(f"http://{slug}.example.com/me", headers=headers)
            assert found.json() == ("eva" if number % 3 else None)

    await asyncio.gather(*(ask(slug, number) for number in range(30) for slug in cookies))
