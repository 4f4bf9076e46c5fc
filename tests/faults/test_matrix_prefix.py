"""Workers killed (SIGKILL) while they work on tables with a prefix: no table stays that nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import ground as g
from kills import (
    CLAIMED,
    END,
    Killed,
    create,
    create_undone,
    destroy,
    inside,
    populate,
    steps,
)
from prefix_world import PrefixGround, maria_database
from tenantry.platform import Platform
from tenantry.registry.journal import State
from tenantry.users import TABLES

BOOK = "tenantry.resources.prefix_book.Book"
KIND = "tenantry.resources.prefix.Prefix"

CREATE = [CLAIMED, *steps("db"), inside("db", BOOK, "enter"), inside("db", KIND, "_fill"), END[0]]
UNDONE = [*steps("db", call="undo"), inside("undo db", BOOK, "forget", "before")]
DESTROY = [*steps("db"), inside("db", BOOK, "forget", "before"), *steps("forget")[1:2], END[0]]


@pytest.fixture(params=[pytest.param("postgres", marks=pytest.mark.postgres), "mysql"])
def shelves(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PrefixGround]:
    """A platform on a server of each kind."""
    if request.param == "mysql":
        with maria_database(request.getfixturevalue("mariadb_server")) as url:
            yield PrefixGround(tmp_path / "platform", "mysql", url)
    else:
        yield PrefixGround(tmp_path / "platform", "postgres", request.getfixturevalue("postgres_url"))


async def clear(shelves: PrefixGround, platform: Platform) -> None:
    """Destroy every tenant; then nothing may be left in the database."""
    for row in await platform.tenants.list(limit=1000):
        ended = await platform.operations.finish((await platform.tenants.destroy(row.slug)).id)
        assert ended.operation.state is State.DONE
    assert shelves.left() == []


async def test_create(shelves: PrefixGround, killed: Killed) -> None:
    """A create whose worker is killed anywhere is ended by another, with the tables of one prefix and one entry."""
    async with shelves.open() as platform:
        await populate(shelves, platform, ["first"])
        cases = await killed(f"create, prefix on {shelves.kind}", shelves, platform, CREATE, create)
        assert await g.faults_of(platform) == []
        assert len(shelves.left()) == (3 + len(TABLES)) * (
            len(cases) + 1
        )  # page, records, the entry, and those of users
        await clear(shelves, platform)


async def test_create_undone(shelves: PrefixGround, killed: Killed) -> None:
    """A create that fails, and whose worker is killed while it undoes, leaves nothing in the database."""
    async with shelves.open() as platform:
        await killed(f"create undone, prefix on {shelves.kind}", shelves, platform, UNDONE, create_undone, "failed")
        assert shelves.left() == []


async def test_destroy(shelves: PrefixGround, killed: Killed) -> None:
    """A destroy whose worker is killed anywhere leaves neither tables nor an entry about them."""
    async with shelves.open() as platform:
        await killed(f"destroy, prefix on {shelves.kind}", shelves, platform, DESTROY, destroy)
        assert await g.faults_of(platform) == []
        assert shelves.left() == []
