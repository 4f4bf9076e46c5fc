"""Attacks of one tenant on another one's rows in tables that both share, by the application's own role."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

import psycopg
from psycopg import sql

from tenantry.model import Attempt, Breach, Untried
from tenantry.resources import rows_collisions
from tenantry.resources.postgres_attack import MORE as ASKED
from tenantry.resources.postgres_attack import SERVER, Statement, Step, asked, line, stopped
from tenantry.resources.postgres_dialect import Connection
from tenantry.resources.rows_plan import SETTING, TENANT, weaknesses
from tenantry.resources.rows_tables import Table, flat, tables

COLUMN: Final = sql.Identifier(TENANT)

_SCHEMAS: Final = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"

STEPS: Final = (
    ("read the other's rows of", "SELECT FROM {table} WHERE {tenant} = {other}"),
    ("read all rows of", "SELECT FROM {table} WHERE {tenant} <> {own}"),
    ("read without policies from", "SET LOCAL row_security = off; SELECT FROM {table}"),
    ("change the other's rows of", "UPDATE {table} SET {tenant} = {tenant} WHERE {tenant} = {other}"),
    ("take the other's rows of", "UPDATE {table} SET {tenant} = {own} WHERE {tenant} = {other}"),
    ("remove the other's rows of", "DELETE FROM {table} WHERE {tenant} = {other}"),
    ("lock the other's rows of", "SELECT FROM {table} WHERE {tenant} = {other} FOR UPDATE"),
    ("empty", "TRUNCATE {table}"),
    ("take the policies from", "ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"),
    ("put a rule on", "CREATE RULE tenantry_attack AS ON INSERT TO {table} DO ALSO NOTHING"),
)
"""What is tried on every table."""

MORE: Final = (
    ("make a table", sql.SQL("CREATE TABLE public.tenantry_attack (x int)")),
    ("make a schema", sql.SQL("CREATE SCHEMA tenantry_attack")),
    ("put a table before others on the search path", sql.SQL("CREATE TEMPORARY TABLE tenantry_attack (x int)")),
    ("switch policies off for oneself", sql.SQL("SET LOCAL ROLE NONE; ALTER ROLE CURRENT_USER BYPASSRLS")),
    ("reach out by dblink", sql.SQL("CREATE EXTENSION dblink")),
)


class Attacker:
    """The application's role, for one tenant, against the rows of another; what succeeds is rolled back."""

    def __init__(self, name: str, connection: Connection, own: str, other: str) -> None:
        self._name = name
        self._connection = connection
        self._own = own
        self._other = other

    def run(self, owner: str, shared: Collection[str]) -> list[Attempt]:
        """Everything that is tried; `owner` is the role that the tables belong to."""
        found = flat(tables(self._connection, shared))
        around = (*_around(owner), *MORE, *self._shadows(), *SERVER)
        return [
            *self._weak(shared),  # what each table adds comes last: only so many breaches of a tenant are told
            *(asked(self._name, self._connection, what, query) for what, query in ASKED),
            *(self._try(what, self._own, one, counts=False) for what, one in around),
            *(self._try(what, self._own, one) for table in found for what, one in self._on(table)),
            *(self._try(f"read {one.shown} without a tenant", key, _all(one)) for one in found for key in (None, "")),
            self._believed(found),
            *rows_collisions.attack(self._name, self._connection, found, self._own, self._other),
        ]

    def _on(self, table: Table) -> Iterator[Step]:
        """Statements that are to reach no row, or to be refused."""
        names = {"table": table.identifier, "tenant": COLUMN}
        values = {"own": sql.Literal(self._own), "other": sql.Literal(self._other)}
        for what, text in STEPS:
            yield f"{what} {table.shown}", sql.SQL(text).format(**names, **values)
        statistics = "SELECT FROM pg_stats WHERE schemaname = {} AND tablename = {}"
        yield f"read samples of {table.shown}", sql.SQL(statistics).format(table.schema, table.name)

    def _shadows(self) -> Iterator[Step]:
        """Functions that stand before the server's own, for whoever has their schema before it on the search path."""
        for (schema,) in self._connection.execute(_SCHEMAS):
            shadow = sql.SQL(
                "CREATE FUNCTION {}.current_setting(text, boolean) RETURNS text LANGUAGE sql AS 'SELECT 1'"
            )
            yield f"shadow the server's functions in {schema}", shadow.format(sql.Identifier(schema))

    def _weak(self, shared: Collection[str]) -> Iterator[Attempt]:
        """What the catalog says is open: no row of the other need be there today that this would let through."""
        what = "find a weakness"
        try:
            row = self._connection.execute("SELECT current_user").fetchone()
            found = weaknesses(self._connection, row[0] if row else "", shared)
        except psycopg.Error as error:
            yield Untried(self._name, what, line(error))
            return
        yield from (Breach(self._name, f"{what}: {one.name}", one.what) for one in found)
        if not found:
            yield Attempt(self._name, what)

    def _believed(self, found: Sequence[Table]) -> Attempt:
        """Whoever runs statements of their own as the application's role can name any tenant: policies believe that."""
        what = "name another tenant in the setting"
        for table in found:
            statement = sql.SQL("SELECT FROM {} WHERE {} = {}").format(table.identifier, COLUMN, self._other)
            attempt = self._try(what, self._other, statement)
            if isinstance(attempt, Breach):
                return Breach(self._name, what, f"{attempt.evidence} of {table.shown}", promised=False)
        return Attempt(self._name, what, "the other has no rows")

    def _try(self, what: str, key: str | None, statement: Statement, *, counts: bool = True) -> Attempt:
        """Run a statement for a tenant, or without one. It got through where it reached rows, or was done at all."""
        try:
            with self._connection.transaction(force_rollback=True):
                if key is not None:
                    self._connection.execute("SELECT set_config(%s, %s, true)", (SETTING, key))
                cursor = self._connection.execute(statement)
                while cursor.nextset():
                    pass
                reached = cursor.rowcount
        except psycopg.errors.IntegrityError as error:
            return Breach(self._name, what, f"only a constraint refused it: {error.diag.message_primary}")
        except psycopg.Error as error:
            return stopped(self._name, what, error)
        if counts and reached == 0:
            return Attempt(self._name, what, "it reached no row")
        return Breach(self._name, what, f"it reached {reached} rows" if counts and reached > 0 else "it was done")


def _all(table: Table) -> Statement:
    return sql.SQL("SELECT FROM {}").format(table.identifier)


def _around(owner: str) -> Iterator[Step]:
    role = sql.Identifier(owner)
    yield "become the tables' owner", sql.SQL("SET ROLE {}").format(role)
    yield "give oneself the owner's role", sql.SQL("GRANT {} TO CURRENT_USER").format(role)
    yield "begin the owner's session", sql.SQL("SET SESSION AUTHORIZATION {}").format(role)
