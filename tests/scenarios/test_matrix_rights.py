"""Every address of the API and the portal, asked by everybody, answers as docs/reference/rights.md says."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import APIRouter, FastAPI

import servers
from matrix_world import HERE, PERSONS, REQUESTS, ROOT, World, world
from tenantry.errors import TenantryError
from tenantry.model import new_id
from tenantry.operations.blueprints import read_config
from tenantry.refusals import RightMissing
from tenantry.registry import journal
from tenantry.web.api.client import RemotePlatform
from tenantry.web.api.routes import ROUTES
from tenantry.web.doors import doors
from tenantry.web.portal.asking import Page, asks
from tenantry.web.site import site

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.postgres]


def declared() -> dict[str, dict[str, str]]:
    """The table of the docs: by address, by person, what is answered."""
    found: dict[str, dict[str, str]] = {}
    for line in (ROOT / "docs/reference/rights.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if len(cells) > len(PERSONS) and re.fullmatch(r"`[A-Z]+ /\S*`", cells[0]):
            assert cells[0] not in found
            found[cells[0].strip("`")] = dict(zip(PERSONS, cells[-len(PERSONS) :], strict=True))
    return found


DECLARED = declared()
CASES = [(address, person) for address in DECLARED for person in PERSONS]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory, postgres: servers.Postgres) -> AsyncIterator[World]:
    """One platform for all of them."""
    async with world(tmp_path_factory.mktemp("matrix"), postgres) as made:
        yield made


def told(answer: httpx.Response) -> str:
    """An answer as the table tells it."""
    to_sign_in = answer.headers.get("location", "").startswith("/admin/sign-in?next=")
    return "sign-in" if answer.status_code == 303 and to_sign_in else str(answer.status_code)


SECRETS = ("Zyzzyva", "acme.localhost", "vault.localhost", "it@example.org", "pg-first", "root@example.org")
"""What stands on pages about other admins' tenants, and about what is the platform's."""

MAY_KNOW = ("admin", "superadmin", "small token")
BY_MAIL = "/signup/export/{token}"
"""What the link in a mail opens names the tenant to whom it was sent."""


def is_refusal(expected: str) -> bool:
    """Whether this answer means that nothing was done."""
    return expected in ("sign-in", "401", "403", "404")


@pytest.mark.parametrize(("address", "person"), CASES, ids=[f"{address} as {person}" for address, person in CASES])
async def test_each_answer_is_as_declared(here: World, address: str, person: str) -> None:
    """As the docs say; and who is refused has changed nothing."""
    await here.renew()
    expected = DECLARED[address][person]
    before = here.written()
    answer = await here.send(address, person)
    assert told(answer) == expected, answer.text[:2000]
    if is_refusal(expected) and REQUESTS[address].given is None:
        assert here.written() == before
    assert not here.nameless()  # an admin's audit log shows what is about her tenants themselves
    if person not in MAY_KNOW and not address.endswith(BY_MAIL):
        known = [secret for secret in SECRETS if secret in answer.text]
        assert not known, answer.text[:2000]


async def test_the_docs_list_each_address_there_is() -> None:
    """None more and none less; and for each there is a request to try it with."""
    known = doors(site(read_config(ROOT / "examples/storyfront/tenantry.toml")))
    assert sorted(DECLARED) == sorted(f"{door.method} {door.path}" for door in known)
    assert sorted(REQUESTS) == sorted(DECLARED)


# --- the same over `tenantry --server` ----------------------------------------------------------------------------


@pytest.mark.parametrize("person", ["other admin", "expired", "small token", "tenant user"])
async def test_a_remote_command_gets_the_same_refusals(here: World, person: str) -> None:
    """Each verb that the table refuses raises the error of that status, and does nothing."""
    wrong = []
    headers = dict(here.persons[person].headers)
    async with httpx.AsyncClient(transport=here.client._transport, base_url=f"{HERE}/api", headers=headers) as client:
        remote = RemotePlatform(client, HERE)
        for route in ROUTES:
            address = f"{route.method} /api{route.path}"
            if not is_refusal(DECLARED[address][person]):
                continue
            await here.renew()
            request, values = REQUESTS[address], here.values | {"id": "-", "session": "-", "token": "-"}
            if request.given is not None:
                values |= await request.given(here, values) or {}
            body = request.body(values) if callable(request.body) else request.body or {}
            given = {name: values[name] for name in re.findall(r"{(\w+)}", route.path)}
            try:
                await remote._call(route.right.call, (), {**given, **body})
                wrong.append(f"{route.verb} was done")
            except TenantryError as error:
                if str(error.status) != DECLARED[address][person]:
                    wrong.append(f"{route.verb}: {error.status} {error}")
    assert not wrong


# --- what is named by what ----------------------------------------------------------------------------------------


ACTOR = "UPDATE operation SET actor = ? WHERE id = ?"


async def bobs(here: World, method: str, path: str, body: Any = None) -> httpx.Response:
    """A request of the admin of another tenant to the API."""
    here.client.cookies.clear()
    headers = dict(here.persons["other admin"].headers)
    return await here.client.request(method, f"/api{path}", json=body, headers=headers)


async def test_what_is_named_like_her_tenant_is_not_hers(here: World) -> None:
    """An organization and a server of its name, and an earlier tenant of its slug, do not show in her audit log."""
    await here.renew()
    await here.platform.organizations.create("umbrella", "secret@example.org")
    await here.platform.servers.add("umbrella", "postgres", here.values["url"])
    async with here.platform.registry.write() as tx:
        tx.audit("tenant.edit", "umbrella", id=new_id(), name="Somebody else before")
        await journal.submit(tx, "earlier", "edit", [("x", "")], tenant=(new_id(), "umbrella"))
    entries = (await bobs(here, "GET", "/audit?limit=1000")).json()
    assert {entry["action"] for entry in entries} == {"tenant.reserve", "tenant.create"}
    assert "Somebody else" not in str(entries)
    shown = (await bobs(here, "GET", "/tenants/umbrella")).json()
    assert [one["verb"] for one in shown["operations"]] == ["create"]
    assert "earlier" not in str((await bobs(here, "GET", "/operations")).json())
    assert (await bobs(here, "GET", "/operations/earlier")).status_code == 404


async def test_what_she_did_to_a_tenant_is_hers_no_longer_once_it_is_not(here: World) -> None:
    """Taken from her, its operations are gone for her, her own too; one she removed she sees to its end."""
    await here.renew()
    began = (await bobs(here, "POST", "/tenants/umbrella/suspend")).json()["id"]
    assert (await bobs(here, "GET", f"/operations/{began}")).status_code == 200
    await here.platform.admins.unassign("bob@example.org", ["umbrella"])
    for method, path in (("GET", ""), ("GET", "/items"), ("GET", "/events"), ("POST", "/cancel")):
        assert (await bobs(here, method, f"/operations/{began}{path}")).status_code == 404
    async with here.platform.registry.write() as tx:
        gone = "removed-by-bob"
        await journal.submit(tx, gone, "destroy", [("x", "")], tenant=(new_id(), "gone"))
    here.run(ACTOR, "token:bob of bob@example.org", gone)
    assert (await bobs(here, "GET", f"/operations/{gone}")).status_code == 200
    here.run(ACTOR, "token:eve of eve@example.org", gone)
    assert (await bobs(here, "GET", f"/operations/{gone}")).status_code == 404


async def test_a_demoted_superadmin_loses_the_fleet(here: World) -> None:
    """What she began on all tenants is not hers to see, to pause or to resume as an admin."""
    await here.renew()
    async with here.platform.registry.write() as tx:
        await journal.submit(tx, "of-the-fleet", "migrate", [("canary", "")])
    here.run(ACTOR, "token:bob of bob@example.org", "of-the-fleet")
    assert (await bobs(here, "GET", "/operations/of-the-fleet")).status_code == 404
    assert (await bobs(here, "POST", "/operations/of-the-fleet/pause")).status_code == 404


@pytest.mark.parametrize("verb", ["DELETE /tokens/{token}", "DELETE /account/sessions/{session}"])
async def test_what_is_another_persons_own_stays(here: World, verb: str) -> None:
    """Tokens and sessions of others are not ended by naming them."""
    await here.renew()
    method, path = verb.split(" ")
    ana = here.persons["admin"]
    await bobs(here, method, path.format(**ana.own))
    here.client.cookies.clear()
    assert (await here.client.get("/admin/me", headers={"Cookie": ana.cookie})).status_code == 200
    assert ana.own["token"] in {row.id for row in await here.platform.tokens.list("ana@example.org")}
    assert (await bobs(here, "GET", "/tokens?admin=ana@example.org")).status_code == 403
    wanted = {"name": "x", "scopes": ["tenants:read"], "admin": "ana@example.org"}
    assert (await bobs(here, "POST", "/tokens", wanted)).status_code == 403


async def test_a_superadmin_sees_and_revokes_every_token(here: World) -> None:
    """By its id; a name means one of her own."""
    await here.renew()
    root, theirs = here.persons["superadmin"], here.persons["admin"].own["token"]

    async def call(method: str, path: str) -> httpx.Response:
        return await here.client.request(method, f"/api{path}", headers=dict(root.headers))

    assert theirs in {row["id"] for row in (await call("GET", "/tokens")).json()}
    assert (await call("DELETE", "/tokens/ana")).status_code == 404
    assert (await call("DELETE", f"/tokens/{theirs}")).status_code == 204
    assert theirs not in {row.id for row in await here.platform.tokens.list()}


async def test_a_token_makes_none_that_outlives_it(here: World) -> None:
    """Where nothing is said it runs out with it; more days are refused."""
    await here.renew()
    made = await here.platform.tokens.create("short", ["people:write"], 2, admin="root@example.org")
    headers = {"Authorization": f"Bearer {made.token}"}

    async def make(name: str, **more: int) -> httpx.Response:
        body = {"name": name, "scopes": ["people:write"], **more}
        return await here.client.post("/api/tokens", json=body, headers=headers)

    child = (await make("child")).json()["row"]
    assert datetime.fromisoformat(child["expires"]) == made.row.expires
    assert (await make("sooner", days=1)).status_code == 201
    assert (await make("later", days=3)).status_code == 422


async def test_who_holds_a_slug_is_told_to_who_may_know(here: World) -> None:
    """An admin learns that a slug is taken, not whose it was."""
    await here.renew()
    here.run("INSERT INTO former_slug SELECT 'old-name', id, '2999-01-01 00:00:00' FROM tenant WHERE slug = 'acme'")
    title = (await bobs(here, "GET", "/tenants/-/slugs/old-name")).json()["title"]
    assert title == "'old-name' is taken."
    renamed = await bobs(here, "POST", "/tenants/umbrella/rename", {"to": "old-name"})
    assert (renamed.status_code, "acme" in renamed.text) == (409, False)


async def test_many_at_once_leave_others_tenants_alone(here: World) -> None:
    """Each ticked slug is asked for by itself: her own is suspended, another's is not there."""
    await here.renew()
    bob = here.persons["other admin"]
    form = {"csrf": bob.csrf, "action": "suspend", "slug": ["umbrella", "acme"]}
    page = await here.client.post("/admin/tenants/-/many", data=form, headers={"Cookie": bob.cookie})
    assert "There is no tenant &#39;acme&#39;" in page.text
    found = await here.platform.operations.list(verb="suspend")
    assert [one.tenant_slug for one in found] == ["umbrella"]


