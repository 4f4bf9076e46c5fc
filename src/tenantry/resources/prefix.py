"""The kind `prefix`: tables with a prefix per tenant in one database, for hosts where no database can be made.

What all servers have in common stands here; `prefix_postgres` and `prefix_mysql` speak with theirs.
"""

from __future__ import annotations

import copy
import secrets
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy.engine import make_url

from tenantry.config import Frozen, ResourceSpec
from tenantry.errors import ConfigError, NameTaken, ServerUnavailable, ServerUnfit
from tenantry.model import Attempt, Environment, Finding, Login, Migrated, Rehearsed, Server, Usage, facts_of
from tenantry.resources import (
    Resource,
    Setting,
    canary,
    limits,
    prefix_copy,
    scratch,
    server_database,
    server_migrator,
)
from tenantry.resources.prefix_book import Book, Entry, State
from tenantry.resources.prefix_names import ENDING, PLACEHOLDER, PREFIX_LIMIT, check_pattern, prefixes
from tenantry.resources.schema import EMPTY, Schema, read
from tenantry.resources.shapes import differences

UNIQUE: Final = 8
"""The last digits of an environment's id, which tell names apart that would be alike."""

SHORTEST: Final = 8
"""The shortest prefix of tables for the time of one call, in characters."""

SHAPES: Final = 16
"""Expected shapes that a process keeps, for different servers and lengths of prefixes."""

FORMS: Final = {
    "postgres": ("tenantry.resources.prefix_postgres", "PostgresPrefix"),
    "mysql": ("tenantry.resources.prefix_mysql", "MysqlPrefix"),
}
"""Where the form of the kind for each kind of server is."""

BY_HAND: Final = "-- by hand:"

Part = tuple[Any, str]
"""A connection, and a prefix that is seen by it."""

T = TypeVar("T")


class Options(Frozen):
    """What `prefix` takes."""

    on: Literal["postgres", "mysql"] | None = None
    database: str | None = Field(default=None, min_length=1, max_length=63)
    prefix: Annotated[str, AfterValidator(check_pattern)] = f"{{slug}}{ENDING}"
    directory: str | None = Field(default=None, alias="schema")  # `schema` itself is a name of pydantic's
    seed: str | None = None
    pool: server_database.Pool = server_database.Pool()
    migrate: limits.Options = limits.Options()


