"""Runs migrations on an SQLite connection, each in one transaction together with its record."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

from tenantry.errors import MigrationError, MigrationInvalid
from tenantry.model import Migrated
from tenantry.resources.schema import Migration, Schema

if TYPE_CHECKING:  # both take half a second to import, and plain SQL files need neither
    import sqlalchemy
    from alembic.script import ScriptDirectory

RECORD: Final = """
CREATE TABLE IF NOT EXISTS tenantry_schema (
  version TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  checksum TEXT NOT NULL,
  applied TEXT NOT NULL,
  seconds REAL NOT NULL
) STRICT
"""
BOOKKEEPING: Final = frozenset({"tenantry_schema", "alembic_version"})
"""Tables that tell the version and hold nothing of a tenant."""

_OWN_TRANSACTION: Final = "a migration cannot begin, commit or roll back: it runs in one transaction with its record"
_DENIED: Final = frozenset({sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH})
_alembic_lock: Final = threading.Lock()  # alembic's `op` is one global of the process


class Connection(sqlite3.Connection):
    """An SQLite connection that SQLAlchemy may use inside our transaction, without ending it.

    Our own code ends transactions with plain statements and closes with `shut`.
    """

    migrating = False

    def commit(self) -> None:
        self._refuse()

    def rollback(self) -> None:
        self._refuse()

    def close(self) -> None:
        """SQLAlchemy hands the connection back; it stays open."""

    def shut(self) -> None:
        """Close it for good."""
        super().close()

    def _refuse(self) -> None:
        if self.migrating:
            raise sqlite3.ProgrammingError(_OWN_TRANSACTION)


# --- versions -----------------------------------------------------------------------------------------------------


def versions(schema: Schema) -> tuple[str, ...]:
    """The versions of a schema, oldest first. Raises `MigrationInvalid`."""
    if schema.alembic:
        return _revisions(schema)
    return tuple(migration.version for migration in schema.migrations)


def version(connection: sqlite3.Connection, schema: Schema) -> str | None:
    """The newest version a database records; raises `MigrationInvalid` where the records contradict the files."""
    order = versions(schema)
    if not schema.alembic:
        applied = _applied(connection, schema)
        return order[applied - 1] if applied else None
    heads = _rows(connection, "SELECT version_num FROM alembic_version")
    unknown = [head for (head,) in heads if head not in order]
    if unknown:
        raise _unknown(unknown[0], order)
    return max((head for (head,) in heads), key=order.index, default=None)


def _applied(connection: sqlite3.Connection, schema: Schema) -> int:
    """How many of the schema's migrations a database has; they are always the first ones."""
    records = _rows(connection, "SELECT version, checksum FROM tenantry_schema ORDER BY rowid")
    for (name, checksum), migration in zip(records, schema.migrations, strict=False):
        if name != migration.version:
            raise _unknown(name, versions(schema))
        if checksum != migration.checksum:
            raise MigrationInvalid(
                path=migration.path.name,
                reason="it was changed after it had been applied",
                remedy="Put the file back as it was, and make the change in a new migration.",
            )
    if len(records) > len(schema.migrations):
        raise _unknown(records[len(schema.migrations)][0], versions(schema))
    return len(records)


def _unknown(name: str, order: tuple[str, ...]) -> MigrationInvalid:
    newest = f"the newest is {order[-1]}" if order else "there are none"
    return MigrationInvalid(
        path=name,
        reason=f"the database has this migration, but it is not among the files; {newest}",
        remedy="Bring the file back, or deploy the application that has it.",
    )


def _rows(connection: sqlite3.Connection, query: str) -> list[Any]:
    """The rows of a query over a table that may not exist yet."""
    try:
        return connection.execute(query).fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return []
        raise


# --- migrating ----------------------------------------------------------------------------------------------------


def migrate(connection: Connection, schema: Schema, to: str | None) -> Migrated:
    """Bring a database to a version, up or down; None is before the first.

    Raises `MigrationError`; then the database is as the last whole migration left it.
    """
    start = time.perf_counter()
    before = version(connection, schema)
    order = versions(schema)
    position, target = _position(order, before), _position(order, to)
    if position == target:
        return Migrated(before, to, (), time.perf_counter() - start)
    if schema.alembic:
        names = order[position:target] if target > position else order[target:position][::-1]
        _revise(connection, schema, before, to, f"{names[-1]}" if target > position else names[0])
    else:
        names = _step_through(connection, schema, position, target)
    return Migrated(before, to, names, time.perf_counter() - start)


def _position(order: tuple[str, ...], name: str | None) -> int:
    return 0 if name is None else order.index(name) + 1


def _step_through(connection: Connection, schema: Schema, position: int, target: int) -> tuple[str, ...]:
    steps, up = schema.between(position, target), target > position
    for migration in steps:
        if not up:
            _check_reversible(migration)
    for migration in steps:
        with _transaction(connection, migration.version):
            (_up if up else _down)(connection, migration)
    return tuple(migration.version for migration in steps)


def _check_reversible(migration: Migration) -> None:
    reversible = migration.function("downgrade") if migration.is_python else migration.down is not None
    if not reversible:
        way = "function 'downgrade(connection)'" if migration.is_python else "section '-- down'"
        raise MigrationError(
            migration=migration.version,
            reason=f"it cannot be taken back, since it has no {way}",
            remedy=f"Add the {way} in a copy of this release, or restore a backup.",
        )


