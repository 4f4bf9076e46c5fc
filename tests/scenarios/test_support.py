"""Support access: the platform's people look into a tenant, for a while, seen by its people, and no further."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

import ground as g
import tenantry
from tenantry.application import connect
from tenantry.context import support_access
from tenantry.errors import TenantNotFound
from tenantry.identity import Principal, acting_as
from tenantry.identity.principal import AdminRole
from tenantry.platform import Platform
from tenantry.refusals import Forbidden, InvalidRequest, SupportReadOnly, SupportRefused
from tenantry.registry import support, tables
from tenantry.registry.database import now
from tenantry.runtime import Runtime, TenantMiddleware, WsgiTenantMiddleware
from tenantry.runtime.runtime import connected

PAGE = "<!doctype html><title>Site</title><p>Hello"
HOST = "http://{}.localhost"


async def page(request: Request) -> Response:
    return HTMLResponse(PAGE, headers={"etag": '"1"'})


async def part(request: Request) -> Response:
    return HTMLResponse("<li>one more")


async def whoami(request: Request) -> Response:
    access = support_access()
    session = connected().sessions.find(request.cookies)
    return JSONResponse({"who": access and access.who, "user": session and session.user})


async def write(request: Request) -> Response:
    async with tenantry.tenant_session("db") as session:
        await session.execute(text("INSERT INTO page (title) VALUES ('written')"))
        await session.commit()
    return Response("written")


async def store(request: Request) -> Response:
    tenantry.tenant_storage("media").write("a.txt", b"written")
    return Response("written")


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("hello")
    await socket.close()


ROUTES = [
    Route("/", page, methods=["GET", "POST"]),
    Route("/part", part),
    Route("/whoami", whoami),
    Route("/write", write),
    Route("/store", store),
    WebSocketRoute("/ws", talk),
]


@dataclass
class House:
    """A platform with two tenants, and their application served twice, as by two processes."""

    platform: Platform
    runtimes: list[Runtime]
    apps: list[Any]
    stack: contextlib.AsyncExitStack
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    async def browser(self, slug: str, app: int = 0) -> httpx.AsyncClient:
        """A browser at a tenant."""
        client = httpx.AsyncClient(transport=httpx.ASGITransport(self.apps[app]), base_url=HOST.format(slug))
        return await self.stack.enter_async_context(client)

    async def known(self, slug: str, holds: Callable[[Any], bool]) -> None:
        """Wait until both processes know something of a tenant."""
        async with asyncio.timeout(g.PATIENCE):
            while not all(holds(runtime.environment(slug).tenant.support) for runtime in self.runtimes):
                await asyncio.sleep(0.005)

    async def inside(self, slug: str = "acme", **options: Any) -> httpx.AsyncClient:
        """Somebody of the platform who followed a link."""
        made = await self.platform.support.open(slug, "ticket 7: a page is missing", **options)
        await self.known(slug, lambda found: made.row.id in {one.id for one in found})
        browser = await self.browser(slug)
        assert (await browser.post(made.path)).status_code == 303
        return browser

    async def alter(self, **values: Any) -> None:
        """Change every access behind the platform's back, such as its time."""
        async with self.platform.registry.write() as tx:
            await tx.execute(tables.support_access.update().values(**values))
            tx.changed(*[one.tenant.id for one in self.runtimes[0].resolver.table.environments()])


@contextlib.asynccontextmanager
async def house(ground: g.Ground, more: str = "") -> AsyncIterator[House]:
    """It, running."""
    toml = ground.config.read_text() + "\n[runtime]\nsecure_cookies = false\n" + more
    ground.config.write_text(toml)
    async with contextlib.AsyncExitStack() as stack:
        platform = await stack.enter_async_context(ground.open())
        for slug in ("acme", "umbrella"):
            await platform.operations.finish((await platform.tenants.create(slug, slug.title())).id)
        runtimes = [connect(ground.config) for _ in range(2)]
        apps = []
        for runtime in runtimes:
            stack.push_async_callback(runtime.stop)
            await runtime.start()
            apps.append(TenantMiddleware(Starlette(routes=ROUTES), runtime))
        yield House(platform, runtimes, apps, stack)


async def actions(here: House) -> list[tuple[str, str]]:
    """What the audit log says of support access, oldest first."""
    return [(one.action, one.actor) for one in reversed(await here.platform.audit.list(action="support"))]


def admin(mail: str, admin_id: str, role: AdminRole = AdminRole.ADMIN) -> Principal:
    return Principal(admin_id, mail, role)


