"""Workers killed (SIGKILL) while they work on tables that tenants share: no row stays that nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import ground as g
import servers
from kills import (
    CLAIMED,
    END,
    RESOURCE,
    Killed,
    Moment,
    create,
    create_undone,
    destroy,
    inside,
    populate,
    steps,
)
from shelves import RowsShelves
from tenantry.platform import Platform
from tenantry.registry.journal import Operation

ROWS = "tenantry.resources.rows.Rows"
TABLES = "tenantry.resources.rows_tables"
COPY = "tenantry.resources.rows_copy"
ROTATION = "tenantry.operations.rotate_shared._Turn"
DIALECT = "tenantry.resources.rows_dialect.Shared"

FIRST = [
    inside("db", ROWS, "_make_roles"),
    inside("db", ROWS, "_lay_down", "before"),
    inside("db", ROWS, "_lay_down"),
    inside("db", DIALECT, "_secure", "before"),
    inside("db", DIALECT, "_secure"),
    inside("db", ROWS, "_found"),
    inside("db", ROWS, "_ready"),
]
"""While the first tenant's create makes what all will share: one at a time, for the others would wait."""

CREATE = [
    CLAIMED,
    *steps("db"),
    inside("db", TABLES, "mark", "before"),
    inside("db", TABLES, "mark"),
    inside("db", DIALECT, "sow"),
    inside("admin", "tenantry.operations.toolbox.Toolbox", "enrol_admins"),
    END[0],
]
UNDONE = [steps("config")[2], *steps("db", call="undo"), inside("undo db", COPY, "unmark", "before"), END[0]]
DESTROY = [
    CLAIMED,
    *steps("withdraw")[1:2],
    *steps("db"),
    inside("db", COPY, "_remove", "before"),
    inside("db", COPY, "_remove"),
    inside("db", COPY, "unmark", "before"),
    inside("db", COPY, "unmark"),
    *steps("forget")[1:2],
    END[0],
]


@pytest.fixture
def shelves(tmp_path: Path, postgres: servers.Postgres) -> Iterator[RowsShelves]:
    """A platform with one server."""
    made = RowsShelves(tmp_path / "platform", postgres)
    yield made
    made.clear()


async def orphans(shelves: RowsShelves, platform: Platform) -> list[str]:
    """What is in the tables and in the registry that should not be, or is not and should be."""
    found = await g.faults_of(platform)
    known = {(await platform.tenants.show(row.slug)).row.id for row in await platform.tenants.list(limit=1000)}
    for table, keys in shelves.tenants().items():
        found += [f"{table} has rows of {key}" for key in keys - known]
        if table in ("page", "tenantry_tenants", "tenantry_user"):
            found += [f"{table} has no row of {key}" for key in known - keys]
    pages = shelves.query("pg1", "SELECT tenant_id FROM page", shelves.database) if shelves.tenants() else []
    return found if len(pages) == len(set(pages)) else [*found, "a seed was sown twice"]


@pytest.mark.parametrize("moment", FIRST, ids=lambda moment: moment[1].replace(" ", "-"))
async def test_the_first_tenant(shelves: RowsShelves, moment: Moment, killed: Killed) -> None:
    """A worker that is killed while it makes the database that all share leaves a half that the next one ends."""
    async with shelves.open() as platform:
        await killed("create, first", shelves, platform, [moment], create)
        assert await orphans(shelves, platform) == []


async def test_create(shelves: RowsShelves, killed: Killed) -> None:
    """A create whose worker is killed anywhere is ended by another, with each row once."""
    async with shelves.open() as platform:
        await populate(shelves, platform, ["first"])
        await killed("create in rows", shelves, platform, CREATE, create)
        assert await orphans(shelves, platform) == []


async def test_create_undone(shelves: RowsShelves, killed: Killed) -> None:
    """A create that fails, and whose worker is killed while it undoes, leaves no row."""
    async with shelves.open() as platform:
        await populate(shelves, platform, ["first"])
        await killed("create in rows, undone", shelves, platform, UNDONE, create_undone, "failed")
        assert await orphans(shelves, platform) == []


async def test_destroy(shelves: RowsShelves, killed: Killed) -> None:
    """A destroy whose worker is killed anywhere leaves no row of its tenant, and all of the others'."""
    async with shelves.open() as platform:
        await populate(shelves, platform, ["first"])
        await killed("destroy in rows", shelves, platform, DESTROY, destroy)
        assert await orphans(shelves, platform) == []
        assert len(shelves.tenants()["page"]) == 1


ROTATE = [
    CLAIMED,
    inside("tenants", ROTATION, "_decide"),
    inside("tenants", RESOURCE, "admit"),
    inside("tenants", ROTATION, "_keep"),
    inside("tenants", RESOURCE, "expel", "before"),
    inside("tenants", RESOURCE, "expel"),
    *steps("tenants")[1:2],
    END[0],
]


@pytest.mark.parametrize("moment", ROTATE, ids=lambda moment: moment[1].replace(" ", "-"))
async def test_rotate_what_all_share(shelves: RowsShelves, moment: Moment, killed: Killed) -> None:
    """A rotation of the shared login whose worker is killed anywhere ends with one login, which works."""
    async with shelves.open() as platform:
        await populate(shelves, platform, ["acme"])
        await killed("rotate, shared", shelves, platform, [moment], rotate_all)
        async with platform.registry.read() as tx:
            tenant = (await platform.tenants.show("acme")).row.id
            (environment,) = await platform.tools.all_environments(tx, [tenant])
        login = environment.logins["db"]
        roles = f"SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname ~ '^{shelves.database}'"
        assert shelves.query("pg1", roles) == [(login.user,)]
        psycopg.connect(shelves.known["pg1"].url(shelves.database, login.user, login.password)).close()
        assert await orphans(shelves, platform) == []


async def rotate_all(ground: g.Ground, platform: Platform, names: list[str]) -> list[Operation]:
    """The shared login, once."""
    return [await platform.tenants.rotate()]