def _up(connection: Connection, migration: Migration) -> None:
    start = time.perf_counter()
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'tenantry_schema'").fetchone() is None:
        connection.execute(RECORD)
    _run(connection, migration, "upgrade", migration.up)
    record = (migration.version, migration.name, migration.checksum, now(), time.perf_counter() - start)
    connection.execute("INSERT INTO tenantry_schema VALUES (?, ?, ?, ?, ?)", record)


def _down(connection: Connection, migration: Migration) -> None:
    _run(connection, migration, "downgrade", migration.down or ())
    connection.execute("DELETE FROM tenantry_schema WHERE version = ?", (migration.version,))


def now() -> str:
    """This moment in UTC, as ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _run(connection: Connection, migration: Migration, name: str, statements: tuple[str, ...]) -> None:
    if migration.is_python:
        function = migration.function(name)
        assert function is not None
        with lent(connection) as lend:
            function(lend)
        return
    for statement in statements:
        try:
            connection.execute(statement)
        except sqlite3.Error as error:
            raise MigrationError(migration=migration.version, reason=f"{error}, in: {_short(statement)}") from error


def _short(statement: str) -> str:
    text = " ".join(statement.split())
    return text if len(text) <= 120 else f"{text[:119]}…"


def execute(connection: Connection, statements: tuple[str, ...], name: str) -> None:
    """Run statements such as a seed in one transaction. Raises `MigrationError` under this name."""
    with _transaction(connection, name):
        for statement in statements:
            connection.execute(statement)


@contextmanager
def _transaction(connection: Connection, name: str) -> Iterator[None]:
    """One transaction that takes the write lock at once and commits only where all foreign keys hold.

    Foreign keys are not enforced meanwhile, so that a table can be made anew (sqlite.org/lang_altertable.html,
    section 7). Whatever fails is rolled back and raised as `MigrationError`.
    """
    connection.execute("PRAGMA foreign_keys = OFF")
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            _check_references(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    except (MigrationError, MigrationInvalid):
        raise
    except Exception as error:
        raise MigrationError(migration=name, reason=_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, sqlite3.Error):
        return str(error)
    cause = getattr(error, "orig", None)  # SQLAlchemy wraps the database's own error
    return str(cause) if cause is not None else f"{type(error).__name__}: {error}"


def _check_references(connection: sqlite3.Connection) -> None:
    broken = connection.execute("PRAGMA foreign_key_check").fetchone()
    if broken:
        table, row, parent, _ = broken
        raise sqlite3.IntegrityError(f"row {row} of table {table} refers to a row of {parent} that is not there")


# --- SQLAlchemy and Alembic ---------------------------------------------------------------------------------------

_lent: Final = threading.local()


@cache
def _engine() -> sqlalchemy.Engine:
    """One engine for all databases: it takes whatever connection its thread works on."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    return create_engine("sqlite://", creator=lambda: _lent.connection, poolclass=NullPool)


@contextmanager
def lent(connection: Connection) -> Iterator[sqlalchemy.Connection]:
    """A SQLAlchemy connection inside the running transaction, which nothing done with it can end."""
    _lent.connection = connection
    with _engine().connect() as outer:
        outer.begin()
        connection.set_authorizer(partial(_authorize, connection))
        connection.migrating = True
        try:
            yield outer
            if not outer.in_transaction():
                raise sqlite3.ProgrammingError(_OWN_TRANSACTION)
        finally:
            connection.migrating = False
            connection.set_authorizer(None)
            _lent.connection = None


def _authorize(connection: Connection, action: int, *_: str | None) -> int:
    """Nothing ends the transaction; and where a conflict clause ended it, nothing more is done."""
    allowed = action not in _DENIED and connection.in_transaction
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


@lru_cache(maxsize=16)
def _script(schema: Schema) -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory(schema.directory)


@lru_cache(maxsize=16)
def _revisions(schema: Schema) -> tuple[str, ...]:
    """Alembic's revisions, oldest first, from base to the one head."""
    try:
        with _alembic_lock:
            script = _script(schema)
            heads = script.get_heads()
            order = tuple(found.revision for found in script.walk_revisions())[::-1]
    except Exception as error:  # a revision file that cannot be loaded raises whatever it does
        raise MigrationInvalid(path=str(schema.directory), reason=_reason(error)) from error
    if len(heads) > 1:
        raise MigrationInvalid(
            path=str(schema.directory),
            reason=f"it has several heads: {', '.join(heads)}",
            remedy="Join them with `alembic merge heads`.",
        )
    return order


def _revise(connection: Connection, schema: Schema, before: str | None, to: str | None, name: str) -> None:
    """Run Alembic's revisions up or down to a version, all in one transaction, without the project's env.py."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    script, order = _script(schema), _revisions(schema)
    back = _position(order, to) < _position(order, before)

    def steps(heads: Any, _: MigrationContext) -> Any:
        if back:
            return script._downgrade_revs(to or "base", heads)
        return script._upgrade_revs(to or "base", heads)

    with _alembic_lock, _transaction(connection, name), lent(connection) as outer:
        context = MigrationContext.configure(connection=outer, opts={"fn": steps, "script": script})
        with Operations.context(context):
            context.run_migrations()
