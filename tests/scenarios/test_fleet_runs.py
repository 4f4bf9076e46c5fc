"""How a run over the fleet is held: paused, slowed, reported, one at a time, and past servers that are down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ground as g
import outages
import servers
from ground import SECOND, Ground
from shelves import Shelves
from tenantry.errors import ConfigError, MigrationUnderWay, OperationNotFound, OperationRefused, SharedTables
from tenantry.platform import Platform
from tenantry.platform.operations import OperationDetails
from tenantry.registry.journal import Operation, State

SLOW = (
    "import time\n\n\ndef upgrade(connection):\n    time.sleep(0.05)\n"
    "    connection.exec_driver_sql('ALTER TABLE page ADD COLUMN body TEXT')\n"
)
"""A migration that gives others the time to do something meanwhile."""

UNIQUE = "CREATE UNIQUE INDEX page_title ON page (title);\n-- down\nDROP INDEX page_title;\n"


async def populate(ground: Ground, platform: Platform, number: int) -> list[str]:
    """Make so many tenants; their slugs in the order in which they are migrated."""
    rows = ground.root / "list.csv"
    slugs = [f"t{n:03}" for n in range(number)]
    rows.write_text("\n".join(["slug", *slugs]))
    made = await platform.operations.finish((await platform.tenants.import_csv(rows)).id)
    assert made.operation.state == "done", made.items[:1]
    return slugs


async def migrate(platform: Platform, state: str = "done", **options: Any) -> OperationDetails:
    details = await platform.operations.finish((await platform.migrations.run(**options)).id)
    assert details.operation.state == state, details.operation.error
    return details


async def versions(platform: Platform) -> dict[str | None, int]:
    (fleet,) = await platform.migrations.status()
    return dict(fleet.versions)


async def reaches(platform: Platform, operation: Operation, state: State) -> Operation:
    """Wait until an operation is in a state."""

    async def there() -> Operation | None:
        current = (await platform.operations.show(operation.id)).operation
        return current if current.state is state else None

    found: Operation = await g.until(there, f"{state} of {operation.verb}")
    return found


async def begun(platform: Platform, operation: Operation) -> None:
    """Wait until a run has done some of its tenants, and not all."""

    async def some() -> bool:
        current = (await platform.operations.show(operation.id)).operation
        assert current.state.live, current
        return 0 < current.done < current.total

    await g.until(some, "the first tenants")


def command(ground: Ground, *arguments: str) -> tuple[int, str]:
    """Run a command of a platform: its status and what it printed."""
    with ground.command(*arguments) as process:
        text, _ = process.communicate(timeout=10 * g.PATIENCE)
    return process.returncode, text


# --- pausing ------------------------------------------------------------------------------------------------------


async def test_a_run_is_paused_and_goes_on(ground: Ground) -> None:
    """It rests between two batches, holds nobody, and does the rest when it goes on, nobody twice."""
    async with ground.open() as platform:
        slugs = await populate(ground, platform, 120)
        ground.migration("0002_slow.py", SLOW)
        operation = await platform.migrations.run(parallel=2)
        async with g.working(platform):
            await begun(platform, operation)
            assert (await platform.operations.pause(operation.id)).state is State.PAUSING
            paused = await reaches(platform, operation, State.PAUSED)
            assert 0 < paused.done < 120
            assert (paused.ended, paused.worker_id) == (None, None)
            assert (await versions(platform))["0002_slow"] == paused.done
            assert await g.rows(platform, "tenant_lock") == []
            with pytest.raises(OperationRefused, match="paused cannot be paused"):
                await platform.operations.pause(operation.id)
            await asyncio.sleep(0.5)  # it must not go on by itself
            assert (await platform.operations.show(operation.id)).operation == paused
            await platform.operations.resume(operation.id)
            details = await g.ended(platform, operation)
        assert (details.operation.state, details.operation.done) == ("done", 120)
        told = [e.subject for e in await platform.audit.list(limit=1000) if e.action == "tenant.migrate"]
        assert sorted(told) == sorted(slugs)
        assert await g.faults(ground, platform) == []


async def test_a_pause_outlives_its_worker(ground: Ground) -> None:
    """A worker that is killed while a pause is asked for: the next one pauses the run, and a later one ends it."""
    async with ground.open() as platform:
        await populate(ground, platform, 80)
        ground.migration("0002_slow.py", SLOW)
        with ground.worker() as first:
            await g.lives(platform, first)
            operation = await platform.migrations.run(parallel=1)
            await begun(platform, operation)
            await platform.operations.pause(operation.id)
            first.kill()
        with ground.worker():
            paused = await reaches(platform, operation, State.PAUSED)
        assert paused.done < 80
        with ground.worker() as last:
            await g.lives(platform, last)
            assert (await platform.operations.show(operation.id)).operation.state is State.PAUSED
            await platform.operations.resume(operation.id)
            details = await g.ended(platform, operation)
        assert (details.operation.state, details.operation.done) == ("done", 80)
        assert await versions(platform) == {"0002_slow": 80}
        assert await g.faults(ground, platform) == []


async def test_what_is_asked_while_a_run_pauses(ground: Ground) -> None:
    """Going on before the batch has ended, and cancelling before or after it, are heeded too."""
    async with ground.open() as platform:
        await populate(ground, platform, 60)
        ground.migration("0002_slow.py", SLOW)
        operation = await platform.migrations.run(parallel=1)
        assert (await platform.operations.pause(operation.id)).state is State.PAUSED  # no worker had it
        await platform.operations.resume(operation.id)
        async with g.working(platform):
            await begun(platform, operation)
            await platform.operations.pause(operation.id)
            await platform.operations.resume(operation.id)
            await begun(platform, operation)
            await platform.operations.pause(operation.id)
            await platform.operations.cancel(operation.id)
            details = await g.ended(platform, operation)
            assert details.operation.state == "cancelled"
            done = details.operation.done
            assert (await versions(platform))["0002_slow"] == done < 60
            again = await platform.migrations.run(parallel=1)
            await begun(platform, again)
            await platform.operations.pause(again.id)
            await reaches(platform, again, State.PAUSED)
            await platform.operations.cancel(again.id)
            assert (await g.ended(platform, again)).operation.state == "cancelled"
        await migrate(platform)
        assert await g.faults(ground, platform) == []


async def test_only_work_on_many_tenants_is_paused(ground: Ground) -> None:
    """Making one tenant is not; a run that is over is not either."""
    async with ground.open() as platform:
        create = await platform.tenants.create("acme")
        with pytest.raises(OperationRefused, match="create does not work on many tenants"):
            await platform.operations.pause(create.id)
        await platform.operations.finish(create.id)
        over = await migrate(platform)
        with pytest.raises(OperationRefused, match="done cannot be paused"):
            await platform.operations.pause(over.operation.id)
        with pytest.raises(OperationNotFound):
            await platform.migrations.under_way()


# --- one at a time, and how fast ----------------------------------------------------------------------------------


async def test_a_second_run_is_refused(ground: Ground) -> None:
    """It is told the first's id, also while that one is paused, until it is over; so is one that is tried again."""
    async with ground.open() as platform:
        await populate(ground, platform, 3)
        ground.migration("0002_unique.sql", UNIQUE)
        ground.sql("t000", "INSERT INTO page (title) VALUES ('twice'), ('twice')")
        failed = await migrate(platform, "failed")
        first = await platform.migrations.run()
        with pytest.raises(MigrationUnderWay, match=first.id):
            await platform.migrations.run()
        with pytest.raises(MigrationUnderWay, match=first.id):
            await platform.operations.resume(failed.operation.id)
        await platform.operations.pause(first.id)
        with pytest.raises(MigrationUnderWay, match="paused"):
            await platform.migrations.run(slugs=["t001"])
        both = await asyncio.gather(
            platform.operations.cancel(first.id), platform.operations.finish(first.id), return_exceptions=True
        )
        assert not [one for one in both if isinstance(one, Exception)]
        assert (await platform.operations.finish(first.id)).operation.state == "cancelled"
        ground.sql("t000", "DELETE FROM page")
        two = await asyncio.gather(platform.migrations.run(), platform.migrations.run(), return_exceptions=True)
        assert sum(isinstance(one, MigrationUnderWay) for one in two) == 1


