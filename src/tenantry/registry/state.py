"""What a control database is like, whatever its revision: for an operator who is about to change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, TableClause, func, inspect, select, table, text

from tenantry.registry import migrations, tables
from tenantry.registry.database import ENGINE_SCHEMA, Database, engine_file
from tenantry.registry.migrations import Revision

NOTES: Final = "workflow_status"
"""The table in which the engine keeps a note of each operation under way."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The tables of the operations' engine."""

    where: str  # a file, or a schema of the server
    notes: int  # operations under way, and those just ended


@dataclass(frozen=True, slots=True)
class State:
    """One control database."""

    where: str  # its address without the password
    server: str  # "SQLite 3.45", "PostgreSQL 15.14"
    revision: str | None  # None: it is empty
    newest: str
    pending: tuple[Revision, ...]
    bytes: int
    rows: Mapping[str, int]  # by table
    change: int  # number of the newest change
    connections: Mapping[str, int]  # to a server, by what they are for; this one among them
    engine: Engine | None  # None: no worker was ever here


async def look(database: Database) -> State:
    """Look at a control database, and change nothing. Raises `RegistryUnavailable`."""
    async with database.read() as tx:
        return await tx.sync(lambda connection: _look(connection, database))


def _look(connection: Connection, database: Database) -> State:
    present = inspect(connection).get_table_names()
    rows = {name: _count(connection, table(name)) for name in tables.metadata.tables if name in present}
    change = connection.execute(select(tables.head.c.change_seq)).scalar() if "head" in present else 0
    sqlite = database.is_sqlite
    version = ".".join(map(str, connection.dialect.server_version_info or ()))
    return State(
        where=database.where,
        server=f"SQLite {version}" if sqlite else f"PostgreSQL {version}",
        revision=migrations.current(connection),
        newest=migrations.HEAD,
        pending=tuple(migrations.pending(connection)),
        bytes=int(connection.execute(text(_SQLITE_BYTES if sqlite else _SERVER_BYTES)).scalar() or 0),
        rows=rows,
        change=int(change or 0),
        connections={} if sqlite else {row[0]: row[1] for row in connection.execute(text(_CONNECTIONS))},
        engine=_engine_file(connection, str(database.url.database)) if sqlite else _engine_schema(connection),
    )


def _count(connection: Connection, counted: TableClause) -> int:
    return int(connection.execute(select(func.count()).select_from(counted)).scalar() or 0)


def _engine_schema(connection: Connection) -> Engine | None:
    if not inspect(connection).has_table(NOTES, schema=ENGINE_SCHEMA):
        return None
    return Engine(f"schema {ENGINE_SCHEMA}", _count(connection, table(NOTES, schema=ENGINE_SCHEMA)))


def _engine_file(connection: Connection, control: str) -> Engine | None:
    file = Path(engine_file(control))
    if not file.exists():
        return None
    connection.execute(text("ATTACH DATABASE :file AS engine"), {"file": str(file)})
    found = inspect(connection).has_table(NOTES, schema="engine")
    return Engine(str(file), _count(connection, table(NOTES, schema="engine"))) if found else None


_SQLITE_BYTES: Final = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
_SERVER_BYTES: Final = "SELECT pg_database_size(current_database())"
_CONNECTIONS: Final = (
    "SELECT coalesce(nullif(application_name, ''), 'others'), count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() GROUP BY 1 ORDER BY 1"
)
