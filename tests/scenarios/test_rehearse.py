"""Rehearsals and drift of a fleet: who would fail, what is left behind, what the commands say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ground as g
import servers
from ground import SECOND, Ground
from mariadb import MariaDB
from prefix_world import PrefixGround, maria_database
from shelves import MariaShelves, RowsShelves, Shelves
from tenantry.errors import ConfigError, TenantNotFound
from tenantry.platform import Platform
from tenantry.platform.rehearse import Report, markdown
from tenantry.registry.journal import State

UNIQUE = "CREATE UNIQUE INDEX page_title ON page (title);\n-- down\nDROP INDEX page_title;\n"
TWICE = "INSERT INTO page (id, title) VALUES (101, 'twice'), (102, 'twice')"
SCRATCH = (
    "SELECT datname FROM pg_database WHERE datname LIKE 'tenantry\\_x\\_%' "
    "UNION SELECT rolname FROM pg_roles WHERE rolname LIKE 'tenantry\\_x\\_%'"
)


@pytest.fixture
def shelves(tmp_path: Path, postgres: servers.Postgres) -> Iterator[Shelves]:
    """A platform with a PostgreSQL server."""
    made = Shelves(tmp_path / "platform", postgres)
    yield made
    made.clear()


async def populate(ground: Ground, platform: Platform, number: int) -> list[str]:
    """Make tenants t00, t01, …"""
    slugs = [f"t{n:02}" for n in range(number)]
    path = ground.root / "list.csv"
    path.write_text("\n".join(["slug", *slugs]))
    details = await platform.operations.finish((await platform.tenants.import_csv(path)).id)
    assert details.operation.state is State.DONE
    return slugs


async def rehearsed(platform: Platform, *arguments: Any, **options: Any) -> Report:
    """What a rehearsal found."""
    operation = await platform.rehearsals.run(*arguments, **options)
    await platform.operations.finish(operation.id)
    return await platform.rehearsals.report(operation.id)


async def versions(platform: Platform) -> set[str | None]:
    """The versions that tenants stand at."""
    return {version for fleet in await platform.migrations.status() for version in fleet.versions}


def spoil(shelves: Shelves, *slugs: str) -> None:
    for slug in slugs:
        shelves.query("pg1", TWICE, f"{shelves.prefix}_{slug}")


def command(ground: Ground, *arguments: str) -> tuple[int, str]:
    """Run a command of a platform; its status and what it printed."""
    with ground.command(*arguments) as process:
        text, _ = process.communicate(timeout=10 * g.PATIENCE)
    return process.returncode, text


# --- rehearsals ---------------------------------------------------------------------------------------------------


@pytest.mark.postgres
async def test_two_of_twenty_would_fail(shelves: Shelves) -> None:
    """The two whose data break the migration are named with the cause; all are as they were, and no copy is left."""
    async with shelves.open() as platform:
        await populate(shelves, platform, 20)
        spoil(shelves, "t03", "t11")
        shelves.migration("0002_bodies.sql", SECOND)
        shelves.migration("0003_unique.sql", UNIQUE)
        report = await rehearsed(platform)
        assert [one.tenant for one in report.failures] == ["t03", "t11"]
        assert all("twice" in one.message and "0003_unique" in one.message for one in report.failures)
        assert (report.rehearsed, report.due, report.skipped, report.well) == (20, 20, (), False)
        lines = {line.version: line for line in report.migrations}
        assert {version: line.tenants for version, line in lines.items()} == {"0002_bodies": 20, "0003_unique": 18}
        (lock,) = lines["0002_bodies"].locks
        assert (lock.table, lock.mode, lock.blocks, lock.tenants) == (
            *("page", "ACCESS EXCLUSIVE", "reads and writes"),
            20,
        )
        (expected,) = report.forecast
        assert (expected.server, expected.tenants, expected.measured) == ("pg1", 20, 18)
        assert expected.seconds > 0
        assert await versions(platform) == {"0001_pages"}
        assert shelves.query("pg1", SCRATCH) == []
        assert not (shelves.data / "scratch").exists()
        assert shelves.query("pg1", "SELECT count(*) FROM page", f"{shelves.prefix}_t03") == [(2,)]
        shelves.query("pg1", "DELETE FROM page", f"{shelves.prefix}_t03")
        shelves.query("pg1", "DELETE FROM page", f"{shelves.prefix}_t11")
        again = await platform.operations.resume(report.operation)
        await platform.operations.finish(again.id)
        mended = await platform.rehearsals.report(again.id)
        assert (mended.well, mended.rehearsed) == (True, 20)


@pytest.mark.postgres
async def test_killed_in_the_middle(shelves: Shelves) -> None:
    """A worker that is killed while copies are there leaves none for long: the next one tidies, and ends the work."""
    async with shelves.open() as platform:
        await populate(shelves, platform, 4)
        slow = shelves.migration("0002_slow.sql", "SELECT pg_sleep(30);\n")
        operation = await platform.rehearsals.run(parallel=2)
        with shelves.worker() as first:
            await g.until(lambda: _running(shelves), "a migration on a copy")
            os.kill(first.pid, signal.SIGKILL)
            first.wait()
        assert shelves.query("pg1", SCRATCH) != []
        slow.write_text("SELECT 1;\n")
        with shelves.worker():
            details = await g.ended(platform, operation)
            assert details.operation.state is State.DONE, details
            await g.until(lambda: _clear(shelves), "the end of all copies")
        report = await platform.rehearsals.report(operation.id)
        assert (report.rehearsed, report.well) == (4, True)
        assert await versions(platform) == {"0001_pages"}


async def _running(shelves: Shelves) -> bool:
    query = (
        "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
    )
    return bool(await asyncio.to_thread(shelves.query, "pg1", query))


async def _clear(shelves: Shelves) -> bool:
    """Whether no copy is left; sessions of the dead end when the server notices, so they are ended here."""
    left = await asyncio.to_thread(shelves.query, "pg1", SCRATCH)
    return not left and not (shelves.data / "scratch").exists()


@pytest.mark.postgres
async def test_the_live_tenant_is_not_held_up(shelves: Shelves) -> None:
    """While a tenant is rehearsed it is written to, by others and in transactions that stay open."""
    import psycopg

    async with shelves.open() as platform:
        await populate(shelves, platform, 1)
        shelves.migration("0002_bodies.sql", SECOND)
        url = shelves.known["pg1"].url(f"{shelves.prefix}_t00")
        with psycopg.connect(url) as session:
            session.execute("INSERT INTO page (id, title) VALUES (1, 'open')")
            report = await rehearsed(platform)
            session.execute("INSERT INTO page (id, title) VALUES (2, 'open')")
        assert report.well


async def test_the_limit_on_disk(ground: Ground) -> None:
    """A tenant whose copy may not fit is named as skipped, and the others are rehearsed one after the other."""
    async with ground.open() as platform:
        await populate(ground, platform, 4)
        ground.sql("t02", "INSERT INTO page (title) VALUES (randomblob(9000000))")
        ground.migration("0002_bodies.sql", SECOND)
        report = await rehearsed(platform, disk="40MB", parallel=4)
        assert [one.tenant for one in report.skipped] == ["t02"]
        assert "the limit is 40000000" in report.skipped[0].reason
        assert (report.rehearsed, report.failures) == (3, ())
        with pytest.raises(ConfigError, match="less than the smallest copy"):
            await platform.rehearsals.run(disk="1MB")


async def test_a_sample_of_files(ground: Ground) -> None:
    """A sample of SQLite tenants is rehearsed, the fleet forecast by it; nothing of the copies is left."""
    async with ground.open() as platform:
        await populate(ground, platform, 12)
        ground.migration("0002_bodies.sql", SECOND)
        report = await rehearsed(platform, "25%", seed=7)
        assert (report.rehearsed, report.due, report.seed) == (3, 12, 7)
        (line,) = report.migrations
        assert [(lock.table, lock.blocks) for lock in line.locks] == [("the whole file", "writes")]
        (expected,) = report.forecast
        assert (expected.server, expected.tenants, expected.measured) == ("this host", 12, 3)
        assert not (ground.data / "scratch").exists()
        assert await versions(platform) == {"0001_pages"}
        assert (await rehearsed(platform, slugs=["t05"])).rehearsed == 1
        with pytest.raises(TenantNotFound):
            await platform.rehearsals.run(slugs=["nobody"])
        assert (await rehearsed(platform, to="0001")).due == 0


async def test_on_mariadb(tmp_path: Path, mariadb_server: MariaDB) -> None:
    """Copies on MariaDB are gone with their users, and the tenant that would fail is named."""
    ground = MariaShelves(tmp_path / "platform", mariadb_server)
    ground.migration("0001_pages.sql", "CREATE TABLE page (id INT PRIMARY KEY, title VARCHAR(90) NOT NULL);\n")
    async with ground.open() as platform:
        await populate(ground, platform, 3)
        mariadb_server.run(f"USE `{ground.prefix}_t01`", TWICE)
        ground.migration("0002_unique.sql", "CREATE UNIQUE INDEX page_title ON page (title);\n")
        report = await rehearsed(platform)
        assert [one.tenant for one in report.failures] == ["t01"]
        left = mariadb_server.databases() | mariadb_server.users()
        assert not [name for name in left if name.startswith("tenantry_scratch")]
        assert await versions(platform) == {"0001_pages"}
        for slug in ("t00", "t01", "t02"):
            await platform.operations.finish((await platform.tenants.destroy(slug)).id)


PLACES = "CREATE TABLE place (id INTEGER PRIMARY KEY, name TEXT);\nINSERT INTO place VALUES (1, 'here');\n"
LIES = "ALTER TABLE page ADD COLUMN place INTEGER REFERENCES place (id);\n"


@pytest.mark.postgres
async def test_tables_that_tenants_share(tmp_path: Path, postgres: servers.Postgres) -> None:
    """All tenants' rows are tried, or as many as there is room for or were asked for, and it is told how many."""
    shelves = RowsShelves(tmp_path / "platform", postgres)
    text = shelves.config.read_text()
    shelves.config.write_text(text.replace('seed = "seed.sql"', 'seed = "seed.sql", shared = ["place"]'))
    shelves.migration("0002_places.sql", PLACES)
    shelves.migration("0003_lies.sql", LIES)
    try:
        async with shelves.open() as platform:
            slugs = await populate(shelves, platform, 6)
            ids = {slug: (await platform.tenants.show(slug)).row.id for slug in slugs}

            def write(slug: str, title: str) -> None:
                told = f"INSERT INTO page (tenant_id, title, place) VALUES ('{ids[slug]}', {title}, 2)"
                shelves.query("pg1", told, shelves.database)

            shelves.query("pg1", "INSERT INTO place VALUES (2, 'there')", shelves.database)
            write("t04", "'Welcome'")  # as the seed has it
            shelves.migration("0004_one.sql", "CREATE UNIQUE INDEX page_title ON page (tenant_id, title);\n")
            report = await rehearsed(platform)
            (failure,) = report.failures
            assert "0004_one: could not create unique index" in failure.message
            assert [(part.tenants, part.sharing) for part in report.parts] == [(6, 6)]
            shelves.query("pg1", "DELETE FROM page WHERE place = 2", shelves.database)
            report = await rehearsed(platform, "2")
            assert (report.well, [(part.tenants, part.sharing) for part in report.parts]) == (True, [(2, 6)])
            assert "with the rows of 2 of 6 tenants" in markdown(report)
            for slug in slugs:  # 6 MB of what cannot be compressed, for each
                write(slug, "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 190000) i)")
            shelves.migration("0004_one.sql", "ALTER TABLE page ADD COLUMN more INTEGER;\n")
            report = await rehearsed(platform, disk="80MB")
            ((copied, _),) = [(part.tenants, part.sharing) for part in report.parts]
            assert 1 <= copied < 6
            assert report.well
            assert await versions(platform) == {"0003_lies"}
            assert shelves.query("pg1", SCRATCH) == []
    finally:
        shelves.clear()


