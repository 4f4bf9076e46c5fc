"""Migrations of tables that tenants share: whatever one makes is made safe before its transaction ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql
from sqlglot import TokenType
from sqlglot.errors import SqlglotError

from tenantry.errors import MigrationError, RowsUnsafe
from tenantry.resources import rows_plan, rows_turns
from tenantry.resources.postgres_dialect import Connection, Postgres
from tenantry.resources.postgres_run import limiting, remedy_of, told
from tenantry.resources.rows_keys import Keys
from tenantry.resources.rows_plan_tables import LIFT
from tenantry.resources.rows_words import tokens
from tenantry.resources.schema import Migration
from tenantry.resources.server_migrator import failed

if TYPE_CHECKING:
    import sqlalchemy

_FORCED: Final = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relforcerowsecurity AND c.relkind IN ('r', 'p') AND pg_has_role(c.relowner, 'USAGE')
ORDER BY c.oid"""

_HARMLESS: Final = frozenset("ALTER CREATE DROP COMMENT GRANT REVOKE SET".split())
"""What statements begin with that read or change no rows, unless they hold a query."""

_KEYED: Final = (
    "The keys of tables that tenants share begin with tenant_id. Outside of CREATE TABLE and ALTER TABLE, and where a "
    "key was made over several statements, name it: FOREIGN KEY (tenant_id, page_id) REFERENCES page (tenant_id, id)."
)

_QUERIES: Final = frozenset({TokenType.SELECT, TokenType.VALUES, TokenType.EXECUTE})


class Shared(Postgres):
    """PostgreSQL, for tables that tenants share."""

    def __init__(self, shared: Sequence[str], role: str) -> None:
        self._shared = shared
        self._role = role

    def step(self, connection: Connection, migration: Migration, up: bool) -> None:
        if migration.is_python or migration.header.transaction == "off":
            with self._reading(connection, migration.version):
                super().step(connection, migration, up)
            self.mend(connection, migration.version)
            return
        body = (migration.up if up else migration.down) or ()
        before, after = self._bookkeeping(connection, migration, up)
        with self._safely(connection, migration.version, changes_rows(body)):
            for statement in before:
                connection.execute(statement.encode())
            for statement in body:
                self._run(connection, migration.version, statement)
            for statement in after:
                connection.execute(statement.encode())

    def once(self, connection: Connection, version: str, statement: str, mark: sql.Composed) -> None:
        """A statement that changes tenants' rows is run for one tenant after the other, in a transaction for each."""
        if not rows_turns.is_for_each(statement, self._shared, version):
            super().once(connection, version, statement, mark)
            return
        self.mend(connection, version)  # what earlier statements made may get its first rows now
        for limit in limiting(connection):  # which ended with that transaction
            connection.execute(limit.encode())
        rows_turns.take(connection, self.record, version, statement)
        with connection.transaction():
            connection.execute(mark)
            rows_turns.end(connection, self.record, version)

    def script(self, connection: Connection, sql: Sequence[str], name: str) -> None:
        with self._safely(connection, name, changes_rows(sql)):
            for statement in sql:
                self._run(connection, name, statement)

    def sow(self, connection: Connection, sql: Sequence[str], name: str) -> None:
        """Run a seed in the transaction of its tenant. Raises `MigrationError` under this name."""
        for statement in sql:
            self._run(connection, name, statement)

    def _run(self, connection: Connection, name: str, statement: str) -> None:
        try:
            connection.execute(statement.encode())
        except psycopg.Error as error:
            raise failed(name, told(error), statement, _remedy_of(error)) from error

    @contextmanager
    def lent(self, connection: Connection, name: str) -> Iterator[sqlalchemy.Connection]:
        """What runs in it, as Python files do, sees the rows of all tenants."""
        with self._safely(connection, name, True) as outer:
            yield outer

    @contextmanager
    def _safely(self, connection: Connection, name: str, rows: bool) -> Iterator[sqlalchemy.Connection]:
        """One transaction, at whose end the tables keep tenants apart, or which is rolled back."""
        with super().lent(connection, name) as outer:
            if rows:
                _let_owner_see(connection)
            with self._reading(connection, name):
                yield outer
            self._secure(connection, name)

    @contextmanager
    def _reading(self, connection: Connection, name: str) -> Iterator[None]:
        """Keys in what runs meanwhile are made with the tenant in them."""
        try:
            with Keys(connection, self._shared, self._role, name).reading():
                yield
        except Exception as error:
            cause = getattr(error, "orig", error)  # SQLAlchemy wraps the server's own
            if isinstance(cause, psycopg.errors.InvalidForeignKey):
                raise failed(name, told(cause), remedy=_KEYED) from error
            raise

    def mend(self, connection: Connection, name: str) -> None:
        """Make safe what was made outside of a transaction. Raises `MigrationError`."""
        if not self._is_safe(connection):
            with self._safely(connection, name, False):
                pass

    def _is_safe(self, connection: Connection) -> bool:
        found = rows_plan.plan(rows_plan.inspect(connection), self._shared, self._role)
        return not found.steps and not found.refusals

    def _secure(self, connection: Connection, name: str) -> None:
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")  # a table with checks that still wait cannot be altered
        plan = rows_plan.plan(rows_plan.inspect(connection), self._shared, self._role)
        if plan.refusals:
            first = plan.refusals[0]
            reason = f"tenants cannot share what it makes: {first.what}"
            raise MigrationError(migration=name, reason=reason, remedy=first.remedy)
        try:
            rows_plan.apply(connection, plan)
        except RowsUnsafe as error:
            raise MigrationError(migration=name, reason=error.message, remedy=error.hint) from error.__cause__ or error


def _remedy_of(error: psycopg.Error) -> str | None:
    return _KEYED if isinstance(error, psycopg.errors.InvalidForeignKey) else remedy_of(error)


def _let_owner_see(connection: Connection) -> None:
    """Let the owner, who migrates, see and change the rows of all tenants until its transaction ends.

    Everybody else waits for these tables until then.
    """
    for name in connection.execute(_FORCED).fetchall():
        connection.execute(LIFT.format(sql.Identifier(*name)))


def changes_rows(statements: Sequence[str]) -> bool:
    """Whether any of these statements may read or change rows, rather than define something."""
    return any(_touches(statement) for statement in statements)


def _touches(statement: str) -> bool:
    try:
        found = tokens(statement)
    except SqlglotError:
        return True
    if not found or found[0].text.upper() not in _HARMLESS:
        return bool(found)
    words = [token.text.upper() for token in found[:6]]
    if words[0] == "CREATE" and not {"TABLE", "MATERIALIZED"} & set(words):
        return False  # views, functions and indexes run their queries later, or past policies
    return any(token.token_type in _QUERIES for token in found)
