"""Workers killed (SIGKILL) before, inside and after every step: another one ends each operation, and nothing stays."""

from __future__ import annotations

import json

import pytest

import ground as g
from ground import Ground
from kills import CLAIMED, END, Case, Killed, create, create_undone, destroy, populate, steps
from tenantry.errors import TenantNotFound
from tenantry.platform import Platform
from tenantry.registry.journal import Operation

# --- what is killed -----------------------------------------------------------------------------------------------

CREATE = [
    CLAIMED,
    *steps("db", "media", "config", "admin", "live"),
    ("db", "half a file", {"where": "half a file", "step": "db.sqlite"}),
    ("config", "half a file", {"where": "half a file", "step": "env.json"}),
    ("admin", "after enrol", {"where": "after enrol"}),
    *END,
]
UNDONE = [
    ("config", "before", {"where": "before", "step": "config"}),
    ("config", "failed", {"where": "recorded", "step": "config"}),
    *steps("config", "media", "db", call="undo"),
    *END,
]
RENAME = [
    CLAIMED,
    *steps("record", "config"),
    ("config", "half a file", {"where": "half a file", "step": "env.json"}),
    ("config", "after create", {"where": "after create", "step": "config"}),
    *END,
]
EDIT = [CLAIMED, *steps("record", "config"), ("config", "half a file", RENAME[-4][2]), *END]
EDIT_UNDONE = [*steps("config", "record", call="undo"), *END]
DESTROY = [CLAIMED, *steps("withdraw", "config", "media", "db", "directory", "forget"), *END]
IMPORT = [
    CLAIMED,
    *steps("tenants"),
    ("tenants", "after create_many", {"where": "after create_many"}),
    ("tenants", "half a file", {"where": "half a file", "step": "env.json"}),
    ("tenants", "after enrol", {"where": "after enrol"}),
    *END,
]


async def rename(ground: Ground, platform: Platform, names: list[str]) -> list[Operation]:
    await populate(ground, platform, names)
    return [await platform.tenants.rename(name, f"new-{name}") for name in names]


async def edit(ground: Ground, platform: Platform, names: list[str]) -> list[Operation]:
    await populate(ground, platform, names)
    return [
        await platform.tenants.edit(name, name="New", settings={"share": 5, "smtp_password": "s"}) for name in names
    ]


async def edit_undone(ground: Ground, platform: Platform, names: list[str]) -> list[Operation]:
    await populate(ground, platform, names)
    return [await platform.tenants.edit(name, settings={"share": 0, "smtp_password": "wrong"}) for name in names]


async def import_(ground: Ground, platform: Platform, names: list[str]) -> list[Operation]:
    found = []
    for name in names:
        lines = ["slug,name", *(f"{name}-{i},Tenant {i}" for i in range(3))]
        path = ground.root / f"{name}.csv"
        path.write_text("\n".join(lines))
        found.append(await platform.tenants.import_csv(path))
    return found


# --- what has to be so afterwards ---------------------------------------------------------------------------------


async def once(platform: Platform, action: str, cases: list[Case], before: str = "") -> None:
    """Each tenant's change is in the audit once, however often its step was begun."""
    found = [entry.subject for entry in await platform.audit.list(limit=1000) if entry.action == action]
    assert sorted(found) == sorted(f"{before}{case.operation.tenant_slug}" for case in cases)


async def test_create(ground: Ground, killed: Killed) -> None:
    """A create whose worker is killed anywhere is ended by another, once."""
    async with ground.open() as platform:
        cases = await killed("create", ground, platform, CREATE, create)
        assert await g.faults(ground, platform) == []
        for case in cases:
            assert await platform.tenants.credentials(str(case.operation.tenant_slug)) is not None
        await once(platform, "tenant.create", cases)


async def test_create_undone(ground: Ground, killed: Killed) -> None:
    """A create that fails, and whose worker is killed while it undoes, leaves nothing; the slug is free again."""
    async with ground.open() as platform:
        await killed("create, undone", ground, platform, UNDONE, create_undone, "failed")
        assert await g.faults(ground, platform) == []
        assert await platform.tenants.list() == []
        assert list(ground.data.glob("tenants/*")) == []
        again = await platform.tenants.create("t00")
        assert (await platform.operations.finish(again.id)).operation.state == "done"


async def test_rename(ground: Ground, killed: Killed) -> None:
    """A rename whose worker is killed anywhere moves the files and the names, once."""
    async with ground.open() as platform:
        cases = await killed("rename", ground, platform, RENAME, rename)
        assert await g.faults(ground, platform) == []
        for case in cases:
            slug = str(case.operation.tenant_slug)
            told = json.loads(ground.rendered(f"new-{slug}").read_text())
            assert told["host"] == f"new-{slug}.localhost"
            assert (await platform.tenants.show(f"new-{slug}")).tenant.former == (slug,)
        await once(platform, "tenant.rename", cases, "new-")


async def test_edit(ground: Ground, killed: Killed) -> None:
    """An edit whose worker is killed anywhere is recorded and rendered."""
    async with ground.open() as platform:
        cases = await killed("edit", ground, platform, EDIT, edit)
        assert await g.faults(ground, platform) == []
        for case in cases:
            told = json.loads(ground.rendered(str(case.operation.tenant_slug)).read_text())
            assert (told["name"], told["share"], told["smtp"]) == ("New", 20, "s")
        await once(platform, "tenant.edit", cases)


async def test_edit_undone(ground: Ground, killed: Killed) -> None:
    """An edit that fails, and whose worker is killed while it undoes, leaves registry and files as they were."""
    async with ground.open() as platform:
        cases = await killed("edit, undone", ground, platform, EDIT_UNDONE, edit_undone, "failed")
        assert await g.faults(ground, platform) == []
        for case in cases:
            told = json.loads(ground.rendered(str(case.operation.tenant_slug)).read_text())
            assert (told["share"], told["smtp"]) == (100, "")
        await once(platform, "tenant.edit_undone", cases)


async def test_destroy(ground: Ground, killed: Killed) -> None:
    """A destroy whose worker is killed anywhere leaves nothing, and the slug can be used again."""
    async with ground.open() as platform:
        cases = await killed("destroy", ground, platform, DESTROY, destroy)
        assert await g.faults(ground, platform) == []
        assert await platform.tenants.list() == []
        assert list(ground.data.glob("tenants/*")) == []
        for action in ("tenant.withdraw", "tenant.destroy"):
            await once(platform, action, cases)
        async with g.working(platform):
            for case in cases:
                slug = str(case.operation.tenant_slug)
                assert await platform.tenants.leftovers(slug) == []
                with pytest.raises(TenantNotFound):
                    await platform.tenants.show(slug)
                await platform.operations.finish((await platform.tenants.create(slug)).id)
        assert len(await platform.tenants.list()) == len(cases)
        assert await g.faults(ground, platform) == []


async def test_import(ground: Ground, killed: Killed) -> None:
    """An import whose worker is killed anywhere makes each tenant exactly once."""
    async with ground.open() as platform:
        cases = await killed("import", ground, platform, IMPORT, import_)
        assert await g.faults(ground, platform) == []
        assert len(await platform.tenants.list(limit=1000)) == 3 * len(cases)
        made = [entry for entry in await platform.audit.list(limit=1000) if entry.action == "tenant.create"]
        assert len(made) == 3 * len(cases)
