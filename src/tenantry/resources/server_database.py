"""What the databases on servers share: their schema and seed, the users' table, and how far they are migrated."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from tenantry import users as users_tables
from tenantry.config import Frozen, Seconds
from tenantry.errors import MigrationInvalid, ResourceError
from tenantry.model import Environment, Finding, Login, Migrated
from tenantry.resources import Setting, command, history, limits, server_migrator, servers
from tenantry.resources.command import Place, Programmed, Records
from tenantry.resources.schema import EMPTY, Schema, checksum, fingerprint, read
from tenantry.resources.server_migrator import Dialect


class Pool(Frozen):
    """The connections that one process keeps to a tenant's database."""

    size: int = Field(default=5, ge=0)
    overflow: int = Field(default=10, ge=0)
    idle: Seconds = 300.0


class Options(servers.Options):
    """What every kind of database on a server takes."""

    directory: str | command.Options | None = Field(default=None, alias="schema")  # `schema` is a name of pydantic's
    seed: str | None = None
    migrate: limits.Options = limits.Options()
    pool: Pool = Pool()


class ServerDatabase(servers.OnServer, Programmed):
    """A database on a server, at the newest schema of its blueprint."""

    Options: ClassVar[type[BaseModel]] = Options
    has_schema = True
    has_users = True
    dialect: Dialect
    making: ClassVar[str]  # part of every fingerprint: counted up when the way databases are made changes

    def __init__(self, name: str, options: Any, setting: Setting) -> None:
        super().__init__(name, options, setting)
        self._directory = self._declare()
        self._seed = self._declared("seed", options.seed) if options.seed else None
        self._limits = setting.limits.on(options.migrate)

    @abstractmethod
    def _open(self, env: Environment) -> AbstractContextManager[Any]:
        """A connection to an environment's database by its own login; raises `ResourceError` where there is none."""

    def _login(self, env: Environment) -> Login:
        login = env.logins.get(self.name)
        if login is None:
            raise self._error(env, "this process does not know its login")
        return login

    # --- schema ---

    def schema(self) -> Schema:
        """The migrations as the files are now. Raises `MigrationInvalid`."""
        if self._program is not None:
            return Schema(self.setting.root, (), self._program.fingerprint(), program=self._program)
        return read(self._directory, self.dialect.split) if self._directory else EMPTY

    def versions(self) -> tuple[str, ...]:
        """All versions the blueprint declares, oldest first."""
        return history.versions(self.schema())

    def posts(self) -> frozenset[str]:
        """Those of its versions that only new code bears."""
        return history.posts(self.schema())

    def fingerprint(self) -> str:
        """What a new database is made of, in 16 hex digits: schema files, seed, users' table and options."""
        seed = checksum(self._seed.read_text("utf-8")) if self._seed else ""
        return fingerprint((self.schema().fingerprint, str(self.golden), seed, *self._frame()))

    def _frame(self) -> tuple[str, ...]:
        """What a new database is made of besides migrations and seed."""
        users = users_tables.made_of(self.dialect.name) if self.setting.users else ""
        return (self.making, users, *self._made_of())

    def _kin(self) -> str | None:
        """What a template and an older one must have in common; None where none is built on another."""
        built_alone = self._seed or self._program  # a seed is sown last
        return None if built_alone else fingerprint(self._frame())

    def _made_of(self) -> tuple[str, ...]:
        """The options that change what a new database is."""
        return ()

    def _fill(self, connection: Any) -> None:
        """Make an empty database what every new tenant gets."""
        self._fill_to(connection, self.golden)
        if self._seed:
            statements = self.dialect.split(self._seed.read_text("utf-8"), self._seed.name)
            self.dialect.script(connection, statements, self._seed.name)

    def _grow(self, connection: Any) -> bool:
        """Bring an older template to what a new one is; False, and as it was, where it is not these files' past."""
        order = self.versions()
        try:
            before = server_migrator.version(self.dialect, connection, self.schema())
        except MigrationInvalid:
            return False
        if history.position(order, before) > history.position(order, self.golden):
            return False
        self._fill(connection)
        return True

    def _fill_to(self, connection: Any, version: str | None) -> None:
        self._add_users(connection)
        if self._program is None:
            server_migrator.migrate(self.dialect, connection, self.schema(), version, self._limits)

    def _add_users(self, connection: Any, prefix: str = "") -> None:
        """The users' tables, or what a database that is older than this version of ours has not of them."""
        if self.setting.users:
            there = self.dialect.columns(connection, users_tables.TABLES)
            missing = users_tables.missing(self.dialect.name, there, prefix)
            if missing:
                self.dialect.script(connection, missing, "tenantry_user")

    def _renew(self, env: Environment) -> None:
        """Bring a database that was there already to what a new one would be, its data kept."""
        with self._open(env) as connection:
            there = server_migrator.version(self.dialect, connection, self.schema())
            self._bring(connection, env, self.further(there))

    def _version(self, env: Environment) -> str | None:
        with self._open(env) as connection:
            return server_migrator.version(self.dialect, connection, self.schema())

    def _migrate(self, env: Environment, to: str | None) -> Migrated:
        with self._open(env) as connection:
            return self._bring(connection, env, to)

    def _bring(self, connection: Any, env: Environment, to: str | None) -> Migrated:
        """Bring an environment's database to a version."""
        self._add_users(connection)
        schema = self.schema()
        if self._program is None:
            return server_migrator.migrate(self.dialect, connection, schema, to, self._limits)
        place = Place(self.kind, None, self.server(env).address, self.locate(env), self._login(env))
        records = Records(
            version=lambda: server_migrator.version(self.dialect, connection, schema),
            add=lambda one: self.dialect.step(connection, one, True),
            remove=lambda one: self.dialect.step(connection, one, False),
        )
        return self._command(env, place, records, to)

    def _confirm(self, connection: Any, version: str | None) -> None:
        """Raise `MigrationInvalid` where a database that is to be adopted records another version than is said."""
        recorded = server_migrator.version(self.dialect, connection, self.schema())
        if recorded not in (None, version):
            raise history.contradiction(self.name, recorded, version)

    # --- looking at it ---

    def _check(self, env: Environment) -> list[Finding]:
        with self._open(env) as connection:
            version = server_migrator.version(self.dialect, connection, self.schema())
            faults = [*self._stopped(connection), *self._unsafe(env, connection)]
            if version != self.newest:
                what = f"schema {version or 'none'} is behind {self.newest}"
                faults.append(Finding(self.name, False, what, "Run `tenantry migrate run`."))
            elif self._program is None:  # what a program makes in each database is not known beforehand
                faults += self._drift(env, connection)
        told = f"{self.kind} {self.locate(env)} on {self.server(env).name}, schema {version or 'none'}"
        return faults or [Finding(self.name, True, told)]

    def _stopped(self, connection: Any) -> list[Finding]:
        """A migration that stopped in the middle."""
        stopped = self.dialect.unfinished(connection)
        if stopped is None:
            return []
        remedy = "Correct the migration behind that statement, then run `tenantry migrate run`: it goes on there."
        return [Finding(self.name, False, stopped.what, remedy)]

    def _drift(self, env: Environment, connection: Any) -> list[Finding]:
        remedy = "`tenantry migrate drift --sql` shows what undoes it; or write it as a migration."
        found = self._differences(env, connection)
        return [Finding(self.name, False, f"the schema has drifted: {what}", remedy) for what in found]

    @abstractmethod
    def _unsafe(self, env: Environment, connection: Any) -> list[Finding]:
        """What opens the database to others, or its login to more than the database."""

    @abstractmethod
    def _differences(self, env: Environment, connection: Any) -> list[str]:
        """What differs from a new database, by name."""

    def _missing(self, env: Environment) -> ResourceError:
        return self._error(env, f"there is no database {self.locate(env)} on {self.server(env).name}")
