"""The kind `rows`: tables that all tenants share on PostgreSQL, kept apart by row-level security."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import psycopg
from psycopg import sql
from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from tenantry import users as users_tables
from tenantry.config import Frozen
from tenantry.errors import NameTaken
from tenantry.model import (
    Attempt,
    Environment,
    Exported,
    ExportForm,
    Finding,
    Login,
    Migrated,
    Rehearsed,
    Server,
    Usage,
    new_id,
)
from tenantry.resources import (
    Setting,
    history,
    limits,
    postgres_diff,
    postgres_scratch,
    rows_copy,
    rows_plan,
    rows_tables,
    scratch,
    server_migrator,
)
from tenantry.resources import postgres_admin as admin
from tenantry.resources import postgres_adopt as adoption
from tenantry.resources import postgres_export as exports
from tenantry.resources import postgres_template as template
from tenantry.resources.postgres_admin import Admin, Found
from tenantry.resources.postgres_dialect import Connection
from tenantry.resources.postgres_kind import PostgresKind
from tenantry.resources.postgres_shape import shape
from tenantry.resources.postgres_template import Golden
from tenantry.resources.rows_attack import Attacker
from tenantry.resources.rows_dialect import Shared
from tenantry.resources.server_database import Pool
from tenantry.resources.servers import OTHER, PASSWORD_BYTES
from tenantry.resources.shapes import differences

APPLICATION: Final = "_app"
"""How the role ends that applications log in as, behind the database's name."""

OWNER: Final = "_owner"
"""How the role ends that owns database and tables, and as which nobody logs in."""

LONGEST: Final = 63 - len(OWNER)
RESERVED: Final = frozenset({"postgres", "template0", "template1"})
_PLANT: Final = f"INSERT INTO {rows_tables.TRACE} (canary) VALUES (%s)"  # noqa: S608 -- a constant
_SEEK: Final = f"SELECT canary FROM {rows_tables.TRACE} WHERE starts_with(canary, %s)"  # noqa: S608
_UPROOT: Final = f"DELETE FROM {rows_tables.TRACE}"  # noqa: S608 -- the policies keep it to one tenant's
LOOK_SECONDS: Final = 2
"""How long a process that starts waits for a lock on shared tables before it starts without having looked at them."""
_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
_NOTHING: Final = sql.SQL("NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS")


def _database(name: str) -> str:
    if not name or len(name) > LONGEST or set(name) - _LETTERS or name in RESERVED or name.startswith("pg_"):
        raise ValueError(f"it is the name of one database: 1 to {LONGEST} of the letters a-z, digits, _ and -")
    return name


def _address(url: str) -> str:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError('it is no URL such as "postgresql://127.0.0.1:6432"') from None
    if parsed.get_backend_name() not in ("postgresql", "postgres") or not parsed.host or parsed.password:
        raise ValueError('it is a URL without a login, such as "postgresql://127.0.0.1:6432"')
    return url


class Options(Frozen):
    """What `rows` takes."""

    database: Annotated[str, AfterValidator(_database)]
    directory: str | None = Field(default=None, alias="schema")  # `schema` itself is a name of pydantic's
    seed: str | None = None
    shared: tuple[str, ...] = ()
    pooler: Annotated[str, AfterValidator(_address)] | None = None
    extensions: tuple[str, ...] = ()
    encoding: str | None = None
    locale: str | None = None
    icu_locale: str | None = None
    base: str = "template0"
    migrate: limits.Options = limits.Options()
    pool: Pool = Pool(size=20, overflow=0)


