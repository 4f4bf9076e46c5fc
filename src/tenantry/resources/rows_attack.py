"""Attacks of one tenant on another one's rows in tables that both share, by the application's own role."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

import psycopg
from psycopg import sql

from tenantry.model import Breach
from tenantry.resources.postgres_attack import FILES
from tenantry.resources.postgres_dialect import Connection
from tenantry.resources.rows_plan import SETTING, TENANT
from tenantry.resources.rows_tables import MARKER, Table, flat, tables

KNOWN: Final = "name another tenant in the setting"
"""What whoever runs SQL of their own as the application's role can do: the policies believe the setting."""

COLUMN: Final = sql.Identifier(TENANT)

MORE: Final = (
    ("make a table", sql.SQL("CREATE TABLE public.tenantry_attack (x int)")),
    ("make a function", sql.SQL("CREATE FUNCTION public.tenantry_attack() RETURNS int LANGUAGE sql AS 'SELECT 1'")),
    ("make a schema", sql.SQL("CREATE SCHEMA tenantry_attack")),
    ("put a table before others on the search path", sql.SQL("CREATE TEMPORARY TABLE tenantry_attack (x int)")),
    ("switch policies off for oneself", sql.SQL("SET LOCAL ROLE NONE; ALTER ROLE CURRENT_USER BYPASSRLS")),
    ("reach through dblink", sql.SQL("SELECT * FROM dblink('dbname=' || current_database(), 'SELECT 1') AS t (x int)")),
)


def attack(
    name: str, connection: Connection, own: str, other: str, owner: str, shared: Collection[str]
) -> list[Breach]:
    """Try everything as the tenant `own` against the rows of `other`. What succeeds is rolled back."""
    found = flat(tables(connection, shared))
    markers = Table(0, "public", MARKER, False, (), frozenset(), False)
    breaches = []
    for table in (markers, *found):
        for what, statement in _steps(table, own, other):
            evidence = _tried(connection, own, statement)
            if evidence is not None:
                breaches.append(Breach(name, f"{what} {table.shown}", evidence))
    for what, statement in (*_around(owner), *MORE, *FILES):
        evidence = _tried(connection, own, statement, counts=False)
        if evidence is not None:
            breaches.append(Breach(name, what, evidence))
    return [*breaches, *_without_tenant(name, connection, found), *_known(name, connection, other, found)]


def _steps(table: Table, own: str, other: str) -> Iterator[tuple[str, sql.SQL | sql.Composed]]:
    """Statements whose count of rows is to be nothing, or which are to be refused."""
    names = {"table": table.identifier, "tenant": COLUMN, "own": sql.Literal(own), "other": sql.Literal(other)}
    for what, text in (
        ("read the other's rows of", "SELECT FROM {table} WHERE {tenant} = {other}"),
        ("read all rows of", "SELECT FROM {table} WHERE {tenant} <> {own}"),
        ("read without policies from", "SET LOCAL row_security = off; SELECT FROM {table}"),
        ("change the other's rows of", "UPDATE {table} SET {tenant} = {tenant} WHERE {tenant} = {other}"),
        ("take the other's rows of", "UPDATE {table} SET {tenant} = {own} WHERE {tenant} = {other}"),
        ("remove the other's rows of", "DELETE FROM {table} WHERE {tenant} = {other}"),
        ("lock the other's rows of", "SELECT FROM {table} WHERE {tenant} = {other} FOR UPDATE"),
        ("add a row for the other to", "INSERT INTO {table} ({tenant}) VALUES ({other})"),
        ("empty", "TRUNCATE {table}"),
        ("take the policies from", "ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"),
        ("put a rule on", "CREATE RULE tenantry_attack AS ON INSERT TO {table} DO ALSO NOTHING"),
    ):
        yield what, sql.SQL(text).format(**names)
    statistics = "SELECT FROM pg_stats WHERE schemaname = {} AND tablename = {}"
    yield "read samples of", sql.SQL(statistics).format(table.schema, table.name)


def _around(owner: str) -> Iterator[tuple[str, sql.SQL | sql.Composed]]:
    role = sql.Identifier(owner)
    yield "become the tables' owner", sql.SQL("SET ROLE {}").format(role)
    yield "give oneself the owner's role", sql.SQL("GRANT {} TO CURRENT_USER").format(role)
    yield "log in as the owner", sql.SQL("SET SESSION AUTHORIZATION {}").format(role)


def _without_tenant(name: str, connection: Connection, found: list[Table]) -> Iterator[Breach]:
    """With no tenant set, or an empty one, there is nothing to read."""
    for key in (None, ""):
        for table in found:
            evidence = _tried(connection, key, sql.SQL("SELECT FROM {}").format(table.identifier))
            if evidence is not None:
                yield Breach(name, f"read {table.shown} without a tenant", evidence)


def _known(name: str, connection: Connection, other: str, found: list[Table]) -> Iterator[Breach]:
    """What this kind does not promise to keep out."""
    for table in found:
        statement = sql.SQL("SELECT FROM {} WHERE {} = {}").format(table.identifier, COLUMN, other)
        evidence = _tried(connection, other, statement)
        if evidence is not None:
            yield Breach(name, KNOWN, f"{evidence} of {table.shown}", promised=False)
            return


def _tried(
    connection: Connection, key: str | None, statement: sql.SQL | sql.Composed, *, counts: bool = True
) -> str | None:
    """What came of a statement; None where it was refused, or reached no row."""
    try:
        with connection.transaction(force_rollback=True):
            if key is not None:
                connection.execute("SELECT set_config(%s, %s, true)", (SETTING, key))
            cursor = connection.execute(statement)
            while cursor.nextset():
                pass
            reached = cursor.rowcount
    except (psycopg.errors.IntegrityError, psycopg.errors.DataError) as error:
        return f"only a constraint refused it: {error.diag.message_primary}"
    except psycopg.Error:
        return None
    if counts and reached >= 0:
        return f"it reached {reached} rows" if reached else None
    return "it was done"
