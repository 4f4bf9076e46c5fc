"""Runs migrations on an SQLite connection, each in one transaction together with its record."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from tenantry.errors import MigrationError, MigrationInvalid
from tenantry.model import Migrated
from tenantry.resources import history, statements
from tenantry.resources.history import OWN_TRANSACTION
from tenantry.resources.limits import DEFAULT, Limits, patiently
from tenantry.resources.schema import Migration, Schema

if TYPE_CHECKING:  # it takes half a second to import, and plain SQL files do not need it
    import sqlalchemy

RECORD: Final = """
CREATE TABLE IF NOT EXISTS tenantry_schema (
  version TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  checksum TEXT NOT NULL,
  applied TEXT NOT NULL,
  seconds REAL NOT NULL
) STRICT
"""
INSTRUCTIONS: Final = 10_000
"""How many of SQLite's instructions run between two looks at the clock."""

_DENIED: Final = frozenset({sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH})


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
            raise sqlite3.ProgrammingError(OWN_TRANSACTION)


# --- versions -----------------------------------------------------------------------------------------------------


def version(connection: sqlite3.Connection, schema: Schema) -> str | None:
    """The newest version a database records; raises `MigrationInvalid` where the records contradict the files."""
    if schema.alembic:
        heads = _rows(connection, "SELECT version_num FROM alembic_version")
        return history.newest_revision((head for (head,) in heads), schema)
    records = _rows(connection, "SELECT version, checksum FROM tenantry_schema ORDER BY rowid")
    return history.newest(records, schema)


def stamp(connection: Connection, schema: Schema, to: str | None, name: str) -> None:
    """Record that a database which has no records stands at a version. Raises as `confirm` does."""
    if confirm(connection, schema, to, name) or to is None:
        return
    with _transaction(connection, name):
        if schema.alembic:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"
            )
            connection.execute("INSERT INTO alembic_version VALUES (?)", (to,))
            return
        connection.execute(RECORD)
        for one in schema.between(0, history.position(history.versions(schema), to)):
            record = (one.version, one.name, one.checksum, history.now(), 0.0)
            connection.execute("INSERT INTO tenantry_schema VALUES (?, ?, ?, ?, ?)", record)


def confirm(connection: sqlite3.Connection, schema: Schema, said: str | None, name: str) -> bool:
    """Whether a database has records of its version. Raises `MigrationInvalid` where they say another one."""
    table = "alembic_version" if schema.alembic else "tenantry_schema"
    if not _rows(connection, f"SELECT 1 FROM {table} LIMIT 1"):  # noqa: S608
        return False
    recorded = version(connection, schema)
    if recorded != said:
        raise history.contradiction(name, recorded, said)
    return True


def _rows(connection: sqlite3.Connection, query: str) -> list[Any]:
    """The rows of a query over a table that may not exist yet."""
    try:
        return connection.execute(query).fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return []
        raise


# --- migrating ----------------------------------------------------------------------------------------------------


def migrate(connection: Connection, schema: Schema, to: str | None, limits: Limits = DEFAULT) -> Migrated:
    """Bring a database to a version, up or down; None is before the first. What others hold up is tried again.

    Raises `MigrationError`; then the database is as the last whole migration left it.
    """
    start = time.perf_counter()
    history.refuse_program(schema, str(to))
    before = version(connection, schema)
    order = history.versions(schema)
    position, target = history.position(order, before), history.position(order, to)
    if position == target:
        return Migrated(before, to, (), time.perf_counter() - start)
    if schema.alembic:
        names = order[position:target] if target > position else order[target:position][::-1]
        name = names[-1] if target > position else names[0]
        revise = partial(_revise, connection, schema, to, name, limits)
        patiently(limits, revise, _passes)
    else:
        names = _step_through(connection, schema, (position, target), limits)
    return Migrated(before, to, names, time.perf_counter() - start)


def _step_through(connection: Connection, schema: Schema, way: tuple[int, int], limits: Limits) -> tuple[str, ...]:
    steps, up = schema.between(*way), way[1] > way[0]
    for migration in steps:
        if migration.header.transaction == "off":
            raise statements.needless(migration.path.name, "everything can run in a transaction here")
        if not up:
            history.check_reversible(migration)
    for migration in steps:
        own = limits.of(migration.header)
        patiently(own, partial(_step, connection, migration, up, own), _passes)
    return tuple(migration.version for migration in steps)


