"""A whole platform whose control database is on PostgreSQL, owned by a role that may do nothing else there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tenantry.errors import OperationInProgress
from tenantry.platform import Platform
from tenantry.registry.journal import Operation, State

pytestmark = pytest.mark.postgres

PLATFORM = """
[platform]
domain = "example.test"
control = {env = "CONTROL_DATABASE_URL"}

[blueprints.site.resources]
db = {kind = "sqlite", schema = "schema/"}
media = {kind = "directory"}
config = {kind = "rendered", template = "env.json.j2", target = "env.json"}

[blueprints.site.hostnames]
production = "{slug}.{domain}"

[blueprints.site.values]
site_name = "{name}"
"""


@pytest.fixture
def root(tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a platform."""
    (tmp_path / "schema").mkdir()
    (tmp_path / "schema/0001_start.sql").write_text("CREATE TABLE page (id INTEGER PRIMARY KEY, title TEXT);\n")
    (tmp_path / "env.json.j2").write_text("{{ values.site_name | tojson }}\n")
    (tmp_path / "tenantry.toml").write_text(PLATFORM)
    monkeypatch.setenv("CONTROL_DATABASE_URL", postgres_url)
    monkeypatch.setenv("TENANTRY_SECRET_KEY", "1e" * 32)
    return tmp_path


@contextlib.asynccontextmanager
async def worker(platform: Platform) -> AsyncIterator[None]:
    """A worker at work."""
    stop = asyncio.Event()
    task = asyncio.create_task(platform.work(stop))
    while not (await platform.status())["workers"]:
        await asyncio.sleep(0.01)
        assert not task.done(), task.exception()
    try:
        yield
    finally:
        stop.set()
        await task


async def done(platform: Platform, operation: Operation) -> dict[str, Any]:
    """Wait until an operation is done; its steps with their details."""
    async with asyncio.timeout(180):
        details = await platform.operations.finish(operation.id)
    assert details.operation.state is State.DONE, details
    return {step.name: step.detail for step in details.steps}


async def test_a_tenant_lives_its_life_with_the_control_database_on_postgresql(root: Path, postgres_url: str) -> None:
    """Create, edit, migrate, rename, suspend and destroy are done by a real worker; engine and registry share it."""
    async with Platform.open(root / "tenantry.toml") as platform, worker(platform):
        steps = await done(platform, await platform.tenants.create("acme", name="Ærø & Söhne"))
        assert steps["db"] == "schema 0001_start"
        assert await platform.tenants.credentials("acme")
        await done(platform, await platform.tenants.edit("acme", name="Ærø"))
        home = root / "var" / (await platform.tenants.show("acme")).environments[0].home
        assert (home / "env.json").read_text() == '"\\u00c6r\\u00f8"\n'
        (root / "schema/0002_body.sql").write_text("ALTER TABLE page ADD COLUMN body TEXT;\n")
    async with Platform.open(root / "tenantry.toml") as platform, worker(platform):
        await done(platform, await platform.migrations.run())
        assert (await platform.tenants.show("acme")).environments[0].place("db").version == "0002_body"
        await done(platform, await platform.tenants.rename("acme", "apex"))
        await done(platform, await platform.tenants.suspend("apex", "unpaid"))
        assert [finding for finding in await platform.tenants.check("apex") if not finding.ok] == []
        await done(platform, await platform.tenants.destroy("apex"))
        assert await platform.tenants.leftovers("apex") == []
        assert not home.exists()
        assert (await platform.audit.verify()).entries > 5
        assert "t_" in (await platform.status())["control"]
        assert "***" in (await platform.status())["control"]
    assert not list((root / "var").glob("*.sqlite"))
    with psycopg.connect(postgres_url) as connection:
        found = connection.execute(
            "SELECT DISTINCT schemaname FROM pg_tables WHERE tableowner = current_user"
        ).fetchall()
        assert {row[0] for row in found} == {"public", "tenantry_engine"}


async def test_a_command_does_the_work_itself_where_no_worker_lives(root: Path) -> None:
    """Creating a tenant needs no second process, and two platforms on the same database see the same."""
    async with Platform.open(root / "tenantry.toml") as platform, Platform.open(root / "tenantry.toml") as other:
        operation = await platform.tenants.create("acme")
        with pytest.raises(OperationInProgress):
            await other.tenants.edit("acme", name="Too soon")
        await done(platform, operation)
        assert [row.slug for row in await other.tenants.list()] == ["acme"]
