"""Workers killed (SIGKILL) while they work on PostgreSQL servers: nothing stays there that nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

import ground as g
import servers
from ground import Ground
from kills import (
    CLAIMED,
    END,
    RESOURCE,
    ROTATION,
    Killed,
    create,
    create_undone,
    destroy,
    inside,
    populate,
    rotate,
    steps,
)
from shelves import Shelves
from tenantry.model import Login
from tenantry.platform import Platform, Source
from tenantry.registry.journal import Operation, State

GOLDEN = "tenantry.resources.postgres_template.Golden"


CREATE = [
    CLAIMED,
    *steps("db"),
    inside("db", GOLDEN, "clone", "before"),
    inside("db", GOLDEN, "clone"),
    inside("admin", "tenantry.operations.toolbox.Toolbox", "enrol_admins"),
    END[0],
]
TEMPLATE = [inside("db", GOLDEN, "_publish", "before")]  # alone: the others wait for the template
SPARE = [inside("db", GOLDEN, "take"), *steps("db")[1:2]]
UNDONE = [steps("config")[2], *steps("db", call="undo"), END[0]]
ROTATE = [
    CLAIMED,
    inside("tenants", ROTATION, "_decide"),
    inside("tenants", RESOURCE, "admit"),
    inside("tenants", ROTATION, "_settle"),
    inside("tenants", ROTATION, "_keep"),
    inside("tenants", RESOURCE, "expel"),
    *steps("tenants")[1:2],
    END[0],
]
ADOPT = [CLAIMED, *steps("db"), inside("db", RESOURCE, "adopt"), *steps("live")[1:2], END[0]]
ADOPT_UNDONE = [steps("config")[2], *steps("db", call="undo"), END[0]]
DESTROY = [
    CLAIMED,
    *steps("withdraw")[1:2],
    *steps("db"),
    inside("db", "tenantry.resources.postgres.Postgres", "_drop_roles", "before"),
    *steps("forget")[1:2],
    END[0],
]
DROP = [CLAIMED, *steps("db"), *END]


@pytest.fixture
def shelves(tmp_path: Path, postgres: servers.Postgres) -> Iterator[Shelves]:
    """A platform with one server."""
    made = Shelves(tmp_path / "platform", postgres)
    yield made
    made.clear()


async def orphans(shelves: Shelves, platform: Platform) -> list[str]:
    """What is on the server and in the registry that should not be, or is not and should be."""
    found = await g.faults_of(platform)
    known = set()
    for row in await platform.tenants.list(limit=1000):
        place = (await platform.tenants.show(row.slug)).environments[0].place("db")
        assert place is not None
        known |= {f"database {place.location}", f"role {place.location}", f"role {place.location}_b"}
        found += [f"no {one}" for one in known - set(shelves.left("pg1")) if not one.endswith("_b")]
    found += [f"orphan {one}" for one in shelves.left("pg1") if one not in known]
    return (
        found
        + await stray_templates(shelves, platform)
        + [f"forgotten {row['field']}" for row in await g.rows(platform, "secret") if row["field"] != "admin"]
    )


async def stray_templates(shelves: Shelves, platform: Platform) -> list[str]:
    """Templates and spares of this platform that are not whole, or not the current ones, after a worker tidied up."""
    (resource,) = (one for one in platform.tools.resources["lab"] if one.name == "db")
    golden = resource._golden  # type: ignore[attr-defined]
    wanted = int(resource.options.spares)

    async with platform.registry.read() as tx:
        await platform.tools.learn_servers(tx)
    await resource.tidy()
    await resource.refill()
    rows = shelves.query("pg1", "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database")
    mine = {name: mark for name, mark in rows if name.startswith(golden._prefix)}
    spares = [name for name in mine if name.startswith(f"{golden.name}_s")]
    found = [f"half {name}" for name, mark in mine.items() if not mark]
    found += [f"stray {name}" for name in mine if name != golden.name and name not in spares]
    return found if len(spares) == wanted else [*found, f"spares: {len(spares)} of {wanted}"]


# --- what is killed -----------------------------------------------------------------------------------------------


async def drop(ground: Ground, platform: Platform, names: list[str]) -> list[Operation]:
    await populate(ground, platform, names)
    await platform.servers.close("pg1")
    for name in names:
        ended = await platform.operations.finish((await platform.tenants.destroy(name)).id)
        assert ended.operation.state is State.DONE
    await platform.servers.open("pg1")
    found = {one.tenant_slug: one for one in await platform.operations.list(verb="drop")}
    return [found[name] for name in names]


def old_database(shelves: Shelves, name: str) -> Login:
    """A database as somebody else made it, with one row."""
    server, password = shelves.known["pg1"], "of-the-former-owner"
    role = sql.Identifier(name)
    server.run(
        sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password),
        sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role),
    )
    with psycopg.connect(server.url(name, name, password), autocommit=True) as connection:
        connection.execute("CREATE TABLE page (id INTEGER PRIMARY KEY, title TEXT NOT NULL)")
        connection.execute("INSERT INTO page VALUES (1, 'Kept')")
    return Login(name, password)


def old_roles(shelves: Shelves) -> list[str]:
    """The former owners, and whoever else is called after their databases."""
    query = f"SELECT rolname FROM pg_roles WHERE rolname ~ '^old_{shelves.prefix}' ORDER BY 1"
    return [name for (name,) in shelves.query("pg1", query)]


def remove_old(shelves: Shelves) -> None:
    """Drop the former owners' databases and roles."""
    for name in old_roles(shelves):
        shelves.query("pg1", f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    for name in old_roles(shelves):
        shelves.query("pg1", f'DROP ROLE "{name}"')


async def adopt(ground: Ground, platform: Platform, names: list[str], share: int = 1) -> list[Operation]:
    assert isinstance(ground, Shelves)
    found = []
    for name in names:
        database = f"old_{ground.prefix}_{name}"
        old_database(ground, database)
        source = Source("db", "0001_pages", "pg1", database)
        found.append(await platform.tenants.adopt(name, source, settings={"share": share}))
    return found


async def adopt_undone(ground: Ground, platform: Platform, names: list[str]) -> list[Operation]:
    return await adopt(ground, platform, names, share=0)


# --- what has to be so afterwards ---------------------------------------------------------------------------------


async def test_create_on_a_server(shelves: Shelves, killed: Killed) -> None:
    """A create whose worker is killed anywhere is ended by another, with one database and one role."""
    async with shelves.open() as platform:
        await populate(shelves, platform, ["first"])
        cases = await killed("create on pg", shelves, platform, CREATE, create)
        assert await orphans(shelves, platform) == []
        assert len(shelves.left("pg1")) == 2 * (len(cases) + 1)


async def test_half_a_template(shelves: Shelves, killed: Killed) -> None:
    """A worker that is killed while it makes the golden template leaves no half of it, and holds nobody up."""
    async with shelves.open() as platform:
        await killed("create, template", shelves, platform, TEMPLATE, create)
        assert await orphans(shelves, platform) == []


async def test_create_from_a_spare(tmp_path: Path, postgres: servers.Postgres, killed: Killed) -> None:
    """A create that is killed around the claim of a warm spare loses no spare and takes none twice."""
    shelves = Shelves(tmp_path / "platform", postgres, options=", spares = 2")
    try:
        async with shelves.open() as platform:
            await killed("create, spare", shelves, platform, SPARE, create)
            assert await orphans(shelves, platform) == []
    finally:
        shelves.clear()


async def test_create_undone_on_a_server(shelves: Shelves, killed: Killed) -> None:
    """A create that fails, and whose worker is killed while it undoes, leaves nothing on the server."""
    async with shelves.open() as platform:
        await killed("create on pg, undone", shelves, platform, UNDONE, create_undone, "failed")
        assert await orphans(shelves, platform) == []
        assert shelves.left("pg1") == []


async def test_rotate(shelves: Shelves, killed: Killed) -> None:
    """A rotation whose worker is killed anywhere ends with one login that works, and none that nobody knows."""
    async with shelves.open() as platform:
        cases = await killed("rotate", shelves, platform, ROTATE, rotate)
        assert await orphans(shelves, platform) == []
        for case in cases:
            login = await platform.tenants.login(str(case.operation.tenant_slug), "db")
            query = f"SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname ~ '^{login.database}(_b)?$'"
            assert shelves.query("pg1", query) == [(login.user,)]
            psycopg.connect(shelves.known["pg1"].url(login.database, login.user, login.password)).close()


async def test_adopt(shelves: Shelves, killed: Killed) -> None:
    """An adoption whose worker is killed anywhere makes the database a tenant's, its data as they were."""
    try:
        async with shelves.open() as platform:
            cases = await killed("adopt", shelves, platform, ADOPT, adopt)
            assert await g.faults_of(platform) == []
            for case in cases:
                login = await platform.tenants.login(str(case.operation.tenant_slug), "db")
                url = shelves.known["pg1"].url(login.database, login.user, login.password)
                with psycopg.connect(url) as connection:
                    assert connection.execute("SELECT title FROM page").fetchall() == [("Kept",)]
                ended = await platform.operations.finish(
                    (await platform.tenants.destroy(case.operation.tenant_slug)).id
                )
                assert ended.operation.state is State.DONE
            assert await orphans(shelves, platform) == []
            assert old_roles(shelves) == [f"old_{shelves.prefix}_{case.operation.tenant_slug}" for case in cases]
    finally:
        remove_old(shelves)


async def test_adopt_undone(shelves: Shelves, killed: Killed) -> None:
    """An adoption that fails gives the database back as it was, wherever its worker is killed meanwhile."""
    try:
        async with shelves.open() as platform:
            cases = await killed("adopt, undone", shelves, platform, ADOPT_UNDONE, adopt_undone, "failed")
            assert await platform.tenants.list() == []
            assert await orphans(shelves, platform) == []
            assert old_roles(shelves) == [f"old_{shelves.prefix}_{case.operation.tenant_slug}" for case in cases]
            for case in cases:
                name = f"old_{shelves.prefix}_{case.operation.tenant_slug}"
                url = shelves.known["pg1"].url(name, name, "of-the-former-owner")
                with psycopg.connect(url) as connection:
                    assert connection.execute("SELECT title FROM page").fetchall() == [("Kept",)]
                    connection.execute("INSERT INTO page VALUES (2, 'Still writable')")
                tables = shelves.query("pg1", "SELECT relname FROM pg_class WHERE relname ~ '^tenantry_'", name)
                assert tables == []
    finally:
        remove_old(shelves)


async def test_destroy_on_a_server(shelves: Shelves, killed: Killed) -> None:
    """A destroy whose worker is killed anywhere leaves neither database nor role."""
    async with shelves.open() as platform:
        await killed("destroy on pg", shelves, platform, DESTROY, destroy)
        assert await orphans(shelves, platform) == []
        assert shelves.left("pg1") == []


async def test_drop(shelves: Shelves, killed: Killed) -> None:
    """A drop aside whose worker is killed anywhere is done once the server is there."""
    async with shelves.open() as platform:
        await killed("drop", shelves, platform, DROP, drop)
        assert await orphans(shelves, platform) == []
        assert shelves.left("pg1") == []
