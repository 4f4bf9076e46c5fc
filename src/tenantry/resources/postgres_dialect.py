"""Migrations on PostgreSQL: a whole file in one round trip, in one transaction with its record."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from tenantry.errors import MigrationError, MigrationInvalid
from tenantry.resources import postgres_blockers as blockers
from tenantry.resources import postgres_steps, statements
from tenantry.resources.history import OWN_TRANSACTION
from tenantry.resources.limits import Limits, Waiting
from tenantry.resources.postgres_run import RECORD, limiting, remedy_of, roll_back, run, told
from tenantry.resources.postgres_run import Connection as Connection  # as those who work on it know it
from tenantry.resources.schema import Migration
from tenantry.resources.server_migrator import Dialect, failed, function_of, reason_of
from tenantry.resources.stepwise import Unfinished

if TYPE_CHECKING:
    import sqlalchemy

_ENTER: Final = sql.SQL("INSERT INTO {record} (version, name, checksum) VALUES ({}, {}, {})")
_LEAVE: Final = sql.SQL("DELETE FROM {record} WHERE version = {}")
_RECORDS: Final = sql.SQL("SELECT version, checksum FROM {record} WHERE done IS NULL OR back ORDER BY version")
_UNFINISHED: Final = sql.SQL("SELECT version, done, prefix, begun, back FROM {record} WHERE done IS NOT NULL")


_PASSING: Final = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)


_COLUMNS: Final = """
SELECT c.relname, array_agg(a.attname::text) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relname = ANY (%s) AND pg_table_is_visible(c.oid) AND a.attnum > 0 AND NOT a.attisdropped GROUP BY c.relname
"""


class Postgres(Dialect):
    """PostgreSQL. The record is written first: its key makes a second process wait, and then fail, not run it too."""

    name: ClassVar[str] = "postgresql"
    parser: ClassVar[str] = "postgres"
    record = sql.Identifier("public", "tenantry_schema")

    def records(self, connection: Connection) -> Sequence[tuple[str, str]]:
        query = _RECORDS.format(record=self.record)
        return [(str(version), str(checksum)) for version, checksum in _rows(connection, query)]

    def heads(self, connection: Connection) -> Sequence[str]:
        return [str(head) for (head,) in _rows(connection, sql.SQL("SELECT version_num FROM alembic_version"))]

    def columns(self, connection: Connection, tables: Sequence[str]) -> Mapping[str, Collection[str]]:
        return {str(name): columns for name, columns in connection.execute(_COLUMNS, (list(tables),))}

    def proof(self, connection: Connection) -> Sequence[str]:
        """Statements at the end of a migration's transaction, which fail where it did what it may not."""
        return ()

    def once(self, connection: Connection, version: str, statement: str, mark: sql.Composed) -> None:
        """Run a statement of a migration without a transaction around it, and mark it as done, both or neither."""
        with connection.transaction():
            for part in (statement, *self.proof(connection)):
                connection.execute(part.encode())
            connection.execute(mark)

    def unfinished(self, connection: Connection) -> Unfinished | None:
        return next((Unfinished(*row) for row in _rows(connection, _UNFINISHED.format(record=self.record))), None)

    def limit(self, connection: Connection, limits: Limits) -> None:
        connection.limits = limits

    def passes(self, cause: BaseException) -> bool:
        """Locks, deadlocks, serialization; and a record that another process wrote while this one waited for it."""
        if isinstance(cause, psycopg.errors.UniqueViolation):
            return self.record.as_string().endswith(f'"{cause.diag.table_name}"')
        return isinstance(cause, _PASSING)

    def watched(self, connection: Connection) -> AbstractContextManager[Waiting]:
        return blockers.watched(connection)

    def step(self, connection: Connection, migration: Migration, up: bool) -> None:
        if migration.header.transaction == "off":
            postgres_steps.Steps(self, connection, migration, up).run()
            return
        before, after = self._bookkeeping(connection, migration, up)
        if not migration.is_python:
            body = migration.up if up else migration.down or ()
            run(connection, migration.version, before, body, after)
            return
        with self.lent(connection, migration.version) as outer:
            function_of(migration, up)(outer)
            _check_transaction(connection)  # only what is in it with the record counts as done
            for statement in (*before, *after):
                connection.execute(statement)

    def script(self, connection: Connection, sql: Sequence[str], name: str) -> None:
        run(connection, name, (), sql, ())

    def enter(self, connection: Connection, migrations: Sequence[Migration]) -> None:
        found = [self._bookkeeping(connection, migration, True)[0] for migration in migrations]
        run(connection, "records", [before[0] for before in found[:1]], [before[-1] for before in found], ())

    def _bookkeeping(
        self, connection: Connection, migration: Migration, up: bool
    ) -> tuple[Sequence[str], Sequence[str]]:
        """What to run before and after a migration, so that its record tells of it."""
        version, name, checksum = (
            sql.Literal(text) for text in (migration.version, migration.name, migration.checksum)
        )

        def said(statement: sql.SQL, *values: sql.Literal) -> str:
            return statement.format(*values, record=self.record).as_string(connection)

        if up:
            before = (said(RECORD), said(_ENTER, version, name, checksum))
            return before, self.proof(connection)
        return (), (*self.proof(connection), said(_LEAVE, version))

    @contextmanager
    def lent(self, connection: Connection, name: str) -> Iterator[sqlalchemy.Connection]:
        try:
            connection.execute(";".join(["BEGIN", *limiting(connection, "LOCAL ")]).encode())
            try:
                connection.transaction_number = _number(connection)
                with _lent(connection) as outer:
                    yield outer
                _check_transaction(connection)
                connection.execute("RESET ALL; COMMIT")
            except BaseException:
                roll_back(connection)
                raise
        except (MigrationError, MigrationInvalid):
            raise
        except psycopg.Error as error:
            raise failed(name, told(error), remedy=remedy_of(error)) from error
        except Exception as error:
            raise failed(name, reason_of(error)) from error


