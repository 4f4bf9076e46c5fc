"""The API: every verb at its address, for whoever has the right to it, described by what the platform itself says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

import ground as g
from tenantry.config import load
from tenantry.identity import RIGHTS
from tenantry.identity.principal import SCOPES, AdminRole
from tenantry.platform import Platform
from tenantry.web.api.routes import ROUTES
from tenantry.web.house import House
from tenantry.web.site import site


@dataclass
class World:
    """A platform with an API, and tokens of those who call it."""

    platform: Platform
    client: httpx.AsyncClient
    tokens: dict[str, str] = field(default_factory=dict)

    async def call(self, who: str | None, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Send a request as somebody."""
        if who is not None:
            headers["Authorization"] = f"Bearer {self.tokens[who]}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.request(method, f"/api{path}", json=body, headers=named)

    async def add(self, mail: str, role: AdminRole, scopes: tuple[str, ...] = SCOPES, name: str = "") -> None:
        """An admin user who can sign in, with a token."""
        if not any(row.mail == mail for row in await self.platform.admins.list()):
            invited = await self.platform.admins.invite(mail, role=role)
            from tenantry.identity.signin import Client, SignIn

            await SignIn(self.platform.registry).take(invited.link, "correct horse battery", Client("127.0.0.1"))
        made = await self.platform.tokens.create(name or mail, scopes, admin=mail)
        self.tokens[name or mail] = made.token


@contextlib.asynccontextmanager
async def closing(house: House) -> AsyncIterator[None]:
    """Closed at the end."""
    try:
        yield
    finally:
        await house.close()


@contextlib.asynccontextmanager
async def world(ground: g.Ground) -> AsyncIterator[World]:
    """The API of a platform, called within this process."""
    app = site(load(ground.config))
    async with closing(app.state.house):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            made = World((await app.state.house.opened()).platform, client)
            await made.add("root@example.org", AdminRole.SUPERADMIN)
            await made.add("ana@example.org", AdminRole.ADMIN)
            yield made


async def test_a_tenant_lives_by_the_api(ground: g.Ground) -> None:
    """Created, shown, changed, suspended, resumed and removed, each an operation to follow."""
    async with world(ground) as here:
        root = "root@example.org"
        answer = await here.call(root, "POST", "/tenants", {"slug": "acme", "name": "Acme & Söhne"})
        assert answer.status_code == 202, answer.text
        assert answer.json()["verb"] == "create"
        assert answer.json()["actor"] == f"token:{root} of {root}"
        await here.platform.operations.finish(answer.json()["id"])
        shown = (await here.call(root, "GET", "/tenants/acme")).json()
        assert shown["row"]["name"] == "Acme & Söhne"
        assert shown["tenant"]["status"] == "active"
        first = (await here.call(root, "POST", "/tenants/acme/credentials")).json()
        assert len(first["password"]) == 22
        assert (await here.call(root, "POST", "/tenants/acme/credentials")).json() is None
        for method, path, body in (
            ("PATCH", "/tenants/acme", {"plan": "pro", "settings": {"smtp_password": "hush-hush"}}),
            ("POST", "/tenants/acme/suspend", {"reason": "unpaid"}),
            ("POST", "/tenants/acme/resume", None),
            ("POST", "/tenants/acme/rename", {"to": "acme-2"}),
            ("DELETE", "/tenants/acme-2", None),
        ):
            answer = await here.call(root, method, path, body)
            assert answer.status_code == 202, (path, answer.text)
            await here.platform.operations.finish(answer.json()["id"])
        assert (await here.call(root, "GET", "/tenants")).json() == []
        assert "hush-hush" not in json.dumps((await here.call(root, "GET", "/operations")).json())


async def test_every_verb_has_an_address_or_a_reason_for_none() -> None:
    """Nothing that can be called is forgotten; what cannot is named here."""
    unreachable = {"operation.follow", "platform.metrics", "tenant.adopt", "tenant.plan_adopt", "migrate.drift"}
    unreachable |= {f"account.{verb}" for verb in ("enrol", "confirm", "new_codes", "drop_factor")}  # in a browser
    unreachable |= {
        f"account.{verb}" for verb in ("passkey_options", "add_passkey", "remove_passkey", "prove", "prove_by_passkey")
    }
    assert set(RIGHTS) - {route.verb for route in ROUTES} == unreachable
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


async def test_another_admins_tenant_is_not_there(ground: g.Ground) -> None:
    """An admin sees and changes the tenants assigned to her; any other answers as one that does not exist."""
    async with world(ground) as here:
        for slug in ("acme", "umbrella"):
            await here.platform.operations.finish((await here.platform.tenants.create(slug)).id)
        await here.platform.admins.assign("ana@example.org", ["acme"])
        ana = "ana@example.org"
        assert [row["slug"] for row in (await here.call(ana, "GET", "/tenants")).json()] == ["acme"]
        assert {row["slug"] for row in (await here.call(ana, "GET", "/hostnames")).json()} == {"acme"}
        assert {row["subject"] for row in (await here.call(ana, "GET", "/audit")).json()} == {"acme"}
        operations = (await here.call(ana, "GET", "/operations")).json()
        assert {row["tenant_slug"] for row in operations} == {"acme"}
        foreign = next(o for o in await here.platform.operations.list() if o.tenant_slug == "umbrella")
        unknown = (await here.call(ana, "GET", "/tenants/nobody")).json()
        for method, path, body in (
            ("GET", "/tenants/umbrella", None),
            ("PATCH", "/tenants/umbrella", {"name": "Mine"}),
            ("DELETE", "/tenants/umbrella", None),
            ("POST", "/tenants/umbrella/credentials", None),
            ("POST", "/hostnames", {"slug": "umbrella", "host": "www.example.org"}),
            ("GET", "/hostnames?slug=umbrella", None),
            ("GET", f"/operations/{foreign.id}", None),
            ("GET", f"/operations/{foreign.id}/events", None),
            ("POST", f"/operations/{foreign.id}/cancel", None),
        ):
            answer = await here.call(ana, method, path, body)
            assert answer.status_code == 404, (path, answer.text)
        answer = await here.call(ana, "GET", "/tenants/umbrella")
        assert answer.json() == {**unknown, "title": unknown["title"].replace("nobody", "umbrella")}
        assert (await here.call(ana, "POST", "/tenants", {"slug": "mine"})).status_code == 403
        assert (await here.call(ana, "GET", "/admins")).status_code == 403


