"""The upkeep of a shared database: who starts on it, the login of its applications, and what is left of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text as sql_text

import ground as g
import outages
import servers
from kills import populate
from shelves import RowsShelves
from tenantry import connect
from tenantry.context import tenant_context
from tenantry.errors import NoLogin, SharedInUse
from tenantry.model import Login
from tenantry.registry.journal import State
from tenantry.runtime import tenant_session

pytestmark = pytest.mark.postgres

TITLES = sql_text("SELECT title FROM page")
APP = """
async def app(scope, receive, send):
    pass
"""


@pytest.fixture
def shelves(tmp_path: Path, postgres: servers.Postgres) -> Iterator[RowsShelves]:
    """A platform whose tenants share tables."""
    made = RowsShelves(tmp_path / "platform", postgres)
    yield made
    made.clear()


@pytest.mark.parametrize(
    ("weaken", "mend", "told"),
    [
        (
            "ALTER TABLE page NO FORCE ROW LEVEL SECURITY",
            "ALTER TABLE page FORCE ROW LEVEL SECURITY",
            'ALTER TABLE "public"."page" FORCE ROW LEVEL SECURITY',
        ),
        ('ALTER ROLE "{}_app" BYPASSRLS', 'ALTER ROLE "{}_app" NOBYPASSRLS', "_app has BYPASSRLS"),
        (
            "CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM page'",
            "DROP FUNCTION peek()",
            r"peek\(\) runs as .*Make it SECURITY INVOKER",
        ),
    ],
    ids=["policies", "role", "function"],
)
async def test_no_process_starts_on_weak_tables(shelves: RowsShelves, weaken: str, mend: str, told: str) -> None:
    """`worker` and `serve` end with 3, what weakens the tables and what mends it; mended, they start."""
    (shelves.root / "app.py").write_text(APP)
    async with shelves.open() as platform:
        await populate(shelves, platform, ["acme"])
        shelves.query("pg1", weaken.format(shelves.database), shelves.database)
        for command in (("worker",), ("serve", "--app", "app:app", "--port", "0")):
            with shelves.command(*command) as process:
                text = " ".join(process.communicate(timeout=g.PATIENCE)[0].split())
            assert process.returncode == 3, text
            assert re.search(told, text), text
            assert shelves.database in text
        shelves.query("pg1", mend.format(shelves.database), shelves.database)
        with shelves.worker():
            await g.until(lambda: _working(platform), "a worker")


async def test_a_silent_server_holds_no_start_up(shelves: RowsShelves) -> None:
    """A worker starts while the server of shared tables is down: the first session looks at them."""
    async with shelves.open() as platform:
        await populate(shelves, platform, ["acme"])
        with outages.down(shelves.known["pg1"]), shelves.worker():
            await g.until(lambda: _working(platform), "a worker")


async def test_a_migration_under_way_holds_no_start_up(shelves: RowsShelves) -> None:
    """A worker starts while a lock on shared tables is held, also by a process that hangs."""
    async with shelves.open() as platform:
        await populate(shelves, platform, ["acme"])
        with psycopg.connect(shelves.known["pg1"].url(shelves.database)) as connection:
            connection.execute("LOCK TABLE page IN ACCESS EXCLUSIVE MODE")
            connection.execute("LOCK TABLE pg_policy IN ACCESS EXCLUSIVE MODE")
            with shelves.worker():
                await g.until(lambda: _working(platform), "a worker")


async def _working(platform: g.Platform) -> bool:
    return bool((await platform.status())["workers"])


# --- the login ----------------------------------------------------------------------------------------------------


async def test_the_shared_login_rotates(
    tmp_path: Path, postgres: servers.Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the login of all tenants changes twice no session fails; afterwards the old one is refused."""
    made = RowsShelves(tmp_path / "platform", postgres, overlap="3s")
    try:
        await _rotate_under_load(made, monkeypatch)
    finally:
        made.clear()


