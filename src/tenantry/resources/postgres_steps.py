"""Migrations on PostgreSQL without a transaction around them: `CREATE INDEX CONCURRENTLY` and its like.

Statements that can run in a transaction do, each with its mark, so that they take effect once. The others are marked as
begun first: where a run was cut off meanwhile, the next one drops the invalid index that was left, and takes the answer
"is there already" for done.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql

from tenantry.errors import MigrationError, MigrationInvalid
from tenantry.resources import history, postgres_run, stepwise
from tenantry.resources.postgres_run import Connection
from tenantry.resources.schema import Migration

if TYPE_CHECKING:
    from tenantry.resources.postgres_dialect import Postgres

LOCK: Final = 0x7E4A_4E7E
"""Number of the advisory lock on a database that one such migration at a time holds."""

POLL_SECONDS: Final = 0.1

_ALONE: Final = frozenset({"VACUUM", "CALL", "REINDEX", "CLUSTER"})
_INDEX: Final = re.compile(
    r"CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?"
    r"(?P<name>\"(?:[^\"]|\"\")+\"|(?!ON\b)[^\s\"]+)\s+ON\b",
    re.IGNORECASE,
)
_NAMELESS: Final = re.compile(r"CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+ON\b", re.IGNORECASE)
_COMMENTS: Final = re.compile(r"\s*(?:--[^\n]*(?:\n|\Z)\s*|/\*.*?\*/\s*)*", re.DOTALL)

_THERE: Final = (
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateColumn,
    psycopg.errors.DuplicateObject,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedObject,
)
"""What a statement that had taken effect says when it is run again: it is there already, or gone already."""

_ENTER: Final = sql.SQL("INSERT INTO {record} (version, name, checksum, done, prefix) VALUES ({}, {}, {}, 0, {})")
_BACK: Final = sql.SQL("UPDATE {record} SET done = 0, prefix = {}, back = true WHERE version = {}")
_BEGUN: Final = sql.SQL("UPDATE {record} SET begun = true WHERE version = {}")
_MARK: Final = sql.SQL("UPDATE {record} SET done = {}, prefix = {}, begun = false WHERE version = {}")
_WHOLE: Final = sql.SQL(
    "UPDATE {record} SET done = NULL, prefix = NULL, begun = false, applied = now(), checksum = {} WHERE version = {}"
)
_GONE: Final = sql.SQL("DELETE FROM {record} WHERE version = {}")

_INVALID: Final = """
SELECT n.nspname, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND n.nspname !~ '^pg_' AND (c.relname = %s OR c.relname ~ %s)"""
_REINDEXED: Final = "_cc(new|old)[0-9]*$"
_NOTHING: Final = "$."


class Steps:
    """One run of one migration, up or down."""

    def __init__(self, dialect: Postgres, connection: Connection, migration: Migration, up: bool) -> None:
        self.dialect = dialect
        self.connection = connection
        self.migration = migration
        self.up = up
        self.body = migration.up if up else migration.down or ()

    def run(self) -> None:
        """Run what is left of it. Raises `MigrationError`, `MigrationInvalid`."""
        for statement in self.body:
            if _NAMELESS.match(_plain(statement)):
                reason = "it makes an index without a name, of which a half could not be found again"
                raise MigrationInvalid(path=self.migration.path.name, reason=reason, remedy="Give the index a name.")
        with _alone(self.connection, self.migration.version), postgres_run.limited(self.connection):
            self._execute(postgres_run.RECORD)
            if not self._is_done():
                self._all()

    def _is_done(self) -> bool:
        """Whether another process was quicker."""
        there = self.dialect.unfinished(self.connection)
        if there is not None and there.version == self.migration.version:
            return False
        return self.up is any(name == self.migration.version for name, _ in self.dialect.records(self.connection))

    def _all(self) -> None:
        version = self.migration.version
        found = stepwise.resume(self.migration, self.body, self.dialect.unfinished(self.connection), self.up)
        if found is None:
            self._begin()
        first, begun = found or (0, False)
        for number, statement in enumerate(self.body[first:], start=first):
            mark = self._said(_MARK, number + 1, stepwise.prefix(self.body[: number + 1]), version)
            try:
                self._one(statement, mark, again=begun and number == first)
            except psycopg.Error as error:
                shown = history.short(statement)
                raise stepwise.stopped(
                    self.migration, number, len(self.body), postgres_run.told(error), shown
                ) from error
        self._finish()

    def _one(self, statement: str, mark: sql.Composed, *, again: bool) -> None:
        """Run one statement and mark it as done."""
        if not _stands_alone(statement):
            self.dialect.once(self.connection, self.migration.version, statement, mark)
            return
        self._execute(_BEGUN, self.migration.version)
        _drop_invalid(self.connection, statement)
        try:
            self.connection.execute(statement.encode())
        except _THERE:
            if not again:
                raise
        self.connection.execute(mark)

    def _begin(self) -> None:
        one, nothing = self.migration, stepwise.prefix(())
        if self.up:
            self._execute(_ENTER, one.version, one.name, one.checksum, nothing)
        else:
            self._execute(_BACK, nothing, one.version)

    def _finish(self) -> None:
        """Record that it is whole, or gone. Its later statements may have been corrected since it began."""
        if self.up:
            self._execute(_WHOLE, self.migration.checksum, self.migration.version)
        else:
            self._execute(_GONE, self.migration.version)

    def _said(self, statement: sql.SQL, *values: object) -> sql.Composed:
        return statement.format(*(sql.Literal(value) for value in values), record=self.dialect.record)

    def _execute(self, statement: sql.SQL, *values: object) -> None:
        self.connection.execute(self._said(statement, *values))


def _stands_alone(statement: str) -> bool:
    """Whether the server refuses a statement inside a transaction."""
    words = _plain(statement).upper().split()
    return bool(words) and (words[0] in _ALONE or "CONCURRENTLY" in words[:8])


def _plain(statement: str) -> str:
    """A statement without the comments before it."""
    found = _COMMENTS.match(statement)
    return statement[found.end() :] if found else statement


def _drop_invalid(connection: Connection, statement: str) -> None:
    """Drop the halves of indexes that a run of this statement left which was cut off."""
    plain = _plain(statement)
    made = _INDEX.match(plain)
    if made is None and not plain.upper().startswith("REINDEX"):
        return
    name = _folded(made["name"]) if made else ""
    for found in connection.execute(_INVALID, (name, _NOTHING if made else _REINDEXED)).fetchall():
        connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(*found)))


def _folded(name: str) -> str:
    """A name as the server keeps it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


@contextmanager
def _alone(connection: Connection, version: str) -> Iterator[None]:
    """One process at a time. It asks again and again: who waits inside the server holds up `CONCURRENTLY` for ever."""
    limits = connection.limits
    until = time.monotonic() + (limits.statement + limits.lock if limits else 0.0)
    while not _locked(connection):
        if time.monotonic() > until:
            raise MigrationError(
                migration=version,
                reason="another process is at this migration, or the server still ends one that was killed",
                remedy="Wait until it is over, then run `tenantry migrate run` again.",
            )
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        with suppress(psycopg.Error):
            connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))


def _locked(connection: Connection) -> bool:
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
    return row is not None and bool(row[0])
