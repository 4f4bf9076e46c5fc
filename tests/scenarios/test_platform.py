"""The platform as a whole: its key, its audit log, its control database, several blueprints and environments."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

import ground as g
from ground import TOML, Ground
from tenantry.errors import AuditBroken, RegistryMissing, SealBroken, SecretKeyError
from tenantry.platform import Platform


async def make(platform: Platform, slug: str, blueprint: str | None = None) -> None:
    details = await platform.operations.finish((await platform.tenants.create(slug, blueprint=blueprint)).id)
    assert details.operation.state == "done", details.operation.error


def keys(ground: Ground, current: str | None, previous: str | None = None) -> None:
    """Write the platform's keys."""
    lines = [f"TENANTRY_SECRET_KEY={current}"] if current else []
    lines += [f"TENANTRY_SECRET_KEY_PREVIOUS={previous}"] if previous else []
    (ground.root / ".env").write_text("\n".join(lines) + "\n")


async def test_secret_rotation(ground: Ground) -> None:
    """With the previous key at hand all data keys are sealed anew; then it is not needed any more."""
    async with ground.open() as platform:
        await make(platform, "acme")
        await make(platform, "apex")
    fresh = secrets.token_hex(32)
    keys(ground, fresh, ground.key)
    async with ground.open() as platform:
        assert await platform.secrets.rotate() == 2
    keys(ground, fresh)
    async with ground.open() as platform:
        assert await platform.tenants.credentials("acme") is not None
        await platform.audit.verify()
        await make(platform, "later")
        assert await g.faults(ground, platform) == []
    keys(ground, ground.key)
    with pytest.raises(SecretKeyError):
        async with ground.open():
            pass


async def test_new_key_without_rotation(ground: Ground) -> None:
    """Without a rotation the previous key has to stay at hand."""
    async with ground.open() as platform:
        await make(platform, "acme")
    fresh = secrets.token_hex(32)
    keys(ground, fresh, ground.key)
    async with ground.open() as platform:
        assert await platform.tenants.credentials("acme") is not None
    keys(ground, fresh)
    with pytest.raises(SecretKeyError, match="not the key this platform was set up with"):
        async with ground.open():
            pass


@pytest.mark.parametrize("key", [None, "abc", "z" * 64])
async def test_key_that_is_none(ground: Ground, key: str | None) -> None:
    """Without a key, or with one that is none, the start is refused, and nothing is written."""
    keys(ground, key)
    with pytest.raises(SecretKeyError):
        async with ground.open():
            pass
    assert not ground.data.exists()


async def test_sealed_value_of_another_tenant(ground: Ground) -> None:
    """A sealed secret that is copied to another tenant does not open there."""
    async with ground.open() as platform:
        await make(platform, "acme")
        await make(platform, "apex")
        ids = "(SELECT id FROM tenant WHERE slug = 'acme')"
        other = "(SELECT sealed FROM secret JOIN tenant ON tenant.id = tenant_id WHERE slug = 'apex')"
        ground.control(f"UPDATE secret SET sealed = {other} WHERE tenant_id = {ids}")
        with pytest.raises(SealBroken, match="cannot be opened"):
            await platform.tenants.credentials("acme")


@pytest.mark.parametrize(
    ("tampering", "words"),
    [
        ("UPDATE audit SET actor = 'somebody' WHERE seq = 3", "entry 3"),
        ("UPDATE audit SET detail = '{}' WHERE seq = 1", "entry 1"),
        ("DELETE FROM audit WHERE seq = 2", "entry 2 is missing"),
        ("DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)", "were removed"),
        ("DELETE FROM audit", "were removed"),
        ("UPDATE audit SET seq = seq + 100 WHERE seq = (SELECT max(seq) FROM audit)", "missing"),
    ],
    ids=["altered", "detail", "one deleted", "tail cut off", "emptied", "moved"],
)
async def test_tampered_audit_log(ground: Ground, tampering: str, words: str) -> None:
    """An entry that is altered, deleted or cut off is found and named."""
    async with ground.open() as platform:
        await make(platform, "acme")
        await make(platform, "apex")
        assert (await platform.audit.verify()).entries >= 4
        ground.control(tampering)
        with pytest.raises(AuditBroken, match=words):
            await platform.audit.verify()


async def test_forged_tail(ground: Ground) -> None:
    """Cutting the log off together with its head is found, since the head is sealed with the platform key."""
    async with ground.open() as platform:
        await make(platform, "acme")
        ground.control("DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)")
        ground.control(
            "UPDATE head SET audit_seq = (SELECT max(seq) FROM audit), "
            "audit_hash = (SELECT hash FROM audit ORDER BY seq DESC LIMIT 1)"
        )
        with pytest.raises(AuditBroken, match="not sealed"):
            await platform.audit.verify()