async def test_a_token_opens_its_scopes_alone(ground: g.Ground) -> None:
    """A missing scope is refused by name, also to a superadmin's token; a token gives on no more than it has."""
    async with world(ground) as here:
        await here.add("root@example.org", AdminRole.SUPERADMIN, ("tenants:read", "people:write"), "reader")
        assert (await here.call("reader", "GET", "/tenants")).status_code == 200
        refused = await here.call("reader", "POST", "/tenants", {"slug": "acme"})
        assert refused.status_code == 403
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] == "access.forbidden"
        assert "tenants:write" in refused.json()["title"]
        more = await here.call("reader", "POST", "/tokens", {"name": "more", "scopes": ["tenants:write"]})
        assert more.status_code == 422
        assert (
            await here.call("reader", "POST", "/tokens", {"name": "x", "scopes": ["tenants:read"]})
        ).status_code == 201


@pytest.mark.parametrize("given", [None, "Bearer nonsense", "Bearer tenantry_nonsense", "Basic cm9vdDpyb290"])
async def test_without_a_valid_token_nothing_opens(ground: g.Ground, given: str | None) -> None:
    """Each address answers 401 before anything is looked at."""
    async with world(ground) as here:
        headers = {"Authorization": given} if given else {}
        for route in ROUTES:
            path = f"/api{route.path}".replace("{", "").replace("}", "")
            answer = await here.client.request(route.method, path, headers=headers)
            assert answer.status_code == 401, route
            assert answer.json()["code"] == "access.unknown"
            assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_revoked_token_and_a_disabled_owner_open_nothing(ground: g.Ground) -> None:
    """From the moment it is entered."""
    async with world(ground) as here:
        await here.add("ana@example.org", AdminRole.ADMIN, name="second")
        await here.platform.tokens.revoke("second")
        assert (await here.call("second", "GET", "/tenants")).status_code == 401
        assert (await here.call("ana@example.org", "GET", "/tenants")).status_code == 200
        await here.platform.admins.disable("ana@example.org")
        assert (await here.call("ana@example.org", "GET", "/tenants")).status_code == 401


async def test_a_repeated_request_is_carried_out_once(ground: g.Ground) -> None:
    """The same key and request give the same answer; another request by the same key is refused."""
    async with world(ground) as here:
        root, body = "root@example.org", {"slug": "acme"}
        first = await here.call(root, "POST", "/tenants", body, Idempotency_Key="k1")
        again = await here.call(root, "POST", "/tenants", body, Idempotency_Key="k1")
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
        assert again.headers["idempotent-replayed"] == "true"
        other = await here.call(root, "POST", "/tenants", {"slug": "other"}, Idempotency_Key="k1")
        assert (other.status_code, other.json()["code"]) == (422, "request.key_reused")
        at_once = await asyncio.gather(
            *(here.call(root, "POST", "/tenants", {"slug": "twin"}, Idempotency_Key="k2") for _ in range(5))
        )
        assert {answer.status_code for answer in at_once} <= {202, 409}
        assert len(await here.platform.operations.list(tenant="twin")) == 1
        refused = await here.call(root, "POST", "/tenants", {"slug": "-"}, Idempotency_Key="k3")
        assert refused.status_code == 422
        assert (await here.call(root, "POST", "/tenants", {"slug": "fine"}, Idempotency_Key="k3")).status_code == 202


async def test_an_operation_is_followed_by_events(ground: g.Ground) -> None:
    """Each change is an event; the stream ends with the operation."""
    async with world(ground) as here:
        operation = await here.platform.tenants.create("acme")
        work = asyncio.create_task(here.platform.operations.finish(operation.id))
        answer = await here.call("root@example.org", "GET", f"/operations/{operation.id}/events")
        await work
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
        assert events[-1]["operation"]["state"] == "done"
        assert [step["state"] for step in events[-1]["steps"]] == ["done"] * len(events[-1]["steps"])


async def test_nothing_unknown_is_taken(ground: g.Ground) -> None:
    """A field that the verb does not have is refused, not ignored: nothing is set by guessing its name."""
    async with world(ground) as here:
        answer = await here.call("root@example.org", "POST", "/tenants", {"slug": "acme", "status": "active"})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["where"] == ["body", "status"]


async def test_the_description_holds_every_address(ground: g.Ground) -> None:
    """OpenAPI 3.1 with the scope and the errors of each."""
    async with world(ground) as here:
        known = (await here.client.get("/api/openapi.json")).json()
        for route in ROUTES:
            operation = known["paths"][f"/api{route.path}"][route.method.lower()]
            assert route.right.scope in operation["description"]
            assert str(route.status) in operation["responses"]
        assert "sealed_key" not in json.dumps(known)
