"""At which schema versions the fleet stands, on SQLite and on PostgreSQL: what is behind, pinned, or shared."""

from __future__ import annotations

from registries import draft, enter
from tenantry.model import Environment, Place, Server, Status
from tenantry.registry import Registry, schemas, servers, tenants

AT = "0002_search"


def on(slug: str, location: str) -> Environment:
    """A tenant whose database lies on a server."""
    return draft(slug, places=(Place("db", "rows", location, AT, "pg1"),))


async def test_what_is_not_at_a_version_is_listed(registry: Registry) -> None:
    """With the version where it is, narrowed by versions and slugs, without those that are being made."""
    first, second, third = draft("a"), draft("b"), draft("c", status=Status.CREATING)
    await enter(registry, first, second, third)
    long = "0003_" + "x" * 240
    async with registry.write() as tx:
        await tenants.set_versions(tx, [(first.id, "db", long), (second.id, "db", None)])
    async with registry.read() as tx:
        assert await schemas.versions(tx, "site", "db") == {long: 1, None: 1, "0002_search": 1}
        behind = await schemas.not_at(tx, "site", "db", long)
        assert [(row.slug, row.tenant_id, row.environment_id, row.environment, row.version) for row in behind] == [
            ("b", second.tenant.id, second.id, "production", None)
        ]
        assert await schemas.not_at(tx, "site", "db", long, slugs=["a"]) == []
        assert [row.slug for row in await schemas.not_at(tx, "site", "db", "0009", at=[None])] == ["b"]
        assert [row.slug for row in await schemas.not_at(tx, "site", "db", "0009", at=[long])] == ["a"]
        assert [row.slug for row in await schemas.not_at(tx, "site", "db", None)] == ["a"]


async def test_a_pinned_resource_is_left_out(registry: Registry) -> None:
    """Runs pass it over until it is unpinned; what is pinned is told with its version."""
    first, second = draft("a"), draft("b")
    await enter(registry, first, second)
    async with registry.write() as tx:
        await schemas.set_pinned(tx, [(first.id, "db")], True)
        assert [row.slug for row in await schemas.not_at(tx, "site", "db", "0009")] == ["b"]
        assert [(row.slug, row.version) for row in await schemas.pinned(tx, "site", "db")] == [("a", "0002_search")]
        assert await schemas.pinned_among(tx, [first.id, second.id]) == {(first.id, "db")}
        assert await schemas.unpin(tx, first.tenant.id) == [("production", "db", "0002_search")]
        assert await schemas.unpin(tx, first.tenant.id) == []
        assert [row.slug for row in await schemas.not_at(tx, "site", "db", "0009")] == ["a", "b"]


async def test_shared_tables_are_one(registry: Registry) -> None:
    """Tenants in one database are found once, recorded by one statement, and told in one change that names them all."""
    server = Server("pg1", "postgres", "postgresql://127.0.0.1/postgres", connections=5)
    here = [on(f"t{number}", "app") for number in range(5)]
    other, apart = on("u", "other"), on("v", "app/v_")
    await enter(registry, *here, other, apart)
    async with registry.write() as tx:
        await servers.put(tx, server)
        for database in ("app", "other"):
            await servers.put_shared(tx, "pg1", database, b"sealed")
    async with registry.read() as tx:
        found = await schemas.shared_not_at(tx, "site", "db", "0009")
        assert [(row.slug, row.tenants, row.tenant_id) for row in found] == [
            ("app on pg1", 5, here[0].tenant.id),
            ("other on pg1", 1, other.tenant.id),
        ]
        assert [row.slug for row in await schemas.not_at(tx, "site", "db", "0009", shared=True)] == ["v"]
        assert await schemas.sharing(tx, "pg1", "app", "db") == (here[0].tenant.id, here[0].id)
        assert await schemas.sharing(tx, "pg1", "nowhere", "db") is None
    seq = (await registry.feed.load()).seq
    async with registry.write() as tx:
        await schemas.set_shared_version(tx, "pg1", "app", "db", "0009")
    changes = await registry.feed.since(seq)
    assert changes is not None
    assert changes.seq == seq + 1
    assert changes.tenants == {environment.tenant.id for environment in here}
    assert {place.version for e in changes.environments for place in e.places if place.name == "db"} == {"0009"}
    async with registry.read() as tx:
        assert [row.slug for row in await schemas.shared_not_at(tx, "site", "db", "0009")] == ["other on pg1"]