class Rows(PostgresKind):
    """A tenant's rows in tables that all tenants of a blueprint share, in one database of a server.

    The database is made with the first tenant and stays with the last. Its owner, as whom nobody logs in, migrates it;
    the application's role has the rights on rows, and the policies of every table show it one tenant's alone.
    """

    kind = "rows"
    dialect: Shared
    shared: ClassVar[bool] = True
    Options: ClassVar[type[BaseModel]] = Options
    making = "1"

    def __init__(self, name: str, options: Any, setting: Setting) -> None:
        super().__init__(name, options, setting)
        self._golden = Golden(setting, name, options, self.fingerprint, self._lay_out)
        self._mine = admin.write_mark("shared", platform=self._whose(), blueprint=setting.blueprint, resource=name)
        self.dialect = Shared(options.shared, self.role)

    def _whose(self) -> str:
        return template.digest(self.setting.platform or str(self.setting.data))

    def _made_of(self) -> tuple[str, ...]:
        chosen = self.options
        return (chosen.database, *chosen.shared, "extensions", *chosen.extensions, str(chosen.locale), chosen.base)

    # --- names ---

    @property
    def role(self) -> str:
        """The role that applications log in as."""
        return str(self.options.database) + APPLICATION

    @property
    def owner(self) -> str:
        """The role that the tables belong to."""
        return str(self.options.database) + OWNER

    def names(self, env: Environment) -> tuple[str, str]:
        """The database that all share, twice."""
        return self.options.database, self.options.database

    def user(self, env: Environment) -> str:
        """The role that applications log in as, or as a member of it, for whatever tenant."""
        return self.role

    def new_login(self, env: Environment, *, apart: bool = False) -> Login:
        """A login of all tenants. Two roles take turns, so that the old one holds while the new one spreads."""
        current = env.logins.get(self.name)
        other = OTHER if current is not None and current.user == self.role else ""
        return Login(self.role + other, secrets.token_urlsafe(PASSWORD_BYTES))

    def _admit(self, env: Environment, login: Login) -> None:
        if not self._is_there(env):
            raise self._missing(env)
        with self._alone(self.server(env)) as connection:
            self._make_roles(connection, self.server(env), login, anew=True)

    def _expel(self, env: Environment, user: str) -> None:
        with self._alone(self.server(env)) as connection:
            if user in admin.roles(connection, user):
                shut = sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(sql.Identifier(user))
                admin.run(connection, [shut])
                with admin.acting(connection, user):
                    adoption.end_sessions(connection, self.options.database, user)

    # --- connections ---

    @contextmanager
    def _inside(self, env: Environment) -> Iterator[Connection]:
        """The shared database, as its owner; also he sees one tenant's rows alone, once it is set."""
        with self._inner(self.server(env)) as inner:
            yield inner

    @contextmanager
    def _inner(self, server: Server) -> Iterator[Connection]:
        with self._listening(server), admin.connected_to(server, self.options.database) as inner:
            inner.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(self.owner)))
            yield inner

    @contextmanager
    def _open(self, env: Environment) -> Iterator[Connection]:
        if not self._is_there(env):
            raise self._missing(env)
        with self._inside(env) as inner:
            yield inner

    @contextmanager
    def _alone(self, server: Server) -> Iterator[Admin]:
        """The administrator's connection, with nobody else at work on what all tenants share."""
        with self._admin(server) as connection, admin.locked(connection, f"rows {self.options.database}"):
            yield connection

    # --- what all share ---

    def _is_there(self, env: Environment) -> bool:
        """Whether the shared database is there, whole; a half of one is made whole by the next create."""
        with self._admin(self.server(env)) as connection:
            found = admin.database(connection, self.options.database)
            return found is not None and found.comment == self._mine

    def _ready(self, env: Environment, to: str | None, *, up: bool = False) -> Migrated:
        """Make what all share, or what is missing of it, and bring it to a version; with `up` at least to `golden`."""
        server = self.server(env)
        with self._alone(server) as connection:
            self._make_roles(connection, server, self._login(env))
            found = self._refuse_foreign(connection, server)
            if found is None:
                template.create_empty(connection, self.options.database, self.options, self.owner)
            if found is None or found.comment != self._mine:
                self._lay_down(connection, server)
            with self._inner(server) as inner:
                self._found(inner)
                if up:
                    to = self.further(server_migrator.version(self.dialect, inner, self.schema()))
                done = server_migrator.migrate(self.dialect, inner, self.schema(), to, self._limits)
                self.dialect.mend(inner, self.options.database)
            return done

    def _refuse_foreign(self, connection: Admin, server: Server) -> Found | None:
        found = admin.database(connection, self.options.database)
        if found is not None and found.comment != self._mine and (found.comment or found.owner != self.owner):
            raise NameTaken(kind="database", name=found.name, server=server.name)
        return found

    def _make_roles(self, connection: Admin, server: Server, login: Login, *, anew: bool = False) -> None:
        """The owner, the application's role, and the login, which gets its password where it has none, or `anew`."""
        wanted = list(dict.fromkeys((self.owner, self.role, login.user)))
        there = admin.roles(connection, *wanted)
        steps: list[sql.Composable] = []
        for name in wanted:
            role = sql.Identifier(name)
            if name not in there:
                steps.append(sql.SQL("CREATE ROLE {} NOLOGIN {}").format(role, _NOTHING))
                steps.append(sql.SQL("COMMENT ON ROLE {} IS {}").format(role, self._mine))
                if name not in (self.owner, self.role):
                    steps.append(sql.SQL("GRANT {} TO {}").format(sql.Identifier(self.role), role))
            elif there[name].comment != self._mine:
                raise NameTaken(kind="role", name=name, server=server.name)
        if anew or not (login.user in there and there[login.user].open):
            password = admin.verifier(connection, login.user, login.password)
            steps.append(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(login.user), password))
        if steps:
            admin.run(connection, steps)
        if not admin.may_act(connection, self.owner):
            admin.run(connection, [admin.join(connection, self.owner)])

    def _lay_down(self, connection: Admin, server: Server) -> None:
        """An empty database gets its extensions and its first tables; then it is marked as whole."""
        with self._inner(server) as inner:
            template.extend(inner, server, self.options.extensions)
        database = sql.Identifier(self.options.database)
        steps = [
            sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database),
            sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, sql.Identifier(self.role)),
            sql.SQL("COMMENT ON DATABASE {} IS {}").format(database, self._mine),
        ]
        admin.run(connection, steps)

    def _found(self, inner: Connection) -> None:
        """The tables and columns that Tenantry itself needs, where they are missing."""
        missing = self._missing_of_ours(inner)
        if missing:
            self.dialect.script(inner, missing, rows_tables.MARKER)

    def _missing_of_ours(self, inner: Connection) -> Sequence[str]:
        """What makes them."""
        wanted = {rows_tables.MARKER: rows_tables.MARKER_TABLE, rows_tables.TRACE: rows_tables.TRACE_TABLE}
        there = self.dialect.columns(inner, [*wanted, *users_tables.TABLES])
        own = [text for name, text in wanted.items() if name not in there]
        users = users_tables.missing(self.dialect.name, there) if self.setting.users else ()
        return [*own, *users]

    def _lay_out(self, connection: Connection) -> None:
        """Make an empty database what the shared one is to be, without any tenant."""
        self._lay_out_to(connection, self.golden)

    def _lay_out_to(self, connection: Connection, version: str | None) -> Migrated:
        self._found(connection)
        return server_migrator.migrate(self.dialect, connection, self.schema(), version, self._limits)

    @property
    def shared_database(self) -> str:
        """The same on every server."""
        return str(self.options.database)

    def faults_of(self, connection: psycopg.Connection[Any], role: str) -> list[str]:
        """What does not keep tenants apart in a database, as an application's role finds it."""
        return [one.what for one in rows_plan.weaknesses(connection, role, self.options.shared)]

    def _weaknesses(self, server: Server, login: Login) -> list[Finding]:
        try:
            with self._entered(server, login) as connection:
                connection.execute(f"SET lock_timeout = '{LOOK_SECONDS}s'; SET statement_timeout = '{LOOK_SECONDS}s'")
                return self._found_weak(connection, login.user)
        except psycopg.OperationalError:  # silent, locked by a migration, or not made yet: the first session looks
            return []

    def _found_weak(self, connection: Connection, role: str) -> list[Finding]:
        weak = rows_plan.weaknesses(connection, role, self.options.shared)
        return [Finding(self.name, False, one.what, one.mending) for one in weak]

    # --- one tenant ---

    def _exists(self, env: Environment) -> bool:
        if not self._is_there(env):
            return False
        with self._inside(env) as inner, rows_tables.working_for(inner, env.key):
            if not self._has_markers(inner):
                return False
            marked = rows_tables.is_marked(inner, env.key)
            return marked or bool(rows_tables.holders(inner, self._tables(inner), env.key))

    def _has_markers(self, inner: Connection) -> bool:
        row = inner.execute("SELECT to_regclass(%s)", (f"public.{rows_tables.MARKER}",)).fetchone()
        return bool(row and row[0])

    def _tables(self, inner: Connection) -> list[rows_tables.Table]:
        return rows_tables.flat(rows_tables.tables(inner, self.options.shared))

    def _create(self, env: Environment) -> None:
        if not self._is_current(env):
            self._ready(env, self.golden, up=True)
        with self._inside(env) as inner, rows_tables.working_for(inner, env.key):
            fresh = rows_tables.mark(inner, env.key, env.tenant.slug)
            if fresh and self._seed:
                statements = self.dialect.split(self._seed.read_text("utf-8"), self._seed.name)
                self.dialect.sow(inner, statements, self._seed.name)
        if not fresh:  # somebody repairs it: perhaps its applications are not let in
            with self._alone(self.server(env)) as connection:
                self._make_roles(connection, self.server(env), self._login(env), anew=True)

    def _is_current(self, env: Environment) -> bool:
        """Whether what all share is there, at the schema of new tenants or a newer one."""
        if not self._is_there(env):
            return False
        with self._inside(env) as inner:
            version = server_migrator.version(self.dialect, inner, self.schema())
            return version == self.further(version) and not self._missing_of_ours(inner)

    def _drop(self, env: Environment) -> None:
        if not self._is_there(env):
            return
        with self._inside(env) as inner:
            if self._has_markers(inner):
                left = rows_copy.remove(inner, self.options.shared, env.key)
                if left:
                    raise self._error(env, f"triggers keep writing rows into {', '.join(left)}")

    def _migrate(self, env: Environment, to: str | None) -> Migrated:
        if not self._is_there(env):
            raise self._missing(env)
        return self._ready(env, to)

    def _dump(self, env: Environment, into: Path) -> None:
        with self._open(env) as inner:
            version = server_migrator.version(self.dialect, inner, self.schema())
            rows_copy.dump(inner, self.options.shared, env.key, version, into / self.name)

    def _export(self, env: Environment, into: Path, form: ExportForm) -> list[Exported]:
        with self._open(env) as inner, rows_copy.snapshot(inner, env.key):
            found = [
                exports.Content(one.schema, one.name, one.columns, one.of(env.key))
                for one in self._tables(inner)
                if one.name != rows_tables.TRACE
            ]
            return exports.export(inner, found, form, into / self.name)

    def _load(self, env: Environment, source: Path) -> None:
        try:
            with rows_copy.opened(source / self.name) as archive:
                if not self._is_current(env):
                    self._ready(env, self.golden, up=True)
                with self._inside(env) as inner:
                    rows_copy.load(inner, self.options.shared, env.key, env.tenant.slug, archive)
        except rows_copy.Unfit as error:
            raise self._error(env, f"load failed, {error}") from error

    def _enrol(self, env: Environment, login: str, password_hash: str, role: str, name: str) -> None:
        with self._open(env) as inner, rows_tables.working_for(inner, env.key):
            inner.execute(
                "INSERT INTO tenantry_user (id, login, role, password, created, name) VALUES (%s, %s, %s, %s, %s, %s) "
                "ON CONFLICT (tenant_id, login) DO UPDATE SET password = excluded.password, role = excluded.role, "
                "active = 1, epoch = tenantry_user.epoch + 1",
                (new_id(), login.lower(), role, password_hash, history.now(), name),
            )

    # --- looking at it ---

    def _measure(self, env: Environment) -> Usage:
        with self._open(env) as inner, rows_tables.working_for(inner, env.key):
            size, rows = rows_tables.measure(inner, self._tables(inner), env.key)
            return Usage(bytes=size, rows=rows)

    def _differences(self, env: Environment, connection: Connection) -> list[str]:
        return differences(self._declared_shape(env, self.newest), shape(connection))

    def _shape(self, env: Environment) -> tuple[str | None, Mapping[str, str]]:
        with self._open(env) as inner:
            return server_migrator.version(self.dialect, inner, self.schema()), shape(inner)

    def _declared_shape(self, env: Environment, version: str | None) -> Mapping[str, str]:
        server = self.server(env)
        with self._admin(server) as connection:
            if version == self.golden:
                return self._golden.ready(connection, server)
            return self._golden.shape_of(connection, server, self._at(version), f"at {version}")

    def _mend(self, env: Environment, version: str | None) -> tuple[str, ...]:
        server = self.server(env)
        with (
            self._admin(server) as connection,
            self._golden.aside(connection, server, self._at(version), f"for {version}") as golden,
            self._inside(env) as inner,
        ):
            return postgres_diff.statements(golden, inner)

    def _at(self, version: str | None) -> template.Fill:
        return partial(self._lay_out_to, version=version)

    def _unsafe(self, env: Environment, connection: Connection) -> list[Finding]:
        found = self._found_weak(connection, self._login(env).user)
        try:
            with self._application(env):
                return found
        except psycopg.OperationalError as error:
            what = f"the server refuses the login of applications: {admin.refusal(str(error)) or error}"
            remedy = "`tenantry tenant rotate --all` makes a new one."
            return [*found, Finding(self.name, False, what, remedy)]

    @contextmanager
    def _application(self, env: Environment) -> Iterator[Connection]:
        """The shared database, as an application enters it."""
        with self._entered(self.server(env), self._login(env)) as connection:
            yield connection

    @contextmanager
    def _entered(self, server: Server, login: Login) -> Iterator[Connection]:
        facts = {"dbname": self.options.database, "user": login.user, "password": login.password}
        with Connection.connect(admin.conninfo(server.address, **facts), autocommit=True) as connection:
            yield connection

    def _attack(self, env: Environment, other: Environment) -> list[Attempt]:
        with self._application(env) as connection:
            return Attacker(self.name, connection, env.key, other.key).run(self.owner, self.options.shared)

    def _plant(self, env: Environment, canary: str) -> None:
        with self._application(env) as connection, rows_tables.working_for(connection, env.key):
            connection.execute(_UPROOT)
            connection.execute(_PLANT, (canary,))

    def _seek(self, env: Environment, trace: str) -> list[str]:
        with self._application(env) as connection, rows_tables.working_for(connection, env.key):
            return [str(canary) for (canary,) in connection.execute(_SEEK, (trace,))]

    def _uproot(self, env: Environment) -> None:
        with self._application(env) as connection, rows_tables.working_for(connection, env.key):
            connection.execute(_UPROOT)

    # --- rehearsals ---

    @property
    def can_rehearse(self) -> bool:
        """It can: on the tables as the migrations make them, with the rows of as many tenants as there is room for."""
        return True

    def _weigh(self, env: Environment) -> int:
        """What all share is migrated at once, so it is all of it."""
        with self._open(env) as inner:
            return postgres_scratch.size(inner)

    @contextmanager
    def _laid_out(self, server: Server, version: str | None) -> Iterator[Connection]:
        """A database of its own with the tables as they are to be at a version, for the time of a block."""
        with (
            self._admin(server) as connection,
            postgres_scratch.database(connection, server, self._golden.scratch_prefix, self.options) as login,
            Connection.connect(
                admin.conninfo(server.address, dbname=login.user, user=login.user, password=login.password),
                autocommit=True,
            ) as inner,
        ):
            self._lay_out_to(inner, version)
            yield inner

    def _rehearse(self, env: Environment, to: str | None, room: int, others: Sequence[Environment]) -> Rehearsed:
        """On a copy of the tables with one tenant's rows after the other's: nobody sees all rows at once."""
        before, start = self._version(env), time.perf_counter()
        with self._laid_out(self.server(env), before) as inner:
            with self._open(env) as source:
                rows_copy.share(source, inner, self.options.shared)
            copied = self._copy_tenants(inner, [env, *others], room)
            with Connection.connect(inner.info.dsn, password=inner.info.password, autocommit=True) as beside:
                watch = postgres_scratch.Watch(beside, room)
                watch.begin(None if self.schema().alembic else self.dialect.record)
                size = postgres_scratch.size(inner)
                copy = scratch.Scratch(env, size, time.perf_counter() - start, room, watch.over)
                steps = scratch.path(self.versions(), before, to)
                done = scratch.through(copy, before, to, steps, lambda _, version: self._lay_out_to(inner, version))
        return dataclasses.replace(done, tenants=copied, whole=self._weigh(env))

    def _copy_tenants(self, inner: Connection, wanted: Sequence[Environment], room: int) -> int:
        """Load the rows of tenants until half of the room is full; the rest is for what migrations do. Of how many."""
        with scratch.folder(self.setting.data) as folder:
            place = self.setting.data / folder
            for number, one in enumerate(wanted):
                self._dump(one, place)
                taken = postgres_scratch.size(inner) + (place / self.name).stat().st_size
                if number and 2 * taken > room:
                    return number
                with rows_copy.opened(place / self.name) as archive:
                    rows_copy.load(inner, self.options.shared, one.key, one.tenant.slug, archive)
        return len(wanted)

    # --- templates ---

    def _prepare(self) -> str | None:
        """Lay the newest schema out in an empty database: on each server where tenants share one already."""

        def ready(connection: Admin, server: Server) -> Mapping[str, str]:
            found = admin.database(connection, self.options.database)
            return self._golden.ready(connection, server) if found and found.comment == self._mine else {}

        self._on_each(ready)
        return self.golden

    def _tidy(self) -> list[str]:
        def tidy(connection: Admin, server: Server) -> Sequence[str]:
            scratches = postgres_scratch.tidy(connection, self._golden.scratch_prefix)
            return [f"{server.name}/{name}" for name in (*self._golden.tidy(connection), *scratches)]

        removed = [name for names in self._on_each(tidy, every=True) for name in names]
        return [*removed, *scratch.clear(self.setting.data)]
