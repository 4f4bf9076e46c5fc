"""Adopting what is there already: files and databases become tenants, their data as they were."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

import ground as g
from ground import Ground
from tenantry.errors import ConfigError, MigrationInvalid, ResourceError, TenantNotFound
from tenantry.platform import Source


def old_file(ground: Ground, *statements: str, name: str = "old.sqlite") -> Path:
    """A database as another program left it, at what the first migration makes."""
    path = ground.root / name
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE page (id INTEGER PRIMARY KEY, title TEXT NOT NULL)")
        connection.execute("INSERT INTO page (title) VALUES ('Kept')")
        for statement in statements:
            connection.execute(statement)
    return path


async def test_a_file_becomes_a_tenant(ground: Ground) -> None:
    """An SQLite file is copied in with its data; the source stays, and the tenant is like any other one."""
    ground.migration("0002_body.sql", g.SECOND)
    path = old_file(ground)
    before = path.read_bytes()
    async with ground.open() as platform, g.working(platform):
        source = Source("db", "0001_pages", file=path)
        planned, findings = await platform.tenants.plan_adopt("acme", source, name="Acme")
        assert [finding.ok for finding in findings] == [True]
        assert planned[1].name == "db"
        assert "copied" in planned[1].detail
        with pytest.raises(TenantNotFound):
            await platform.tenants.show("acme")
        done = await platform.operations.finish((await platform.tenants.adopt("acme", source, name="Acme")).id)
        assert done.operation.state == "done"
        assert path.read_bytes() == before
        assert ground.sql("acme", "SELECT title FROM page") == [("Kept",)]
        (environment,) = (await platform.tenants.show("acme")).environments
        assert {place.name: place.version for place in environment.places}["db"] == "0001_pages"
        credentials = await platform.tenants.credentials("acme")
        assert credentials is not None
        assert ground.sql("acme", "SELECT login FROM tenantry_user") == [(credentials.login,)]
        await platform.operations.finish((await platform.migrations.run()).id)
        assert ground.sql("acme", "SELECT title, body FROM page") == [("Kept", "")]
        assert await g.faults(ground, platform) == []


async def test_a_file_can_be_moved(ground: Ground) -> None:
    """With `move` the file is removed when the tenant is live, and not before."""
    path = old_file(ground)
    async with ground.open() as platform:
        operation = await platform.tenants.adopt("acme", Source("db", "0001_pages", file=path, move=True))
        assert path.exists()
        assert (await platform.operations.finish(operation.id)).operation.state == "done"
        assert not path.exists()
        assert ground.sql("acme", "SELECT title FROM page") == [("Kept",)]


async def test_drift_is_shown(ground: Ground) -> None:
    """What differs from the golden schema at that version is named before anything is made."""
    path = old_file(ground, "CREATE TABLE secret_notes (x)", "CREATE INDEX by_title ON page (title)")
    async with ground.open() as platform:
        _, findings = await platform.tenants.plan_adopt("acme", Source("db", "0001_pages", file=path))
    told = " ".join(finding.what for finding in findings)
    assert "table secret_notes is not declared" in told
    assert "index by_title is not declared" in told
    assert not any(finding.ok for finding in findings)


async def test_a_version_that_the_records_contradict(ground: Ground) -> None:
    """A database that says itself at which migration it stands is not taken at another one."""
    ground.migration("0002_body.sql", g.SECOND)
    async with ground.open() as platform:
        await platform.operations.finish((await platform.tenants.create("one")).id)
        copy = ground.root / "copy.sqlite"
        with contextlib.closing(sqlite3.connect(ground.database("one"))) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
        with pytest.raises(MigrationInvalid, match="at 0002_body, not at 0001_pages"):
            await platform.tenants.adopt("two", Source("db", "0001_pages", file=copy))
        operation = await platform.tenants.adopt("two", Source("db", "0002_body", file=copy))
        assert (await platform.operations.finish(operation.id)).operation.state == "done"
        assert await g.faults(ground, platform) == []


async def test_what_cannot_be_adopted(ground: Ground, tmp_path: Path) -> None:
    """A source that is not there, of another kind, damaged or without a version is refused, and nothing is entered."""
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"this is no database" * 100)
    path = old_file(ground)
    async with ground.open() as platform:
        for source, error in (
            (Source("db", "0001_pages", file=tmp_path / "none.sqlite"), ResourceError),
            (Source("db", "0001_pages", server="pg1", database="x"), ConfigError),
            (Source("db", None, file=path), ConfigError),
            (Source("db", "0009_never", file=path), MigrationInvalid),
            (Source("media", None, file=path), ResourceError),
            (Source("db", "0001_pages", file=path, environment="dev"), ConfigError),
            (Source("db", "0001_pages", file=broken), ResourceError),
        ):
            with pytest.raises(error):
                await platform.tenants.adopt("acme", source)
        assert await platform.tenants.list() == []


async def test_an_adoption_that_fails(ground: Ground) -> None:
    """Where a later part cannot be made, all is undone: no tenant, no copy, and the source stays as it was."""
    path = old_file(ground)
    async with ground.open() as platform:
        source = Source("db", "0001_pages", file=path, move=True)
        operation = await platform.tenants.adopt("acme", source, settings={"share": 0})
        assert (await platform.operations.finish(operation.id)).operation.state == "failed"
        assert path.exists()
        assert await platform.tenants.list() == []
        assert list(ground.data.glob("tenants/*")) == []
        assert await g.faults(ground, platform) == []
        (ground.root / "templates" / "env.json.j2").write_text('{"slug": {{ slug | json }}}')
        resumed = await platform.operations.resume(operation.id)
        assert (await platform.operations.finish(resumed.id)).operation.state == "done"
        assert ground.sql("acme", "SELECT title FROM page") == [("Kept",)]
        assert not path.exists()
