"""Tenants with users, an application that serves them, and browsers at their entrances."""

from __future__ import annotations

import contextlib
import html
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import uvicorn

import ground as g
import people_world as w
import tenantry
from tenantry.application import connect
from tenantry.context import tenant_context
from tenantry.credentials import Role
from tenantry.errors import ForeignSession, InvalidToken
from tenantry.platform import Platform
from tenantry.runtime import Runtime, TenantMiddleware, WsgiTenantMiddleware
from tenantry.runtime.accounts import User
from tenantry.runtime.asked import OWN

PASSWORD = "correct horse battery"

TOML = (
    g.TOML.replace("[blueprints.site.values]", '[blueprints.site.values]\ncolor = ""\nlogo = ""')
    + '\n[users]\ncolor = "color"\nlogo = "logo"\n\n[runtime]\nsecure_cookies = false\n'
)


def application(runtime: Runtime) -> Any:
    """An application with one page, which names the tenant and who is signed in."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        cookies = dict(parse_qsl(dict(scope["headers"]).get(b"cookie", b"").decode().replace("; ", "&")))
        try:
            session = runtime.sessions.find(cookies, scope.get("root_path", ""))
            who = (await runtime.accounts.signed_in(session)).login if session else "nobody"
        except (InvalidToken, ForeignSession):
            who = "nobody"
        page = (
            '<!doctype html><html lang="en"><title>Pages</title><link rel="icon" href="data:,">'
            f"<main><h1>{html.escape(tenantry.current_tenant().name)}</h1>"
            f"<p>Here is {html.escape(who)}.</p></main></html>"
        )
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html; charset=utf-8")]}
        )
        await send({"type": "http.response.body", "body": page.encode()})

    return TenantMiddleware(app, runtime)


def wsgi_application(runtime: Runtime) -> Any:
    """The same by WSGI, as far as pages below `/.tenantry/` go."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("content-type", "text/html")])
        return [tenantry.current_tenant().name.encode()]

    return WsgiTenantMiddleware(app, runtime)


@dataclass
class Entry:
    """The entrances of a platform's tenants."""

    ground: g.Ground
    platform: Platform
    runtime: Runtime
    app: Any
    stack: contextlib.AsyncExitStack

    async def user(self, login: str, role: Role = Role.USER, slug: str = "acme") -> User:
        """A user who has a password."""
        with tenant_context(self.runtime.environment(slug)):
            return await self.runtime.accounts.create(login, PASSWORD, role=role)

    async def browser(self, slug: str = "acme", address: str = "127.0.0.1", by_path: bool = False) -> Browser:
        """Somebody's browser at a tenant, as far as cookies go."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=(address, 1))
        root = f"/t/{slug}" if by_path else ""
        base = "http://localhost" if by_path else f"http://{slug}.localhost"
        client = httpx.AsyncClient(transport=transport, base_url=base)
        return Browser(await self.stack.enter_async_context(client), root)

    async def signed_in(self, login: str, slug: str = "acme", **more: Any) -> Browser:
        """A browser in which somebody is signed in."""
        browser = await self.browser(slug, **more)
        answer = await browser.sign_in(login)
        assert answer.status_code == 303, answer.text
        return browser


@dataclass
class Browser:
    """A browser at one tenant."""

    client: httpx.AsyncClient
    root: str = ""

    async def get(self, page: str, **options: Any) -> httpx.Response:
        """Look at a page of the entrance; the first page of the application where it begins with a slash."""
        path = page if page.startswith("/") else f"{OWN}{page}"
        return await self.client.get(self.root + path, **options)

    async def csrf(self, page: str = "sign-in") -> str:
        """What the forms of a page carry."""
        shown = await self.get(page)
        if shown.status_code == 303:
            shown = await self.get("me")
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', shown.text)
        assert found, shown.text
        return found[1]

    async def send(self, page: str, form: Mapping[str, str] | None = None, **options: Any) -> httpx.Response:
        """Send a form of a page."""
        data = {"csrf": await self.csrf(), **(form or {})}
        return await self.client.post(f"{self.root}{OWN}{page}", data=data, **options)

    async def sign_in(self, login: str, password: str = PASSWORD, **form: str) -> httpx.Response:
        """Send the form of the sign-in page."""
        return await self.send("sign-in", {"login": login, "password": password, **form})

    async def who(self) -> str:
        """Who is signed in, as the application sees it."""
        found = re.search("Here is (.*?)\\.<", (await self.get("/")).text)
        assert found
        return found[1]


def told(page: httpx.Response) -> str:
    """What stands in a page's notes."""
    found = re.findall(r'<div class="note.*?</div>', page.text, re.DOTALL)
    return html.unescape(re.sub(r"<.*?>|\s+", " ", " ".join(found))).strip()


def link_of(mail: Any) -> str:
    """The link in a mail, from the first part of its path within the entrance."""
    found = re.search(r"/\.tenantry/(link/[\w-]+)", w.text_of(mail))
    assert found
    return found[1]


async def prepare(ground: g.Ground, *slugs: str) -> None:
    """Make tenants."""
    async with ground.open() as platform:
        for slug in slugs:
            settings = {"color": "#2f6f4f"} if slug == "acme" else {}
            made = await platform.tenants.create(slug, f"{slug.title()} & Söhne", settings=settings)
            await platform.operations.finish(made.id)


@contextlib.asynccontextmanager
async def entry(ground: g.Ground) -> AsyncIterator[Entry]:
    """The entrances of the tenants that were prepared, within this process."""
    runtime = connect(ground.config)
    async with contextlib.AsyncExitStack() as stack:
        platform = await stack.enter_async_context(ground.open())
        await runtime.start()
        stack.push_async_callback(runtime.stop)
        yield Entry(ground, platform, runtime, application(runtime), stack)


@contextlib.contextmanager
def served(config: Path, port: int) -> Iterator[Runtime]:
    """The application, served by uvicorn in a thread."""
    runtime = connect(config)
    server = uvicorn.Server(uvicorn.Config(application(runtime), host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield runtime
    finally:
        server.should_exit = True
        thread.join()
