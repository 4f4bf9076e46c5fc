"""Migrations on PostgreSQL: a whole file in one round trip, in one transaction with its record."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

import psycopg
from psycopg import generators, sql
from psycopg.pq import ExecStatus, TransactionStatus

from tenantry.errors import MigrationError, MigrationInvalid
from tenantry.resources import statements
from tenantry.resources.history import OWN_TRANSACTION
from tenantry.resources.schema import Migration
from tenantry.resources.server_migrator import Dialect, failed, function_of, reason_of

if TYPE_CHECKING:
    import sqlalchemy

RECORD: Final = sql.SQL("""
CREATE TABLE IF NOT EXISTS {record} (
  version text COLLATE "C" PRIMARY KEY,
  name text NOT NULL,
  checksum text NOT NULL,
  applied timestamptz NOT NULL DEFAULT now(),
  seconds double precision NOT NULL DEFAULT 0
)""")
_ENTER: Final = sql.SQL("INSERT INTO {record} (version, name, checksum) VALUES ({}, {}, {})")
_TIMED: Final = sql.SQL(
    "UPDATE {record} SET seconds = extract(epoch FROM clock_timestamp() - now()) WHERE version = {}"
)
_LEAVE: Final = sql.SQL("DELETE FROM {record} WHERE version = {}")
_RECORDS: Final = sql.SQL("SELECT version, checksum FROM {record} ORDER BY version")


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that SQLAlchemy may use inside our transaction, without ending it."""

    lent = False  # to SQLAlchemy, which then can neither end the transaction nor close the connection
    guarded = False  # a migration runs: whoever tries to is told
    transaction_number: object = None  # of the transaction that was begun for a migration

    def commit(self) -> None:
        if not self.lent:
            super().commit()
        self._refuse()

    def rollback(self) -> None:
        if not self.lent:
            super().rollback()
        self._refuse()

    def close(self) -> None:
        if not self.lent:
            super().close()

    def _refuse(self) -> None:
        if self.guarded:
            raise psycopg.ProgrammingError(OWN_TRANSACTION)


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

    def proof(self, connection: Connection) -> Sequence[str]:
        """Statements at the end of a migration's transaction, which fail where it did what it may not."""
        return ()

    def step(self, connection: Connection, migration: Migration, up: bool) -> None:
        before, after = self._bookkeeping(connection, migration, up)
        if not migration.is_python:
            body = migration.up if up else migration.down or ()
            _run(connection, migration.version, before, body, after)
            return
        with self.lent(connection, migration.version) as outer:
            function_of(migration, up)(outer)
            _check_transaction(connection)  # only what is in it with the record counts as done
            for statement in (*before, *after):
                connection.execute(statement)

    def script(self, connection: Connection, sql: Sequence[str], name: str) -> None:
        _run(connection, name, (), sql, ())

    def enter(self, connection: Connection, migrations: Sequence[Migration]) -> None:
        found = [self._bookkeeping(connection, migration, True)[0] for migration in migrations]
        _run(connection, "records", [before[0] for before in found[:1]], [before[-1] for before in found], ())

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
            return before, (*self.proof(connection), said(_TIMED, version))
        return (), (*self.proof(connection), said(_LEAVE, version))

    @contextmanager
    def lent(self, connection: Connection, name: str) -> Iterator[sqlalchemy.Connection]:
        try:
            connection.execute("BEGIN")
            try:
                connection.transaction_number = _number(connection)
                with _lent(connection) as outer:
                    yield outer
                _check_transaction(connection)
                connection.execute("RESET ALL; COMMIT")
            except BaseException:
                _end(connection)
                raise
        except (MigrationError, MigrationInvalid):
            raise
        except psycopg.Error as error:
            raise failed(name, _told(error)) from error
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


def _run(connection: Connection, name: str, before: Sequence[str], body: Sequence[str], after: Sequence[str]) -> None:
    """Send everything in one message and as one transaction, whose settings end with it."""
    parts = ["BEGIN", *before, *body, *after, "RESET ALL", "COMMIT"]
    connection.pgconn.send_query(";\n".join(parts).encode())
    results = connection.wait(generators.execute(connection.pgconn))
    done = sum(result.status != ExecStatus.FATAL_ERROR for result in results)
    if done == len(results) == len(parts):
        return
    error = psycopg.errors.error_from_result(results[-1], "utf-8")
    _end(connection)
    inside = 0 <= done - 1 - len(before) < len(body)
    raise failed(name, _told(error), parts[done] if inside else None) from error


def _told(error: psycopg.Error) -> str:
    """The server's own words: the message, and the detail where there is one, without the position."""
    if error.diag.message_primary is None:
        return str(error).partition("\n")[0]
    return " ".join(part.rstrip(".") for part in (error.diag.message_primary, error.diag.message_detail) if part)


def _end(connection: Connection) -> None:
    """Roll back whatever is open."""
    with suppress(psycopg.Error):
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            connection.execute("ROLLBACK")


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
