"""The registry under test: the same suite runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import pytest

from mysql_world import MysqlWorld, mysql_platform
from prefix_world import PrefixWorld, mysql_prefixes, postgres_prefixes
from registries import KEY
from tenantry.registry import Registry, Vault
from worlds import OPTIONS, WORLDS, PostgresWorld, RowsWorld, World, furnish

POSTGRES = ["postgres-15", "postgres-18"]
PREFIXES = [pytest.param("prefix-postgres", marks=pytest.mark.postgres), "prefix-mysql"]
ROWS = ["rows-15", "rows-18"]
Made = TypeVar("Made", bound=PostgresWorld)
MADE = {"schema": "schema", "seed": "seed.sql"}


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty control database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'control.sqlite'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
async def registry(url: str) -> AsyncIterator[Registry]:
    """A new registry."""
    async with Registry.open(url, Vault(KEY), actor="tester") as registry:
        yield registry


@pytest.fixture
def cut_off(url: str, request: pytest.FixtureRequest) -> Callable[[], None]:
    """Takes the control database away from those who use it."""

    def cut() -> None:
        if url.startswith("sqlite"):
            for file in Path(url.removeprefix("sqlite:///")).parent.glob("control.sqlite*"):
                file.unlink()
        else:
            request.getfixturevalue("postgres").close(url)

    return cut


@pytest.fixture(
    params=[
        *WORLDS,
        *(pytest.param(kind, marks=pytest.mark.postgres) for kind in (*POSTGRES, *ROWS)),
        "mysql",
        *PREFIXES,
    ]
)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A platform for each kind of resource in turn."""
    if request.param in POSTGRES:
        yield from _on_postgres(request, request.param, tmp_path, PostgresWorld, "postgres")
    elif request.param in ROWS:
        yield from _on_postgres(request, request.param, tmp_path, RowsWorld, "rows")
    elif request.param == "mysql":
        yield request.getfixturevalue("mysql_world")
    elif request.param.startswith("prefix-"):
        with _prefixes(request, request.param, tmp_path) as world:
            yield world
    else:
        world = WORLDS[request.param](request.param, tmp_path, dict(OPTIONS.get(request.param, MADE)))
        furnish(world)
        yield world


@pytest.fixture(params=PREFIXES)
def prefix_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PrefixWorld]:
    """A platform whose tenants share a database, on a server of each kind."""
    with _prefixes(request, request.param, tmp_path) as world:
        yield world


def _prefixes(request: pytest.FixtureRequest, kind: str, root: Path) -> AbstractContextManager[PrefixWorld]:
    if kind == "prefix-mysql":
        return mysql_prefixes(request.getfixturevalue("mariadb_server"), root)
    return postgres_prefixes(request.getfixturevalue("postgres"), root)


@pytest.fixture(params=POSTGRES)
def postgres_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PostgresWorld]:
    """A platform with a PostgreSQL server, in each version."""
    yield from _on_postgres(request, request.param, tmp_path, PostgresWorld, "postgres")


def _on_postgres(
    request: pytest.FixtureRequest, version: str, root: Path, world_of: type[Made], kind: str
) -> Iterator[Made]:
    server = request.getfixturevalue("postgres" if version.endswith("-15") else "postgres_18")
    world = world_of(kind, root, dict(MADE), server=server)
    try:
        furnish(world)
        yield world
    finally:
        world.clear()


@pytest.fixture(params=ROWS)
def rows_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RowsWorld]:
    """A platform whose tenants share tables, on each version of PostgreSQL."""
    yield from _on_postgres(request, request.param, tmp_path, RowsWorld, "rows")


@pytest.fixture
def mysql_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MysqlWorld]:
    """A platform with a MariaDB server."""
    with mysql_platform(request.getfixturevalue("mariadb_server"), tmp_path) as world:
        yield world
