"""The kind `mysql`: a database on a MariaDB or MySQL server for each environment, made from a golden script."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import secrets
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, BaseModel

from tenantry import paths
from tenantry import users as users_tables
from tenantry.errors import ConfigError, LoginRefused, NameTaken, ServerUnavailable, TenantryError
from tenantry.model import Attempt, Environment, Finding, Login, Migrated, Place, Server, ServerState, Usage, new_id
from tenantry.resources import (
    Setting,
    history,
    mysql_attack,
    mysql_book,
    mysql_diff,
    mysql_scratch,
    mysql_script,
    server_database,
    server_migrator,
)
from tenantry.resources.canary import TABLE, plant, seek, uproot
from tenantry.resources.mysql_book import BOOK, Part, State
from tenantry.resources.mysql_dialect import MYSQL
from tenantry.resources.mysql_server import (
    BAD_LOGIN,
    DATABASE_THERE,
    FORBIDDEN,
    NO_DATABASE,
    USER_REFUSED,
    Administration,
    Connection,
    Refused,
    administrator,
    connect,
    demands_tls,
    locked,
    missing,
    probe,
    quote,
    quote_grant,
)
from tenantry.resources.schema import fingerprint
from tenantry.resources.scratch import Scratch, clear, folder
from tenantry.resources.servers import PASSWORD_BYTES
from tenantry.resources.shapes import differences

SCRATCH: Final = "tenantry_scratch_"

PRIVILEGES: Final = (
    "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER, CREATE TEMPORARY TABLES, LOCK TABLES, "
    "EXECUTE, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, EVENT, TRIGGER"
)
"""All there are on a database, but not GRANT OPTION: a tenant cannot pass its own on."""

ENDING: Final = 9
"""Letters of what tells apart names that are alike: `_` and eight digits."""

UNKNOWN_CHARSET: Final = frozenset({1115, 1253, 1273})


def _word(value: str) -> str:
    if not value.replace("_", "").isalnum() or not value.isascii():
        raise ValueError("it is made of letters, digits and _")
    return value


def _host(value: str) -> str:
    if not value or any(character in "'\"`\\ @" for character in value) or len(value) > 255:
        raise ValueError("it is a host name or address, in which % stands for anything")
    return value


class Options(server_database.Options):
    """What `mysql` takes."""

    charset: Annotated[str, AfterValidator(_word)] = "utf8mb4"
    collation: Annotated[str, AfterValidator(_word)] | None = None
    host: Annotated[str, AfterValidator(_host)] = "%"


@dataclass(frozen=True, slots=True)
class Golden:
    """What every new database gets."""

    script: tuple[str, ...]
    shape: dict[str, str]


class Mysql(server_database.ServerDatabase):
    """A MariaDB or MySQL database, and the one or two users that may connect to it.

    A book on the server says whose they are: what stands there otherwise, or not at all, is never touched.
    """

    kind = "mysql"
    server_kind = "mysql"
    Options: ClassVar[type[BaseModel]] = Options
    dialect = MYSQL
    takes_program = True
    making = "1"
    name_limit = 64
    user_limit = 32  # MySQL's; MariaDB takes 80
    reserved = frozenset({"mysql", "information_schema", "performance_schema", "sys", BOOK})
    faults = (OSError, Refused)

    def __init__(self, name: str, options: Any, setting: Setting) -> None:
        super().__init__(name, options, setting)
        self._administration = Administration(setting.servers)
        self._goldens: dict[tuple[str, str], Golden] = {}

    def _made_of(self) -> tuple[str, ...]:
        return (self._title, self.options.charset, str(self.options.collation))

    @classmethod
    def _probe(cls, server: Server) -> list[Finding]:
        return probe(server)

    def names(self, env: Environment) -> tuple[str, str]:
        """The names of `OnServer`, short enough to be written in GRANT, where each `_` takes a backslash more."""
        first, apart = super().names(env)
        stem, ending = apart[:-ENDING], apart[-ENDING:]
        while len(_escaped(stem + ending)) > self.name_limit:
            stem = stem[:-1]
        return (first if len(_escaped(first)) <= self.name_limit else stem + ending), stem + ending

    # --- connections ---

    @contextmanager
    def _admin(self, server: Server) -> Iterator[Connection]:
        """The administrator's connection to a server."""
        try:
            with self._administration.open(server) as connection:
                yield connection
        except Refused as error:
            raise missing(server, error) or error from error

    @contextmanager
    def _part(self, env: Environment) -> Iterator[tuple[Connection, Part | None]]:
        """The administrator's connection, and what the book has about an environment's database.

        Nobody else works on that database meanwhile. Raises `NameTaken` where it is another environment's.
        """
        server, name = self.server(env), self.locate(env)
        with self._admin(server) as admin, locked(admin, _lock(server, name)):
            part = mysql_book.part(admin, name)
            if part is not None and (part.owner, part.resource) != (env.id, self.name):
                raise NameTaken(kind="database", name=name, server=server.name)
            yield admin, part

    @contextmanager
    def _open(self, env: Environment, *, multi: bool = False) -> Iterator[Connection]:
        """A connection by the environment's own login: nothing done with it reaches another database."""
        server = self.server(env)
        with self._administration.heeded(server), self._enter(env, server, self.locate(env), multi) as connection:
            yield connection

    @contextmanager
    def _enter(self, env: Environment, server: Server, name: str, multi: bool) -> Iterator[Connection]:
        login = self._login(env)
        try:
            connection = connect(server, login, name, multi=multi)
        except Refused as error:
            if error.number in BAD_LOGIN:
                told = {"kind": self.kind, "resource": self.name, "tenant": env.tenant.slug, "server": server.name}
                raise LoginRefused(**told, why=f" '{login.user}'") from error
            if error.number in FORBIDDEN | {NO_DATABASE}:
                reason = f"there is no database '{name}' for '{login.user}' on the server '{server.name}'"
                raise self._error(env, reason) from error
            raise
        with closing(connection):
            yield connection

    def _migrate(self, env: Environment, to: str | None) -> Migrated:
        """One process at a time: without transactions around them, two would run the same statements."""
        with self._open(env) as connection, locked(connection, _lock(self.server(env), self.locate(env))):
            return self._bring(connection, env, to)

    def _enrol(self, env: Environment, login: str, password_hash: str, role: str, name: str) -> None:
        with self._open(env) as connection:
            connection.ask(
                "INSERT INTO tenantry_user (id, login, role, password, created, name) VALUES (%s, %s, %s, %s, %s, %s) "
                "ON DUPLICATE KEY UPDATE "
                "password = VALUES(password), role = VALUES(role), active = 1, epoch = epoch + 1",
                *(new_id(), login.lower(), role, password_hash, history.now(), name),
            )

    # --- the golden script ---

    @property
    def _title(self) -> str:
        return f"{self.setting.blueprint}.{self.name}"

    def _golden(self, admin: Connection) -> Golden:
        """The golden script for a server, made now where it is missing or the blueprint changed."""
        mark = fingerprint((self.fingerprint(), str(admin.get_server_info())))
        key = (admin.server.address, mark)
        if key not in self._goldens:
            data = mysql_book.golden(admin, mark)
            if data is None:
                with locked(admin, _lock(admin.server, mark)):  # whoever waited here finds it made
                    data = mysql_book.golden(admin, mark) or self._make_golden(admin, mark)
            found = json.loads(zlib.decompress(data))
            self._goldens = {key: Golden(tuple(found["script"]), found["shape"])} | dict(
                list(self._goldens.items())[:7]
            )
        return self._goldens[key]

    def _make_golden(self, admin: Connection, mark: str) -> bytes:
        with self._scratch(admin) as (name, connection):
            self._fill(connection)
            found = mysql_script.items(connection, name)
            connection.ask(mysql_script.SESSION)
            script = [*mysql_script.tables_of(connection, found), *mysql_script.code_of(found)]
            data = zlib.compress(json.dumps({"script": script, "shape": mysql_script.shape(found)}).encode())
        mysql_book.keep_golden(admin, mark, self._title, data)
        return data

    @contextmanager
    def _scratch(self, admin: Connection, *, multi: bool = False) -> Iterator[tuple[str, Connection]]:
        """An empty database for the time of one call, and a connection of its user, who may no more than a tenant."""
        name = f"{SCRATCH}{secrets.token_hex(7)}"
        login = Login(name, secrets.token_urlsafe(PASSWORD_BYTES))
        with locked(admin, name):
            mysql_book.enter(admin, name, "", self._title, State.SCRATCH)
            try:
                self._make_database(admin, name)
                self._let_in(admin, name, login)
                with closing(connect(admin.server, login, name, multi=multi)) as connection:
                    yield name, connection
            finally:
                with suppress(TenantryError, Refused):  # `tidy` removes what an error leaves
                    self._remove(admin, name)

    def _prepare(self) -> str | None:
        """Make the golden script on every server that answers."""
        golden, unreachable = self.golden, []
        servers = [one for one in self._servers() if one.state is ServerState.OPEN]
        for server in servers:
            try:
                with self._admin(server) as admin:
                    self._golden(admin)
            except ServerUnavailable as error:
                unreachable.append(error)
        if unreachable and len(unreachable) == len(servers):
            raise unreachable[0]
        return golden

    def _tidy(self) -> list[str]:
        removed = []
        for server in self._servers():
            with suppress(ServerUnavailable), self._admin(server) as admin:
                for name in mysql_book.scratches(admin, self._title):
                    if admin.ask("SELECT IS_FREE_LOCK(%s)", name) == [("1",)]:
                        self._remove(admin, name)
                        removed.append(f"{server.name}/{name}")
        return [*removed, *clear(self.setting.data)]

    def _servers(self) -> list[Server]:
        return [one for one in self.setting.servers.of(self.server_kind) if one.admin]

    # --- life ---

    def _exists(self, env: Environment) -> bool:
        with self._admin(self.server(env)) as admin:
            part = mysql_book.part(admin, self.locate(env))
        return part is not None and (part.owner, part.resource) == (env.id, self.name)

    def _create(self, env: Environment) -> None:
        with self._part(env) as (admin, part):
            name = self.locate(env)
            if part is not None and part.state is not State.MAKING and mysql_book.exists(admin, name):
                self._let_in(admin, name, self._login(env))
                self._renew(env)
            else:
                self._make(admin, env, part)

    def _make(self, admin: Connection, env: Environment, part: Part | None) -> None:
        """Make a database anew. One that is ours and was never whole is made again from the start."""
        golden, name = self._golden(admin), self.locate(env)
        self._claim(admin, env, part)
        self._let_in(admin, name, self._login(env))
        with self._open(env, multi=True) as connection:
            mysql_script.run(connection, golden.script)
            if self._program is not None:
                self._bring(connection, env, self.newest)
        mysql_book.ready(admin, name)

    def _claim(self, admin: Connection, env: Environment, part: Part | None) -> None:
        """Make an empty database of the environment's name. Raises `NameTaken`."""
        name = self.locate(env)
        if part is not None:
            mysql_book.drop(admin, name)
        elif mysql_book.exists(admin, name):
            raise NameTaken(kind="database", name=name, server=admin.server.name)
        else:
            mysql_book.enter(admin, name, env.id, self.name, State.MAKING)
        self._make_database(admin, name)

    def _make_database(self, admin: Connection, name: str) -> None:
        collation = f" COLLATE {self.options.collation}" if self.options.collation else ""
        try:
            admin.ask(f"CREATE DATABASE {quote(name)} CHARACTER SET {self.options.charset}{collation}")
        except Refused as error:
            mysql_book.forget(admin, name)
            if error.number == DATABASE_THERE:
                raise NameTaken(kind="database", name=name, server=admin.server.name) from error
            if error.number in UNKNOWN_CHARSET:
                option = "charset" if error.number == 1115 else "collation"
                where = f"blueprints.{self.setting.blueprint}.resources.{self.name}.{option}"
                raise ConfigError(where=where, reason=f"the server '{admin.server.name}' says: {error.text}") from error
            raise

    def _drop(self, env: Environment) -> None:
        with suppress(NameTaken), self._part(env) as (admin, part):  # what is not ours stays
            if part is not None:
                self._remove(admin, part.name)

    def _remove(self, admin: Connection, name: str) -> None:
        """Remove a database of ours with its users, and at last the knowledge of it."""
        users = mysql_book.users(admin, name)
        for user, host in users:
            self._shut_out(admin, user, host)
        mysql_book.drop(admin, name)
        for user, host in users:
            self._remove_user(admin, user, host)
        mysql_book.forget(admin, name)

    # --- users of the server ---

    def _let_in(self, admin: Connection, name: str, login: Login) -> None:
        """Make a user, or give ours this password, and let it into one database."""
        host, terms = self.options.host, "REQUIRE SSL" if demands_tls(admin.server) else "REQUIRE NONE"
        entry = mysql_book.user(admin, login.user, host)
        if entry is not None and entry[0] != name:
            raise NameTaken(kind="user", name=login.user, server=admin.server.name)
        if entry is None:
            mysql_book.enter_user(admin, login.user, host, name)
        try:
            admin.ask(f"CREATE USER %s@%s IDENTIFIED BY %s {terms}", login.user, host, login.password)
        except Refused as error:
            if error.number != USER_REFUSED:
                raise
            if entry is None:
                mysql_book.forget_user(admin, login.user, host)
            if entry is None or not (entry[1] or self._is_ours(admin.server, login)):
                raise NameTaken(kind="user", name=login.user, server=admin.server.name) from error
            change = f"ALTER USER %s@%s IDENTIFIED BY %s {terms} ACCOUNT UNLOCK"
            admin.ask(change, login.user, host, login.password)
        if entry is None or not entry[1]:
            mysql_book.user_made(admin, login.user, host)
        admin.ask(f"GRANT {PRIVILEGES} ON {quote_grant(name).replace('%', '%%')}.* TO %s@%s", login.user, host)

    def _is_ours(self, server: Server, login: Login) -> bool:
        """Whether a user that was entered, but perhaps not made, has the password it was to get."""
        with suppress(Refused):
            connect(server, login).close()
            return True
        return False

    def _shut_out(self, admin: Connection, user: str, host: str) -> None:
        """Let a user in no more, and end its connections."""
        with suppress(Refused):  # it is gone already
            admin.ask("ALTER USER %s@%s ACCOUNT LOCK", user, host)
        for (number,) in admin.ask("SELECT id FROM information_schema.processlist WHERE user = %s", user):
            with suppress(Refused):  # it ended by itself
                admin.ask(f"KILL CONNECTION {int(number)}")

    def _remove_user(self, admin: Connection, user: str, host: str) -> None:
        admin.ask("DROP USER IF EXISTS %s@%s", user, host)
        mysql_book.forget_user(admin, user, host)

    def _admit(self, env: Environment, login: Login) -> None:
        with self._part(env) as (admin, part):
            if part is None:
                raise self._error(env, f"there is no database '{self.locate(env)}'")
            self._let_in(admin, part.name, login)

    def _expel(self, env: Environment, user: str) -> None:
        with self._part(env) as (admin, part):
            for name, host in mysql_book.users(admin, self.locate(env)) if part else ():
                if name == user:
                    self._shut_out(admin, name, host)
                    if not _defines(admin, self.locate(env), f"{name}@{host}"):
                        self._remove_user(admin, name, host)

    # --- what was there before ---

    @contextmanager
    def _adoptable(self, env: Environment) -> Iterator[tuple[Connection, Part | None, Connection]]:
        """What `_part` gives, and the administrator's connection inside a database that is there already."""
        with self._part(env) as (admin, part):
            name = self.locate(env)
            if not mysql_book.exists(admin, name):
                raise self._error(env, f"there is no database '{name}' on the server '{admin.server.name}'")
            with closing(connect(admin.server, administrator(admin.server), name)) as inner:
                yield admin, part, inner

    def _survey(self, env: Environment, version: str | None) -> list[Finding]:
        with self._adoptable(env) as (admin, _, inner):
            self._confirm(inner, version)
            found = mysql_script.shape(mysql_script.items(inner, self.locate(env)))
            declared = self._golden(admin).shape if version == self.golden else self._shape_at(admin, version)
        users = {name: text for name, text in declared.items() if users_tables.is_of_users(name)}
        told = differences(declared, users | found)
        remedy = "Put it right before, or take it as it is and write the difference as a migration."
        if not told:
            return [Finding(self.name, True, f"the schema is that of {version or 'an empty database'}")]
        return [Finding(self.name, False, f"the schema differs: {what}", remedy) for what in told]

    def _shape_at(self, admin: Connection, version: str | None) -> dict[str, str]:
        with self._scratch(admin) as (name, connection):
            self._fill_to(connection, version)
            return mysql_script.shape(mysql_script.items(connection, name))

    def _adopt(self, env: Environment, version: str | None) -> None:
        with self._adoptable(env) as (admin, part, inner):
            name = self.locate(env)
            if part is None:
                self._confirm(inner, version)
                mysql_book.enter(admin, name, env.id, self.name, State.ADOPTED, self._strange(admin, name))
            self._let_in(admin, name, self._login(env))
            with self._open(env) as connection:
                self._add_users(connection)
                server_migrator.enter(MYSQL, connection, self.schema(), version)

    def _strange(self, admin: Connection, name: str) -> str:
        """Those of Tenantry's own tables that a database does not have yet."""
        query = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s"
        there = {table for (table,) in admin.ask(query, name)}
        return " ".join(sorted({*history.BOOKKEEPING, *users_tables.TABLES} - there))

    def _release(self, env: Environment) -> None:
        with self._part(env) as (admin, part):
            if part is None:
                return
            if part.state is not State.ADOPTED:
                raise self._error(env, f"the database '{part.name}' was made here, not adopted")
            users = mysql_book.users(admin, part.name)
            for user, host in users:
                self._shut_out(admin, user, host)
            for table in part.note.split():
                admin.ask(f"DROP TABLE IF EXISTS {quote(part.name)}.{quote(table)}")
            for user, host in users:
                self._remove_user(admin, user, host)
            mysql_book.forget(admin, part.name)

    # --- copies ---

    def _dump(self, env: Environment, into: Path) -> None:
        into.mkdir(parents=True, exist_ok=True)
        with (
            self._open(env) as connection,
            paths.directory_beneath(into) as folder,
            paths.new_file(folder, self.name) as file,
        ):
            text = io.TextIOWrapper(file, "utf-8", newline="\n", write_through=True)
            mysql_script.write(text, connection, self.locate(env))
            text.flush()
            text.detach()

    def _load(self, env: Environment, source: Path) -> None:
        """Beside the database first: only what could be loaded wholly takes its place."""
        copy = source / self.name
        with copy.open("rb") as file:
            if not mysql_script.is_whole(file):
                raise self._error(env, f"the copy {copy.name} is not loaded, since it is damaged: it has no end")
        with self._part(env) as (admin, part):
            name = self.locate(env)
            if part is None or not mysql_book.exists(admin, name):
                self._claim(admin, env, part)
            self._let_in(admin, name, self._login(env))
            with self._scratch(admin, multi=True) as (scratch, connection):
                for code in (False, True):
                    mysql_script.run(connection, _statements(copy, code))
                with self._scratch(admin) as (old, _):
                    mysql_script.exchange(admin, scratch, name, old)
            with self._open(env, multi=True) as connection:
                mysql_script.run(connection, _statements(copy, True))
            if part is None or part.state is not State.ADOPTED:
                mysql_book.ready(admin, name)

    # --- rehearsals and drift ---

    def _weigh(self, env: Environment) -> int:
        with self._admin(self.server(env)) as admin:
            return mysql_scratch.size(admin, self.locate(env))

    @contextmanager
    def _copied(self, env: Environment, room: int) -> Iterator[Scratch]:
        server = self.server(env)
        with (
            folder(self.setting.data) as home,
            self._admin(server) as admin,
            self._scratch(admin, multi=True) as (name, connection),
        ):
            place = Place(self.name, self.kind, name, None, server.name)
            others = (one for one in env.places if one.name != self.name)
            login = Login(name, connection.password.decode())
            copy = replace(env, home=home, places=(*others, place), logins={**env.logins, self.name: login})
            start, size = time.perf_counter(), mysql_scratch.size(admin, self.locate(env))
            with self._open(env) as source:
                mysql_scratch.fill(connection, source, self.locate(env))
            copying = time.perf_counter() - start
            with self._open(copy) as inner, self._admin(server) as beside:
                watch = mysql_scratch.Watch(beside, inner, name, room)
                yield Scratch(copy, size, copying, room, watch.over)

    def _shape(self, env: Environment) -> tuple[str | None, Mapping[str, str]]:
        with self._open(env) as connection:
            found = mysql_script.items(connection, self.locate(env))
            return server_migrator.version(MYSQL, connection, self.schema()), mysql_script.shape(found)

    def _declared_shape(self, env: Environment, version: str | None) -> Mapping[str, str]:
        with self._admin(self.server(env)) as admin:
            return self._golden(admin).shape if version == self.golden else self._shape_at(admin, version)

    def _mend(self, env: Environment, version: str | None) -> tuple[str, ...]:
        with self._admin(self.server(env)) as admin, self._scratch(admin) as (name, golden):
            self._fill_to(golden, version)
            with self._open(env) as connection:
                found = mysql_script.items(connection, self.locate(env))
            return mysql_diff.statements(mysql_script.items(golden, name), found)

    # --- looking at it ---

    def _measure(self, env: Environment) -> Usage:
        with self._open(env) as connection:
            for name, kind in connection.ask("SHOW FULL TABLES"):
                if kind not in ("VIEW", "SEQUENCE"):  # the server's figures are as old as the last one of these
                    connection.ask(f"ANALYZE NO_WRITE_TO_BINLOG TABLE {quote(name)}")
            return Usage(*mysql_script.size(connection))

    def _unsafe(self, env: Environment, connection: Connection) -> list[Finding]:
        """What reaches beyond the environment's own database."""
        own = f" ON {quote_grant(self.locate(env))}.* TO "
        grants = [str(row[0]) for row in connection.ask("SHOW GRANTS")]
        odd = [one for one in grants if own not in one and not one.startswith("GRANT USAGE ON *.*")]
        remedy = "Revoke it: it reaches beyond the tenant's own database."
        what = [f"its login has a privilege more: {grant.partition(' TO ')[0]}" for grant in odd]
        return [Finding(self.name, False, one, remedy) for one in what]

    def _differences(self, env: Environment, connection: Connection) -> list[str]:
        found = mysql_script.shape(mysql_script.items(connection, self.locate(env)))
        return differences(self._declared_shape(env, self.newest), found)

    def _attack(self, env: Environment, other: Environment) -> list[Attempt]:
        own, theirs, login = self.locate(env), self.locate(other), self._login(env)
        known = other.logins.get(self.name)
        user = known.user if known else self.user(other)
        with self._open(env) as connection:
            return mysql_attack.Attacker(self.name, connection, login, own, theirs, user).run()

    def _plant(self, env: Environment, canary: str) -> None:
        with self._open(env) as connection:
            plant(connection.ask, canary)

    def _seek(self, env: Environment, trace: str) -> list[str]:
        with self._open(env) as connection:
            there = connection.ask(f"SHOW TABLES LIKE '{TABLE}'")
            return seek(connection.ask, trace) if there else []

    def _uproot(self, env: Environment) -> None:
        with self._open(env) as connection:
            uproot(connection.ask)


def _escaped(name: str) -> str:
    return quote_grant(name)[1:-1]


def _lock(server: Server, name: str) -> str:
    """The name of the lock on a database or a golden script, in at most 64 characters.

    Any login may take any lock it knows the name of: so the names depend on what no tenant knows.
    """
    key = administrator(server).password.encode()
    return f"tenantry {hmac.new(key, name.encode(), hashlib.sha256).hexdigest()[:32]}"


def _statements(copy: Path, code: bool) -> Iterator[str]:
    with copy.open(encoding="utf-8", newline="\n") as file:
        yield from mysql_script.read(file, code)


def _defines(admin: Connection, name: str, user: str) -> bool:
    """Whether views or code of a database run as this user, and break when it is gone."""
    kinds = (("views", "table"), ("triggers", "trigger"), ("routines", "routine"), ("events", "event"))
    return any(
        admin.ask(
            f"SELECT 1 FROM information_schema.{kind} WHERE {prefix}_schema = %s AND definer = %s LIMIT 1",  # noqa: S608
            *(name, user),
        )
        for kind, prefix in kinds
    )