async def test_an_answer_kept_for_a_key_is_not_for_who_may_less_now(here: World) -> None:
    """A token made anew under its name with fewer scopes does not get what the one before was answered."""
    await here.renew()
    tokens = here.platform.tokens
    key = {"Idempotency-Key": "once"}
    for scopes, status in ((["tenants:secrets"], 200), (["tenants:read"], 403)):
        made = await tokens.create("again", scopes, admin="root@example.org")
        headers = {"Authorization": f"Bearer {made.token}", **key}
        answer = await here.client.post("/api/tenants/acme/credentials", headers=headers)
        assert answer.status_code == status
        await tokens.revoke(made.row.id)


# --- addresses that say nothing -----------------------------------------------------------------------------------


async def test_an_address_that_says_no_right_is_not_served() -> None:
    """Neither a page, nor an address beside them: the portal does not begin with it."""

    async def page() -> None:
        """Says nothing."""

    with pytest.raises(RightMissing, match="/secret"):
        APIRouter(route_class=Page).get("/secret")(page)
    with pytest.raises(RightMissing, match="/secret"):
        APIRouter(route_class=Page).get("/secret")(asks("tenant.unheard_of")(page))
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_api_route("/admin/secret", page)
    with pytest.raises(RightMissing, match="/admin/secret"):
        doors(app)
