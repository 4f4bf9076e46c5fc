"""What the API tells of a tenant: what was done with it, and what it takes up, however broken it is."""

from __future__ import annotations

import json
import shutil

import ground as g
from people_world import portal
from tenantry.identity.principal import SCOPES

ANA = "ana@example.org"


async def test_an_admin_reads_all_that_was_done_with_her_tenant(ground: g.Ground) -> None:
    """Each entry whose subject is a tenant carries its id, so whoever has the tenant sees it: cancelled work, too."""
    async with portal(ground) as here:
        platform = here.platform
        made = await platform.tenants.create("acme")
        await platform.operations.finish(made.id)
        await here.add(ANA)
        await platform.admins.assign(ANA, ["acme"])
        await platform.operations.finish((await platform.tenants.edit("acme", name="Acme & Söhne")).id)
        await platform.operations.finish((await platform.tenants.suspend("acme", "unpaid")).id)
        await platform.operations.finish((await platform.tenants.resume("acme")).id)
        await platform.operations.finish((await platform.verification.run(slugs=["acme"])).id)
        await platform.operations.cancel((await platform.tenants.suspend("acme", "no")).id)
        cancelled = (await platform.operations.list(limit=1))[0]
        await platform.operations.finish(cancelled.id)
        await platform.tenants.measure("acme")
        await platform.tenants.credentials("acme")
        everything = await platform.audit.list(1000, tenant="acme")
        assert [one.action for one in everything if f'"id":"{made.tenant_id}"' not in one.detail] == []
        token = (await platform.tokens.create("hers", SCOPES, admin=ANA)).token
        client = await here.browser(Authorization=f"Bearer {token}")
        hers = (await client.get("/api/audit", params={"limit": 1000})).json()
        assert [one["seq"] for one in hers] == [one.seq for one in everything]
        assert "operation.cancel" in {one["action"] for one in hers}


async def test_what_cannot_be_measured_is_named_and_the_rest_counted(ground: g.Ground) -> None:
    """A tenant's database that is gone, then all of its files: a finding for each part, and no fault of ours."""
    async with portal(ground) as here:
        platform = here.platform
        await platform.operations.finish((await platform.tenants.create("acme")).id)
        token = (await platform.tokens.create("x", SCOPES, admin="root@example.org")).token
        client = await here.browser(Authorization=f"Bearer {token}")
        whole = (await client.get("/api/tenants/acme/usage")).json()
        assert whole["unmeasured"] == []
        size = ground.database("acme").stat().st_size
        ground.database("acme").unlink()
        answer = await client.get("/api/tenants/acme/usage")
        assert answer.status_code == 200
        (finding,) = answer.json()["unmeasured"]
        assert (finding["resource"], finding["ok"]) == ("db", False)
        assert finding["what"]
        assert finding["remedy"]
        assert answer.json()["bytes"] == whole["bytes"] - size
        for home in ground.data.glob("tenants/acme-*"):
            shutil.rmtree(home)
        answer = await client.get("/api/tenants/acme/usage")
        assert answer.status_code == 200
        assert {one["resource"] for one in answer.json()["unmeasured"]} == {"db", "media"}
        page = await (await here.signed_in()).get("/admin/tenants/acme/connection")
        assert page.status_code == 200
        assert "without db and media" in page.text


async def test_the_tenants_of_somebody_have_pages(ground: g.Ground) -> None:
    """An organization's and an admin's: so many at a time, in order, those that a text finds; and their number."""
    async with portal(ground) as here:
        platform, slugs = here.platform, [f"t{number:02}" for number in range(30)]
        rows = "".join(f"{slug},Äpfel {slug[1:]}\n" for slug in slugs)
        await platform.operations.finish((await platform.tenants.import_text(f"slug,name\n{rows}", "some")).id)
        await here.add(ANA)
        row = await platform.organizations.create("Nord", ANA)
        assert (await platform.organizations.assign("Nord", slugs[5:])).tenants == 25
        assert await platform.admins.assign(ANA, slugs[5:]) == 25
        token = (await platform.tokens.create("x", SCOPES, admin="root@example.org")).token
        client = await here.browser(Authorization=f"Bearer {token}")
        for path, number in (("organizations/Nord", "tenants"), (f"admins/{ANA}", "assigned")):
            whole, after = [], ""
            while page := (await client.get(f"/api/{path}", params={"limit": 10, "after": after})).json()["tenants"]:
                assert len(page) <= 10
                whole += page
                after = page[-1]
            assert whole == slugs[5:]
            some = (await client.get(f"/api/{path}", params={"search": "APFEL 1", "limit": 3})).json()
            assert some["tenants"] == ["t10", "t11", "t12"]
            assert (some["row"] | some)[number] in (25, some["tenants"])
            assert (await client.get(f"/api/{path}", params={"after": "' OR 1=1 --"})).json()["tenants"] == whole
        assert (await platform.organizations.show("Nord")).row.tenants == 25
        root = await here.signed_in()
        page = await root.get(f"/admin/organizations/{row.id}", params={"search": "Äpfel 0"})
        assert page.text.count("assigned already") == 5
        assert (await platform.organizations.unassign("Nord", ["t04", "t05", "nobody", *slugs[6:8]])).tenants == 22
        told = (await platform.audit.list(1, action="org.unassign"))[0].detail
        assert json.loads(told)["tenants"] == ["t05", "t06", "t07"]
        assert await platform.admins.unassign(ANA, slugs[:10]) == 20
