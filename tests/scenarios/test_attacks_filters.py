"""Attacks on filters, searches, orders, cursors and places of the API and the portal: no fault, no row too many."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

import attacks as a
import ground as g
import people_world as w
from tenantry.identity.principal import SCOPES
from tenantry.platform import Platform
from tenantry.web.portal import PARTS

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANA = "ana@example.org"
HIDDEN = "umbrella"
"""The slug and the name of a tenant that is not Ana's: wherever she finds it, something gave way."""

PAYLOADS: tuple[str | bytes, ...] = (
    "' OR '1'='1",
    "' OR 1=1 --",
    '" OR ""="',
    "') OR 1=1 --",
    "x' UNION SELECT slug, name FROM tenant --",
    "'; DROP TABLE tenant; --",
    "slug; DROP TABLE tenant",
    "(SELECT slug FROM tenant)",
    "%",
    "_",
    "%mbrell%",
    "\\",
    "%' ESCAPE 'm",
    "*",
    "\0",
    "umb\0rella",
    b"%ed%a0%80",  # a lone surrogate
    b"%ff%fe",
    "\u202eallerbmu",
    "-1",
    "0",
    "9" * 400,
    "1e999",
    "NaN",
    "0001-01-01T00:00:00+14:00 a",
    "9999-12-31T23:59:59.999999-14:00 a",
    "2026-11-21 a",
    "null",
    "[]",
    "{{7*7}}${7*7}",
    "$ne",
    "../../umbrella",
    "a" * 9_000,
    "\ufdfa" * 300,
)


OF_A_DATABASE: tuple[str | bytes, ...] = (
    "'; DROP TABLE tenant; --",
    "%",
    "\\",
    "%' ESCAPE 'm",
    "umb\0rella",
    b"%ed%a0%80",
    "-1",
    "9" * 400,
    "NaN",
    "0001-01-01T00:00:00+14:00 a",
    "9999-12-31T23:59:59.999999-14:00 a",
)
"""Those of which a database, and what talks to it, has an opinion of its own: tried on PostgreSQL as well."""


@dataclass(frozen=True)
class World:
    """A platform with Ana's tenant and another's, and who asks it: she and a superadmin, at the portal and the API."""

    platform: Platform
    payloads: tuple[str | bytes, ...]
    clients: dict[str, httpx.AsyncClient]


@pytest_asyncio.fixture(
    params=["SQLite", pytest.param("PostgreSQL", marks=pytest.mark.postgres)], scope="module", loop_scope="module"
)
async def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One whose control database is on either; nothing that is asked here changes it."""
    ground = g.Ground(tmp_path_factory.mktemp("filters") / "platform")
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "PostgreSQL":
            url = stack.enter_context(request.getfixturevalue("postgres").database())
            toml = ground.config.read_text().replace("[platform]\n", '[platform]\ncontrol = {env = "CONTROL_URL"}\n')
            ground.config.write_text(toml)
            with (ground.root / ".env").open("a") as env:
                env.write(f"CONTROL_URL='{url}'\n")
        platform, clients = await stack.enter_async_context(_peopled(ground))
        yield World(platform, OF_A_DATABASE if request.param == "PostgreSQL" else PAYLOADS, clients)


def encoded(payload: str | bytes) -> str:
    """A payload as it stands in an address."""
    return payload.decode() if isinstance(payload, bytes) else quote(payload, safe="")


@contextlib.asynccontextmanager
async def _peopled(ground: g.Ground) -> AsyncIterator[tuple[Platform, dict[str, httpx.AsyncClient]]]:
    """With names that a search finds."""
    with ground.config.open("a") as toml:
        toml.write("\n[api]\ntoken_rate = 0\naddress_rate = 0\n")
    async with w.portal(ground) as here:
        platform = here.platform
        await platform.operations.finish((await platform.tenants.create("acme", "Acme & Söhne")).id)
        await platform.operations.finish((await platform.tenants.create(HIDDEN, HIDDEN)).id)
        await here.add(ANA)
        await platform.admins.assign(ANA, ["acme"])
        await platform.organizations.create("Nord", ANA)
        found = {"portal": await here.signed_in(ANA), "root portal": await here.signed_in()}
        for name, mail in (("api", ANA), ("root api", "root@example.org")):
            token = (await platform.tokens.create("probe", SCOPES, admin=mail)).token
            found[name] = await here.browser(Authorization=f"Bearer {token}")
        yield platform, found


async def refused_or_harmless(client: httpx.AsyncClient, address: str, *, hers: bool) -> None:
    """Ask; the answer is no fault, and tells nothing of the other tenant where that is not hers."""
    answer = await client.get(address)
    assert answer.status_code < 500, (address[:300], answer.text[:500])
    assert answer.status_code not in (401, 429), address[:300]
    if hers and answer.status_code == 200:
        shown = answer.text.replace(address, "")
        told = json.dumps(answer.json(), ensure_ascii=False) if "json" in answer.headers["content-type"] else shown
        assert f'"{HIDDEN}"' not in told, address
        assert f"/tenants/{HIDDEN}" not in told, address


def queries(described: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Each address of the API that is asked by GET, with each value in its query and its path."""
    for path, methods in described["paths"].items():
        for one in methods.get("get", {}).get("parameters", ()):
            yield path, one["name"], one["in"]


