"""A platform with a tenant on each kind of database, who has a user, and an application that serves them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import entrances as e
import ground as g
import servers
import tenantry
from shelves import RowsShelves
from tenantry.application import connect
from tenantry.context import tenant_context
from tenantry.credentials import Role
from tenantry.identity.scim.directory import Directory
from tenantry.platform import Platform
from tenantry.registry import sso
from tenantry.runtime import Runtime, TenantMiddleware

BLUEPRINTS: Final = """
[runtime]
secure_cookies = false

[blueprints.lab.hostnames]
production = "{slug}.{domain}"

[blueprints.file.resources]
db = {kind = "sqlite"}
[blueprints.file.hostnames]
production = "{slug}.{domain}"

[blueprints.own.resources]
db = {kind = "postgres", name = "PREFIX_{slug}"}
[blueprints.own.hostnames]
production = "{slug}.{domain}"
"""

KINDS: Final = {"sqlite": "file", "postgres": "own", "rows": "lab"}
"""By the kind of database, which is the tenant's slug: the blueprint."""

LOGIN: Final = "eva@example.org"
JSON: Final = {"accept": "application/json"}


async def who(request: Request) -> JSONResponse:
    """Who makes this request."""
    return JSONResponse({"who": tenantry.require().login})


@dataclass
class Here:
    """An application of one process, and the platform beside it."""

    ground: g.Ground
    platform: Platform
    runtime: Runtime
    client: httpx.AsyncClient

    async def signed_in(self, slug: str) -> dict[str, str]:
        """The headers of a request by a new session."""
        with tenant_context(self.runtime.environment(slug)):
            eva = await self.runtime.accounts.by_login(LOGIN)
            assert eva is not None
            return {"cookie": f"tenantry_session={await self.runtime.accounts.begin(eva)}"}

    async def tokens(self, slug: str, **form: str) -> Any:
        """What the endpoint for tokens answers."""
        answer = await self.client.post(f"http://{slug}.localhost/.tenantry/token", data=form, headers=JSON)
        return answer.json()

    async def given(self, slug: str = "sqlite") -> Any:
        """Tokens of the user."""
        return await self.tokens(slug, grant_type="password", username=LOGIN, password=e.PASSWORD)

    async def asked(self, slug: str, **headers: str) -> tuple[int, str]:
        """What a request is answered: the status, and who it is or why not."""
        answer = await self.client.get(f"http://{slug}.localhost/who", headers=JSON | headers)
        told = answer.json()
        return answer.status_code, told.get("who") or told["code"]

    async def keys(self, slug: str = "sqlite") -> Any:
        """The public keys."""
        return (await self.client.get(f"http://{slug}.localhost/.tenantry/jwks.json")).json()

    async def command(self, *arguments: str) -> str:
        """Run a command in a process of its own; what it printed."""
        process = self.ground.command(*arguments)
        out, _ = await asyncio.to_thread(process.communicate)
        assert process.returncode == 0, out
        return out


def platform(root: Path, server: servers.Postgres) -> RowsShelves:
    """The platform; `clear` ends what it has on the server."""
    found = RowsShelves(root, server)
    with found.config.open("a") as file:
        file.write(BLUEPRINTS.replace("PREFIX", found.prefix))
    asyncio.run(_prepare(found))
    return found


async def _prepare(ground: g.Ground) -> None:
    async with ground.open() as opened:
        for kind, blueprint in KINDS.items():
            made = await opened.tenants.create(kind, kind.title(), blueprint=blueprint)
            ended = await opened.operations.finish(made.id)
            assert ended.operation.state == "done", ended.operation.error
    runtime = connect(ground.config)
    await runtime.start()
    for kind in KINDS:
        with tenant_context(runtime.environment(kind)):
            await runtime.accounts.create(LOGIN, e.PASSWORD, role=Role.USER)
    await runtime.stop()


@contextlib.asynccontextmanager
async def served(ground: g.Ground) -> AsyncIterator[Here]:
    """An application that serves the tenants, in this process."""
    runtime = connect(ground.config)
    app = Starlette(routes=[Route("/who", who)])
    app.add_middleware(TenantMiddleware, runtime=runtime)
    async with contextlib.AsyncExitStack() as stack:
        opened = await stack.enter_async_context(ground.open())
        await runtime.start()
        stack.push_async_callback(runtime.stop)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=httpx.ASGITransport(app)))
        yield Here(ground, opened, runtime, client)


async def told_of(platform: Platform, slugs: Sequence[str], mail: str) -> Callable[[bool], Awaitable[None]]:
    """An organization of these tenants, whose directory has somebody: what tells that she leaves, or comes back."""
    row = await platform.organizations.create("Example", "it@example.org")
    await platform.organizations.assign(row.id, slugs)
    async with platform.registry.write() as tx:
        await sso.claim(tx, row.id, mail.partition("@")[2], "token")
        await sso.prove(tx, row.id, mail.partition("@")[2])
    directory = Directory(platform.registry, platform.config)
    token = await directory.admit(row.id, (await platform.scim.token(row.id, "provider")).token)
    person = (await directory.join(token, json.dumps({"userName": mail}).encode()))["id"]

    async def tell(active: bool) -> None:
        body = {"Operations": [{"op": "replace", "path": "active", "value": active}]}
        await directory.patch(token, person, json.dumps(body).encode(), None)

    return tell