async def test_lost_control_database(ground: Ground) -> None:
    """Where tenants are but the control database is not, no new one is begun."""
    async with ground.open() as platform:
        await make(platform, "acme")
    for path in ground.data.glob("control.sqlite*"):
        path.rename(ground.root / path.name)
    with pytest.raises(RegistryMissing, match=r"control\.sqlite"):
        async with ground.open():
            pass
    assert not (ground.data / "control.sqlite").exists()
    for path in ground.root.glob("control.sqlite*"):
        path.rename(ground.data / path.name)
    async with ground.open() as platform:
        assert await g.faults(ground, platform) == []


async def test_emptied_platform_may_begin_anew(ground: Ground) -> None:
    """Where no tenant is left, a platform without a control database begins anew."""
    async with ground.open() as platform:
        await make(platform, "acme")
        await platform.operations.finish((await platform.tenants.destroy("acme")).id)
    for path in ground.data.glob("control*"):
        path.unlink()
    async with ground.open() as platform:
        assert await platform.tenants.list() == []


async def test_two_blueprints(tmp_path: Path) -> None:
    """Tenants of two blueprints, one extending the other, are made of their own parts and migrated on their own."""
    toml = (
        TOML
        + """
[blueprints.shop]
extends = "site"

[blueprints.shop.resources]
orders = {{kind = "sqlite", schema = "orders/"}}

[blueprints.shop.hostnames]
production = "{{slug}}.shop.{{domain}}"
"""
    )
    ground = Ground(tmp_path / "platform", toml)
    (ground.root / "orders").mkdir()
    (ground.root / "orders" / "0001_orders.sql").write_text("CREATE TABLE orders (id INTEGER PRIMARY KEY);")
    async with ground.open() as platform:
        await make(platform, "plain", "site")
        await make(platform, "store", "shop")
        (plain,) = (await platform.tenants.show("plain")).environments
        (store,) = (await platform.tenants.show("store")).environments
        assert {place.name for place in plain.places} == {"db", "media", "config"}
        assert {place.name for place in store.places} == {"db", "media", "config", "orders"}
        assert (plain.hostnames, store.hostnames) == (("plain.localhost",), ("store.shop.localhost",))
        (ground.root / "orders" / "0002_more.sql").write_text("ALTER TABLE orders ADD COLUMN total INTEGER;")
        ground.migration("0002_body.sql", g.SECOND)
        due = {(one.slug, one.resource) for one in await platform.migrations.plan()}
        assert due == {("plain", "db"), ("store", "db"), ("store", "orders")}
        details = await platform.operations.finish((await platform.migrations.run()).id)
        assert details.operation.state == "done"
        assert await platform.migrations.plan() == []
        await platform.operations.finish((await platform.tenants.destroy("store")).id)
        assert await platform.tenants.leftovers("store") == []
        assert await g.faults(ground, platform) == []


async def test_two_environments(tmp_path: Path) -> None:
    """A tenant with dev and production has each part twice, and a rename moves the names of both."""
    toml = TOML.replace('title = "A site"', 'title = "A site"\nenvironments = ["production", "dev"]')
    toml = toml.replace(
        'production = "{{slug}}.{{domain}}"', 'production = "{{slug}}.{{domain}}"\ndev = "dev-{{slug}}.{{domain}}"'
    ).replace("{{slug}}/env.json", "{{slug}}/{{environment}}.json")
    ground = Ground(tmp_path / "platform", toml)
    async with ground.open() as platform:
        await make(platform, "acme")
        details = await platform.tenants.show("acme")
        assert [e.name for e in details.environments] == ["production", "dev"]
        assert len({e.home for e in details.environments}) == 2
        await platform.operations.finish((await platform.tenants.rename("acme", "apex")).id)
        hosts = {e.name: e.hostnames for e in (await platform.tenants.show("apex")).environments}
        assert hosts == {"production": ("apex.localhost",), "dev": ("dev-apex.localhost",)}
        assert sorted(path.name for path in (ground.root / "rendered" / "apex").iterdir()) == [
            "dev.json",
            "production.json",
        ]
        assert await g.faults(ground, platform) == []
        ground.migration("0002_body.sql", g.SECOND)
        details = await platform.operations.finish((await platform.migrations.run()).id)
        assert (details.operation.state, details.operation.done) == ("done", 2)
        await platform.operations.finish((await platform.tenants.destroy("apex")).id)
        assert await platform.tenants.leftovers("apex") == []
        assert await g.faults(ground, platform) == []