@pytest.mark.parametrize("kind", [pytest.param("postgres", marks=pytest.mark.postgres), "mysql"])
async def test_tables_with_a_prefix(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    """Copies lie beside the tenants' tables and are gone; drift is shown as SQL in the names of each tenant."""
    with contextlib.ExitStack() as stack:
        if kind == "mysql":
            url = stack.enter_context(maria_database(request.getfixturevalue("mariadb_server")))
        else:
            url = request.getfixturevalue("postgres_url")
        ground = PrefixGround(tmp_path / "platform", kind, url)
        async with ground.open() as platform:
            await populate(ground, platform, 3)
            there = ground.left()
            for _ in range(2):
                ground.ask("INSERT INTO t01__page (title) VALUES ('twice')")
            ground.migration("0002_one.sql", "ALTER TABLE {prefix}page ADD COLUMN one INTEGER;\n")
            unique = "ALTER TABLE {prefix}page ADD CONSTRAINT {prefix}only UNIQUE (title);\n"
            ground.migration("0003_only.sql", unique if kind == "postgres" else unique.replace("(title)", "(title(9))"))
            report = await rehearsed(platform)
            assert [one.tenant for one in report.failures] == ["t01"]
            assert (report.rehearsed, report.skipped) == (3, ())
            assert {line.version: line.tenants for line in report.migrations} == {"0002_one": 3, "0003_only": 2}
            assert {lock.table for line in report.migrations for lock in line.locks} == {"page"}
            assert ground.left() == there
            for slug in ("t00", "t02"):
                ground.ask(f"ALTER TABLE {slug}__page ADD COLUMN more INTEGER")
            assert [one.tenants for one in (await platform.drifts.find()).drift] == [("t00", "t02")]
            found = await platform.drifts.find(with_sql=True)
            assert [one.tenants for one in found.drift] == [("t00",), ("t02",)]
            for one in found.drift:
                for statement in one.statements:
                    ground.ask(statement)
            assert (await platform.drifts.find()).drift == ()


async def test_cancelled(ground: Ground) -> None:
    """A rehearsal that is cancelled before it began did nothing, and its report says so."""
    async with ground.open() as platform:
        await populate(ground, platform, 3)
        ground.migration("0002_bodies.sql", SECOND)
        operation = await platform.rehearsals.run()
        await platform.operations.cancel(operation.id)
        await platform.operations.finish(operation.id)
        report = await platform.rehearsals.report(operation.id)
        assert (report.state, report.rehearsed, report.well) == ("cancelled", 0, False)
        with pytest.raises(ConfigError, match="no rehearsal"):
            await platform.rehearsals.report((await platform.operations.list(verb="import"))[0].id)


def test_the_command(ground: Ground) -> None:
    """The command tells what was found, and exits with 1 where any would fail; a run can ask for it first."""

    async def prepare() -> None:
        async with ground.open() as platform:
            await populate(ground, platform, 3)

    asyncio.run(prepare())
    ground.migration("0002_unique.sql", UNIQUE)
    ground.sql("t01", TWICE)
    for name in ("report.md", "report.json"):
        path = ground.root / name
        status, text = command(ground, "migrate", "rehearse", "--seed", "3", "--report", str(path))
        assert status == 1
        assert "✗ t01: 0002_unique: UNIQUE constraint failed" in text
        assert "Forecast for the fleet" in text
        assert "3 of 3 rehearsed, 1 would fail, 0 skipped; seed 3." in text
    assert "**t01**: 0002_unique" in (ground.root / "report.md").read_text()
    found = json.loads((ground.root / "report.json").read_text())
    assert [one["tenant"] for one in found["failures"]] == ["t01"]
    status, text = command(ground, "migrate", "rehearse", "--show", found["operation"], "--json")
    assert (status, json.loads(text)["operation"]) == (1, found["operation"])
    status, text = command(ground, "migrate", "run", "--rehearse", "100%")
    assert status == 1
    assert "✗ t01" in text
    assert ground.control("SELECT count(*) FROM operation WHERE verb = 'migrate'") == [(0,)]
    ground.sql("t01", "DELETE FROM page")
    status, text = command(ground, "migrate", "run", "--rehearse", "2", "--json")
    assert status == 0, text
    assert json.loads(text)["operation"]["verb"] == "migrate"
    status, text = command(ground, "migrate", "rehearse")
    assert (status, "0 of 0 rehearsed" in text) == (0, True)


# --- drift --------------------------------------------------------------------------------------------------------


async def test_drift_is_grouped(ground: Ground) -> None:
    """Tenants that differ alike stand together; each is compared with the golden schema of its own version."""
    async with ground.open() as platform:
        await populate(ground, platform, 6)
        ground.migration("0002_bodies.sql", SECOND)
        await platform.operations.finish((await platform.migrations.run(slugs=["t00", "t01"])).id)
        assert (await platform.drifts.find()).drift == ()
        for slug in ("t00", "t02", "t03"):
            ground.sql(slug, "CREATE TABLE more (id INTEGER)")
        ground.sql("t04", "DROP TABLE page")
        found = await platform.drifts.find(with_sql=True)
        assert (found.tenants, found.resources) == (6, 6)
        told = [(one.tenants, one.version, one.differences) for one in found.drift]
        assert told == [
            (("t02", "t03"), "0001_pages", ("table more is not declared",)),
            (("t00",), "0002_bodies", ("table more is not declared",)),
            (("t04",), "0001_pages", ("table page is missing",)),
        ]
        assert all("DROP TABLE" in " ".join(one.statements) for one in found.drift[:2])
        assert len((await platform.drifts.find(sample="2", seed=1)).drift) <= 2
        assert (await platform.drifts.find(["t01"])).drift == ()
        with pytest.raises(TenantNotFound):
            await platform.drifts.find(["nobody"])


async def test_records_that_differ(ground: Ground) -> None:
    """A database at another version than the control database says, and one that is gone, are named."""
    async with ground.open() as platform:
        await populate(ground, platform, 2)
        ground.migration("0002_bodies.sql", SECOND)
        resource = platform.tools.resource("site", "db")
        (environment,) = (await platform.tenants.show("t00")).environments
        await resource.migrate(environment)
        ground.database("t01").unlink()
        first, second = (await platform.drifts.find()).drift
        assert first.differences == ("its own records say version 0002_bodies, the control database 0001_pages",)
        assert (second.tenants, "there is no db.sqlite" in second.error) == (("t01",), True)


@pytest.mark.postgres
def test_drift_by_command(shelves: Shelves) -> None:
    """The command shows the SQL and runs none of it; run by hand it undoes the drift, and the exit status says so."""

    async def prepare() -> None:
        async with shelves.open() as platform:
            await populate(shelves, platform, 2)

    asyncio.run(prepare())
    assert command(shelves, "migrate", "drift")[0] == 0
    database = f"{shelves.prefix}_t01"
    shelves.query("pg1", "ALTER TABLE page ADD COLUMN more text; CREATE INDEX odd ON page (title)", database)
    path = shelves.root / "mend.sql"
    for _ in range(2):
        status, text = command(shelves, "migrate", "drift", "--sql", "--write", str(path))
        assert status == 1
        assert "index odd is not declared" in text
        assert "DROP INDEX public.odd;" in text
        assert "-- loses what is in the column more" in text
    shelves.query("pg1", path.read_text(), database)
    assert command(shelves, "migrate", "drift", "t01")[0] == 0
    assert command(shelves, "migrate", "drift", "nobody")[0] == 4
