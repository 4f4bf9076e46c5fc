"""Migrations on PostgreSQL without a transaction around them: `CREATE INDEX CONCURRENTLY` and its like.

Statements that can run in a transaction do, each with its mark, so that they take effect once. The others are marked as
begun first: where a run was cut off meanwhile, the next one drops the invalid index that was left, and takes the answer
"is there already" for done.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import psycopg
from psycopg import sql

from tenantry.errors import MigrationError, MigrationInvalid
from tenantry.resources import history, postgres_run, stepwise
from tenantry.resources.postgres_run import Connection
from tenantry.resources.schema import Migration
from tenantry.resources.server_migrator import Dialect

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

_INVALID: Final = """
SELECT n.nspname, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND n.nspname !~ '^pg_' AND (c.relname = %s OR c.relname ~ %s)"""
_REINDEXED: Final = "_cc(new|old)[0-9]*$"
_NOTHING: Final = "$."


def step(dialect: Dialect, connection: Connection, migration: Migration, up: bool) -> None:
    """Run what is left of a migration. Raises `MigrationError`, `MigrationInvalid`."""
    body = migration.up if up else migration.down or ()
    for statement in body:
        if _NAMELESS.match(_plain(statement)):
            reason = "it makes an index without a name, of which a half could not be found again"
            raise MigrationInvalid(path=migration.path.name, reason=reason, remedy="Give the index a name.")
    with _alone(connection, migration.version), postgres_run.limited(connection):
        _make_record(connection)
        if up is not any(name == migration.version for name, _ in dialect.records(connection)) or _is_back(
            dialect, connection, migration, up
        ):
            _all(dialect, connection, migration, body, up)


def _make_record(connection: Connection) -> None:
    connection.execute(postgres_run.RECORD.encode())


def _is_back(dialect: Dialect, connection: Connection, migration: Migration, up: bool) -> bool:
    """Whether it was half taken back: recorded still, and not to be taken for whole."""
    there = dialect.unfinished(connection)
    return up and there is not None and there.version == migration.version


def _all(dialect: Dialect, connection: Connection, migration: Migration, body: Sequence[str], up: bool) -> None:
    start = time.perf_counter()
    found = stepwise.resume(migration, body, dialect.unfinished(connection), up)
    if found is None:
        _begin(connection, migration, up)
    first, begun = found or (0, False)
    for number, statement in enumerate(body[first:], start=first):
        mark = sql.SQL(
            "UPDATE public.tenantry_schema SET done = {}, prefix = {}, begun = false WHERE version = {}"
        ).format(number + 1, stepwise.prefix(body[: number + 1]), migration.version)
        try:
            _one(connection, migration.version, statement, mark, again=begun and number == first)
        except psycopg.Error as error:
            raise _stopped(migration, number, len(body), statement, error) from error
    _finish(connection, migration, up, time.perf_counter() - start)


def _one(connection: Connection, version: str, statement: str, mark: sql.Composed, *, again: bool) -> None:
    """Run one statement and mark it as done."""
    if not _stands_alone(statement):
        with connection.transaction():
            connection.execute(statement.encode())
            connection.execute(mark)
        return
    connection.execute("UPDATE public.tenantry_schema SET begun = true WHERE version = %s", (version,))
    _drop_invalid(connection, statement)
    try:
        connection.execute(statement.encode())
    except _THERE:
        if not again:
            raise
    connection.execute(mark)


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


def _begin(connection: Connection, migration: Migration, up: bool) -> None:
    nothing = stepwise.prefix(())
    if up:
        connection.execute(
            "INSERT INTO public.tenantry_schema (version, name, checksum, done, prefix) VALUES (%s, %s, %s, 0, %s)",
            (migration.version, migration.name, migration.checksum, nothing),
        )
    else:
        connection.execute(
            "UPDATE public.tenantry_schema SET done = 0, prefix = %s, back = true WHERE version = %s",
            (nothing, migration.version),
        )


def _finish(connection: Connection, migration: Migration, up: bool, seconds: float) -> None:
    """Record that a migration is whole, or that it is gone. Its later statements may have been corrected meanwhile."""
    if up:
        connection.execute(
            "UPDATE public.tenantry_schema SET done = NULL, prefix = NULL, begun = false, applied = now(), "
            "checksum = %s, seconds = %s WHERE version = %s",
            (migration.checksum, seconds, migration.version),
        )
    else:
        connection.execute("DELETE FROM public.tenantry_schema WHERE version = %s", (migration.version,))


def _stopped(migration: Migration, number: int, count: int, statement: str, error: psycopg.Error) -> MigrationError:
    return stepwise.stopped(migration, number, count, postgres_run.told(error), history.short(statement))


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