async def test_no_filter_of_the_api_gives_way(world: World) -> None:
    """Every value in every query and path that the description names, with every payload."""
    clients = world.clients
    described = (await clients["api"].get("/api/openapi.json")).json()
    operation = (await world.platform.operations.list(tenant="acme"))[0].id
    known = a.EVERY | {"operation_id": operation, "host": "acme.localhost"}
    count = 0
    for path, name, where in queries(described):
        if path.endswith("/events"):
            continue
        for payload in world.payloads:
            given = encoded(payload)
            if where == "path":
                address = a.filled(path, known | {name: given})
            else:
                address = f"{a.filled(path, known)}?{name}={given}"
            await refused_or_harmless(clients["api"], address, hers=True)
            count += 1
            if where == "query":
                await refused_or_harmless(clients["root api"], address, hers=False)
    assert count > 15 * len(world.payloads)
    assert len((await clients["root api"].get("/api/tenants")).json()) == 2


def values(dependant: Dependant) -> Iterator[str]:
    """The names of all that a page takes in its query."""
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from values(inner)


async def test_no_filter_of_the_portal_gives_way(world: World) -> None:
    """Every value that a page takes in its query, with every payload, asked by an admin and by a superadmin."""
    clients = world.clients
    operation = (await world.platform.operations.list(tenant="acme"))[0].id
    count = 0
    for route in [one for part in PARTS for one in part.router.routes if isinstance(one, APIRoute)]:
        if "GET" not in route.methods:
            continue
        for name in values(route.dependant):
            for payload in world.payloads:
                address = f"/admin{a.filled(route.path, operation_id=operation)}?{name}={encoded(payload)}"
                await refused_or_harmless(clients["portal"], address, hers=True)
                await refused_or_harmless(clients["root portal"], address, hers=False)
                count += 1
    assert count > 15 * len(world.payloads)


@pytest.mark.parametrize("sort", ["slug", "name", "-created", "status", "id", "--slug"])
async def test_no_cursor_leads_elsewhere(world: World, sort: str) -> None:
    """A forged place in any order shows no more than a good one; an order that is none is refused."""
    clients = world.clients
    for payload in (*world.payloads, " ", "a ", f"{HIDDEN} {HIDDEN}", "2020-01-01T00:00:00 a"):
        for side in ("after", "before"):
            address = f"?sort={quote(sort)}&{side}={encoded(payload)}"
            await refused_or_harmless(clients["api"], f"/api/tenants{address}", hers=True)
            await refused_or_harmless(clients["portal"], f"/admin/{address}", hers=True)
    status = (await clients["api"].get("/api/tenants", params={"sort": sort})).status_code
    assert status == (200 if sort.removeprefix("-") in ("slug", "name", "created", "status") else 422)


@pytest.mark.parametrize("wildcard", ["%", "_", "%%", "acm_", "a%e", "\\%", "[a-z]cme"])
async def test_wildcards_mean_themselves(world: World, wildcard: str) -> None:
    """In every search: no name has such a sign, so nothing is found."""
    clients = world.clients
    for path in ("tenants", "admins", "organizations"):
        address = f"/api/{path}?search={quote(wildcard)}"
        assert (await clients["root api"].get(address)).json() == [], path
    for action in ("tenant%", "%", "_enant"):
        assert (await clients["root api"].get("/api/audit", params={"action": action})).json() == []
