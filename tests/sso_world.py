"""A platform that is served, with organizations that sign in by providers, and browsers at its tenants."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn

import ground as g
from providers import CLIENT, SECRET, Names, names
from servers import free_port
from tenantry.application import connect
from tenantry.config import load
from tenantry.context import tenant_context
from tenantry.errors import TenantryError
from tenantry.platform import Platform
from tenantry.runtime import Runtime, TenantMiddleware
from tenantry.web import Own
from tenantry.web.house import House


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Tells who is signed in at which tenant."""
    from tenantry.context import current_tenant

    if scope["type"] != "http":
        return
    runtime: Runtime = application.runtime  # type: ignore[attr-defined]
    cookie = next((value.decode() for name, value in scope["headers"] if name == b"cookie"), "")
    cookies = dict(one.strip().split("=", 1) for one in cookie.split(";") if "=" in one)
    told = "nobody"
    try:
        session = runtime.sessions.find(cookies, scope.get("root_path", ""))
        if session is not None:
            user = await runtime.accounts.signed_in(session)
            told = f"{user.login} {user.role.value}"
    except TenantryError as error:
        told = f"nobody: {error.code}"
    body = f"<!doctype html><title>Tenant</title><h1>{current_tenant().slug}</h1><p>{told}</p>".encode()
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Here(httpx.AsyncHTTPTransport):
    """Finds every name on this machine, as a browser finds *.localhost."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        here = request.url.copy_with(host="127.0.0.1")
        sent = httpx.Request(request.method, here, headers=request.headers, stream=request.stream)
        sent.extensions = request.extensions
        return await super().handle_async_request(sent)


@dataclass
class World:
    """The platform."""

    platform: Platform
    runtime: Runtime
    names: Names
    port: int
    stack: contextlib.AsyncExitStack
    house: House

    def at(self, slug: str, path: str = "/") -> str:
        """An address of a tenant."""
        return f"http://{slug}.localhost:{self.port}{path}"

    def own(self, path: str) -> str:
        """An address of the platform."""
        return f"http://localhost:{self.port}{path}"

    async def browser(self) -> httpx.AsyncClient:
        """A browser, as far as cookies and redirects go; redirects are followed by hand."""
        return await self.stack.enter_async_context(httpx.AsyncClient(transport=Here(), timeout=60))

    async def create(self, *slugs: str) -> None:
        """Make tenants, and wait until they are known."""
        for slug in slugs:
            await self.platform.operations.finish((await self.platform.tenants.create(slug)).id)

            async def known(wanted: str = slug) -> bool:
                return wanted in self.runtime.resolver.table.slugs

            await g.until(known)

    async def organization(self, name: str, *slugs: str, domain: str = "") -> str:
        """An organization with tenants and a proven mail domain; its id."""
        row = await self.platform.organizations.create(name, f"it@{domain or 'example.org'}")
        if slugs:
            await self.platform.organizations.assign(row.id, slugs)
        if domain:
            claimed = (await self.platform.sso.add_domain(row.id, domain)).domains[0]
            self.names.texts[claimed.record] = ["v=spf1 -all", claimed.value]
            await self.platform.sso.prove_domain(row.id, domain)
        return row.id

    async def sign_on(self, organization: str, issuer: str, **more: Any) -> None:
        """Let it sign in by a provider, and wait until its tenants know."""
        await self.platform.sso.set(organization, CLIENT, SECRET, issuer, **more)
        for slug in (await self.platform.organizations.show(organization)).tenants:
            await self.knows(slug, True)

    async def knows(self, slug: str, signs_on: bool) -> None:
        """Wait until a tenant is known to sign in by an organization, or not to."""

        async def known() -> bool:
            return (self.runtime.resolver.table.slugs[slug][0].tenant.sign_on is not None) is signs_on

        await g.until(known)

    async def begin(self, browser: httpx.AsyncClient, slug: str, back: str = "/") -> str:
        """From a tenant by way of the platform; the address at the provider."""
        first = await browser.get(self.at(slug, "/.tenantry/sso/start"), params={"next": back})
        assert first.status_code == 303, first.text
        second = await browser.get(first.headers["location"])
        assert second.status_code == 303, second.text
        where: str = second.headers["location"]
        return where

    async def who(self, browser: httpx.AsyncClient, slug: str) -> str:
        """Who is signed in at a tenant, as its application tells."""
        text = (await browser.get(self.at(slug))).text
        return text.partition("<p>")[2].partition("</p>")[0]

    async def users(self, slug: str) -> list[Any]:
        """The users of a tenant."""
        with tenant_context(self.runtime.resolver.table.slugs[slug][0]):
            return await self.runtime.accounts.list()


@contextlib.asynccontextmanager
async def world(root: Path, known: Names) -> AsyncIterator[World]:
    """It, while it is served."""
    port = free_port()
    toml = g.TOML.replace('domain = "localhost"\n', f'domain = "localhost"\nurl = "http://localhost:{port}"\n')
    toml = toml.replace('title = "A site"', 'title = "A site"\nadmin = "admin@{{slug}}.{{domain}}"')
    more = f'\n[sso]\nresolvers = ["127.0.0.1:{known.port}"]\n\n[runtime]\nsecure_cookies = false\n'
    ground = g.Ground(root / "platform", toml + more)
    config = load(ground.config)
    async with contextlib.AsyncExitStack() as stack:
        runtime = connect(config)
        application.runtime = runtime  # type: ignore[attr-defined]
        own = Own(config, _nothing, runtime)
        stack.push_async_callback(own.close)
        served = TenantMiddleware(application, runtime=runtime, platform_app=own)
        house = await own.house()
        platform = (await house.opened()).platform
        await runtime.start()
        stack.push_async_callback(runtime.stop)
        settings = uvicorn.Config(served, host="127.0.0.1", port=port, log_level="warning", lifespan="off")
        server = uvicorn.Server(settings)
        task = asyncio.create_task(server.serve())

        async def end() -> None:
            server.should_exit = True
            await task

        stack.push_async_callback(end)

        async def up() -> bool:
            return server.started

        await g.until(up)
        yield World(platform, runtime, known, port, stack, house)


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def query_of(address: str) -> dict[str, str]:
    """What an address asks with."""
    return dict(httpx.QueryParams(urlsplit(address).query))


class Served:
    """The platform in a thread with an event loop of its own: the browser is driven from this one."""

    def __init__(self, root: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.names = names()
        self.known = self.names.__enter__()
        self.making = world(root, self.known)
        self.world: World = self.run(self.making.__aenter__())
        self.organization = self.run(self._fill())
        self.issuer = ""  # of its provider

    async def _fill(self) -> str:
        await self.world.create("acme", "acme-two")
        return await self.world.organization("Acme & Söhne", "acme", "acme-two")

    def run(self, work: Any) -> Any:
        """Do something there."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)

    def close(self) -> None:
        """End it."""
        self.run(self.making.__aexit__(None, None, None))
        self.names.__exit__(None, None, None)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
