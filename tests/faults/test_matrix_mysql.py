"""Workers killed (SIGKILL) while they work on a MariaDB server: nothing stays there that nobody knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ground as g
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
from mariadb import MariaDB
from shelves import MariaShelves
from tenantry.platform import Platform, Source
from tenantry.registry.journal import Operation, State

BOOK = "tenantry.resources.mysql_book"

CREATE = [CLAIMED, *steps("db"), inside("db", BOOK, "enter"), inside("db", BOOK, "user_made", "before"), END[0]]
UNDONE = [*steps("db", call="undo")]
ROTATE = [
    inside("tenants", ROTATION, "_decide"),
    inside("tenants", RESOURCE, "admit"),
    inside("tenants", ROTATION, "_keep"),
    inside("tenants", RESOURCE, "expel"),
    *steps("tenants")[1:2],
]
ADOPT = [*steps("db")[1:], inside("db", BOOK, "enter")]
ADOPT_UNDONE = steps("db", call="undo")[1:]
DESTROY = [*steps("db"), inside("db", BOOK, "forget", "before"), *steps("forget")[1:2], END[0]]


@pytest.fixture
def shelves(tmp_path: Path, mariadb_server: MariaDB) -> MariaShelves:
    """A platform with one server."""
    return MariaShelves(tmp_path / "platform", mariadb_server)


async def clear(shelves: MariaShelves, platform: Platform) -> None:
    """Destroy every tenant; then nothing may be left on the server."""
    for row in await platform.tenants.list(limit=1000):
        ended = await platform.operations.finish((await platform.tenants.destroy(row.slug)).id)
        assert ended.operation.state is State.DONE
    assert shelves.left() == []


async def works(shelves: MariaShelves, platform: Platform, slug: str) -> list[tuple[Any, ...]]:
    """What a tenant finds in its database by the login that the registry has."""
    login = await platform.tenants.login(slug, "db")
    connection = shelves.server.connect(login.user, login.password, login.database)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT title FROM page")
            return list(cursor.fetchall())
    finally:
        connection.close()


async def test_create(shelves: MariaShelves, killed: Killed) -> None:
    """A create whose worker is killed anywhere is ended by another, with one database and one user."""
    async with shelves.open() as platform:
        await populate(shelves, platform, ["first"])  # who makes the golden script keeps the others waiting
        cases = await killed("create on maria", shelves, platform, CREATE, create)
        assert await g.faults_of(platform) == []
        assert len(shelves.left()) == 4 * (len(cases) + 1)
        await clear(shelves, platform)


async def test_create_undone(shelves: MariaShelves, killed: Killed) -> None:
    """A create that fails, and whose worker is killed while it undoes, leaves nothing on the server."""
    async with shelves.open() as platform:
        await killed("create on maria, undone", shelves, platform, UNDONE, create_undone, "failed")
        assert shelves.left() == []


async def test_rotate(shelves: MariaShelves, killed: Killed) -> None:
    """A rotation whose worker is killed anywhere ends with one login that works, and none that nobody knows."""
    async with shelves.open() as platform:
        cases = await killed("rotate on maria", shelves, platform, ROTATE, rotate)
        assert await g.faults_of(platform) == []
        assert len(shelves.left()) == 4 * len(cases)
        for case in cases:
            assert await works(shelves, platform, str(case.operation.tenant_slug)) == []
        await clear(shelves, platform)


async def adopt(ground: Ground, platform: Platform, names: list[str], share: int = 1) -> list[Operation]:
    assert isinstance(ground, MariaShelves)
    found = []
    for name in names:
        database = f"old_{ground.prefix}_{name}"
        ground.server.run(
            f"CREATE DATABASE `{database}`",
            f"CREATE TABLE `{database}`.page (id INTEGER PRIMARY KEY, title TEXT NOT NULL)",
            f"INSERT INTO `{database}`.page VALUES (1, 'Kept')",
        )
        source = Source("db", "0001_pages", "db", database)
        found.append(await platform.tenants.adopt(name, source, settings={"share": share}))
    return found


async def adopt_undone(ground: Ground, platform: Platform, names: list[str]) -> list[Operation]:
    return await adopt(ground, platform, names, share=0)


async def test_adopt(shelves: MariaShelves, killed: Killed) -> None:
    """An adoption whose worker is killed anywhere makes the database a tenant's, its data as they were."""
    async with shelves.open() as platform:
        cases = await killed("adopt on maria", shelves, platform, ADOPT, adopt)
        for case in cases:
            assert await works(shelves, platform, str(case.operation.tenant_slug)) == [("Kept",)]
        await clear(shelves, platform)


async def test_adopt_undone(shelves: MariaShelves, killed: Killed) -> None:
    """An adoption that fails leaves the database as it was, wherever its worker is killed meanwhile."""
    async with shelves.open() as platform:
        cases = await killed("adopt on maria, undone", shelves, platform, ADOPT_UNDONE, adopt_undone, "failed")
        assert await platform.tenants.list() == []
        assert shelves.left() == [f"database old_{shelves.prefix}_{case.operation.tenant_slug}" for case in cases]
        for case in cases:
            name = f"old_{shelves.prefix}_{case.operation.tenant_slug}"
            assert shelves.server.run(f"SHOW TABLES IN `{name}`") == [("page",)]
            shelves.server.run(f"DROP DATABASE `{name}`")


async def test_destroy(shelves: MariaShelves, killed: Killed) -> None:
    """A destroy whose worker is killed anywhere leaves neither database nor user, nor an entry about them."""
    async with shelves.open() as platform:
        await killed("destroy on maria", shelves, platform, DESTROY, destroy)
        assert await g.faults_of(platform) == []
        assert shelves.left() == []
