"""Platforms of every kind, verified."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import ground as g
from mariadb import MariaDB
from prefix_world import PrefixGround, maria_database
from servers import Postgres
from shelves import MariaShelves, RowsShelves, Shelves
from tenantry.platform import Platform


async def populated(platform: Platform, *slugs: str) -> None:
    """Tenants of these slugs."""
    for slug in slugs:
        operation = await platform.tenants.create(slug)
        await platform.operations.finish(operation.id)


async def verified(platform: Platform, **options: Any) -> dict[str, Any]:
    """The report on a run."""
    report: dict[str, Any] = {}
    for _ in range(5):
        operation = await platform.verification.run(**options)
        await platform.operations.finish(operation.id)
        report = await platform.verification.report(operation.id)
        if "did not answer within" not in str(report):  # as a server on a busy machine does now and then
            break
    return report


def _files(root: Path, request: pytest.FixtureRequest) -> g.Ground:
    return g.Ground(root)


def _postgres(root: Path, request: pytest.FixtureRequest) -> g.Ground:
    server: Postgres = request.getfixturevalue("postgres")
    made = Shelves(root, server)
    request.addfinalizer(made.clear)
    return made


def _rows(root: Path, request: pytest.FixtureRequest) -> g.Ground:
    made = RowsShelves(root, request.getfixturevalue("postgres"))
    request.addfinalizer(made.clear)
    return made


def _mysql(root: Path, request: pytest.FixtureRequest) -> g.Ground:
    server: MariaDB = request.getfixturevalue("mariadb_server")
    made = MariaShelves(root, server)
    request.addfinalizer(lambda: _clear(made, server))
    return made


def _prefix_on_postgres(root: Path, request: pytest.FixtureRequest) -> g.Ground:
    server: Postgres = request.getfixturevalue("postgres")
    return PrefixGround(root, "postgres", _while(request, server.database()))


def _prefix_on_mysql(root: Path, request: pytest.FixtureRequest) -> g.Ground:
    server: MariaDB = request.getfixturevalue("mariadb_server")
    return PrefixGround(root, "mysql", _while(request, maria_database(server)))


def _while(request: pytest.FixtureRequest, database: AbstractContextManager[str]) -> str:
    """The address of a database that is there until the test ends."""
    stack = ExitStack()
    request.addfinalizer(stack.close)
    return stack.enter_context(database)


def _clear(made: MariaShelves, server: MariaDB) -> None:
    for kind, name in (one.split() for one in made.left()):
        if kind in ("database", "user"):
            server.run(f"DROP {kind} `{name}`" + ("@'%'" if kind == "user" else ""))


@dataclass(frozen=True)
class Kind:
    """How a platform whose databases are of one kind is made, and what that kind promises nobody."""

    made: Callable[[Path, pytest.FixtureRequest], g.Ground]
    not_promised: frozenset[str] = frozenset()


NAMES = frozenset({"see the names of other databases", "see the names of other roles"})
SQL = frozenset({"read its rows by SQL of one's own"})
TOLD = frozenset({"name another tenant in the setting", "prepared statement that another tenant left on db"})
KINDS = {
    "files": Kind(_files),
    "postgres": Kind(_postgres, NAMES),
    "mysql": Kind(_mysql),
    "rows": Kind(_rows, TOLD),
    "prefix on PostgreSQL": Kind(_prefix_on_postgres, SQL),
    "prefix on MariaDB": Kind(_prefix_on_mysql, SQL),
}
