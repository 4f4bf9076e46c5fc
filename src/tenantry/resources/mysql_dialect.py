"""Migrations on MariaDB and MySQL, where each change of the schema commits by itself: recorded by statement."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pymysql

from tenantry.errors import MigrationInvalid, TenantryError
from tenantry.resources import history, statements, stepwise
from tenantry.resources.limits import Limits
from tenantry.resources.mysql_server import NO_TABLE, STATEMENT_SECONDS, Connection, Refused
from tenantry.resources.schema import Migration
from tenantry.resources.server_migrator import Dialect, failed, function_of, reason_of
from tenantry.resources.stepwise import Unfinished

if TYPE_CHECKING:
    import sqlalchemy

RECORD: Final = """
CREATE TABLE IF NOT EXISTS {record} (
  version VARCHAR(200) NOT NULL PRIMARY KEY,
  name VARCHAR(200) NOT NULL,
  checksum CHAR(64) NOT NULL,
  applied VARCHAR(40) NOT NULL,
  seconds DOUBLE NOT NULL DEFAULT 0,
  done INT NULL,
  prefix CHAR(64) NULL,
  begun SMALLINT NOT NULL DEFAULT 0,
  back SMALLINT NOT NULL DEFAULT 0
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin
"""
"""`done` is NULL for a migration that is whole; otherwise it stopped behind so many statements, whose checksum is
`prefix`, on its way `back` or not; `begun` is 1 while the next one runs."""

_THERE: Final = frozenset({1007, 1050, 1051, 1060, 1061, 1068, 1091, 1146, 1304, 1305, 1359, 1360, 1517, 1826, 4162})
"""What a statement that had taken effect says when it is run again: it is there already, or gone already."""

_DATA: Final = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "SELECT", "WITH", "SET", "DO", "VALUES"})
_CODE: Final = frozenset({"TRIGGER", "PROCEDURE", "FUNCTION", "EVENT", "PACKAGE"})
_BLOCKS: Final = frozenset({"IF", "LOOP", "WHILE", "REPEAT", "FOR"})
_REFUSED: Final = {
    "USE": "Remove it: a migration stays inside the tenant's own database.",
    "DELIMITER": "Remove it, and write what is between BEGIN and END as it is.",
    "XA": "Remove it: transactions are Tenantry's.",
}
_PASSING: Final = frozenset({1205, 1213})
"""A lock that was not had in time, and a deadlock: the statement was undone, and can be run again."""

_COMMENTS: Final = re.compile(r"(?>\s|--[ \t][^\n]*|#[^\n]*|/\*(?!!).*?\*/)*", re.DOTALL)
_WORD: Final = re.compile(r"[A-Za-z]+", re.ASCII)


_COLUMNS: Final = """
SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name IN %s
"""


class MySQL(Dialect):
    """MariaDB and MySQL."""

    name: ClassVar[str] = "mysql"
    parser: ClassVar[str] = "mysql"
    record = "tenantry_schema"  # the quoted name of the table of records

    def split(self, sql: str, name: str) -> tuple[str, ...]:
        from sqlglot.dialects.dialect import Dialect as Parser
        from sqlglot.errors import TokenError

        try:
            tokens = Parser.get_or_raise(self.parser).tokenize(sql)
        except TokenError as error:
            raise MigrationInvalid(
                path=name, reason=f"it cannot be read: {str(error).partition(chr(10))[0]}"
            ) from error
        parts = list(_parts(tokens))
        for part in parts:
            _allow(part[0].text.upper(), name)
        return tuple(sql[part[0].start : part[-1].end + 1] for part in parts)

    def records(self, connection: Connection) -> Sequence[tuple[str, str]]:
        query = f"SELECT version, checksum FROM {self.record} WHERE done IS NULL OR back = 1 ORDER BY version"  # noqa: S608
        return [(str(version), str(checksum)) for version, checksum in rows(connection, query)]

    def heads(self, connection: Connection) -> Sequence[str]:
        return [str(head) for (head,) in rows(connection, "SELECT version_num FROM alembic_version")]

    def columns(self, connection: Connection, tables: Sequence[str]) -> Mapping[str, Collection[str]]:
        found: dict[str, list[str]] = {}
        for name, column in connection.ask(_COLUMNS, tuple(tables)):
            found.setdefault(name, []).append(column)
        return found

    def unfinished(self, connection: Connection) -> Unfinished | None:
        """The migration that stopped in the middle, if one did."""
        query = f"SELECT version, done, prefix, begun, back FROM {self.record} WHERE done IS NOT NULL"  # noqa: S608
        for version, done, prefix, begun, back in rows(connection, query):
            return Unfinished(version, int(done), prefix or "", begun == "1", back == "1")
        return None

    def limit(self, connection: Connection, limits: Limits) -> None:
        """Locks are waited for in whole seconds here; MySQL cannot end a statement that changes anything."""
        seconds = math.ceil(limits.lock)
        connection.ask("SET SESSION lock_wait_timeout = %s, innodb_lock_wait_timeout = %s", seconds, seconds)
        if "MariaDB" in str(connection.get_server_info()):
            connection.ask("SET SESSION max_statement_time = %s", limits.statement)
        connection.patient(max(STATEMENT_SECONDS, math.ceil(limits.statement + limits.lock) + 60))

    def passes(self, cause: BaseException) -> bool:
        """Files of Python are not tried again: what they changed of the schema stays, and would be in the way."""
        return isinstance(cause, Refused) and cause.number in _PASSING

    def step(self, connection: Connection, migration: Migration, up: bool) -> None:
        if migration.header.transaction == "off":
            raise statements.needless(migration.path.name, "each change of the schema commits by itself here")
        _told(migration.version, connection.ask, RECORD.format(record=self.record))
        if migration.is_python:
            with self.lent(connection, migration.version) as outer:
                function_of(migration, up)(outer)
                _write(self.record, connection, migration, up)
            return
        body = migration.up if up else migration.down or ()
        if all(_is_data(statement) for statement in body):
            with _transaction(connection, migration.version):
                _all(connection, migration.version, body)
                _write(self.record, connection, migration, up)
            return
        _one_by_one(self.record, connection, migration, body, self.unfinished(connection), up)

    def script(self, connection: Connection, sql: Sequence[str], name: str) -> None:
        with _transaction(connection, name):
            _all(connection, name, sql)

    @contextmanager
    def lent(self, connection: Connection, name: str) -> Iterator[sqlalchemy.Connection]:
        try:
            with _transaction(connection, name), _lent(connection) as outer:
                yield outer
        except (TenantryError, Refused):
            raise
        except Exception as error:
            reason = f"{reason_of(error)}; what it had changed of the schema stays"
            raise failed(name, reason) from error

    def enter(self, connection: Connection, migrations: Sequence[Migration]) -> None:
        connection.ask(RECORD.format(record=self.record))
        with _transaction(connection, "records"):
            for migration in migrations:
                _write(self.record, connection, migration, True)


MYSQL: Final = MySQL()


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query over a table that may not exist yet."""
    try:
        return connection.ask(query)
    except Refused as error:
        if error.number == NO_TABLE:
            return []
        raise


# --- statements ---------------------------------------------------------------------------------------------------


def _parts(tokens: Sequence[Any]) -> Iterator[list[Any]]:
    """The tokens of each statement; in a trigger or routine those between BEGIN and END are inside it."""
    part: list[Any] = []
    depth, before = 0, ""
    for number, token in enumerate(tokens):
        word = "" if token.token_type.name in ("STRING", "IDENTIFIER") else token.text.upper()
        if token.token_type.name == "SEMICOLON" and not depth:
            if part:
                yield part
            part, before = [], ""
            continue
        part.append(token)
        if any(one.text.upper() in _CODE for one in part[:12]) and part[0].text.upper() == "CREATE":
            following = tokens[number + 1].text.upper() if number + 1 < len(tokens) else ""
            depth += word == "BEGIN" or (word == "CASE" and before != "END")
            depth -= depth > 0 and word == "END" and following not in _BLOCKS
        before = word
    if part:
        yield part


def _allow(word: str, name: str) -> None:
    remedy = _REFUSED.get(word)
    if word in statements.TRANSACTION:
        remedy = "Remove it: Tenantry begins and ends transactions."
    if remedy:
        raise MigrationInvalid(path=name, reason=f"it has the statement {word}", remedy=remedy)


def _is_data(statement: str) -> bool:
    """Whether a statement changes rows only, so that it can be rolled back."""
    blank = _COMMENTS.match(statement)
    word = _WORD.match(statement, blank.end() if blank else 0)
    return word is not None and word[0].upper() in _DATA


# --- running ------------------------------------------------------------------------------------------------------


def _told(name: str, call: Any, statement: str) -> None:
    try:
        call(statement)
    except Refused as error:
        raise failed(name, error.text, statement) from error


def _all(connection: Connection, name: str, body: Sequence[str]) -> None:
    for statement in body:
        _told(name, connection.ask, statement)


@contextmanager
def _transaction(connection: Connection, name: str) -> Iterator[None]:
    """One transaction, as far as the server lets it be one. Raises `MigrationError` where its end fails."""
    connection.ask("START TRANSACTION")
    try:
        yield
        _told(name, connection.ask, "COMMIT")
    except BaseException:
        with suppress(TenantryError, Refused):
            connection.ask("ROLLBACK")
        raise


def _write(record: str, connection: Connection, migration: Migration, up: bool, seconds: float = 0.0) -> None:
    """Record that a migration is whole, or that it is gone."""
    if up:
        connection.ask(
            f"REPLACE INTO {record} (version, name, checksum, applied, seconds) VALUES (%s, %s, %s, %s, %s)",  # noqa: S608
            *(migration.version, migration.name, migration.checksum, history.now(), seconds),
        )
    else:
        connection.ask(f"DELETE FROM {record} WHERE version = %s", migration.version)  # noqa: S608


def _one_by_one(
    record: str, connection: Connection, migration: Migration, body: Sequence[str], there: Unfinished | None, up: bool
) -> None:
    """Run what is left of a migration, and record after each statement how far it came."""
    start = time.perf_counter()
    first, begun = _resume(record, connection, migration, body, there, up)
    for number, statement in enumerate(body[first:], start=first):
        connection.ask(f"UPDATE {record} SET begun = 1 WHERE version = %s", migration.version)  # noqa: S608
        try:
            with _transaction(connection, migration.version):
                _run(connection, statement, again=begun and number == first)
                connection.ask(
                    f"UPDATE {record} SET done = %s, prefix = %s, begun = 0 WHERE version = %s",  # noqa: S608
                    *(number + 1, stepwise.prefix(body[: number + 1]), migration.version),
                )
        except Refused as error:
            with suppress(TenantryError, Refused):
                connection.ask(f"UPDATE {record} SET begun = 0 WHERE version = %s", migration.version)  # noqa: S608
            raise stepwise.stopped(migration, number, len(body), error.text, history.short(statement)) from error
    _write(record, connection, migration, up, time.perf_counter() - start)


def _resume(
    record: str, connection: Connection, migration: Migration, body: Sequence[str], there: Unfinished | None, up: bool
) -> tuple[int, bool]:
    """Behind how many statements to go on, and whether the next one was cut off."""
    found = stepwise.resume(migration, body, there, up)
    if found is None:
        _begin(record, connection, migration, up)
    return found or (0, False)


def _begin(record: str, connection: Connection, migration: Migration, up: bool) -> None:
    """Record that a migration begins. Whole ones that are taken back have their record already."""
    if up:
        connection.ask(
            f"INSERT INTO {record} (version, name, checksum, applied, done, prefix) VALUES (%s, %s, %s, %s, 0, %s)",  # noqa: S608
            *(migration.version, migration.name, migration.checksum, history.now(), stepwise.prefix(())),
        )
    else:
        connection.ask(
            f"UPDATE {record} SET done = 0, prefix = %s, back = 1 WHERE version = %s",  # noqa: S608
            *(stepwise.prefix(()), migration.version),
        )


def _run(connection: Connection, statement: str, again: bool) -> None:
    """Run a statement; one that was cut off may have taken effect."""
    try:
        connection.ask(statement)
    except Refused as error:
        if not (again and error.number in _THERE):
            raise


# --- SQLAlchemy ---------------------------------------------------------------------------------------------------


def _engine(connection: _Lent) -> sqlalchemy.Engine:
    """An engine for one connection: SQLAlchemy remembers the first database as where an engine looks for tables."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    engine = create_engine("mysql+pymysql://", creator=lambda: connection, poolclass=NullPool)
    event.listen(engine, "before_cursor_execute", _refuse)
    return engine


def _refuse(_: Any, __: Any, statement: str, *___: Any) -> None:
    blank = _COMMENTS.match(statement)
    word = _WORD.match(statement, blank.end() if blank else 0)
    if word and word[0].upper() in statements.TRANSACTION:
        raise pymysql.ProgrammingError(0, history.OWN_TRANSACTION)


class _Lent:
    """A connection as SQLAlchemy gets it: it can neither end the transaction nor close it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.guarded = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def commit(self) -> None:
        self._end()

    def rollback(self) -> None:
        self._end()

    def close(self) -> None:
        """It stays open."""

    def _end(self) -> None:
        if self.guarded:
            raise pymysql.ProgrammingError(0, history.OWN_TRANSACTION)


@contextmanager
def _lent(connection: Connection) -> Iterator[sqlalchemy.Connection]:
    lent = _Lent(connection)
    decoders, connection.decoders = connection.decoders, dict(pymysql.converters.decoders)
    try:
        with _engine(lent).connect() as outer:
            outer.begin()
            lent.guarded = True
            try:
                yield outer
            finally:
                lent.guarded = False
    finally:
        connection.decoders = decoders
