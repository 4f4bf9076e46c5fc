"""What the API tells of a tenant: what was done with it, and what it takes up, however broken it is."""

from __future__ import annotations

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
