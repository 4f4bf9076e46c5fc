"""An ordinary PostgreSQL schema becomes one that tenants can share, or is refused; on version 15 and on 18."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import sql

import servers
from tenantry.resources.rows_plan import Plan, apply, inspect, plan, weaknesses

pytestmark = pytest.mark.postgres

ONE = "018f2d1c-0000-7000-8000-000000000001"
TWO = "018f2d1c-0000-7000-8000-000000000002"
Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Shelf:
    """A database, its owner's connection, and the role by which the application enters."""

    server: servers.Postgres
    owner: Connection
    database: str
    role: str
    password: str

    def plan(self, *shared: str, adopt: str | None = None) -> Plan:
        """What is to be done."""
        return plan(inspect(self.owner), shared, self.role, adopt)

    def secure(self, *shared: str, adopt: str | None = None) -> None:
        """Do it."""
        apply(self.owner, self.plan(*shared, adopt=adopt))

    def weak(self, *shared: str) -> list[str]:
        """What is weak now."""
        return [one.name for one in weaknesses(self.owner, self.role, shared)]

    @contextmanager
    def enter(self, tenant: str | None) -> Iterator[Connection]:
        """The application's connection, in a transaction of a tenant."""
        with psycopg.connect(self.server.url(self.database, self.role, self.password)) as connection:
            if tenant:
                connection.execute("SELECT set_config('tenantry.tenant', %s, true)", (tenant,))
            yield connection


@pytest.fixture(params=["postgres", "postgres_18"])
def shelf(request: pytest.FixtureRequest) -> Iterator[Shelf]:
    """An empty database of a role that is nothing more, and a role without rights."""
    server: servers.Postgres = request.getfixturevalue(request.param)
    name, role, password = f"rows_{secrets.token_hex(4)}", f"app-{secrets.token_hex(4)}", secrets.token_hex(8)
    for one in (name, role):
        server.run(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(one), password))
    server.run(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(name)))
    try:
        with psycopg.connect(server.url(name, name, password), autocommit=True) as owner:
            yield Shelf(server, owner, name, role, password)
    finally:
        server.run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        for one in (name, role):
            server.run(sql.SQL("DROP ROLE {}").format(sql.Identifier(one)))


def test_a_table_with_a_key_holds_each_tenants_rows_apart(shelf: Shelf) -> None:
    """Two tenants add the same key, and each sees its own row alone."""
    shelf.owner.execute("CREATE TABLE note (id int PRIMARY KEY, text text)")
    shelf.secure()
    for tenant in (ONE, TWO):
        with shelf.enter(tenant) as connection:
            connection.execute("INSERT INTO note VALUES (1, %s)", (tenant,))
    with shelf.enter(ONE) as connection:
        assert connection.execute("SELECT id, text FROM note").fetchall() == [(1, ONE)]


def test_a_safe_schema_needs_no_plan(shelf: Shelf) -> None:
    """After a plan was applied there is nothing to do and nothing weak."""
    shelf.owner.execute("CREATE TABLE note (id int PRIMARY KEY, text text)")
    shelf.secure()
    assert not shelf.plan()
    assert shelf.weak() == []
