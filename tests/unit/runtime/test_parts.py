"""Files, cache and values of the current tenant."""

from __future__ import annotations

from typing import Any

import pytest

from tenantry.context import tenant_context, without_tenant
from tenantry.errors import ForeignTenant, NoTenant, PathEscape, ResourceError
from tenantry.runtime import tenant_cache, tenant_storage, tenant_values
from tenantry.runtime.cache import TenantCache, cache_key


async def test_storage(world: Any, started: Any) -> None:
    """Files are written, listed, read and removed in the tenant's own directory."""
    acme, other = world.tenant("acme"), world.tenant("other")
    await started()
    with tenant_context(acme):
        files = tenant_storage()
        files.write("a/b.txt", b"hello")
        with files.open("a/c.bin", "wb") as file:
            file.write(b"12")
        assert [entry.name for entry in files.list("a")] == ["b.txt", "c.bin"]
        assert (files.read("a/b.txt"), files.size("a/c.bin")) == (b"hello", 2)
        assert (files.exists("a"), files.exists("a/b.txt"), files.exists("nothing")) == (True, True, False)
        assert (files.delete("a/b.txt"), files.delete("a/b.txt")) == (True, False)
    assert (world.root / acme.home / "media/a/c.bin").read_bytes() == b"12"
    with tenant_context(other):
        assert tenant_storage().list() == []
        with pytest.raises(ForeignTenant):
            files.read("a/c.bin")
    with pytest.raises(NoTenant):
        files.read("a/c.bin")
    with pytest.raises(NoTenant):
        tenant_storage()


@pytest.mark.parametrize(
    "path", ["../db.sqlite", "/etc/passwd", "a/../../db.sqlite", "link", "link/x", "", "a\\b", "a\0"]
)
async def test_no_path_leads_out(world: Any, started: Any, path: str) -> None:
    """Neither dots, absolute paths nor planted links lead out of the directory."""
    acme = world.tenant("acme")
    await started()
    (world.root / acme.home / "media" / "link").symlink_to(world.root)
    with tenant_context(acme):
        files = tenant_storage()
        for use in (
            files.read,
            files.delete if path != "link" else files.read,
            lambda path: files.write(path + "/x", b""),
        ):
            with pytest.raises(PathEscape):
                use(path)
        assert path == "" or "\0" in path or "\\" in path or ".." in path or path[0] == "/" or not files.exists("link")


async def test_storage_of_no_directory(world: Any, started: Any) -> None:
    """Only resources that are directories hold files."""
    acme = world.tenant("acme")
    await started()
    with tenant_context(acme):
        for resource in ("db", "nothing"):
            with pytest.raises(ResourceError, match="name one of: media"):
                tenant_storage(resource)


async def test_values(world: Any, started: Any, until: Any) -> None:
    """Values are the tenant's settings over the blueprint's filled defaults, frozen, and follow changes."""
    acme = world.tenant("acme", settings={"home": "mine"})
    runtime = await started()
    with tenant_context(acme):
        assert dict(tenant_values()) == {"site_name": "Acme", "home": "mine"}
        assert tenant_values() is tenant_values()
        with pytest.raises(TypeError):
            tenant_values()["home"] = "x"  # type: ignore[index]
    new = world.change(acme, settings={})
    await until(lambda: runtime.resolver.quick(b"acme.example.com") is new)
    with tenant_context(new):
        assert tenant_values()["home"] == "start"
    with pytest.raises(NoTenant):
        tenant_values()


async def test_cache(world: Any, started: Any, until: Any) -> None:
    """One key of two tenants holds two values; a tenant that changes loses its own alone."""
    acme, other = world.tenant("acme"), world.tenant("other")
    await started()
    for environment in (acme, other):
        with tenant_context(environment):
            assert tenant_cache().get("k") is None
            tenant_cache().set("k", environment.tenant.slug)
            assert cache_key("k") == f"{environment.tenant.id}:production:k"
    with tenant_context(acme):
        assert tenant_cache().get("k") == "acme"
        world.change(acme, plan="pro")
        await until(lambda: tenant_cache().get("k") is None)
    with tenant_context(other):
        assert tenant_cache().get("k") == "other"
        tenant_cache().delete("k")
        assert tenant_cache().get("k", 7) == 7
        cache = tenant_cache()
    with without_tenant():
        for use in (
            tenant_cache,
            cache.items,
            lambda: cache.get("k"),
            lambda: cache.set("k", 1),
            lambda: cache_key("k"),
        ):
            with pytest.raises(NoTenant):
                use()


def test_cache_bounds(world: Any) -> None:
    """A tenant's oldest entry makes room, then the entries of who has not used the cache for longest; old ones end."""
    now = 0.0
    tenants = [world.tenant(f"t{number}") for number in range(3)]
    cache = TenantCache(per_tenant=2, overall=3, clock=lambda: now)

    def each(number: int, key: str, value: int | None = None) -> Any:
        with tenant_context(tenants[number]):
            return cache.get(key) if value is None else cache.set(key, value, seconds=10)

    each(0, "a", 1)
    each(0, "b", 2)
    each(0, "a")
    each(0, "c", 3)
    assert [each(0, key) for key in "abc"] == [1, None, 3]
    each(1, "a", 4)
    each(2, "a", 5)
    assert [each(0, "a"), each(0, "c"), each(1, "a"), each(2, "a")] == [None, 3, 4, 5]
    with tenant_context(tenants[0]):
        assert cache.items() == [("c", 3)]
    now = 10.0
    with tenant_context(tenants[0]):
        assert cache.items() == []
    assert [each(0, "c"), each(1, "a"), each(2, "a")] == [None] * 3
    assert cache._count == 0
