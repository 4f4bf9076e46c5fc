"""Changes of tenants' rows in migrations without a transaction: one tenant after the other, under its own policy.

So no tenant waits for longer than its own rows take. Each turn is one transaction with its mark, the key of the tenant
in the migration's record: who goes on after a crash goes on with the next one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from psycopg import sql

from tenantry.errors import MigrationInvalid
from tenantry.resources import rows_tables, statements
from tenantry.resources.postgres_run import Connection
from tenantry.resources.rows_tables import working_for

_COLUMN: Final = sql.SQL("ALTER TABLE {} ADD COLUMN IF NOT EXISTS turn uuid")
_NEXT: Final = sql.SQL(
    "SELECT min(t.tenant_id::text) FROM {} t WHERE t.tenant_id::text > coalesce("
    "(SELECT r.turn::text FROM {} r WHERE r.version = %s), '')"
)
_TAKEN: Final = sql.SQL("UPDATE {} SET turn = %s WHERE version = %s")

_CHANGES: Final = frozenset({"insert", "update", "delete", "merge"})


def is_for_each(statement: str, shared: Collection[str], name: str) -> bool:
    """Whether a statement changes rows that belong to tenants.

    Raises `MigrationInvalid` for a block of code: nobody can tell whose rows it is to see.
    """
    words = statement.split(maxsplit=1)
    if words and words[0].upper() == "DO":
        reason = "it says transaction=off and has a DO block, which would see no tenant's rows"
        remedy = (
            "Write INSERT, UPDATE, DELETE or MERGE, which are run for each tenant; or put it into a file of its own."
        )
        raise MigrationInvalid(path=name, reason=reason, remedy=remedy)
    (tree, *_) = statements.trees("postgres", statement) or [None]
    if tree is None or tree.key not in _CHANGES:
        return False
    table = tree.this.find(_table()) if tree.this is not None else None
    return table is None or not {table.name, f"{table.db or 'public'}.{table.name}"} & set(shared)


def _table() -> type:
    from sqlglot import exp

    return exp.Table


def take(connection: Connection, record: sql.Identifier, version: str, statement: str) -> None:
    """Run a statement for each tenant that had no turn yet."""
    connection.execute(_COLUMN.format(record))
    following = _NEXT.format(sql.Identifier("public", rows_tables.MARKER), record)
    while (key := (connection.execute(following, (version,)).fetchone() or (None,))[0]) is not None:
        with working_for(connection, key):
            connection.execute(statement.encode())
            connection.execute(_TAKEN.format(record), (key, version))


def end(connection: Connection, record: sql.Identifier, version: str) -> None:
    """Forget whose turn it was: the next statement begins with the first tenant."""
    connection.execute(_TAKEN.format(record), (None, version))