class Prefix(server_database.ServerDatabase):
    """The tables of one prefix. A book in the database says whose they are; what begins so otherwise is never touched.

    An instance made by `_at` works on one prefix: its dialect writes it wherever files have the placeholder.
    """

    kind = "prefix"
    shared = True
    caveat = (
        "Its tables lie beside those of other tenants, and one login reaches them all. A prefix keeps names apart, not "
        "rights: whoever can run SQL of their own in the application, or has its password, reads and changes them all."
    )
    Options: ClassVar[type[BaseModel]] = Options
    making = "1"
    book: ClassVar[Book]

    def __init__(self, name: str, options: Any, setting: Setting) -> None:
        super().__init__(name, options, setting)
        self._shapes: dict[tuple[object, ...], Mapping[str, str]] = {}
        if self._directory and (self._directory / "versions").is_dir():
            reason = f"{options.directory!r} is an Alembic directory, whose tables have no prefix"
            remedy = f"Write migrations as numbered files, with {PLACEHOLDER} before each name."
            raise ConfigError(where=self._where("schema"), reason=reason, remedy=remedy)

    @classmethod
    def suited(cls, spec: ResourceSpec, options: Any, setting: Setting) -> type[Resource]:
        """The form for the kind of server: what `on` says, else what the declared servers are."""
        declared = setting.server_kinds
        named = options.on or declared.get(spec.server or "")
        found = {named} if named else set(declared.values())
        if len(found) != 1:
            raise ConfigError(
                where=f"blueprints.{setting.blueprint}.resources",
                reason="a prefix can lie on PostgreSQL and on MariaDB, and nothing tells which is meant",
                remedy='Add on = "mysql" or on = "postgres" to it, or name its server.',
            )
        module, form = FORMS[found.pop()]
        suited: type[Resource] = getattr(import_module(module), form)
        return suited

    def _where(self, option: str) -> str:
        return f"blueprints.{self.setting.blueprint}.resources.{self.name}.{option}"

    # --- names ---

    def names(self, env: Environment) -> tuple[str, str]:
        """Database and prefix: the first choice, and one that nobody else has."""
        facts = facts_of(env.tenant, env.name, self.setting.domain)
        database = self._database()
        first, apart = prefixes(self.options.prefix, facts, env.id.replace("-", "")[-UNIQUE:])
        return f"{database}/{first}", f"{database}/{apart}"

    def _database(self) -> str:
        """The database that all share: the declared one, or the one that the servers' addresses name."""
        if self.options.database:
            return str(self.options.database)
        servers = self.setting.servers.of(str(self.server_kind))
        if not servers:  # a draft, before servers are known; it is named again when it is placed
            return ""
        found = {make_url(one.address).database for one in servers} - {None, ""}
        if len(found) != 1:
            reason = f"the addresses of the {self.server_kind} servers name {len(found) or 'no'} databases"
            raise ConfigError(where=self._where("database"), reason=reason, remedy='Add database = "…" to it.')
        return str(found.pop())

    def _parts(self, env: Environment) -> tuple[str, str]:
        database, _, prefix = self.locate(env).partition("/")
        return database, prefix

    def new_login(self, env: Environment, *, apart: bool = False) -> Login:
        """The one login there is: that of the server's own address."""
        url = make_url(self._known_admin(self.server(env)).admin)
        return Login(url.username or "", url.password or "")

    def _known_admin(self, server: Server) -> Server:
        if not server.admin:
            raise ServerUnfit(server=server.name, reason="this process does not know its login")
        return server

    # --- one prefix ---

    def _at(self: T, prefix: str) -> T:
        """This resource, for one prefix."""
        found = copy.copy(self)
        found.dialect = type(found.dialect)(prefix)  # type: ignore[attr-defined]
        return found

    def schema(self) -> Schema:
        """The migrations as the files are now, with the placeholder in them. Raises `MigrationInvalid`."""
        return read(self._directory, type(self).dialect.split) if self._directory else EMPTY

    def _add_users(self, connection: Any, prefix: str = PLACEHOLDER) -> None:
        super()._add_users(connection, prefix)

    @contextmanager
    def _open(self, env: Environment) -> Iterator[Any]:
        """A connection to the database, for work on the tables of an environment that are there."""
        database, prefix = self._parts(env)
        with self._connect(self._known_admin(self.server(env)), database) as connection:
            entry = self.book.entry(connection, prefix)
            if entry is None or not self._is_ours(entry, env):
                raise self._missing(env)
            yield connection

    @contextmanager
    def _part(self, env: Environment) -> Iterator[tuple[Any, Entry | None]]:
        """A connection, and what the book has about an environment's prefix; nobody else works on it meanwhile.

        Raises `NameTaken` where it is another one's.
        """
        database, prefix = self._parts(env)
        server = self._known_admin(self.server(env))
        with self._connect(server, database) as connection, self._locked(connection, f"{database}/{prefix}"):
            entry = self.book.entry(connection, prefix)
            if entry is not None and not self._is_ours(entry, env):
                raise NameTaken(kind="prefix", name=self.locate(env), server=server.name)
            yield connection, entry

    def _is_ours(self, entry: Entry, env: Environment) -> bool:
        return (entry.owner, entry.resource) == (env.id, self.name)

    @contextmanager
    def _scratch(self, connection: Any, database: str, length: int) -> Iterator[str]:
        """A prefix for the time of one call, about as long as another one: servers cut long names that they make up."""
        size = min(max(length, SHORTEST), PREFIX_LIMIT) - len(ENDING)
        prefix = f"z{secrets.token_hex(size)[: size - 1]}{ENDING}"
        with self._locked(connection, f"{database}/{prefix}"):
            self.book.enter(connection, Entry(prefix, "", self._title, State.SCRATCH))
            try:
                yield prefix
            finally:
                self._remove(connection, prefix)

    @property
    def _title(self) -> str:
        return f"{self.setting.platform}/{self.setting.blueprint}.{self.name}"[:190]

    # --- life ---

    def _exists(self, env: Environment) -> bool:
        database, prefix = self._parts(env)
        with self._connect(self._known_admin(self.server(env)), database) as connection:
            entry = self.book.entry(connection, prefix)
        return entry is not None and self._is_ours(entry, env)

    def _create(self, env: Environment) -> None:
        with self._part(env) as (connection, entry):
            prefix = self._parts(env)[1]
            if entry is not None and entry.state is State.READY and self._objects(connection, prefix):
                one = self._at(prefix)
                one._fill_to(connection, self.further(one._read_version(connection)))
                return
            self._claim(connection, env, entry)
            self._at(prefix)._fill(connection)
            self.book.put(connection, prefix, State.READY)

    def _claim(self, connection: Any, env: Environment, entry: Entry | None) -> None:
        """Have the prefix without any table. Raises `NameTaken` where somebody else's tables begin so."""
        prefix = self._parts(env)[1]
        if entry is not None:
            self._clear(connection, prefix)
            return
        found = self._objects(connection, prefix)
        if found:
            raise NameTaken(kind="table", name=found[0], server=self.server(env).name)
        self.book.enter(connection, Entry(prefix, env.id, self.name, State.MAKING))

    def _drop(self, env: Environment) -> None:
        with suppress(NameTaken), self._part(env) as (connection, entry):  # what is not ours stays
            if entry is not None:
                self._remove(connection, entry.prefix)

    def _remove(self, connection: Any, prefix: str) -> None:
        self._clear(connection, prefix)
        self.book.forget(connection, prefix)

    def _prepare(self) -> str | None:
        """Read all files once, so that one that names something without the prefix is told before anything is made."""
        if self._seed:
            self.dialect.split(self._seed.read_text("utf-8"), self._seed.name)
        return self.golden

    def _tidy(self) -> list[str]:
        removed: list[str] = []
        for server in self.setting.servers.of(str(self.server_kind)):
            database = self.options.database or make_url(server.address).database
            if server.admin and database:
                with suppress(ServerUnavailable), self._connect(server, database) as connection:
                    removed += [f"{server.name}/{one}" for one in self._sweep(connection, database)]
        return removed

    def _sweep(self, connection: Any, database: str) -> Iterator[str]:
        for prefix in self.book.scratches(connection, self._title):
            if self._is_free(connection, f"{database}/{prefix}"):
                self._remove(connection, prefix)
                yield f"{database}/{prefix}"

    # --- schema and users ---

    def _version(self, env: Environment) -> str | None:
        return super(Prefix, self._at(self._parts(env)[1]))._version(env)

    def _migrate(self, env: Environment, to: str | None) -> Migrated:
        """One process at a time, since not every server has transactions around migrations."""
        with self._part(env):
            return super(Prefix, self._at(self._parts(env)[1]))._migrate(env, to)

    # --- looking at it ---

    def _check(self, env: Environment) -> list[Finding]:
        return super(Prefix, self._at(self._parts(env)[1]))._check(env)

    def _unsafe(self, env: Environment, connection: Any) -> list[Finding]:
        """Keys and views that lead from these tables to others', or from others' to these."""
        remedy = "Remove it: what leads to another prefix breaks when either tenant is copied or destroyed."
        found = self._crossings(connection, self._parts(env)[1])
        entry = self.book.entry(connection, self._parts(env)[1])
        faults = [Finding(self.name, False, what, remedy) for what in found]
        if entry is not None and entry.state is State.MAKING:
            what = "its tables are not whole: they were being made or loaded"
            faults.append(Finding(self.name, False, what, "Do again what was under way."))
        return faults

    def _differences(self, env: Environment, connection: Any) -> list[str]:
        return differences(self._expected(env, connection, self.newest), self._look(connection, self._parts(env)[1]))

    def _shape(self, env: Environment) -> tuple[str | None, Mapping[str, str]]:
        prefix = self._parts(env)[1]
        with self._open(env) as connection:
            return self._at(prefix)._read_version(connection), self._look(connection, prefix)

    def _declared_shape(self, env: Environment, version: str | None) -> Mapping[str, str]:
        with self._open(env) as connection:
            return self._expected(env, connection, version)

    def _mend(self, env: Environment, version: str | None) -> tuple[str, ...]:
        """In the names of the environment's own tables."""
        database, prefix = self._parts(env)
        with self._open(env) as connection, self._scratch(connection, database, len(prefix)) as golden:
            self._at(golden)._fill_to(connection, version)
            return self._way((connection, golden), (connection, prefix))

    def _expected(self, env: Environment, connection: Any, version: str | None) -> Mapping[str, str]:
        """What a new tenant's tables are, made once in a process under a prefix that is gone again."""
        database, prefix = self._parts(env)
        key = (self.server(env).name, database, self.fingerprint(), version, len(prefix))
        if key not in self._shapes:
            with self._scratch(connection, database, len(prefix)) as golden:
                self._at(golden)._fill_to(connection, version)
                while len(self._shapes) >= SHAPES:
                    self._shapes.pop(next(iter(self._shapes)))
                self._shapes[key] = self._look(connection, golden)
        return self._shapes[key]

    # --- rehearsals ---

    @property
    def can_rehearse(self) -> bool:
        """It can: beside the tenants' tables, under a prefix that is gone again."""
        return True

    def _weigh(self, env: Environment) -> int:
        with self._open(env) as connection:
            return self._taken(connection, self._parts(env)[1])

    def _rehearse(self, env: Environment, to: str | None, room: int, others: Sequence[Environment]) -> Rehearsed:
        start, (database, prefix), server = time.perf_counter(), self._parts(env), self._known_admin(self.server(env))
        with (
            self._connect(server, database) as connection,
            self._scratch(connection, database, len(prefix)) as copied,
            self._connect(server, database) as inner,
            self._connect(server, database) as beside,
        ):
            with self._open(env) as source, self._snapshot(source):
                before = self._copy(env, (source, prefix), (connection, copied))
            work, size = self._at(copied), self._taken(connection, copied)
            with self._watching(beside, inner, copied, room) as watch:
                copy = scratch.Scratch(env, size, time.perf_counter() - start, room, watch)
                steps = scratch.path(self.versions(), before, to)
                return scratch.through(copy, before, to, steps, lambda _, version: work._run_to(inner, version))

    def _run_to(self, connection: Any, version: str | None) -> Migrated:
        return server_migrator.migrate(self.dialect, connection, self.schema(), version, self._limits)

    def _copy(self, env: Environment, source: Part, target: Part) -> str | None:
        """Make the tables of one prefix what those of another one are now, with their rows; their version."""
        (there, prefix), (here, copied) = source, target
        version, stopped = self._at(prefix)._read_version(there), self._at(prefix).dialect.unfinished(there)
        if stopped is not None:  # what of it ran is kept by the names in it
            raise self._error(env, f"no copy can go on where it is: {stopped.what}")
        self._at(copied)._fill_to(here, version)
        for statement in self._way(source, target):
            if statement.startswith(BY_HAND):
                raise self._error(env, f"its tables cannot be copied: {statement.removeprefix(BY_HAND).strip()}")
            self._run(here, statement)
        with self._filling(here, copied):
            for table, columns in self._tables(there, prefix).items():
                lines = self._write_rows(there, f"{prefix}{table}", columns)
                self._read_rows(here, f"{copied}{table}", columns, lines)
            self._set_counters(here, copied, self._counters(there, prefix))
        return version

    # --- how much there is ---

    def _measure(self, env: Environment) -> Usage:
        with self._open(env) as connection:
            return self._size(connection, self._parts(env)[1])

    def _attack(self, env: Environment, other: Environment) -> list[Attempt]:
        from tenantry.resources import prefix_attack

        own, others = self._parts(env)[1], self._parts(other)[1]
        with self._open(env) as connection:
            return list(prefix_attack.attack(self, connection, own, others))

    def _plant(self, env: Environment, text: str) -> None:
        with self._open(env) as connection:
            canary.plant(self._asking(env, connection), text)

    def _seek(self, env: Environment, trace: str) -> list[str]:
        with self._open(env) as connection:
            return canary.seek(self._asking(env, connection), trace)

    def _uproot(self, env: Environment) -> None:
        with self._open(env) as connection:
            canary.uproot(self._asking(env, connection))

    def _asking(self, env: Environment, connection: Any) -> canary.Ask:
        own = f"{self._parts(env)[1]}{canary.TABLE}"
        return lambda statement, *values: self.book.ask(connection, statement.replace(canary.TABLE, own), *values)

    # --- copies ---

    def _dump(self, env: Environment, into: Path) -> None:
        prefix = self._parts(env)[1]
        with self._open(env) as connection, self._snapshot(connection):
            version = self._at(prefix)._read_version(connection)
            prefix_copy.write(self, connection, prefix, version, into)

    def _read_version(self, connection: Any) -> str | None:
        return server_migrator.version(self.dialect, connection, self.schema())

    def _load(self, env: Environment, source: Path) -> None:
        """Beside the tables first: only what could be loaded wholly takes the place of what is in them."""
        database, prefix = self._parts(env)
        with prefix_copy.opened(source / self.name) as copied, self._part(env) as (connection, entry):
            if copied.server != self.server_kind:
                raise self._error(env, f"the copy was made on {copied.server}, and this is {self.server_kind}")
            version = None if copied.version is None else self._known(copied.version, self.versions())
            with self._scratch(connection, database, len(prefix)) as beside:
                self._at(beside)._fill_to(connection, version)
                prefix_copy.take_in(self, connection, beside, copied)
                if entry is None:
                    self._claim(connection, env, entry)
                if self._look(connection, prefix) != self._look(connection, beside):
                    self.book.put(connection, prefix, State.MAKING)
                    self._clear(connection, prefix)
                    self._at(prefix)._fill_to(connection, version)
                self._replace(connection, beside, prefix)
            self.book.put(connection, prefix, State.READY)

    # --- what the servers do ---

    @abstractmethod
    def _connect(self, server: Server, database: str) -> AbstractContextManager[Any]:
        """A connection to a database by the server's own login. Raises `ServerUnavailable` or `ServerUnfit`."""

    @abstractmethod
    def _locked(self, connection: Any, name: str) -> AbstractContextManager[None]:
        """Hold the lock of this name, which ends with the connection."""

    @abstractmethod
    def _is_free(self, connection: Any, name: str) -> bool:
        """Whether nobody holds the lock of this name."""

    @abstractmethod
    def _objects(self, connection: Any, prefix: str) -> list[str]:
        """All that lies in the database and begins with a prefix, by name."""

    @abstractmethod
    def _clear(self, connection: Any, prefix: str) -> None:
        """Remove all that begins with a prefix."""

    @abstractmethod
    def _look(self, connection: Any, prefix: str) -> dict[str, str]:
        """All that begins with a prefix by its name without it, with its definition, in which it is left out too."""

    @abstractmethod
    def _crossings(self, connection: Any, prefix: str) -> list[str]:
        """Foreign keys and views between what begins with a prefix and what does not, each in words."""

    @abstractmethod
    def _way(self, golden: Part, found: Part) -> tuple[str, ...]:
        """The statements that make what begins with one prefix what another one's is, as `postgres_diff.statements`."""

    @abstractmethod
    def _run(self, connection: Any, statement: str) -> None:
        """Run one statement as it is."""

    @abstractmethod
    def _taken(self, connection: Any, prefix: str) -> int:
        """The bytes of all that begins with a prefix, as the server knows them now."""

    @abstractmethod
    def _watching(
        self, beside: Any, inner: Any, prefix: str, room: int
    ) -> AbstractContextManager[Callable[[], AbstractContextManager[scratch.Seen]]]:
        """What looks on, by the connection `beside`, while `inner` migrates the tables of a prefix within its room."""

    @abstractmethod
    def _size(self, connection: Any, prefix: str) -> Usage:
        """Bytes and rows, without migration records; rows of large tables are estimated."""

    @abstractmethod
    def _snapshot(self, connection: Any) -> AbstractContextManager[None]:
        """See everything as of one moment."""

    @abstractmethod
    def _tables(self, connection: Any, prefix: str) -> dict[str, list[str]]:
        """The tables with rows, without the prefix, and the columns of each that can be written; no records."""

    @abstractmethod
    def _counters(self, connection: Any, prefix: str) -> dict[str, int]:
        """The next number of each sequence, by its name without the prefix."""

    @abstractmethod
    def _filling(self, connection: Any, prefix: str) -> AbstractContextManager[None]:
        """Have the tables empty and without triggers and foreign keys, which come back at the end, checked."""

    @abstractmethod
    def _write_rows(self, connection: Any, table: str, columns: list[str]) -> Iterator[bytes]:
        """All rows of a table, a line each or more at a time."""

    @abstractmethod
    def _read_rows(self, connection: Any, table: str, columns: list[str], lines: Iterator[bytes]) -> None:
        """Put the lines that `_write_rows` gave into a table."""

    @abstractmethod
    def _set_counters(self, connection: Any, prefix: str, counters: dict[str, int]) -> None:
        """Let sequences go on with these numbers."""

    @abstractmethod
    def _copy_rows(self, connection: Any, source: str, target: str, columns: list[str]) -> None:
        """Put all rows of one table into another."""

    def _replace(self, connection: Any, source: str, target: str) -> None:
        """Let the rows of one prefix take the place of those of another one of the same shape."""
        tables = self._tables(connection, source)
        with self._filling(connection, target):
            for table, columns in tables.items():
                self._copy_rows(connection, f"{source}{table}", f"{target}{table}", columns)
            self._set_counters(connection, target, self._counters(connection, source))
