"""People at the portal's pages, by plain HTTP: signed in, with forms filled and sent."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from ground import Ground
from tenantry.config import load
from tenantry.identity.principal import AdminRole
from tenantry.platform import Platform
from tenantry.web.site import site

PASSWORD = "correct horse battery"


@dataclass
class Person:
    """Somebody who is signed in."""

    client: httpx.AsyncClient

    async def get(self, path: str, **query: str) -> httpx.Response:
        """Look at a page."""
        return await self.client.get(f"/admin{path}", params=query or None)

    async def send(
        self, path: str, form: Mapping[str, Any] | None = None, *, csrf: str | None = None, **more: Any
    ) -> httpx.Response:
        """Send a form of a page; `csrf` in place of the one that the pages hold."""
        if csrf is None:
            found = re.search(r'name="csrf" value="([^"]+)"', (await self.get("/")).text)
            assert found is not None
            csrf = found[1]
        return await self.client.post(f"/admin{path}", data={"csrf": csrf, **(form or {})}, **more)


@dataclass
class Desk:
    """A platform's portal, and the people at it."""

    platform: Platform
    transport: httpx.ASGITransport
    stack: contextlib.AsyncExitStack
    people: dict[str, Person] = field(default_factory=dict)

    async def person(self, name: str, role: AdminRole = AdminRole.SUPERADMIN) -> Person:
        """An admin user, invited and signed in by the link."""
        link = (await self.platform.admins.invite(f"{name}@example.org", role=role)).link
        client = httpx.AsyncClient(transport=self.transport, base_url="http://localhost", follow_redirects=True)
        await self.stack.enter_async_context(client)
        answer = await client.post(f"/admin/link/{link}", data={"password": PASSWORD})
        assert answer.status_code == 200, answer.text
        return Person(client)

    async def create(self, *slugs: str) -> None:
        """Make tenants, and wait until they are ready."""
        for slug in slugs:
            await self.platform.operations.finish((await self.platform.tenants.create(slug)).id)

    async def finish(self) -> None:
        """Wait until every operation is over."""
        for operation in await self.platform.operations.list(limit=1000):
            await self.platform.operations.finish(operation.id)


@contextlib.asynccontextmanager
async def desk(ground: Ground) -> AsyncIterator[Desk]:
    """The portal of a platform, within this process."""
    app = site(load(ground.config))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(app.state.house.close)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        yield Desk((await app.state.house.opened()).platform, transport, stack)