POSTGRES: Final = Postgres()


def _rows(connection: Connection, query: sql.SQL | sql.Composed) -> list[tuple[Any, ...]]:
    """The rows of a query over a table that may not exist yet."""
    inside = connection.info.transaction_status is TransactionStatus.INTRANS
    try:
        with connection.transaction() if inside else nullcontext():
            return connection.execute(query).fetchall()
    except psycopg.errors.UndefinedTable:
        return []


def _number(connection: Connection) -> object:
    return connection.execute("SELECT pg_current_xact_id()").fetchone()


def _check_transaction(connection: Connection) -> None:
    """Raise where the running transaction is another one than that which was begun."""
    if _number(connection) != connection.transaction_number:
        raise psycopg.ProgrammingError(OWN_TRANSACTION)


# --- SQLAlchemy ---------------------------------------------------------------------------------------------------

_now: Final = threading.local()


@cache
def _engine() -> sqlalchemy.Engine:
    """One engine for all databases: it takes whatever connection its thread works on."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: _now.connection, poolclass=NullPool, use_native_hstore=False
    )
    event.listen(engine, "before_cursor_execute", _refuse)
    return engine


def _refuse(_: Any, cursor: Any, statement: str, *__: Any) -> None:
    if cursor.connection.guarded and statements.ends_transaction("postgres", statement):
        raise psycopg.ProgrammingError(OWN_TRANSACTION)


@contextmanager
def _lent(connection: Connection) -> Iterator[sqlalchemy.Connection]:
    """A SQLAlchemy connection inside the running transaction, which nothing done with it can end."""
    _now.connection, connection.lent = connection, True
    try:
        with _engine().connect() as outer:
            outer.begin()
            connection.guarded = True
            try:
                yield outer
                if not outer.in_transaction():
                    raise psycopg.ProgrammingError(OWN_TRANSACTION)
            finally:
                connection.guarded = False
    finally:
        _now.connection, connection.lent = None, False
