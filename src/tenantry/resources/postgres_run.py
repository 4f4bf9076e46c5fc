"""Running a migration's statements on PostgreSQL: in one message, in one transaction, within limits of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg import generators, sql
from psycopg.pq import ExecStatus, TransactionStatus

from tenantry.resources.history import OWN_TRANSACTION
from tenantry.resources.limits import Limits
from tenantry.resources.server_migrator import failed

RECORD: Final = sql.SQL("""
CREATE TABLE IF NOT EXISTS {record} (
  version text COLLATE "C" PRIMARY KEY,
  name text NOT NULL,
  checksum text NOT NULL,
  applied timestamptz NOT NULL DEFAULT now(),
  done integer,
  prefix text,
  begun boolean NOT NULL DEFAULT false,
  back boolean NOT NULL DEFAULT false
)""")
"""`done` is NULL for a migration that is whole; what the others mean is told in `postgres_steps`."""


_watchful: Final[dict[tuple[str, int], bool]] = {}
"""By host and port, whether a server can see while a statement runs that its client died."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that SQLAlchemy may use inside our transaction, without ending it."""

    limits: Limits | None = None  # of what is run in transactions from now on

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


def limiting(connection: Connection, scope: str = "") -> list[str]:
    """Statements that set the limits, for the running transaction (`LOCAL `) or for the session."""
    limits = connection.limits
    if limits is None:
        return []
    given = {"lock_timeout": limits.lock, "statement_timeout": limits.statement}
    words = [f"SET {scope}{name} = {min(round(1000 * seconds), 2**31 - 1) or 1}" for name, seconds in given.items()]
    if _can_watch(connection):  # that lets go of a killed migration's locks
        words.append(f"SET {scope}client_connection_check_interval = '1s'")
    return words


def _can_watch(connection: Connection) -> bool:
    where = (connection.info.host, connection.info.port)
    if where not in _watchful:
        (_watchful[where],) = connection.execute("SELECT version() ~ 'linux'").fetchone() or (False,)
    return _watchful[where]


@contextmanager
def limited(connection: Connection) -> Iterator[None]:
    """The limits hold for what is run outside of transactions, too."""
    for statement in limiting(connection):
        connection.execute(statement.encode())
    try:
        yield
    finally:
        with suppress(psycopg.Error):
            connection.execute("RESET ALL")


def run(connection: Connection, name: str, before: Sequence[str], body: Sequence[str], after: Sequence[str]) -> None:
    """Send everything in one message and as one transaction, whose settings end with it. Raises `MigrationError`."""
    before = [*limiting(connection, "LOCAL "), *before]
    parts = ["BEGIN", *before, *body, *after, "RESET ALL", "COMMIT"]
    connection.pgconn.send_query(";\n".join(parts).encode())
    results = connection.wait(generators.execute(connection.pgconn))
    done = sum(result.status != ExecStatus.FATAL_ERROR for result in results)
    if done == len(results) == len(parts):
        return
    error = psycopg.errors.error_from_result(results[-1], "utf-8")
    roll_back(connection)
    inside = 0 <= done - 1 - len(before) < len(body)
    raise failed(name, told(error), parts[done] if inside else None, remedy_of(error)) from error


def remedy_of(error: psycopg.Error) -> str | None:
    """What to do about errors that come of how a migration is run, not of what it does."""
    if isinstance(error, psycopg.errors.QueryCanceled):
        return "Allow it more time: `-- tenantry: statement_timeout=1h` on the file's first line, or in [migrate]."
    if isinstance(error, psycopg.errors.ActiveSqlTransaction):
        return "Let the file run without a transaction: write `-- tenantry: transaction=off` on its first line."
    return None


def told(error: psycopg.Error) -> str:
    """The server's own words: the message, and the detail where there is one, without the position."""
    if error.diag.message_primary is None:
        return str(error).partition("\n")[0]
    return " ".join(part.rstrip(".") for part in (error.diag.message_primary, error.diag.message_detail) if part)


def roll_back(connection: Connection) -> None:
    """Roll back whatever is open."""
    with suppress(psycopg.Error):
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            connection.execute("ROLLBACK")
