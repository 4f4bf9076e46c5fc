"""A database that tenants are to share, its owner, and the role by which applications enter."""

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

ONE = "018f2d1c-0000-7000-8000-000000000001"
TWO = "018f2d1c-0000-7000-8000-000000000002"
Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Shelf:
    """A database, a superuser's connection to it, its owner, who is nothing more, and the application's role."""

    server: servers.Postgres
    database: str
    owner: str
    role: str
    password: str
    connection: Connection

    def be(self, role: str | None) -> None:
        """Act as a role from now on, until the transaction ends; None: as the superuser."""
        name = sql.Identifier(role) if role else sql.SQL("NONE")
        self.connection.execute(sql.SQL("SET LOCAL ROLE {}").format(name))

    def run(self, statements: str) -> None:
        """Run statements as the owner."""
        self.be(self.owner)
        self.connection.execute(statements.encode())

    def plan(self, *shared: str, adopt: str | None = None) -> Plan:
        """What is to be done."""
        return plan(inspect(self.connection), shared, self.role, adopt)

    def secure(self, *shared: str, adopt: str | None = None) -> None:
        """Do it as the owner, and see that there is nothing more to do."""
        self.be(self.owner)
        apply(self.connection, self.plan(*shared, adopt=adopt))
        again = self.plan(*shared)
        assert not again, again.text()

    def weak(self, *shared: str) -> list[str]:
        """What is weak now."""
        return [one.name for one in weaknesses(self.connection, self.role, shared)]

    def ask(self, tenant: str | None, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """What the application gets as a tenant."""
        with self.connection.transaction():
            self.be(self.role)
            self.connection.execute("SELECT set_config('tenantry.tenant', %s, true)", (tenant or "",))
            cursor = self.connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def refused(self, tenant: str | None, statement: str) -> str:
        """What the server says to a statement of the application that it refuses."""
        with pytest.raises(psycopg.Error) as caught:
            self.ask(tenant, statement)
        return str(caught.value)


@contextmanager
def furnished(server: servers.Postgres) -> Iterator[Shelf]:
    """An empty database for an owner who is nothing more, and a role without rights."""
    name, role, password = f"rows_{secrets.token_hex(4)}", f'the "app" {secrets.token_hex(4)}', secrets.token_hex(8)
    for one in (name, role):
        server.run(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(one), password))
    server.run(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(name)))
    try:
        with psycopg.connect(server.url(name)) as connection:
            yield Shelf(server, name, name, role, password, connection)
    finally:
        server.run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        for one in (name, role):
            server.run(sql.SQL("DROP ROLE {}").format(sql.Identifier(one)))
