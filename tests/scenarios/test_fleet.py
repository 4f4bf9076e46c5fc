"""Many tenants at once: imports with bad rows, migrations in waves, failures that hold nobody up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import ground as g
from ground import SECOND, TOML, Ground
from tenantry.errors import ConfigError, MigrationInvalid
from tenantry.platform import Platform
from tenantry.platform.operations import OperationDetails

UNIQUE = "CREATE UNIQUE INDEX page_title ON page (title);\n-- down\nDROP INDEX page_title;\n"
"""A migration that fails where two pages have one title."""


async def listed(ground: Ground, platform: Platform, text: str | bytes, **options: Any) -> OperationDetails:
    """Import a CSV file and wait for its end."""
    path = ground.root / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return await platform.operations.finish((await platform.tenants.import_csv(path, **options)).id)


async def populate(ground: Ground, platform: Platform, number: int) -> list[str]:
    """Make tenants t00, t01, …"""
    slugs = [f"t{n:02}" for n in range(number)]
    assert (await listed(ground, platform, "\n".join(["slug", *slugs]))).operation.state == "done"
    return slugs


def spoil(ground: Ground, *slugs: str) -> None:
    """Give tenants two pages of one title."""
    for slug in slugs:
        ground.sql(slug, "INSERT INTO page (title) VALUES ('twice'), ('twice')")


def mend(ground: Ground, *slugs: str) -> None:
    for slug in slugs:
        ground.sql(slug, "DELETE FROM page")


async def version(platform: Platform, slug: str) -> str | None:
    (environment,) = (await platform.tenants.show(slug)).environments
    return next(place.version for place in environment.places if place.name == "db")


async def migrate(platform: Platform, state: str, **options: Any) -> OperationDetails:
    details = await platform.operations.finish((await platform.migrations.run(**options)).id)
    assert details.operation.state == state, details.operation.error
    return details


# --- import -------------------------------------------------------------------------------------------------------


async def test_bad_rows_are_named_by_line_and_hold_up_nobody(ground: Ground) -> None:
    """Each row that cannot be is named with its line and reason; the others are made."""
    async with ground.open() as platform:
        await listed(ground, platform, "slug\nthere\n")
        text = (
            "slug,name,plan,share\n"
            "good,Good,pro,4\n"
            "www,Reserved,,\n"
            "-bad-,Invalid,,\n"
            "good,Twice,,\n"
            "there,Taken,,\n"
            "gold,Unknown plan,gold,\n"
            "more,Too many,,,cells,here\n"
            "many,Not a number,,lots\n"
            '"fine","A name, with a comma",,\n'
            'two,"A name of\ntwo lines",,\n'
            ",Übergröße & Co,,\n"
            ",東京,,\n"
            "last,Last,,\n"
        )
        details = await listed(ground, platform, text)
        assert details.operation.state == "failed"
        told = {item.error["message"].split(":")[0]: item.error["message"] for item in details.items if item.error}
        expected = {
            "line 3": "reserved",
            "line 4": "-bad-",
            "line 5": "line 2",
            "line 6": "taken",
            "line 7": "gold",
            "line 8": "cells",
            "line 9": "lots",
            "line 12": "name",
        }
        assert {line: word for line, word in expected.items() if word in told.get(line, "")} == expected
        assert set(told) == set(expected)
        slugs = {row.slug for row in await platform.tenants.list()}
        assert {"there", "good", "fine", "ubergrosse-co", "last"} < slugs
        assert len(slugs) == 6
        assert (await platform.tenants.show("good")).row.plan == "pro"
        assert await g.faults(ground, platform) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "line 1"),
        (b"colour,size\nred,1\n", "colour, size"),
        (b"slug,name,slug\na,b,c\n", "'slug' twice"),
        (b"slug,name\nacme,Acme\nbad,\xff\xfe\n", "line 3: this is not UTF-8"),
        (b'slug,name\nacme,"Acme" x\n', "line 2"),
    ],
    ids=["empty", "no heading", "a column twice", "not UTF-8", "quotes"],
)
async def test_files_that_are_no_lists(ground: Ground, content: bytes, words: str) -> None:
    """A file that is no list at all is refused with its line, and nothing is made."""
    path = ground.root / "list.csv"
    path.write_bytes(content)
    async with ground.open() as platform:
        with pytest.raises(ConfigError, match=words):
            await platform.tenants.import_csv(path)
        with pytest.raises(ConfigError, match=r"There is no '.*absent\.csv'"):
            await platform.tenants.import_csv(ground.root / "absent.csv")
        assert await platform.operations.list() == []


async def test_heading_with_an_empty_column(ground: Ground) -> None:
    """A column without a name, as spreadsheets leave behind, is passed over while it is empty."""
    async with ground.open() as platform:
        assert (await listed(ground, platform, "slug,name,\r\nacme,Acme,\r\n")).operation.state == "done"
        assert (await listed(ground, platform, "slug,name\r\nother,A\u2028B\r\n")).operation.state == "done"
        assert (await platform.tenants.show("other")).row.name == "A\u2028B"


async def test_row_whose_slug_was_taken_meanwhile(ground: Ground) -> None:
    """A row whose slug someone else took after the file was read fails alone."""
    async with ground.open() as platform:
        path = ground.root / "list.csv"
        path.write_text("slug\none\ntwo\n")
        operation = await platform.tenants.import_csv(path)
        create = await platform.tenants.create("two", name="Other")
        async with g.working(platform):
            details = await g.ended(platform, operation)
            await g.ended(platform, create)
        assert [item.subject for item in details.items] == ["two"]
        assert (await platform.tenants.show("two")).row.name == "Other"
        assert (await platform.tenants.show("one")).row.status == "active"
        assert await g.faults(ground, platform) == []


async def test_hostname_clash_fails_one_row(tmp_path: Path) -> None:
    """Where two rows come to the same hostname, the second is named and the rest is made."""
    toml = TOML.replace(
        'production = "{{slug}}.{{domain}}"', 'production = "{{slug}}.{{domain}}"\ndev = "{{slug}}-dev.{{domain}}"'
    )
    toml = toml.replace('title = "A site"', 'title = "A site"\nenvironments = ["production", "dev"]')
    toml = toml.replace("{{slug}}/env.json", "{{slug}}/{{environment}}.json")
    ground = Ground(tmp_path / "platform", toml)
    async with ground.open() as platform:
        details = await listed(ground, platform, "slug\nacme\nacme-dev\nother\n")
        assert [(item.subject, item.error["code"]) for item in details.items if item.error] == [
            ("acme-dev", "host.taken")
        ]
        assert {row.slug for row in await platform.tenants.list()} == {"acme", "other"}
        assert await g.faults(ground, platform) == []


async def test_import_killed_in_the_middle(ground: Ground) -> None:
    """An import of 300 rows whose worker is killed in the middle makes each tenant exactly once."""
    path = ground.root / "list.csv"
    path.write_text("\n".join(["slug", *(f"t{n:03}" for n in range(300))]))
    async with ground.open() as platform:
        with ground.worker() as first:
            await g.lives(platform, first)
            operation = await platform.tenants.import_csv(path)

            async def half() -> bool:
                current = (await platform.operations.show(operation.id)).operation
                assert current.state.live
                return 0 < current.done < 300

            await g.until(half, "half an import")
            first.kill()
        with ground.worker():
            details = await g.ended(platform, operation)
        assert (details.operation.state, details.operation.done) == ("done", 300)
        assert len(await platform.tenants.list(limit=1000)) == 300
        made = [e.subject for e in await platform.audit.list(limit=1000) if e.action == "tenant.create"]
        assert sorted(made) == [f"t{n:03}" for n in range(300)]
        assert await g.faults(ground, platform) == []


async def test_cancelled_import_keeps_what_is_ready(ground: Ground) -> None:
    """An import that is cancelled while it runs keeps the tenants it has made, whole, and makes no more."""
    path = ground.root / "list.csv"
    path.write_text("\n".join(["slug", *(f"t{n:03}" for n in range(400))]))
    async with ground.open() as platform, g.working(platform):
        operation = await platform.tenants.import_csv(path)

        async def begun() -> bool:
            return (await platform.operations.show(operation.id)).operation.done > 0

        await g.until(begun, "the first batch")
        await platform.operations.cancel(operation.id)
        details = await g.ended(platform, operation)
        assert details.operation.state == "cancelled"
        assert len(await platform.tenants.list(limit=1000)) == details.operation.done < 400
        assert await g.faults(ground, platform) == []


# --- migrate ------------------------------------------------------------------------------------------------------


async def test_failing_canary_stops_everything(ground: Ground) -> None:
    """A canary that fails is rolled back and named, and nobody else is touched; after mending, resuming goes on."""
    async with ground.open() as platform:
        await populate(ground, platform, 6)
        ground.migration("0002_unique.sql", UNIQUE)
        slugs = [one.slug for one in await platform.migrations.plan()]
        spoil(ground, slugs[0])
        details = await migrate(platform, "failed")
        assert details.operation.error is not None
        assert "canary" in details.operation.error["message"]
        assert [item.subject for item in details.items] == [slugs[0]]
        assert {await version(platform, slug) for slug in slugs} == {"0001_pages"}
        assert all(len(ground.sql(s, "SELECT 1 FROM sqlite_schema WHERE name = 'page_title'")) == 0 for s in slugs)
        mend(ground, slugs[0])
        await platform.operations.resume(details.operation.id)
        details = await platform.operations.finish(details.operation.id)
        assert (details.operation.state, details.operation.done, details.operation.failed) == ("done", 6, 0)
        assert await g.faults(ground, platform) == []


async def test_two_of_thirty_fail(ground: Ground) -> None:
    """Tenants that fail are rolled back and named, the others go on; resuming migrates those alone."""
    async with ground.open() as platform:
        await populate(ground, platform, 30)
        ground.migration("0002_unique.sql", UNIQUE)
        slugs = [one.slug for one in await platform.migrations.plan()]
        bad = (slugs[7], slugs[20])
        spoil(ground, *bad)
        ground.migration("0003_body.sql", SECOND)
        details = await migrate(platform, "failed", waves=("50%", "100%"))
        assert (details.operation.done, details.operation.failed) == (28, 2)
        assert sorted(item.subject for item in details.items) == sorted(bad)
        assert all("0002_unique" in str(item.error) for item in details.items)
        assert [await version(platform, slug) for slug in bad] == ["0001_pages", "0001_pages"]
        mend(ground, *bad)
        await platform.operations.resume(details.operation.id)
        details = await platform.operations.finish(details.operation.id)
        assert (details.operation.state, details.operation.done, details.operation.failed) == ("done", 30, 0)
        told = [e.subject for e in await platform.audit.list(limit=1000) if e.action == "tenant.migrate"]
        assert sorted(told) == sorted(slugs)
        assert await g.faults(ground, platform) == []


@pytest.mark.parametrize(("rule", "least"), [("2", 2), ("5%", 1)])
async def test_stop_rule(ground: Ground, rule: str, least: int) -> None:
    """After so many failures, or such a share, the wave at hand is the last."""
    async with ground.open() as platform:
        await populate(ground, platform, 12)
        ground.migration("0002_unique.sql", UNIQUE)
        slugs = [one.slug for one in await platform.migrations.plan()]
        spoil(ground, *slugs[1:5])
        details = await migrate(platform, "failed", waves=("40%", "100%"), stop_after=rule)
        assert details.operation.error is not None
        assert rule in details.operation.error["message"]
        assert details.operation.failed >= least
        assert {await version(platform, slug) for slug in slugs[6:]} == {"0001_pages"}


@pytest.mark.parametrize("wrong", [{"waves": ("50%", "10%")}, {"waves": ("x",)}, {"stop_after": "x"}, {"to": "0009"}])
async def test_wrong_arguments_are_refused(ground: Ground, wrong: dict[str, Any]) -> None:
    """Waves that do not rise, stop rules and versions that are none are refused before anything is entered."""
    async with ground.open() as platform:
        with pytest.raises(ConfigError):
            await platform.migrations.run(**wrong)
        assert await platform.operations.list() == []


async def test_down_and_up_again(ground: Ground) -> None:
    """Tenants can be brought to an older version and back; new ones are at the newest meanwhile."""
    async with ground.open() as platform:
        slugs = await populate(ground, platform, 4)
        ground.migration("0002_body.sql", SECOND)
        await migrate(platform, "done")
        await migrate(platform, "done", to="0001", slugs=slugs[:2])
        assert [await version(platform, slug) for slug in slugs] == ["0001_pages"] * 2 + ["0002_body"] * 2
        with pytest.raises(Exception, match="no such column"):
            ground.sql(slugs[0], "SELECT body FROM page")
        await migrate(platform, "done")
        assert {await version(platform, slug) for slug in slugs} == {"0002_body"}
        assert await g.faults(ground, platform) == []


async def test_created_while_a_migration_runs(ground: Ground) -> None:
    """A tenant that is made while the fleet migrates is at the newest schema, and so is one reserved before it."""
    async with ground.open() as platform:
        await populate(ground, platform, 60)
        before = await platform.tenants.create("before")
        ground.migration(
            "0002_slow.py",
            "import time\n\n\ndef upgrade(connection):\n    time.sleep(0.02)\n"
            "    connection.exec_driver_sql('ALTER TABLE page ADD COLUMN body TEXT')\n",
        )
        operation = await platform.migrations.run()
        during = await platform.tenants.create("during")
        async with g.working(platform):
            await asyncio.gather(*(g.ended(platform, one) for one in (before, during, operation)))
        (fleet,) = await platform.migrations.status()
        assert fleet.versions == {"0002_slow": 62}
        assert await g.faults(ground, platform) == []


async def test_edited_migration_is_refused(ground: Ground) -> None:
    """A migration that was edited after it had been applied is refused before anything is touched."""
    async with ground.open() as platform:
        await populate(ground, platform, 3)
        templates = sorted(path.name for path in ground.data.glob("templates/*"))
        ground.migration("0001_pages.sql", "CREATE TABLE page (id INTEGER PRIMARY KEY);")
        ground.migration("0002_body.sql", SECOND)
        with pytest.raises(MigrationInvalid, match=r"0001_pages\.sql: it was changed after"):
            await platform.migrations.run()
        assert len(await platform.operations.list(verb="migrate")) == 0
        assert sorted(path.name for path in ground.data.glob("templates/*")) == templates


async def test_one_damaged_tenant_does_not_hold_the_fleet(ground: Ground) -> None:
    """A tenant whose database is beyond reading fails alone."""
    async with ground.open() as platform:
        await populate(ground, platform, 5)
        ground.migration("0002_body.sql", SECOND)
        damaged = (await platform.migrations.plan())[-1].slug  # not the canary, whose failure stops the run
        ground.database(damaged).write_bytes(b"not a database" * 500)
        details = await migrate(platform, "failed")
        assert [item.subject for item in details.items] == [damaged]
        assert details.operation.done == 4


async def test_destroyed_while_a_migration_waits(ground: Ground) -> None:
    """A tenant that is destroyed between plan and run is passed over."""
    async with ground.open() as platform:
        slugs = await populate(ground, platform, 4)
        ground.migration("0002_body.sql", SECOND)
        destroy = await platform.tenants.destroy(slugs[1])
        operation = await platform.migrations.run()
        async with g.working(platform):
            await g.ended(platform, destroy)
            assert (await g.ended(platform, operation)).operation.state == "done"
        assert await g.faults(ground, platform) == []
