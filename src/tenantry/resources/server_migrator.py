"""Runs migrations on a database of a server. What differs from one server to the other is behind `Dialect`."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

from tenantry.errors import MigrationError
from tenantry.model import Migrated
from tenantry.resources import history, statements
from tenantry.resources.history import Lend
from tenantry.resources.limits import DEFAULT, Limits, Waiting, patiently, unwatched
from tenantry.resources.schema import Migration, Schema
from tenantry.resources.stepwise import Unfinished

if TYPE_CHECKING:  # it takes half a second to import, and plain SQL files do not need it
    import sqlalchemy


class Dialect(ABC):
    """What migrating asks of a kind of server. A connection is whatever the kind's driver works with.

    Where the server has it, a migration is one transaction with its record; where it has not, `step` makes sure that
    a migration which was cut off is found so, and never taken for done.
    """

    name: ClassVar[str]  # as sqlglot and SQLAlchemy call it, and `tenantry.users`
    parser: ClassVar[str]  # as sqlglot calls it

    def split(self, sql: str, name: str) -> tuple[str, ...]:
        """The statements of a script. Raises `MigrationInvalid` for those a migration cannot have."""
        return statements.split(self.parser, sql, name)

    @abstractmethod
    def records(self, connection: Any) -> Sequence[tuple[str, str]]:
        """Version and checksum of every migration the database had, oldest first; empty without the table."""

    @abstractmethod
    def heads(self, connection: Any) -> Sequence[str]:
        """What Alembic's table says; empty without it."""

    @abstractmethod
    def columns(self, connection: Any, tables: Sequence[str]) -> Mapping[str, Collection[str]]:
        """The columns of those of these tables that are there."""

    def unfinished(self, connection: Any) -> Unfinished | None:
        """The migration that stopped in the middle, if one did."""
        return None

    @abstractmethod
    def limit(self, connection: Any, limits: Limits) -> None:
        """Let what is run on a connection from now on wait and run no longer than this."""

    @abstractmethod
    def passes(self, cause: BaseException) -> bool:
        """Whether an error comes of others at work, so that the same migration may succeed a moment later."""

    def watched(self, connection: Any) -> AbstractContextManager[Waiting]:
        """Find out, while the block runs, who holds what this connection waits for."""
        return unwatched()

    @abstractmethod
    def step(self, connection: Any, migration: Migration, up: bool) -> None:
        """Run one migration up or down together with its record. Raises `MigrationError`."""

    @abstractmethod
    def script(self, connection: Any, sql: Sequence[str], name: str) -> None:
        """Run statements such as a seed in one transaction. Raises `MigrationError` under this name."""

    @abstractmethod
    def lent(self, connection: Any, name: str) -> AbstractContextManager[sqlalchemy.Connection]:
        """A SQLAlchemy connection inside one transaction, which ends with the block and which nothing else can end.

        Raises `MigrationError` under this name.
        """

    @abstractmethod
    def enter(self, connection: Any, migrations: Sequence[Migration]) -> None:
        """Record these migrations as applied without running them: the database has what they do."""

    def stamp(self, connection: Any, revision: str) -> None:
        """Record a revision of Alembic's as applied without running it."""
        from sqlalchemy import text

        with self.lent(connection, revision) as outer:
            outer.execute(text("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) PRIMARY KEY)"))
            outer.execute(text("DELETE FROM alembic_version"))
            outer.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision})


def version(dialect: Dialect, connection: Any, schema: Schema) -> str | None:
    """The newest version a database records; raises `MigrationInvalid` where the records contradict the files."""
    if schema.alembic:
        return history.newest_revision(dialect.heads(connection), schema)
    return history.newest(dialect.records(connection), schema)


def migrate(dialect: Dialect, connection: Any, schema: Schema, to: str | None, limits: Limits = DEFAULT) -> Migrated:
    """Bring a database to a version, up or down; None is before the first. What others hold up is tried again.

    Raises `MigrationError`; then the database is as the last whole migration left it.
    """
    start = time.perf_counter()
    history.refuse_program(schema, str(to))
    before = version(dialect, connection, schema)
    order = history.versions(schema)
    position, target = history.position(order, before), history.position(order, to)
    if schema.alembic and position != target:
        names = order[position:target] if target > position else order[target:position][::-1]
        named = names[-1] if target > position else names[0]
        dialect.limit(connection, limits)
        revise = partial(_revise, dialect, connection, schema, to, named)
        patiently(limits, revise, dialect.passes, partial(dialect.watched, connection))
    else:
        names = _step_through(dialect, connection, schema, (position, target), limits)
    return Migrated(before, to, names, time.perf_counter() - start)


def _revise(dialect: Dialect, connection: Any, schema: Schema, to: str | None, named: str) -> None:
    before = version(dialect, connection, schema)
    if before != to:
        history.revise(_lend(dialect, connection, named), schema, before, to)


def _lend(dialect: Dialect, connection: Any, name: str) -> Lend:
    return lambda: dialect.lent(connection, name)


def _step_through(
    dialect: Dialect, connection: Any, schema: Schema, way: tuple[int, int], limits: Limits
) -> tuple[str, ...]:
    steps, up = schema.between(*way), way[1] > way[0]
    for migration in steps:
        if not up:
            history.check_reversible(migration)
    for migration in steps:
        own = limits.of(migration.header)
        dialect.limit(connection, own)
        once = partial(_step, dialect, connection, migration, up, count())
        patiently(own, once, dialect.passes, partial(dialect.watched, connection))
    return tuple(migration.version for migration in steps)


def _step(dialect: Dialect, connection: Any, migration: Migration, up: bool, tries: count[int]) -> None:
    """One try. From the second on somebody else may have done it: the one that was waited for."""
    if next(tries) and up is any(name == migration.version for name, _ in dialect.records(connection)):
        return
    dialect.step(connection, migration, up)


def enter(dialect: Dialect, connection: Any, schema: Schema, to: str | None) -> None:
    """Record all migrations up to a version as applied, where the database has no record yet."""
    if to is None or version(dialect, connection, schema) is not None:
        return
    if schema.alembic:
        dialect.stamp(connection, to)
    else:
        count = history.position(history.versions(schema), to)
        dialect.enter(connection, schema.migrations[:count])


def function_of(migration: Migration, up: bool) -> Callable[[Any], None]:
    """What a Python file does, upwards or back."""
    function = migration.function("upgrade" if up else "downgrade")
    assert function is not None  # loading and `history.check_reversible` made sure of it
    return function


def reason_of(error: Exception) -> str:
    """What a database or a Python file says went wrong, on its first line."""
    cause = getattr(error, "orig", None)  # SQLAlchemy wraps the database's own error
    if cause is not None:
        return str(cause).partition("\n")[0]
    return f"{type(error).__name__}: {error}"


def failed(migration: str, reason: str, statement: str | None = None, remedy: str | None = None) -> MigrationError:
    """The error of a migration, with the statement it failed at where that is known."""
    where = f", in: {history.short(statement)}" if statement else ""
    return MigrationError(migration=migration, reason=f"{reason}{where}", remedy=remedy)
