"""What Tenantry keeps on a MariaDB or MySQL server: whose each database and user is, and the golden scripts.

It lies in a database of its own, which no tenant can reach, and an entry is written before the thing it is about is
made. So whatever a killed process leaves behind is known to be ours, and nothing else ever is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from tenantry.resources.mysql_server import NO_DATABASE, NO_TABLE, Connection, Refused, quote

BOOK: Final = "tenantry_book"
_DATABASE: Final = "CREATE DATABASE IF NOT EXISTS tenantry_book CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
_TABLES: Final = (
    """
CREATE TABLE IF NOT EXISTS tenantry_book.part (
  name VARCHAR(64) NOT NULL PRIMARY KEY,
  owner VARCHAR(36) NOT NULL,
  resource VARCHAR(130) NOT NULL,
  state VARCHAR(10) NOT NULL,
  note VARCHAR(200) NOT NULL DEFAULT '',
  changed TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin""",
    """
CREATE TABLE IF NOT EXISTS tenantry_book.login (
  user VARCHAR(80) NOT NULL,
  host VARCHAR(255) NOT NULL,
  part VARCHAR(64) NOT NULL,
  made SMALLINT NOT NULL DEFAULT 0,
  PRIMARY KEY (user, host),
  KEY login_by_part (part)
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin""",
    """
CREATE TABLE IF NOT EXISTS tenantry_book.golden (
  fingerprint CHAR(16) NOT NULL PRIMARY KEY,
  resource VARCHAR(130) NOT NULL,
  script LONGBLOB NOT NULL,
  made TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin""",
)


class State(StrEnum):
    """How far a database is."""

    MAKING = "making"  # nobody was served from it yet
    READY = "ready"
    ADOPTED = "adopted"  # it was there before
    SCRATCH = "scratch"  # for the time of one call


@dataclass(frozen=True, slots=True)
class Part:
    """One database that is ours."""

    name: str
    owner: str  # the environment's id; "" for none
    resource: str
    state: State
    note: str  # of an adopted one: the tables that were entered with it


def part(connection: Connection, name: str) -> Part | None:
    """What the book says about a database."""
    found = _rows(connection, "SELECT name, owner, resource, state, note FROM tenantry_book.part WHERE name = %s", name)
    for one, owner, resource, state, note in found:
        return Part(one, owner, resource, State(state), note)
    return None


def enter(connection: Connection, name: str, owner: str, resource: str, state: State, note: str = "") -> None:
    """Write down whose a database is, or is going to be; makes the book where there is none."""
    statement = "INSERT INTO tenantry_book.part (name, owner, resource, state, note) VALUES (%s, %s, %s, %s, %s)"
    values = (name, owner, resource, state.value, note)
    try:
        connection.ask(statement, *values)
    except Refused as error:
        if error.number not in (NO_DATABASE, NO_TABLE):
            raise
        make(connection)
        connection.ask(statement, *values)


def make(connection: Connection) -> None:
    """Make the book."""
    for one in (_DATABASE, *_TABLES):
        connection.ask(one)


def ready(connection: Connection, name: str) -> None:
    """Write down that a database is whole."""
    connection.ask("UPDATE tenantry_book.part SET state = %s WHERE name = %s", State.READY.value, name)


def forget(connection: Connection, name: str) -> None:
    """Remove a database from the book."""
    connection.ask("DELETE FROM tenantry_book.part WHERE name = %s", name)


def scratches(connection: Connection, resource: str) -> list[str]:
    """Databases that were for the time of one call; whoever uses one holds a lock of its name."""
    query = "SELECT name FROM tenantry_book.part WHERE state = %s AND resource = %s"
    return [name for (name,) in _rows(connection, query, State.SCRATCH.value, resource)]


# --- users --------------------------------------------------------------------------------------------------------


def users(connection: Connection, name: str) -> list[tuple[str, str]]:
    """The users of a database, each with its host."""
    query = "SELECT user, host FROM tenantry_book.login WHERE part = %s ORDER BY user"
    return [(user, host) for user, host in _rows(connection, query, name)]


def user(connection: Connection, name: str, host: str) -> tuple[str, bool] | None:
    """Whose a user is, and whether it is certain that it was made."""
    query = "SELECT part, made FROM tenantry_book.login WHERE user = %s AND host = %s"
    for owner, made in _rows(connection, query, name, host):
        return owner, made == "1"
    return None


def enter_user(connection: Connection, name: str, host: str, part: str) -> None:
    """Write down whose a user is going to be."""
    connection.ask("INSERT INTO tenantry_book.login (user, host, part) VALUES (%s, %s, %s)", name, host, part)


def user_made(connection: Connection, name: str, host: str) -> None:
    """Write down that a user was made."""
    connection.ask("UPDATE tenantry_book.login SET made = 1 WHERE user = %s AND host = %s", name, host)


def forget_user(connection: Connection, name: str, host: str) -> None:
    """Remove a user from the book."""
    connection.ask("DELETE FROM tenantry_book.login WHERE user = %s AND host = %s", name, host)


# --- golden scripts -----------------------------------------------------------------------------------------------


def golden(connection: Connection, fingerprint: str) -> bytes | None:
    """The golden script of this fingerprint."""
    found = _rows(connection, "SELECT script FROM tenantry_book.golden WHERE fingerprint = %s", fingerprint)
    return found[0][0] if found else None


def keep_golden(connection: Connection, fingerprint: str, resource: str, script: bytes) -> None:
    """Keep a golden script, in place of the older ones of this resource."""
    connection.ask("DELETE FROM tenantry_book.golden WHERE resource = %s", resource)
    statement = "REPLACE INTO tenantry_book.golden (fingerprint, resource, script) VALUES (%s, %s, %s)"
    connection.ask(statement, fingerprint, resource, script)


def _rows(connection: Connection, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """The rows of a query, none where there is no book yet."""
    try:
        return connection.ask(query, *values)
    except Refused as error:
        if error.number in (NO_DATABASE, NO_TABLE):
            return []
        raise


def exists(connection: Connection, name: str) -> bool:
    """Whether there is a database of this name, whosever it is."""
    query = "SELECT 1 FROM information_schema.schemata WHERE schema_name = %s"
    return bool(connection.ask(query, name))


def drop(connection: Connection, name: str) -> None:
    """Remove a database."""
    connection.ask(f"DROP DATABASE IF EXISTS {quote(name)}")