async def test_a_rate_is_kept(ground: Ground) -> None:
    """No more tenants are begun in the time that passes than it allows, and a pause is heard meanwhile."""
    async with ground.open() as platform, g.working(platform):
        await populate(ground, platform, 30)
        ground.migration("0002_body.sql", SECOND)
        start = asyncio.get_running_loop().time()
        operation = await platform.migrations.run(canary=0, rate="10/s")

        async def ahead() -> bool:
            found = (await platform.operations.show(operation.id)).operation
            passed = asyncio.get_running_loop().time() - start
            assert found.done <= 10 * passed + 2 * 10  # of two batches that were claimed ahead
            return not found.state.live

        await g.until(ahead, "the end")
        assert (await platform.operations.show(operation.id)).operation.done == 30
        ground.migration("0003_slow.py", SLOW.replace("body", "note"))
        slow = await platform.migrations.run(canary=0, rate="1/h")
        await begun(platform, slow)
        await platform.operations.pause(slow.id)
        paused = await reaches(platform, slow, State.PAUSED)
        assert paused.done <= 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": "fast"},
        {"rate": "0/s"},
        {"rate": "10/d"},
        {"parallel": 0},
        {"parallel": 9},
        {"canary": -1},
        {"to": "0001", "phase": "pre"},
    ],
)
async def test_wrong_options_are_refused(ground: Ground, wrong: dict[str, Any]) -> None:
    """Rates, numbers and choices that are none are refused before anything is entered."""
    async with ground.open() as platform:
        with pytest.raises(ConfigError):
            await platform.migrations.run(**wrong)
        assert await platform.operations.list() == []