async def test_somebody_looks_in_and_is_seen(ground: g.Ground) -> None:
    """A link of one use opens a marked session with a banner; its people see one, too; all is audited."""
    async with house(ground) as here:
        made = await here.platform.support.open("acme", "ticket <7>", 15)
        assert made.link == f"http://acme.localhost:8000{made.path}"
        assert (made.row.state, made.row.writes) == ("waiting", False)
        await here.known("acme", bool)
        browser = await here.browser("acme")
        asked = await browser.get(made.path)
        assert (asked.status_code, asked.headers["referrer-policy"]) == (200, "no-referrer")
        assert f'action="{made.path}"' in asked.text
        entered = await browser.post(made.path, headers={"sec-fetch-site": "same-origin"})
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        assert "HttpOnly; SameSite=Strict" in entered.headers["set-cookie"]
        found = await browser.get("/", headers={"if-none-match": '"1"', "accept-encoding": "gzip"})
        assert "ticket &lt;7&gt;" in found.text
        assert found.text.startswith(PAGE)
        assert found.headers["cache-control"] == "no-store"
        assert "etag" not in found.headers
        who = (await browser.get("/whoami")).json()["who"]
        assert who == "test"  # as the platform was opened
        assert (await browser.get("/part")).text == "<li>one more"
        document = await browser.get("/part", headers={"sec-fetch-dest": "document"})
        assert 'class="tenantry-support"' in document.text
        sheet = re.search(r'href="([^"]+\.css)"', found.text)
        assert sheet is not None
        assert (await browser.get(sheet[1])).headers["content-type"].startswith("text/css")
        stranger = await here.browser("acme")
        assert (await stranger.get("/")).text == PAGE
        runtime = here.runtimes[0]
        with tenantry.tenant_context(runtime.environment("acme")):
            user = (await runtime.accounts.list())[0]
            stranger.cookies.set("tenantry_session", await runtime.accounts.begin(user))
            await here.known("acme", lambda found: bool(found and found[0].used))
            assert [one.reason for one in runtime.support.running()] == ["ticket <7>"]
            assert [one.who for one in await runtime.support.history()] == ["test"]
        shown = (await stranger.get("/")).text
        assert "ticket &lt;7&gt;" in shown
        assert "End it" not in shown
        over = await browser.post("/.tenantry/support/end")
        assert "is over" in over.text
        assert (await browser.get("/whoami")).json()["who"] is None
        assert [row.state for row in await here.platform.support.list("acme")] == ["over"]
        assert await actions(here) == [
            ("support.open", "test"),
            ("support.use", "support:test"),
            ("support.end", "support:test"),
        ]


