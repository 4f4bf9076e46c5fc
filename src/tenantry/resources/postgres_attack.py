"""Attacks of one tenant's login on another tenant's PostgreSQL database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import psycopg
from psycopg import sql

from tenantry.model import Breach
from tenantry.resources.postgres_dialect import Connection

Step = tuple[str, sql.SQL | sql.Composed]

FILES: Final = (
    ("read a file of the server", sql.SQL("SELECT pg_read_file('PG_VERSION')")),
    ("list the server's files", sql.SQL("SELECT count(*) FROM pg_ls_dir('.')")),
    ("read a file by COPY", sql.SQL("CREATE TEMP TABLE t (x text); COPY t FROM '/etc/hostname'; SELECT x FROM t")),
    ("run a program", sql.SQL("CREATE TEMP TABLE t (x text); COPY t FROM PROGRAM 'id'; SELECT x FROM t")),
    ("import a file", sql.SQL("SELECT lo_import('/etc/hostname')")),
    ("read the passwords", sql.SQL("SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL LIMIT 1")),
)
"""What leads around every database of the server."""


def attack(name: str, connect: Callable[[str], Connection], own: str, other: str, user: str) -> list[Breach]:
    """Try everything against the database `other` and its owner `user`. What succeeds is rolled back."""
    found = [*_enter(name, connect, other)]
    connection = connect(own)
    try:
        for what, statement in (*_steps(other, user, connection), *FILES):
            evidence = _tried(connection, statement)
            if evidence is not None:
                found.append(Breach(name, what, evidence))
    finally:
        connection.close()
    return found


def _enter(name: str, connect: Callable[[str], Connection], other: str) -> Iterator[Breach]:
    try:
        connection = connect(other)
    except psycopg.OperationalError:
        return
    try:
        (count,) = connection.execute("SELECT count(*) FROM pg_class WHERE relkind = 'r'").fetchone() or (0,)
        yield Breach(name, "connect to the other database", f"{count} tables seen in {other}")
    finally:
        connection.close()


def _steps(other: str, user: str, connection: Connection) -> Iterator[Step]:
    database, role = sql.Identifier(other), sql.Identifier(user)
    me = connection.execute("SELECT current_user").fetchone()
    if me is not None and me[0] != user:
        yield "become its role", sql.SQL("SET ROLE {}; SELECT current_user").format(role)
        yield "give oneself its role", sql.SQL("GRANT {} TO CURRENT_USER").format(role)
        yield "take its role's password", sql.SQL("ALTER ROLE {} PASSWORD NULL").format(role)
        yield (
            "be let in",
            sql.SQL(
                "GRANT CONNECT ON DATABASE {} TO CURRENT_USER; "
                "SELECT 1 / has_database_privilege({}, 'CONNECT')::int"  # a grant that gives nothing is only a warning
            ).format(database, other),
        )
        yield "change its settings", sql.SQL("ALTER DATABASE {} SET work_mem TO '64kB'").format(database)
        yield "measure it", sql.SQL("SELECT pg_database_size({})").format(other)
    yield (
        "reach it through dblink",
        sql.SQL("SELECT * FROM dblink({}, 'SELECT 1') AS t (x int)").format(f"dbname={other} user={user}"),
    )


def _tried(connection: Connection, statement: sql.SQL | sql.Composed) -> str | None:
    """What came of a statement; None where it was refused."""
    try:
        with connection.transaction(force_rollback=True):
            cursor = connection.execute(statement)
            while cursor.nextset():
                pass
            row = cursor.fetchone() if cursor.description else None
    except psycopg.Error:
        return None
    return f"it gave {row[0]!r}" if row else "it was done"