# --- one tenant back ----------------------------------------------------------------------------------------------


async def test_one_tenant_goes_back(ground: Ground) -> None:
    """It alone, by its down migrations; the next run brings it up again."""
    async with ground.open() as platform:
        await populate(ground, platform, 3)
        ground.migration("0002_body.sql", SECOND)
        ground.migration("0003_unique.sql", UNIQUE)
        await migrate(platform)
        for to, stands in ((None, "0002_body"), ("0001", "0001_pages")):
            operation = await platform.migrations.rollback("t001", to)
            assert (await platform.operations.finish(operation.id)).operation.state == "done"
            assert await versions(platform) == {stands: 1, "0003_unique": 2}
        with pytest.raises(Exception, match="no such column"):
            ground.sql("t001", "SELECT body FROM page")
        assert ground.sql("t002", "SELECT body FROM page") == []
        with pytest.raises(ConfigError, match="Nothing of 't001' is after their first migration"):
            await platform.migrations.rollback("t001")
        with pytest.raises(ConfigError, match="Nothing of 't002' is above 0003"):
            await platform.migrations.rollback("t002", "0003")
        assert [e.action for e in await platform.audit.list(tenant="t001")].count("tenant.rollback") == 2
        assert [one.slug for one in await platform.migrations.plan()] == ["t001"]
        await migrate(platform)
        assert await versions(platform) == {"0003_unique": 3}
        assert await g.faults(ground, platform) == []


async def test_a_pinned_tenant_is_passed_over(ground: Ground) -> None:
    """Runs leave it at its version and status names it, until it is unpinned; one that waits in a run, too."""
    async with ground.open() as platform:
        await populate(ground, platform, 4)
        ground.migration("0002_body.sql", SECOND)
        await migrate(platform)
        rollback = await platform.migrations.rollback("t002", pin=True)
        await platform.operations.finish(rollback.id)
        assert (await migrate(platform)).operation.total <= 1
        (fleet,) = await platform.migrations.status()
        assert [(one.slug, one.version) for one in fleet.pinned] == [("t002", "0001_pages")]
        ground.migration("0003_unique.sql", UNIQUE)
        waiting = await platform.migrations.run()
        rollback = await platform.migrations.rollback("t003", pin=True)
        async with g.working(platform):
            await g.ended(platform, rollback)
            await g.ended(platform, waiting)
        found = await versions(platform)
        assert found["0001_pages"] == 2
        assert [one.slug for one in await platform.migrations.unpin("t002")] == ["t002"]
        assert await platform.migrations.unpin("t002") == []
        await migrate(platform)
        assert await versions(platform) == {"0001_pages": 1, "0003_unique": 3}


# --- servers ------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path, postgres: servers.Postgres, own_postgres: servers.Postgres) -> Iterator[Shelves]:
    """A platform with two servers; the test may end `pg2`."""
    made = Shelves(tmp_path / "platform", postgres, own_postgres, more=("capacity = 100", "capacity = 100"))
    yield made
    made.clear()