async def _rotate_under_load(shelves: RowsShelves, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenantry.runtime.runtime._installed", None)
    for line in (shelves.root / ".env").read_text().splitlines():
        name, _, value = line.partition("=")
        monkeypatch.setenv(name, value.strip("'"))
    async with shelves.open() as platform, g.working(platform):
        await populate(shelves, platform, ["acme", "other"])
        runtime = connect(shelves.config)
        await runtime.start()
        environments = [(await platform.tenants.show(slug)).environments[0] for slug in ("acme", "other")]
        served, going = [0, 0, 0, 0], True

        async def use(number: int) -> None:
            while going:
                with tenant_context(environments[number % 2]):
                    async with tenant_session() as session:
                        assert (await session.execute(TITLES)).scalar_one() == "Welcome"
                served[number] += 1

        users = [asyncio.create_task(use(number)) for number in range(len(served))]
        try:
            before = await _login(platform)
            for _ in range(2):
                ended = await platform.operations.finish((await platform.tenants.rotate()).id)
                assert (ended.operation.state, ended.operation.done) == (State.DONE, 1)
                seen, after = list(served), await _login(platform)
                assert (after.user, after.password) != (before.user, before.password)
                await g.until(lambda seen=seen: _beyond(seen, served, users), "sessions by the new login")
                with pytest.raises(psycopg.OperationalError):
                    psycopg.connect(shelves.known["pg1"].url(shelves.database, before.user, before.password))
                before = after
        finally:
            going = False
            await asyncio.gather(*users)
            await runtime.stop()
        assert await g.faults_of(platform) == []
        with pytest.raises(NoLogin, match=r"tenant rotate --all"):
            await platform.tenants.rotate(["acme"])


async def _beyond(seen: list[int], served: list[int], users: list[asyncio.Task[None]]) -> bool:
    assert not any(user.done() for user in users)
    return all(after > before + 5 for before, after in zip(seen, served, strict=True))


async def _login(platform: g.Platform) -> Login:
    async with platform.registry.read() as tx:
        tenant = (await platform.tenants.show("acme")).row.id
        (environment,) = await platform.tools.all_environments(tx, [tenant])
    return environment.logins["db"]


# --- what is left -------------------------------------------------------------------------------------------------


async def test_a_shared_database_that_nobody_needs(shelves: RowsShelves) -> None:
    """It is named with how many tenants it has, dropped when they are gone, and never while any row is there."""
    async with shelves.open() as platform, g.working(platform):
        await populate(shelves, platform, ["acme"])
        assert (await platform.servers.show("pg1")).shared == {shelves.database: 1}
        with pytest.raises(SharedInUse, match="1 tenants have their rows"):
            await platform.servers.drop_shared("pg1", shelves.database)
        stray = "INSERT INTO page (tenant_id, title) VALUES (gen_random_uuid(), 'stray')"
        shelves.query("pg1", stray, shelves.database)
        ended = await platform.operations.finish((await platform.tenants.destroy("acme")).id)
        assert ended.operation.state is State.DONE
        unused = [one for one in (await platform.servers.check("pg1"))["pg1"] if "drop-shared" in one.remedy]
        assert [(one.ok, shelves.database in one.what) for one in unused] == [(True, True)]
        with pytest.raises(SharedInUse, match="rows in page"):
            await platform.servers.drop_shared("pg1", shelves.database)
        assert shelves.query("pg1", "SELECT count(*) FROM page", shelves.database) == [(1,)]
        forced = "SELECT relforcerowsecurity FROM pg_class WHERE relname = 'page'"
        assert shelves.query("pg1", forced, shelves.database) == [(True,)]
        shelves.query("pg1", "DELETE FROM page", shelves.database)
        (shelves.root / "tenantry.toml").write_text(
            shelves.config.read_text().replace(
                f'database = "{shelves.database}"', f'database = "{shelves.prefix}_next"'
            )
        )
    async with shelves.open() as platform:
        (unused,) = [one for one in (await platform.servers.check("pg1"))["pg1"] if "drop-shared" in one.remedy]
        assert not unused.ok
        assert "no blueprint names it" in unused.what
    with shelves.command("server", "drop-shared", "pg1", shelves.database, "--json") as process:
        process.communicate(timeout=g.PATIENCE)
    assert process.returncode == 3
    for _ in range(2):  # and nothing is there to be dropped again
        with shelves.command("server", "drop-shared", "pg1", shelves.database, "--yes") as process:
            text = process.communicate(timeout=g.PATIENCE)[0]
        assert process.returncode in (0, 3), text
    assert shelves.query("pg1", f"SELECT 1 FROM pg_database WHERE datname = '{shelves.database}'") == []
    assert shelves.query("pg1", f"SELECT 1 FROM pg_roles WHERE rolname ~ '^{shelves.database}'") == []
    async with shelves.open() as platform:
        assert (await platform.servers.show("pg1")).shared == {}


async def test_what_is_not_ours_is_not_dropped(shelves: RowsShelves) -> None:
    """A drop that was cut off is ended by the next; a database that somebody else made in its place is kept."""
    async with shelves.open() as platform, g.working(platform):
        await populate(shelves, platform, ["acme"])
        await platform.operations.finish((await platform.tenants.destroy("acme")).id)
        shelves.query("pg1", f'DROP DATABASE "{shelves.database}" WITH (FORCE)')
        shelves.query("pg1", f'CREATE DATABASE "{shelves.database}"')
        with pytest.raises(SharedInUse, match="another platform made it"):
            await platform.servers.drop_shared("pg1", shelves.database)
        shelves.query("pg1", f'DROP DATABASE "{shelves.database}"')
        await platform.servers.drop_shared("pg1", shelves.database)
        assert shelves.query("pg1", f"SELECT 1 FROM pg_roles WHERE rolname ~ '^{shelves.database}'") == []
        await populate(shelves, platform, ["again"])
        assert await g.faults_of(platform) == []