async def test_a_link_opens_once_at_its_tenant_and_in_time(ground: g.Ground) -> None:
    """Twice, at another tenant, after its five minutes, after the end, from another site: nothing opens."""
    async with house(ground) as here:
        made = await here.platform.support.open("acme", "ticket 7")
        other = await here.browser("umbrella")
        assert (await other.post(made.path)).status_code == 410
        browser = await here.browser("acme")
        foreign = await browser.post(made.path, headers={"sec-fetch-site": "cross-site"})
        assert foreign.status_code == 410
        answers = await asyncio.gather(*(browser.post(made.path) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [303, 410, 410, 410]
        for change in ({"link_until": now()}, {"expires": now()}, {"ended": now()}):
            late = await here.platform.support.open("acme", "ticket 8")
            await here.alter(**change)
            assert (await browser.post(late.path)).status_code == 410, change
            await here.alter(ended=now())
        assert (await browser.post("/.tenantry/support/nonsense")).status_code == 410
        assert (await browser.get("/.tenantry/support/")).status_code == 410


async def test_a_cookie_opens_one_tenant_and_only_while_it_holds(ground: g.Ground) -> None:
    """Replayed at another tenant, altered, after the time, after the end in another process: nobody is there."""
    async with house(ground) as here:
        browser = await here.inside()
        cookie = browser.cookies["tenantry_support"]
        await here.inside("umbrella")
        other = await here.browser("umbrella")
        other.cookies.set("tenantry_support", cookie)
        assert (await other.get("/whoami")).json()["who"] is None
        again = await here.browser("acme", app=1)
        for value in (cookie[:-2] + "xx", "", "x" * 5000, "\u00e9"):
            again.cookies.clear()
            headers = {"cookie": f"tenantry_support={value}".encode()}
            assert (await again.get("/whoami", headers=headers)).json()["who"] is None
        again.cookies.set("tenantry_support", cookie)
        assert (await again.get("/whoami")).json()["who"] == "test"
        access = (await here.platform.support.list("acme"))[0]
        assert (await here.platform.support.end("acme", access.id)).state == "over"
        await here.known("acme", lambda found: not found)
        assert (await again.get("/whoami")).json()["who"] is None
        assert (await browser.get("/")).text == PAGE
        late = await here.inside()
        await here.alter(expires=now() + timedelta(seconds=0.3))
        await here.known("acme", lambda found: found and found[0].until < now() + timedelta(seconds=1))
        async with asyncio.timeout(g.PATIENCE):
            while (await late.get("/whoami")).json()["who"]:
                await asyncio.sleep(0.02)


async def test_it_looks_only_unless_asked_for_more(ground: g.Ground) -> None:
    """No method that changes, no WebSocket, no statement and no file that writes; and with `writes` all of them."""
    async with house(ground) as here:
        browser = await here.inside()
        assert (await browser.post("/")).status_code == 403
        for path in ("/write", "/store"):
            with pytest.raises(SupportReadOnly):  # as an application sees it that handles no errors
                await browser.get(path)
        assert (await (await here.browser("acme")).get("/write")).text == "written"  # by the same connection
        assert ground.sql("acme", "SELECT count(*) FROM page")[0][0] == 1
        writer = await here.inside(writes=True)
        assert (await writer.post("/")).status_code == 200
        assert "You may change things" in (await writer.get("/")).text
        assert (await writer.get("/write")).text == "written"
        assert (await writer.get("/store")).text == "written"
        await _refused_socket(here, browser)


async def _refused_socket(here: House, browser: httpx.AsyncClient) -> None:
    """A WebSocket may ask for any change."""
    headers = [
        (b"host", b"acme.localhost"),
        (b"cookie", f"tenantry_support={browser.cookies['tenantry_support']}".encode()),
    ]
    sent: list[Any] = []
    scope = {"type": "websocket", "path": "/ws", "headers": headers, "query_string": b"", "scheme": "ws"}

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await here.apps[0](scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]


async def test_it_acts_as_none_of_the_tenants_users(ground: g.Ground) -> None:
    """A session of a user in the same browser counts for nothing meanwhile."""
    async with house(ground) as here:
        browser, runtime = await here.inside(), here.runtimes[0]
        with tenantry.tenant_context(runtime.environment("acme")):
            user = (await runtime.accounts.list())[0]
            browser.cookies.set("tenantry_session", await runtime.accounts.begin(user))
        assert (await browser.get("/whoami")).json() == {"who": "test", "user": None}
        await browser.post("/.tenantry/support/end")
        assert (await browser.get("/whoami")).json() == {"who": None, "user": user.id}


async def test_a_suspended_tenant_lets_nobody_in(ground: g.Ground) -> None:
    """No access is opened, and one that stands is refused with everything else."""
    async with house(ground) as here:
        browser = await here.inside()
        await here.platform.operations.finish((await here.platform.tenants.suspend("acme", "unpaid")).id)
        with pytest.raises(SupportRefused, match="it is suspended"):
            await here.platform.support.open("acme", "why not")
        async with asyncio.timeout(g.PATIENCE):
            while (await browser.get("/whoami")).status_code == 200:
                await asyncio.sleep(0.01)


async def test_rights(ground: g.Ground) -> None:
    """Admins look into their tenants alone; what takes the right away ends the access; bad values are refused."""
    async with house(ground) as here:
        platform = here.platform
        ana = (await platform.admins.invite("ana@example.org")).admin
        await platform.admins.assign("ana@example.org", ["acme"])
        with acting_as(admin(ana.mail, ana.id)):
            with pytest.raises(TenantNotFound):
                await platform.support.open("umbrella", "curious")
            made = await platform.support.open("acme", "ticket 9")
            with pytest.raises(TenantNotFound):
                await platform.support.end("umbrella", made.row.id)
            assert [row.slug for row in await platform.support.list()] == ["acme"]
            assert await platform.support.list("umbrella") == []
        small = Principal(ana.id, ana.mail, AdminRole.ADMIN, token="small", scopes=frozenset({"tenants:write"}))
        with acting_as(small), pytest.raises(Forbidden, match="tenants:support"):
            await platform.support.open("acme", "ticket 9")
        assert made.row.who == "ana@example.org"
        for takes in (
            lambda: platform.admins.unassign("ana@example.org", ["acme"]),
            lambda: platform.admins.disable("ana@example.org"),
            lambda: platform.admins.remove("ana@example.org"),
        ):
            await platform.admins.assign("ana@example.org", ["acme"])
            with acting_as(admin(ana.mail, ana.id)):
                opened = await platform.support.open("acme", "ticket 10")
            await takes()
            states = {row.id: row.state for row in await platform.support.list("acme")}
            assert states[opened.row.id] == "over"
        for reason, minutes in (("", 5), (" ", 5), ("x" * 501, 5), ("fine", 0), ("fine", 481), ("fine", -1)):
            with pytest.raises(InvalidRequest):
                await platform.support.open("acme", reason, minutes)


async def test_its_end_is_entered_at_its_time(ground: g.Ground) -> None:
    """A worker enters the end of what nobody ended, once, as of the moment until which it held."""
    async with house(ground) as here:
        await here.platform.support.open("acme", "ticket 7")
        await here.alter(expires=now())
        for count in (1, 0):
            async with here.platform.registry.write("worker") as tx:
                assert await support.end_over(tx) == count
        row = (await here.platform.support.list())[0]
        assert row.ended == row.expires
        assert (await actions(here))[-1] == ("support.end", "worker")


async def test_a_tenant_can_keep_it_out(ground: g.Ground) -> None:
    """Where the platform asks for consent, its people let support in for some days, and put it out again."""
    async with house(ground, "[support]\nconsent = true\n") as here:
        with pytest.raises(SupportRefused, match="have not let support in"):
            await here.platform.support.open("acme", "ticket 7")
        runtime = here.runtimes[0]
        with tenantry.tenant_context(runtime.environment("acme")):
            await runtime.support.let_in(2, "ida")
            assert await runtime.support.consent() is not None
        browser = await here.inside()
        assert (await browser.get("/whoami")).json()["who"] == "test"
        with pytest.raises(SupportRefused):
            await here.platform.support.open("umbrella", "ticket 7")
        with tenantry.tenant_context(runtime.environment("acme")):
            await runtime.support.let_in(0, "ida")
            assert await runtime.support.consent() is None
        await here.known("acme", lambda found: not found)
        assert (await browser.get("/whoami")).json()["who"] is None
        assert [one for one in await actions(here) if one[1] == "tenant:ida"] == [
            ("support.consent", "tenant:ida"),
            ("support.consent", "tenant:ida"),
            ("support.end", "tenant:ida"),
        ]


async def test_a_platform_can_forbid_it(ground: g.Ground) -> None:
    """With `allowed = false` nobody looks in."""
    async with house(ground, "[support]\nallowed = false\n") as here:
        with pytest.raises(SupportRefused, match="allows none"):
            await here.platform.support.open("acme", "ticket 7")


async def test_without_the_control_database_nobody_looks_in(ground: g.Ground) -> None:
    """What cannot be ended does not hold: neither from memory nor from the snapshot."""
    async with house(ground) as here:
        browser = await here.inside()
        moved = ground.data / "control.away"
        (ground.data / "control.sqlite").rename(moved)
        async with asyncio.timeout(g.PATIENCE):
            while (await browser.get("/whoami")).json()["who"]:
                await asyncio.sleep(0.01)
        moved.rename(ground.data / "control.sqlite")


async def test_wsgi(ground: g.Ground) -> None:
    """The same behind servers of WSGI: link, banner, read only, end."""

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("content-type", "text/html"), ("content-length", str(len(PAGE)))])
        access = support_access()
        return [PAGE.encode(), f"<i>{access and access.who}</i>".encode()]

    async with house(ground) as here:
        runtime = connect(ground.config)
        made = await here.platform.support.open("acme", "ticket 7")
        transport = httpx.WSGITransport(WsgiTenantMiddleware(application, runtime))

        def visit() -> None:
            with httpx.Client(transport=transport, base_url=HOST.format("acme")) as browser:
                assert browser.post(made.path).status_code == 303
                found = browser.get("/")
                assert "<i>test</i>" in found.text
                assert found.text.endswith("</section>")
                assert "content-length" not in found.headers
                assert browser.post("/").status_code == 403
                assert "is over" in browser.post("/.tenantry/support/end").text
                assert "<i>None</i>" in browser.get("/").text
            runtime.stop_thread()

        await asyncio.to_thread(visit)