@pytest.mark.postgres
async def test_a_server_that_is_down_takes_its_own_tenants(two: Shelves, own_postgres: servers.Postgres) -> None:
    """They are named, the others go on past any stop rule, even where all canaries lay there; back, they are done."""
    async with two.open() as platform:
        await populate(two, platform, 24)
        two.migration("0002_body.sql", SECOND)
        due = await platform.migrations.plan()
        there = {server: [one.slug for one in due if one.server == server] for server in two.known}
        assert [len(some) for some in there.values()] == [12, 12]
        first = due[0].server
        with outages.down(own_postgres):
            details = await migrate(platform, "failed", canary=1, waves=("50%", "100%"), stop_after="1")
            assert details.operation.error is not None
            assert details.operation.error["code"] == "operation.items_failed"
            assert {item.subject for item in details.items} == set(there["pg2"])
            assert {item.error["code"] for item in details.items if item.error} == {"server.unavailable"}
            assert details.operation.done == 12
            report = await platform.migrations.report(details.operation.id)
            assert report.unreached == 12
            assert (report.waves[1].failed, report.waves[1].done) == ((1, 1) if first == "pg2" else (0, 1))
        details = await migrate(platform)
        assert details.operation.total == 12
        assert await versions(platform) == {"0002_body": 24}


@pytest.mark.postgres
async def test_canaries_lie_on_all_servers(two: Shelves) -> None:
    """Two canaries of two servers are one of each."""
    async with two.open() as platform:
        await populate(two, platform, 6)
        two.migration("0002_body.sql", SECOND)
        servers_of = {one.slug: one.server for one in await platform.migrations.plan()}
        details = await migrate(platform, canary=2)
        canaries = [item.subject for item in await platform.operations.items(details.operation.id) if item.step == 1]
        assert {servers_of[slug] for slug in canaries} == {"pg1", "pg2"}


# --- shared tables ------------------------------------------------------------------------------------------------


@pytest.mark.postgres
async def test_shared_tables_are_migrated_once(tmp_path: Path, own_postgres: servers.Postgres) -> None:
    """One item for all their tenants, one change that names them all; one tenant alone is refused."""
    shelves = Shelves(tmp_path / "platform", own_postgres)
    toml = shelves.config.read_text()
    old = f'kind = "postgres", name = "{shelves.prefix}_{{slug}}"'
    assert old in toml
    shelves.config.write_text(toml.replace(old, f'kind = "rows", database = "{shelves.prefix}_all"'))
    async with shelves.open() as platform:
        slugs = await populate(shelves, platform, 40)
        shelves.migration("0002_body.sql", SECOND)
        (due,) = await platform.migrations.plan()
        assert (due.tenants, due.shared, due.server) == (40, True, "pg1")
        for alone in (platform.migrations.run(slugs=slugs[:1]), platform.migrations.rollback(slugs[0])):
            with pytest.raises(SharedTables, match="t000"):
                await alone
        seq = (await platform.registry.feed.load()).seq
        details = await migrate(platform)
        assert (details.operation.total, details.operation.done) == (1, 1)
        assert await versions(platform) == {"0002_body": 40}
        changes = await platform.registry.feed.since(seq)
        assert changes is not None
        assert changes.seq == seq + 1
        assert {e.tenant.slug for e in changes.environments} == set(slugs)
        assert {place.version for e in changes.environments for place in e.places if place.name == "db"} == {
            "0002_body"
        }
        report = await platform.migrations.report(details.operation.id)
        assert [(move.before, move.after, move.tenants) for move in report.versions] == [
            ("0001_pages", "0002_body", 40)
        ]
        shelves.migration("0003_broken.sql", "ALTER TABLE page ADD COLUMN body text;\n")
        failed = await migrate(platform, "failed")
        assert failed.operation.error is not None
        assert await versions(platform) == {"0002_body": 40}


async def test_phases_are_run_one_after_the_other(ground: Ground) -> None:
    """`pre` goes up to the first that only new code bears, from wherever a tenant stands; `post` does the rest."""
    async with ground.open() as platform:
        await populate(ground, platform, 3)
        ground.migration("0002_body.sql", SECOND)
        await migrate(platform, slugs=["t000"])
        ground.migration("0003_unique.sql", UNIQUE)
        ground.migration("0004_drop.sql", "-- tenantry: phase=post\nDROP INDEX page_title;\n")
        ground.migration("0005_more.sql", "ALTER TABLE page ADD COLUMN more TEXT;\n")
        due = await platform.migrations.plan(phase="pre")
        assert {(one.slug, one.version, one.target) for one in due} == {
            ("t000", "0002_body", "0003_unique"),
            ("t001", "0001_pages", "0003_unique"),
            ("t002", "0001_pages", "0003_unique"),
        }
        await migrate(platform, phase="pre")
        assert await versions(platform) == {"0003_unique": 3}
        assert await platform.migrations.plan(phase="pre") == []
        assert (await migrate(platform, phase="pre")).operation.total == 0
        await migrate(platform, phase="post")
        assert await versions(platform) == {"0005_more": 3}


