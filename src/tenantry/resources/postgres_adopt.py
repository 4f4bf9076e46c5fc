"""Taking over a PostgreSQL database that is there already, and giving it back as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from psycopg import sql

from tenantry import users as users_tables
from tenantry.resources import postgres_admin as admin
from tenantry.resources.postgres_admin import Admin
from tenantry.resources.postgres_dialect import Connection

TABLES: Final = ("tenantry_schema", *users_tables.TABLES, "alembic_version")
"""What adopting may add."""

Grant = tuple[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Former:
    """How a database was before: enough to give it back."""

    owner: str
    comment: str | None
    grants: Sequence[Grant] | None  # (role, or "" for everybody; privileges); None: as every new database has them
    tables: Sequence[str]  # those of `TABLES` that were there
    joined: bool  # whether the administrator could act as the owner already

    def as_dict(self) -> dict[str, Any]:
        """The same for a mark."""
        return asdict(self)


def former_of(mark: Mapping[str, Any]) -> Former | None:
    """How an adopted database was before; None for one that was made here."""
    found = mark.get("adopted")
    return Former(**found) if isinstance(found, Mapping) else None


def look(connection: Admin, inner: Connection, name: str) -> Former:
    """How a database is now."""
    row = connection.execute(
        "SELECT pg_get_userbyid(datdba), shobj_description(oid, 'pg_database'), datacl IS NULL, "
        "pg_has_role(current_user, datdba, 'USAGE') FROM pg_database WHERE datname = %s",
        (name,),
    ).fetchone()
    assert row is not None
    owner, comment, plain, joined = row
    grants = connection.execute(
        "SELECT CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END, array_agg(a.privilege_type) "
        "FROM pg_database d, aclexplode(d.datacl) a WHERE d.datname = %s AND a.grantee <> d.datdba GROUP BY 1",
        (name,),
    ).fetchall()
    there = inner.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname = ANY (%s)",
        (list(TABLES),),
    ).fetchall()
    return Former(owner, comment, None if plain else grants, [table for (table,) in there], joined)


def taking(connection: Admin, name: str, former: Former, role: str) -> list[sql.Composable]:
    """Make a role the owner of a database, and shut out whoever else was let in."""
    database = sql.Identifier(name)
    steps: list[sql.Composable] = [] if former.joined else [admin.join(connection, former.owner)]
    steps.append(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, sql.Identifier(role)))
    for grantee, _ in former.grants or ():
        if grantee:
            steps.append(sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(database, sql.Identifier(grantee)))
    return steps


def giving_back(name: str, former: Former) -> list[sql.Composable]:
    """Make the former owner the owner again, and let in whoever was let in before."""
    database = sql.Identifier(name)
    steps: list[sql.Composable] = [
        sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, sql.Identifier(former.owner)),
        sql.SQL("COMMENT ON DATABASE {} IS {}").format(database, former.comment),
    ]
    before = [("", ["CONNECT", "TEMPORARY"])] if former.grants is None else former.grants
    for grantee, privileges in before:
        given = sql.SQL(", ").join(sql.SQL(one) for one in privileges if one in ("CONNECT", "TEMPORARY", "CREATE"))
        who = sql.Identifier(grantee) if grantee else sql.SQL("PUBLIC")
        steps.append(sql.SQL("GRANT {} ON DATABASE {} TO {}").format(given, database, who))
    return steps


def reassign(inner: Connection, old: str, new: str) -> None:
    """Let everything that one role has in this database belong to another one; its other databases stay its own."""
    with inner.transaction():
        others = inner.execute(
            "SELECT datname FROM pg_database WHERE datdba = %s::regrole AND datname <> current_database()",
            (sql.Identifier(old).as_string(inner),),
        ).fetchall()
        spaces = inner.execute(
            "SELECT spcname FROM pg_tablespace WHERE spcowner = %s::regrole", (sql.Identifier(old).as_string(inner),)
        ).fetchall()
        inner.execute(sql.SQL("REASSIGN OWNED BY {} TO {}").format(sql.Identifier(old), sql.Identifier(new)))
        for kind, names in (("DATABASE", others), ("TABLESPACE", spaces)):  # the server reassigns these as well
            for (name,) in names:
                back = sql.SQL("ALTER {} {} OWNER TO {}")
                inner.execute(back.format(sql.SQL(kind), sql.Identifier(name), sql.Identifier(old)))


def end_sessions(connection: Admin, name: str, *users: str) -> None:
    """End the sessions that these users have in a database."""
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = ANY (%s)",
        (name, list(users)),
    )
