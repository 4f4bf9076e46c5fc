"""Drop a database that tenants shared, when the last of them is gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import psycopg
from psycopg import sql

from tenantry.errors import SharedInUse
from tenantry.model import Server
from tenantry.resources import postgres_admin as admin
from tenantry.resources import postgres_template as template
from tenantry.resources import rows_tables
from tenantry.resources.postgres_admin import Admin, Found
from tenantry.resources.postgres_run import Connection
from tenantry.resources.rows import APPLICATION, OWNER
from tenantry.resources.rows_plan_tables import LIFT
from tenantry.resources.servers import OTHER

_GRANTING: Final = """
SELECT DISTINCT d.datname, shobj_description(d.oid, 'pg_database')
FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid JOIN pg_roles r ON r.oid = s.refobjid
WHERE s.refclassid = 'pg_authid'::regclass AND r.rolname = ANY (%s) AND d.datname <> %s"""
"""Databases in which roles own something, or have rights."""


def drop(server: Server, database: str, platform: str) -> None:
    """Drop it with its roles and the templates that name them; what is gone already is passed over.

    `platform` is who made it, as its mark says. Raises `SharedInUse` where another did, or where any tenant has a row.
    """
    platform = template.digest(platform)
    with admin.connected(server) as connection, admin.locked(connection, f"rows {database}"):
        names = [database + OWNER, database + APPLICATION, database + APPLICATION + OTHER]
        found = admin.database(connection, database)
        roles = {name: role for name, role in admin.roles(connection, *names).items() if _ours(role, platform)}
        if found is not None:
            if not (_ours(found, platform) or (found.comment is None and found.owner in roles)):
                raise SharedInUse(server=server.name, database=database, what="another platform made it, or a person")
            with admin.acting(connection, found.owner):
                _refuse_rows(server, found)
            template.remove(connection, database)
        for name in _templates(connection, list(roles), database):
            template.remove(connection, name)
        if roles:
            listed = sql.SQL(", ").join(map(sql.Identifier, sorted(roles, reverse=True)))
            admin.run(connection, [sql.SQL("DROP ROLE {}").format(listed)])


def _ours(found: Found, platform: str) -> bool:
    return (found.mark.get("tenantry"), found.mark.get("platform")) == ("shared", platform)


def _templates(connection: Admin, roles: list[str], database: str) -> Iterator[str]:
    for name, comment in connection.execute(_GRANTING, (roles, database)).fetchall():
        if admin.read_mark(comment).get("tenantry") == "template":
            yield str(name)


def _refuse_rows(server: Server, found: Found) -> None:
    """Whatever the registry knows: no table may hold a row of any tenant."""
    with admin.connected_to(server, found.name) as inner, inner.transaction(force_rollback=True):
        inner.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(found.owner)))
        held = list(_holders(inner))
    if held:
        shown = ", ".join(held[:5])
        raise SharedInUse(server=server.name, database=found.name, what=f"tenants have rows in {shown}")


def _holders(connection: Connection | psycopg.Connection[Any]) -> Iterator[str]:
    tables: Any = rows_tables.flat(rows_tables.tables(connection, ()))  # type: ignore[arg-type]
    named = [(table.shown, table.identifier) for table in tables]
    marker = sql.Identifier("public", rows_tables.MARKER)
    there = connection.execute("SELECT to_regclass(%s)", (marker.as_string(None),)).fetchone()
    for shown, identifier in [*named, *([(rows_tables.MARKER, marker)] if there and there[0] else [])]:
        connection.execute(LIFT.format(identifier))  # until it is rolled back: else the owner sees none
        row = connection.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(identifier)).fetchone()
        if row and row[0]:
            yield str(shown)