async def made(ground: Ground, platform: Platform, slug: str) -> str:
    """Create a tenant: the version at which its database is."""
    details = await platform.operations.finish((await platform.tenants.create(slug)).id)
    assert details.operation.state == "done", details.operation.error
    ((version,),) = ground.sql(slug, "SELECT max(version) FROM tenantry_schema")
    return str(version)


async def test_new_tenants_follow_the_phase_of_the_fleet(ground: Ground) -> None:
    """Those made before and between `pre` and `post` bear old code, and are brought along; later ones are newest."""

    async with ground.open() as platform:
        await populate(ground, platform, 3)
        ground.migration("0002_body.sql", SECOND)
        ground.migration("0003_drop.sql", "-- tenantry: phase=post\nALTER TABLE page DROP COLUMN title;\n")
        await migrate(platform, slugs=["t000"])
        assert await made(ground, platform, "before") == "0002_body"
        await migrate(platform, phase="pre")
        assert await made(ground, platform, "between") == "0002_body"
        ground.sql("between", "INSERT INTO page (title) VALUES ('as old code does')")
        rows = ground.root / "more.csv"
        rows.write_text("slug\nmany")
        await platform.operations.finish((await platform.tenants.import_csv(rows)).id)
        assert await versions(platform) == {"0002_body": 5, "0003_drop": 1}
        await migrate(platform, phase="post")
        assert await made(ground, platform, "after") == "0003_drop"
        assert await versions(platform) == {"0003_drop": 7}


async def test_a_run_that_finds_nothing_to_do_releases(ground: Ground) -> None:
    """Where each tenant was brought to `post` by name, a run of the fleet lets new tenants have it, too."""
    async with ground.open() as platform:
        await populate(ground, platform, 1)
        ground.migration("0002_drop.sql", "-- tenantry: phase=post\nALTER TABLE page DROP COLUMN title;\n")
        await migrate(platform, phase="pre")
        await migrate(platform, slugs=["t000"])
        assert await made(ground, platform, "early") == "0001_pages"
        await migrate(platform, slugs=["early"])
        assert (await migrate(platform)).operation.total == 0
        assert await made(ground, platform, "late") == "0002_drop"
        assert await versions(platform) == {"0002_drop": 3}


# --- what is told -------------------------------------------------------------------------------------------------


def prepared(ground: Ground, number: int, *bad: str) -> None:
    """Tenants, some of them spoilt, and a migration that fails there."""
    rows = ground.root / "list.csv"
    rows.write_text("\n".join(["slug", *(f"t{n:03}" for n in range(number))]))
    assert command(ground, "tenant", "import", str(rows))[0] == 0
    ground.migration("0002_unique.sql", UNIQUE)
    for slug in bad:
        ground.sql(slug, "INSERT INTO page (title) VALUES ('a|b <c>'), ('a|b <c>')")


def test_plain_lines_tell_waves_and_failures(ground: Ground) -> None:
    """In a pipe: a line for each wave with its counts, one for each tenant that failed, once, and the sum."""
    prepared(ground, 12, "t005", "t007")
    status, text = command(ground, "migrate", "run", "--canary", "2", "--waves", "50%,100%")
    assert status == 1
    lines = text.splitlines()
    assert "template" in lines[0]
    assert "0002_unique" in lines[0]
    assert lines[1].split()[1:4] == ["canary", "2/2", "ok"]
    assert sorted(line.split()[1] for line in lines if " ✗ t0" in line) == ["t005:", "t007:"]
    assert text.count("t005") == 1
    assert "UNIQUE constraint failed" in text
    assert "stays at 0001_pages" in text
    assert [line.split()[3] for line in lines if " wave " in line] == ["5/5", "5/5"]
    assert "10 of 12 done, 2 failed." in lines