def _step(connection: Connection, migration: Migration, up: bool, limits: Limits) -> None:
    """One try. Another process may have been quicker, while this one waited for it."""
    with _transaction(connection, migration.version, limits):
        if up is not _is_applied(connection, migration):
            (_up if up else _down)(connection, migration)


def _is_applied(connection: Connection, migration: Migration) -> bool:
    return (migration.version,) in _rows(connection, "SELECT version FROM tenantry_schema")


def _up(connection: Connection, migration: Migration) -> None:
    start = time.perf_counter()
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'tenantry_schema'").fetchone() is None:
        connection.execute(RECORD)
    _run(connection, migration, "upgrade", migration.up)
    record = (migration.version, migration.name, migration.checksum, history.now(), time.perf_counter() - start)
    connection.execute("INSERT INTO tenantry_schema VALUES (?, ?, ?, ?, ?)", record)


def _down(connection: Connection, migration: Migration) -> None:
    _run(connection, migration, "downgrade", migration.down or ())
    connection.execute("DELETE FROM tenantry_schema WHERE version = ?", (migration.version,))


def enter(connection: Connection, migration: Migration) -> None:
    """Record a migration that ran elsewhere."""
    with _transaction(connection, migration.version):
        _up(connection, migration)


def leave(connection: Connection, migration: Migration) -> None:
    """Take the record of a migration away that was taken back elsewhere."""
    with _transaction(connection, migration.version):
        _down(connection, migration)


def _run(connection: Connection, migration: Migration, name: str, body: tuple[str, ...]) -> None:
    if migration.is_python:
        function = migration.function(name)
        assert function is not None
        with lent(connection) as lend:
            function(lend)
        return
    for statement in body:
        try:
            connection.execute(statement)
        except sqlite3.Error as error:
            raise MigrationError(
                migration=migration.version, reason=f"{error}, in: {history.short(statement)}"
            ) from error


def execute(connection: Connection, body: tuple[str, ...], name: str) -> None:
    """Run statements such as a seed in one transaction. Raises `MigrationError` under this name."""
    with _transaction(connection, name):
        for statement in body:
            connection.execute(statement)


@contextmanager
def _transaction(connection: Connection, name: str, limits: Limits | None = None) -> Iterator[None]:
    """One transaction that takes the write lock at once and commits only where all foreign keys hold.

    Foreign keys are not enforced meanwhile, so that a table can be made anew (sqlite.org/lang_altertable.html,
    section 7). Whatever fails is rolled back and raised as `MigrationError`.
    """
    connection.execute("PRAGMA foreign_keys = OFF")
    try:
        if limits:
            connection.execute(f"PRAGMA busy_timeout = {max(1, round(1000 * limits.lock))}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            with _timed(connection, limits.statement) if limits else nullcontext():
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


@contextmanager
def _timed(connection: Connection, seconds: float) -> Iterator[None]:
    """Interrupt a statement that runs longer than so many seconds."""
    until = time.monotonic() + seconds

    def begin(_: str) -> None:
        nonlocal until
        until = time.monotonic() + seconds

    connection.set_trace_callback(begin)  # called as each statement begins
    connection.set_progress_handler(lambda: time.monotonic() > until, INSTRUCTIONS)
    try:
        yield
    finally:
        connection.set_trace_callback(None)
        connection.set_progress_handler(None, INSTRUCTIONS)


def _passes(cause: BaseException) -> bool:
    """Whether an error comes of another connection's lock."""
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF  # the rest tells more of the same
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


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
                raise sqlite3.ProgrammingError(OWN_TRANSACTION)
        finally:
            connection.migrating = False
            connection.set_authorizer(None)
            _lent.connection = None


def _authorize(connection: Connection, action: int, *_: str | None) -> int:
    """Nothing ends the transaction; and where a conflict clause ended it, nothing more is done."""
    allowed = action not in _DENIED and connection.in_transaction
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _revise(connection: Connection, schema: Schema, to: str | None, name: str, limits: Limits) -> None:
    """Run Alembic's revisions up or down to a version, all in one transaction."""
    before = version(connection, schema)
    if before == to:
        return

    @contextmanager
    def lend() -> Iterator[sqlalchemy.Connection]:
        with _transaction(connection, name, limits), lent(connection) as outer:
            yield outer

    history.revise(lend, schema, before, to)
