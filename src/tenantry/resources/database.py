"""What the two SQLite kinds share, the one in files and the twin in memory: schema, users, checks, copies."""

from __future__ import annotations

import sqlite3
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import BaseModel, Field

from tenantry import users as users_tables
from tenantry.config import Frozen
from tenantry.model import Environment, Finding, Migrated, new_id
from tenantry.resources import Setting, command, history, limits, migrator, sqlite_diff
from tenantry.resources.canary import TABLE, plant, seek, uproot
from tenantry.resources.command import Place, Programmed, Records
from tenantry.resources.migrator import Connection
from tenantry.resources.schema import EMPTY, Schema, checksum, fingerprint, read, split
from tenantry.resources.shapes import differences
from tenantry.resources.sqlite_diff import quote

WAIT: Final = 10.0
"""Seconds to wait for another connection's lock before giving up."""

FORMAT: Final = "1"
"""Part of every fingerprint: golden templates are made anew when the way they are made changes."""

PAGES: Final = 2048
"""Pages of a database copied at a time."""


class Options(Frozen):
    """What the SQLite kinds take."""

    directory: str | command.Options | None = Field(default=None, alias="schema")  # `schema` is a name of pydantic's
    seed: str | None = None
    migrate: limits.Options = limits.Options()


class Database(Programmed):
    """An SQLite database at the newest schema of its blueprint, wherever it is kept."""

    Options: ClassVar[type[BaseModel]] = Options
    has_schema = True
    has_users = True
    faults = (OSError, sqlite3.Error)

    def __init__(self, name: str, options: Any, setting: Setting) -> None:
        super().__init__(name, options, setting)
        self._directory = self._declare()
        self._seed = self._declared("seed", options.seed) if options.seed else None
        self._limits = setting.limits.on(options.migrate)

    @abstractmethod
    def _open(self, env: Environment) -> AbstractContextManager[Connection]:
        """A connection to an environment's database; raises `ResourceError` where there is none."""

    @abstractmethod
    def _open_template(self) -> AbstractContextManager[Connection]:
        """A connection to the golden template, to read."""

    # --- schema ---

    def schema(self) -> Schema:
        """The migrations as the files are now. Raises `MigrationInvalid`."""
        if self._program is not None:
            return Schema(self.setting.root, (), self._program.fingerprint(), program=self._program)
        return read(self._directory) if self._directory else EMPTY

    def versions(self) -> tuple[str, ...]:
        """All versions the blueprint declares, oldest first."""
        return history.versions(self.schema())

    def posts(self) -> frozenset[str]:
        """Those of its versions that only new code bears."""
        return history.posts(self.schema())

    def fingerprint(self) -> str:
        """What the golden template is made of, in 16 hex digits: schema files, seed and users' table."""
        seed = checksum(self._seed.read_text("utf-8")) if self._seed else ""
        users = users_tables.made_of("sqlite") if self.setting.users else ""
        return fingerprint((FORMAT, self.schema().fingerprint, str(self.golden), seed, users))

    def _fill(self, connection: Connection) -> None:
        """Make an empty database what every new tenant gets."""
        self._add_users(connection)
        self._bring(connection, None, self.golden)
        if self._seed:
            statements = split(self._seed.read_text("utf-8"), self._seed.name)
            migrator.execute(connection, statements, self._seed.name)

    def _add_users(self, connection: Connection) -> None:
        """The users' tables; one that is older than this version of ours is made anew, and keeps its rows."""
        if not self.setting.users:
            return
        query = f"SELECT name, sql FROM sqlite_schema WHERE name IN ({', '.join('?' * len(users_tables.TABLES))})"  # noqa: S608 -- marks
        if dict(connection.execute(query, users_tables.TABLES).fetchall()) != _declared_users():
            with _users() as golden:
                for statement in sqlite_diff.of_tables(golden, connection):
                    connection.execute(statement)

    def _renew(self, env: Environment) -> None:
        """Bring a database that was there already to what a new one would be, its data kept."""
        with self._open(env) as connection:
            self._add_users(connection)
            self._bring(connection, env, self.further(migrator.version(connection, self.schema())))

    def _version(self, env: Environment) -> str | None:
        with self._open(env) as connection:
            return migrator.version(connection, self.schema())

    def _migrate(self, env: Environment, to: str | None) -> Migrated:
        with self._open(env) as connection:
            self._add_users(connection)
            return self._bring(connection, env, to)

    def _bring(self, connection: Connection, env: Environment | None, to: str | None) -> Migrated:
        """Bring a database, or the template of one, to a version."""
        schema = self.schema()
        if self._program is None:
            return migrator.migrate(connection, schema, to, self._limits)
        file = connection.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()[0]
        if not file:
            raise self._error(env, "a program cannot migrate a database in memory")
        records = Records(
            version=lambda: migrator.version(connection, schema),
            add=lambda one: migrator.enter(connection, one),
            remove=lambda one: migrator.leave(connection, one),
        )
        return self._command(env, Place("sqlite", Path(file)), records, to)

    # --- drift ---

    def _shape(self, env: Environment) -> tuple[str | None, Mapping[str, str]]:
        with self._open(env) as connection:
            return migrator.version(connection, self.schema()), shape(connection)

    def _declared_shape(self, env: Environment, version: str | None) -> Mapping[str, str]:
        with self._made_at(version) as golden:
            return shape(golden)

    def _mend(self, env: Environment, version: str | None) -> tuple[str, ...]:
        with self._made_at(version) as golden, self._open(env) as connection:
            return sqlite_diff.statements(golden, connection)

    @contextmanager
    def _made_at(self, version: str | None) -> Iterator[Connection]:
        """A new database at a version, in memory, without the seed."""
        made = sqlite3.connect(":memory:", isolation_level=None, factory=Connection)
        try:
            self._add_users(made)
            migrator.migrate(made, self.schema(), version)
            yield made
        finally:
            made.shut()

    # --- users ---

    def _enrol(self, env: Environment, login: str, password_hash: str, role: str, name: str) -> None:
        with self._open(env) as connection:
            connection.execute(
                "INSERT INTO tenantry_user (id, login, role, password, created, name) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (login) DO UPDATE SET "
                "password = excluded.password, role = excluded.role, active = 1, epoch = epoch + 1",
                (new_id(), login, role, password_hash, history.now(), name),
            )

    # --- canaries ---

    def _plant(self, env: Environment, canary: str) -> None:
        with self._open(env) as connection:
            plant(lambda statement, *values: connection.execute(statement, values).fetchall(), canary, "?")

    def _seek(self, env: Environment, trace: str) -> list[str]:
        with self._open(env) as connection:
            there = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (TABLE,)).fetchone()
            return seek(lambda statement: connection.execute(statement).fetchall(), trace) if there else []

    def _uproot(self, env: Environment) -> None:
        with self._open(env) as connection:
            uproot(lambda statement: connection.execute(statement).fetchall())

    # --- looking at it ---

    def _check(self, env: Environment) -> list[Finding]:
        with self._open(env) as connection:
            faults = self._damage(connection)
            if not faults:
                version = migrator.version(connection, self.schema())
                faults = self._drift(connection) if version == self.newest else [self._behind(version)]
        if faults:
            return faults
        return [Finding(self.name, True, f"{self.kind} {self.location}, schema {version or 'none'}")]

    def _damage(self, connection: Connection) -> list[Finding]:
        try:
            (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            result = str(error)
        if result == "ok":
            return []
        return [Finding(self.name, False, f"{self.location} is damaged: {result}", "Restore it from a backup.")]

    def _behind(self, version: str | None) -> Finding:
        what = f"schema {version or 'none'} is behind {self.newest}"
        return Finding(self.name, False, what, "Run `tenantry migrate run`.")

    def _drift(self, connection: Connection) -> list[Finding]:
        """What differs from a new one at the newest version, by name."""
        with self._open_template() if self.golden == self.newest else self._made_at(self.newest) as template:
            declared = shape(template)
        remedy = "`tenantry migrate drift --sql` shows what undoes it; or write it as a migration."
        found = differences(declared, shape(connection))
        return [Finding(self.name, False, f"the schema has drifted: {what}", remedy) for what in found]

    def _compare(self, env: Environment, connection: Connection, version: str | None) -> list[Finding]:
        """How a database that is to be adopted differs from what the migrations make up to a version."""
        faults = self._damage(connection)
        if faults:
            raise self._error(env, faults[0].what)
        migrator.confirm(connection, self.schema(), version, self.name)
        with self._made_at(version) as made:
            declared = shape(made)
        found = {name: text for name, text in declared.items() if users_tables.is_of_users(name)} | shape(connection)
        remedy = "Put it right before, or take it as it is and write the difference as a migration."
        told = [
            Finding(self.name, False, f"the schema differs: {what}", remedy) for what in differences(declared, found)
        ]
        return told or [Finding(self.name, True, f"the schema is that of {version or 'an empty database'}")]


@contextmanager
def _users() -> Iterator[sqlite3.Connection]:
    """A database in memory with the users' tables alone, as they are to be."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        for statement in users_tables.statements("sqlite").values():
            made.execute(statement)
        yield made


@cache
def _declared_users() -> Mapping[str, str]:
    """Their SQL, as SQLite keeps it."""
    with _users() as made:
        return dict(made.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'").fetchall())


def shape(connection: Connection) -> dict[str, str]:
    """Every table, index, view and trigger with its SQL; what SQLite and migration records need is left out."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")
    return {f"{kind} {name}": sql for kind, name, sql in rows if kind != "table" or name not in history.BOOKKEEPING}


def count(connection: Connection) -> int:
    """Rows of all tables but SQLite's and the migration records."""
    names = [
        name
        for (name,) in connection.execute(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual') "
            "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
        if name not in history.BOOKKEEPING
    ]
    return sum(connection.execute(f"SELECT count(*) FROM {quote(name)}").fetchone()[0] for name in names)  # noqa: S608


def copy(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Copy a database into another in one transaction of the target, while both are in use.

    Raises `TimeoutError` where either stays locked.
    """
    last, since = -1, time.monotonic()

    def progress(_: int, remaining: int, __: int) -> None:
        nonlocal last, since
        if remaining != last:
            last, since = remaining, time.monotonic()
        elif time.monotonic() - since > WAIT:
            raise TimeoutError(f"the database stayed locked for {WAIT:.0f} s")

    source.backup(target, pages=PAGES, progress=progress, sleep=0.01)