def test_a_report_is_written(ground: Ground, tmp_path: Path) -> None:
    """As JSON and as Markdown, at the end of a run that failed, and afterwards; odd names break no table.

    What is over was counted as it ended: what is done is not read again.
    """
    prepared(ground, 8, "t005")
    status, text = command(ground, "migrate", "run", "--report", str(tmp_path / "july.json"), "--rate", "1000/s")
    assert status == 1
    assert str(tmp_path / "july.md") in text
    found = json.loads((tmp_path / "july.json").read_text())
    assert (found["state"], found["total"], found["done"], found["failed"]) == ("failed", 8, 7, 1)
    assert [(wave["name"], wave["done"], wave["failed"]) for wave in found["waves"]] == [
        ("template", 0, 0),
        ("canary", 1, 0),
        ("wave 1", 6, 1),
    ]
    (failure,) = found["failures"]
    assert (failure["tenant"], failure["version"], failure["code"]) == ("t005", "0001_pages", "migration.failed")
    assert failure["remedy"]
    assert {(move["before"], move["after"], move["tenants"]) for move in found["versions"]} == {
        ("0001_pages", "0002_unique", 7),
        ("0001_pages", "0001_pages", 1),
    }
    assert found["seconds"]["p50"] <= found["seconds"]["p100"]
    assert len(found["slowest"]) == 7
    text = (tmp_path / "july.md").read_text()
    assert "| t005 | wave 1 | db |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").endswith("|") for line in rows)
    assert command(ground, "migrate", "report", found["operation"], "--into", str(tmp_path / "reports"))[0] == 0
    assert json.loads((tmp_path / "reports" / f"migrate-{found['operation']}.json").read_text()) == found
    assert command(ground, "migrate", "report", found["operation"][-8:]) == (0, text)
    ground.control("UPDATE operation_item SET seconds = 1000 WHERE state = 'done'")
    assert command(ground, "migrate", "report", found["operation"]) == (0, text)


def test_a_report_that_cannot_be_written(ground: Ground, tmp_path: Path) -> None:
    """Is refused before anything is migrated; one of an operation that is not there, or none of the fleet, too."""
    prepared(ground, 1)
    (tmp_path / "july.md").touch()
    for nowhere in ("/proc/nowhere/july", f"{tmp_path}/july.md/july"):
        status, text = command(ground, "migrate", "run", "--report", nowhere)
        assert (status, "cannot be written" in text) == (2, True)
    assert "0002" not in command(ground, "migrate", "status")[1]
    assert command(ground, "migrate", "report", "00000000")[0] == 4


def test_pausing_by_command(ground: Ground) -> None:
    """A run that was left to a worker is paused, refused twice, shown, and gone on with."""
    prepared(ground, 3)
    assert command(ground, "migrate", "run", "--no-wait")[0] == 0
    status, text = command(ground, "migrate", "pause")
    assert (status, "is paused" in text) == (0, True)
    assert command(ground, "migrate", "pause")[0] == 3
    status, text = command(ground, "migrate", "run")
    assert (status, "migration.under_way" in text) == (3, True)
    assert "paused" in command(ground, "operation", "list", "--state", "paused")[1]
    assert command(ground, "migrate", "resume")[0] == 0
    assert command(ground, "migrate", "pause")[0] == 4
    assert command(ground, "migrate", "rollback", "t001", "--pin")[0] == 0
    assert "t001" in command(ground, "migrate", "status")[1]
    assert "t001" in command(ground, "migrate", "unpin", "t001")[1]


async def test_those_at_their_schema_too(ground: Ground) -> None:
    """`--all` brings what a newer Tenantry wants of users' tables to tenants that no migration waits for."""
    async with ground.open() as platform:
        slugs = await populate(ground, platform, 3)
        for slug in slugs:
            ground.sql(slug, "DROP TABLE tenantry_event")
        assert (await migrate(platform)).operation.total == 0
        assert [one.slug for one in await platform.migrations.plan(everyone=True)] == slugs
        _, shown = await asyncio.to_thread(command, ground, "migrate", "run", "--all")
        assert "3" in shown
        for slug in slugs:
            assert ground.sql(slug, "SELECT count(*) FROM tenantry_event") == [(0,)]
            assert all(finding.ok for finding in await platform.tenants.check(slug))
        assert (await versions(platform)).popitem()[1] == 3
