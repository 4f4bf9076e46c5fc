"""Attacks on filters, searches, orders, cursors and places of the API and the portal: no fault, no row too many."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

import attacks as a
import ground as g
import people_world as w
from tenantry.identity.principal import SCOPES
from tenantry.web.portal import PARTS

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


@pytest.fixture(params=["SQLite", pytest.param("PostgreSQL", marks=pytest.mark.postgres)])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> g.Ground:
    """A platform whose control database is on either."""
    made = g.Ground(tmp_path / "platform")
    if request.param == "PostgreSQL":
        toml = made.config.read_text().replace("[platform]\n", '[platform]\ncontrol = {env = "CONTROL_URL"}\n')
        made.config.write_text(toml)
        with (made.root / ".env").open("a") as env:
            env.write(f"CONTROL_URL='{request.getfixturevalue('postgres_url')}'\n")
    return made


def payloads(ground: g.Ground) -> tuple[str | bytes, ...]:
    """What is tried on a platform."""
    return OF_A_DATABASE if "CONTROL_URL" in ground.config.read_text() else PAYLOADS


def encoded(payload: str | bytes) -> str:
    """A payload as it stands in an address."""
    return payload.decode() if isinstance(payload, bytes) else quote(payload, safe="")


@contextlib.asynccontextmanager
async def world(ground: g.Ground) -> AsyncIterator[tuple[w.Portal, dict[str, httpx.AsyncClient]]]:
    """Ana's tenant and another, with names that a search finds; she at the portal, she and a superadmin at the API."""
    with ground.config.open("a") as toml:
        toml.write("\n[api]\ntoken_rate = 0\naddress_rate = 0\n")
    async with w.portal(ground) as here:
        platform = here.platform
        await platform.operations.finish((await platform.tenants.create("acme", "Acme & Söhne")).id)
        await platform.operations.finish((await platform.tenants.create(HIDDEN, HIDDEN)).id)
        await here.add(ANA)
        await platform.admins.assign(ANA, ["acme"])
        found = {"portal": await here.signed_in(ANA), "root portal": await here.signed_in()}
        for name, mail in (("api", ANA), ("root api", "root@example.org")):
            token = (await platform.tokens.create("probe", SCOPES, admin=mail)).token
            found[name] = await here.browser(Authorization=f"Bearer {token}")
        yield here, found


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


async def test_no_filter_of_the_api_gives_way(ground: g.Ground) -> None:
    """Every value in every query and path that the description names, with every payload."""
    async with world(ground) as (here, clients):
        described = (await clients["api"].get("/api/openapi.json")).json()
        operation = (await here.platform.operations.list(tenant="acme"))[0].id
        known = a.EVERY | {"operation_id": operation, "host": "acme.localhost"}
        count = 0
        for path, name, where in queries(described):
            if path.endswith("/events"):
                continue
            for payload in payloads(ground):
                given = encoded(payload)
                if where == "path":
                    address = a.filled(path, known | {name: given})
                else:
                    address = f"{a.filled(path, known)}?{name}={given}"
                await refused_or_harmless(clients["api"], address, hers=True)
                count += 1
                if where == "query":
                    await refused_or_harmless(clients["root api"], address, hers=False)
        assert count > 15 * len(payloads(ground))
        assert len((await clients["root api"].get("/api/tenants")).json()) == 2


def values(dependant: Dependant) -> Iterator[str]:
    """The names of all that a page takes in its query."""
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from values(inner)


async def test_no_filter_of_the_portal_gives_way(ground: g.Ground) -> None:
    """Every value that a page takes in its query, with every payload, asked by an admin and by a superadmin."""
    async with world(ground) as (here, clients):
        operation = (await here.platform.operations.list(tenant="acme"))[0].id
        count = 0
        for route in [one for part in PARTS for one in part.router.routes if isinstance(one, APIRoute)]:
            if "GET" not in route.methods:
                continue
            for name in values(route.dependant):
                for payload in payloads(ground):
                    address = f"/admin{a.filled(route.path, operation_id=operation)}?{name}={encoded(payload)}"
                    await refused_or_harmless(clients["portal"], address, hers=True)
                    await refused_or_harmless(clients["root portal"], address, hers=False)
                    count += 1
        assert count > 15 * len(payloads(ground))


@pytest.mark.parametrize("sort", ["slug", "name", "-created", "status", "id", "--slug"])
async def test_no_cursor_leads_elsewhere(ground: g.Ground, sort: str) -> None:
    """A forged place in any order shows no more than a good one; an order that is none is refused."""
    async with world(ground) as (_, clients):
        for payload in (*payloads(ground), " ", "a ", f"{HIDDEN} {HIDDEN}", "2020-01-01T00:00:00 a"):
            for side in ("after", "before"):
                address = f"?sort={quote(sort)}&{side}={encoded(payload)}"
                await refused_or_harmless(clients["api"], f"/api/tenants{address}", hers=True)
                await refused_or_harmless(clients["portal"], f"/admin/{address}", hers=True)
        status = (await clients["api"].get("/api/tenants", params={"sort": sort})).status_code
        assert status == (200 if sort.removeprefix("-") in ("slug", "name", "created", "status") else 422)


@pytest.mark.parametrize("wildcard", ["%", "_", "%%", "acm_", "a%e", "\\%", "[a-z]cme"])
async def test_wildcards_mean_themselves(ground: g.Ground, wildcard: str) -> None:
    """In every search: no name has such a sign, so nothing is found."""
    async with world(ground) as (here, clients):
        await here.platform.organizations.create("Nord", ANA)
        for path in ("tenants", "admins", "organizations"):
            address = f"/api/{path}?search={quote(wildcard)}"
            assert (await clients["root api"].get(address)).json() == [], path
        for action in ("tenant%", "%", "_enant"):
            assert (await clients["root api"].get("/api/audit", params={"action": action})).json() == []
