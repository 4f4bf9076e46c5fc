"""The kind `postgres`: a PostgreSQL database for each environment, cloned from a golden template."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import psycopg
from psycopg import sql
from pydantic import BaseModel, Field

from tenantry import users as users_tables
from tenantry.errors import LoginRefused, NameTaken
from tenantry.model import Attempt, Environment, Exported, ExportForm, Finding, Login, Place, Server, Usage, new_id
from tenantry.resources import (
    Setting,
    history,
    postgres_diff,
    postgres_scratch,
    scratch,
    server_database,
    server_migrator,
)
from tenantry.resources import postgres_admin as admin
from tenantry.resources import postgres_adopt as adoption
from tenantry.resources import postgres_copy as copies
from tenantry.resources import postgres_export as exports
from tenantry.resources import postgres_template as template
from tenantry.resources.canary import TABLE, Ask, plant, seek, uproot
from tenantry.resources.postgres_admin import Admin, Found
from tenantry.resources.postgres_adopt import Former
from tenantry.resources.postgres_attack import Attacker
from tenantry.resources.postgres_dialect import POSTGRES, Connection
from tenantry.resources.postgres_kind import PostgresKind
from tenantry.resources.postgres_scratch import Watch
from tenantry.resources.postgres_shape import shape
from tenantry.resources.postgres_template import Golden
from tenantry.resources.scratch import Scratch
from tenantry.resources.servers import OTHER
from tenantry.resources.shapes import differences

CLAIMS: Final = 3
"""How many warm spares a create tries to get before it clones: others may be quicker."""

COUNTED: Final = 64 << 20
"""Bytes up to which a table's rows are counted; those of a larger one are the server's estimate."""

GONE: Final = (psycopg.errors.InvalidCatalogName, psycopg.errors.ObjectInUse, psycopg.errors.InternalError)
"""What a spare that somebody else claimed a moment ago is refused with."""

Value = str | int | float | bool | list[str]


class Options(server_database.Options):
    """What `postgres` takes."""

    extensions: tuple[str, ...] = ()
    encoding: str | None = None
    locale: str | None = None
    icu_locale: str | None = None
    base: str = "template0"
    settings: Mapping[str, Value] = Field(default_factory=dict)
    connection_limit: int | None = Field(None, ge=1)
    spares: int = Field(0, ge=0, le=100)


@dataclass(frozen=True, slots=True)
class There:
    """What the server has under an environment's names."""

    database: Found | None
    roles: Mapping[str, Found]

    @property
    def former(self) -> Former | None:
        """How an adopted database was before; None for one that was made here."""
        found = (adoption.former_of(role.mark) for role in self.roles.values())
        return next((former for former in found if former is not None), None)


class Postgres(PostgresKind):
    """A database on a PostgreSQL server, and the one or two roles that may connect to it.

    Database and roles carry a comment that says whose they are: what carries another one, or none, is never touched.
    """

    kind = "postgres"
    Options: ClassVar[type[BaseModel]] = Options
    dialect = POSTGRES
    takes_program = True
    making = "1"
    name_limit = 63  # NAMEDATALEN - 1, postgresql.org/docs/current/sql-syntax-lexical.html
    user_limit = 63
    reserved = frozenset({"postgres", "template0", "template1", "public", "none"})

    def __init__(self, name: str, options: Any, setting: Setting) -> None:
        super().__init__(name, options, setting)
        self._golden = Golden(setting, name, options, self.fingerprint, self._fill, self._kin, self._grow)

    def _made_of(self) -> tuple[str, ...]:
        chosen = self.options
        return (*chosen.extensions, str(chosen.encoding), str(chosen.locale), str(chosen.icu_locale), chosen.base)

    # --- connections ---

    @contextmanager
    def _working(self, env: Environment) -> Iterator[Admin]:
        """The administrator's connection, with nobody else at work on this environment's database."""
        with self._admin(self.server(env)) as connection, admin.locked(connection, self._aside(env)[0]):
            yield connection

    @contextmanager
    def _open(self, env: Environment) -> Iterator[Connection]:
        connection = self._connect(env)
        try:
            yield connection
        finally:
            connection.close()

    def _conninfo(self, env: Environment, database: str) -> str:
        """How an environment's own login reaches a database of its server."""
        login = self._login(env)
        return admin.conninfo(self.server(env).address, dbname=database, user=login.user, password=login.password)

    def _connect(self, env: Environment) -> Connection:
        server = self.server(env)
        try:
            return Connection.connect(self._conninfo(env, self.locate(env)), autocommit=True)
        except psycopg.OperationalError as error:
            reason = admin.refusal(str(error))
            if reason:
                told = {"kind": self.kind, "resource": self.name, "tenant": env.tenant.slug, "server": server.name}
                raise LoginRefused(**told, why=f": {reason}") from error
            with self._listening(server), admin.told(server):
                raise

    # --- whose it is ---

    def _mark(self, env: Environment, **more: Any) -> str:
        facts = {"tenant": env.tenant.id, "environment": env.id, "resource": self.name}
        return admin.write_mark("tenant", **facts, **more)

    def _ours(self, found: Found, env: Environment) -> bool:
        return found.mark.get("environment") == env.id and found.mark.get("resource") == self.name

    def _users(self, env: Environment) -> tuple[str, str]:
        user = self.user(env)
        return user, user + OTHER

    def _look(self, connection: Admin, env: Environment) -> There:
        """Database and roles under this environment's names that are its own; others are as if they were not there.

        Roles tell by their marks, which no tenant can change; a database tells by its owner.
        """
        found = admin.roles(connection, *self._users(env))
        roles = {name: role for name, role in found.items() if self._ours(role, env)}
        database = admin.database(connection, self.locate(env))
        own = database is not None and (database.owner in roles or self._ours(database, env))
        return There(database if own else None, roles)

    def _refuse_foreign(self, connection: Admin, env: Environment, there: There) -> None:
        server = self.server(env).name
        for name in admin.roles(connection, *self._users(env)):
            if name not in there.roles and (name == self.user(env) or name == self._login(env).user):
                raise NameTaken(kind="role", name=name, server=server)
        if there.database is None and admin.database(connection, self.locate(env)) is not None:
            raise NameTaken(kind="database", name=self.locate(env), server=server)

    # --- making it ---

    def _exists(self, env: Environment) -> bool:
        with self._admin(self.server(env)) as connection:
            there = self._look(connection, env)
        return bool(there.database or there.roles)

    def _create(self, env: Environment) -> None:
        with self._working(env) as connection:
            there = self._look(connection, env)
            self._refuse_foreign(connection, env, there)
            whole = there.database is not None and there.database.open
            if not whole:
                if there.database is not None or not self._claim(connection, env, there):
                    self._make(connection, env, there)
                if self._program is not None:
                    self._renew(env)
                return
            admin.run(connection, [*self._admitting(connection, env, there), *self._opening(env)])
            self._renew(env)

    def _make(self, connection: Admin, env: Environment, there: There) -> None:
        """Clone the template, or go on where somebody was cut off."""
        server, owner = self.server(env), sql.SQL("OWNER {}").format(sql.Identifier(self.user(env)))
        if there.database is None:
            self._golden.ready(connection, server)  # whatever is wrong with the schema shows before anything is made
        admin.run(connection, self._admitting(connection, env, there))
        try:
            if there.database is None:
                self._golden.clone(connection, server, self.locate(env), owner)
            admin.run(connection, self._opening(env))
        except Exception:
            if not there.roles:
                with suppress(psycopg.Error):
                    self._remove(connection, env)
            raise

    def _claim(self, connection: Admin, env: Environment, there: There) -> bool:
        """Take a warm spare, in one transaction. False where there is none left."""
        if not self.options.spares:
            return False
        for _ in range(CLAIMS):
            try:
                with connection.transaction():
                    spare = self._golden.take(connection)
                    if spare is None:
                        return False
                    admin.run(connection, self._claiming(connection, env, there, spare))
                return True
            except GONE:
                continue
        return False

    def _claiming(self, connection: Admin, env: Environment, there: There, spare: str) -> list[sql.Composable]:
        old, new, owner = (sql.Identifier(name) for name in (spare, self.locate(env), self.user(env)))
        return [
            *self._admitting(connection, env, there),
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(old, owner),
            sql.SQL("ALTER DATABASE {} RENAME TO {}").format(old, new),
            *self._opening(env),
        ]

    def _admitting(self, connection: Admin, env: Environment, there: There, **more: Any) -> list[sql.Composable]:
        """Make its roles, or those of them that are missing, and let the administrator act as the database's owner.

        `more` goes into the mark of new roles.
        """
        login, base = self._login(env), self.user(env)
        steps: list[sql.Composable] = []
        if base not in there.roles and login.user != base:
            steps += self._new_role(base, sql.SQL("NOLOGIN"), env, more)
        password = admin.verifier(connection, login.user, login.password)
        may = sql.SQL("LOGIN PASSWORD {}").format(password)
        if login.user in there.roles:
            steps.append(sql.SQL("ALTER ROLE {} {}").format(sql.Identifier(login.user), may))
        else:
            steps += self._new_role(login.user, may, env, more)
        return [*steps, admin.join(connection, base)]

    def _new_role(
        self, user: str, may: sql.Composable, env: Environment, more: Mapping[str, Any]
    ) -> list[sql.Composable]:
        role, base = sql.Identifier(user), sql.Identifier(self.user(env))
        nothing = sql.SQL("NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION")
        made: list[sql.Composable] = [
            sql.SQL("CREATE ROLE {} {} {}").format(role, may, nothing),
            sql.SQL("COMMENT ON ROLE {} IS {}").format(role, self._mark(env, **more)),
        ]
        if user != self.user(env):  # whatever it makes belongs to the first one, and so to the environment
            made.append(sql.SQL("GRANT {} TO {}").format(base, role))
            made.append(sql.SQL("ALTER ROLE {} SET role TO {}").format(role, base))
        return made

    def _opening(self, env: Environment) -> list[sql.Composable]:
        """Open a database to its roles, and to nobody else; then the administrator is no member of them any more."""
        database = sql.Identifier(self.locate(env))
        limit = -1 if self.options.connection_limit is None else self.options.connection_limit
        return [
            sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database),
            sql.SQL("COMMENT ON DATABASE {} IS {}").format(database, self._mark(env)),
            *(_setting(database, key, value) for key, value in self.options.settings.items()),
            sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true CONNECTION LIMIT {}").format(database, limit),
            admin.leave(self.user(env)),
        ]

    def _drop(self, env: Environment) -> None:
        with self._working(env) as connection:
            self._remove(connection, env)

    def _remove(self, connection: Admin, env: Environment) -> None:
        there = self._look(connection, env)
        if there.roles:
            shut: list[sql.Composable] = [
                sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(name)) for name in there.roles
            ]
            admin.run(connection, [*shut, *(admin.join(connection, name) for name in there.roles)])
        for name in (*self._aside(env), *([there.database.name] if there.database else [])):
            template.remove(connection, name)
        self._drop_roles(connection, there)

    def _drop_roles(self, connection: Admin, there: There) -> None:
        if there.roles:
            names = sql.SQL(", ").join(sql.Identifier(name) for name in sorted(there.roles, reverse=True))
            admin.run(connection, [sql.SQL("DROP ROLE IF EXISTS {}").format(names)])

    # --- its two users ---

    def _admit(self, env: Environment, login: Login) -> None:
        given = dataclasses.replace(env, logins={**env.logins, self.name: login})
        with self._working(env) as connection:
            there = self._look(connection, env)
            if there.database is None:
                raise self._missing(env)
            self._refuse_foreign(connection, given, there)
            admin.run(connection, [*self._admitting(connection, given, there), admin.leave(self.user(env))])

    def _expel(self, env: Environment, user: str) -> None:
        with self._working(env) as connection:
            if user not in self._look(connection, env).roles:
                return
            role = sql.Identifier(user)
            steps = [sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(role), admin.join(connection, user)]
            admin.run(connection, steps)
            adoption.end_sessions(connection, self.locate(env), user)
            admin.run(connection, [admin.leave(user)])

    # --- one that is there already ---

    def _survey(self, env: Environment, version: str | None) -> list[Finding]:
        server = self.server(env)
        with self._admin(server) as connection, self._inside(connection, env) as inner:
            self._confirm(inner, version)
            found = shape(inner)
            if version == self.golden:
                declared = self._golden.ready(connection, server)
            else:
                fill = partial(self._fill_to, version=version)
                declared = self._golden.shape_of(connection, server, fill, f"at {version}")
        users = {name: text for name, text in declared.items() if users_tables.is_of_users(name)}
        remedy = "Put it right before, or take it as it is and write the difference as a migration."
        told = differences(declared, users | found)
        if not told:
            return [Finding(self.name, True, f"the schema is that of {version or 'an empty database'}")]
        return [Finding(self.name, False, f"the schema differs: {what}", remedy) for what in told]

    @contextmanager
    def _inside(self, connection: Admin, env: Environment) -> Iterator[Connection]:
        """A database that is to be adopted, as its owner sees it; whatever is done there is rolled back."""
        found = admin.database(connection, self.locate(env))
        if found is None:
            raise self._missing(env)
        if found.mark and not self._ours(found, env):
            raise NameTaken(kind="database", name=found.name, server=self.server(env).name)
        with admin.connected_to(self.server(env), found.name) as inner, inner.transaction(force_rollback=True):
            inner.execute(admin.join(inner, found.owner))
            inner.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(found.owner)))
            yield inner

    def _adopt(self, env: Environment, version: str | None) -> None:
        with self._working(env) as connection:
            there = self._look(connection, env)
            if there.database is None:
                there = self._take_over(connection, env, version, there)
            former = there.former
            if former is not None:
                self._hand_over(connection, env, former.owner, self.user(env), former)
        with self._open(env) as inner:
            self._add_users(inner)
            server_migrator.enter(self.dialect, inner, self.schema(), version)

    def _take_over(self, connection: Admin, env: Environment, version: str | None, there: There) -> There:
        """Make the database the environment's own; how it was before stands in its mark from then on."""
        name, role = self.locate(env), self.user(env)
        with self._inside(connection, env) as inner:
            self._confirm(inner, version)
            former = adoption.look(connection, inner, name)
        for user in admin.roles(connection, role, self._login(env).user):
            if user not in there.roles:
                raise NameTaken(kind="role", name=user, server=self.server(env).name)
        steps = [
            *self._admitting(connection, env, there, adopted=former.as_dict()),
            *adoption.taking(connection, name, former, role),
            *self._opening(env),
            *([] if former.joined else [admin.leave(former.owner)]),
        ]
        admin.run(connection, steps)
        return self._look(connection, env)

    def _hand_over(self, connection: Admin, env: Environment, old: str, new: str, former: Former) -> None:
        """Let what lies in the database change hands, once; sessions of the former hands end."""
        joining = [admin.join(connection, role) for role in (old, new) if role != former.owner or not former.joined]
        leaving = [admin.leave(role) for role in (old, new) if role != former.owner or not former.joined]
        admin.run(connection, joining)
        adoption.end_sessions(connection, self.locate(env), old)
        with admin.connected_to(self.server(env), self.locate(env)) as inner:
            adoption.reassign(inner, old, new)
        admin.run(connection, leaving)

    def _release(self, env: Environment) -> None:
        with self._working(env) as connection:
            there = self._look(connection, env)
            if there.former is None and there.database is not None:
                raise self._error(env, "it was made here, not adopted")
            if there.former is not None and there.database is not None:
                self._give_back(connection, env, there.former, there)
            self._drop_roles(connection, there)

    def _give_back(self, connection: Admin, env: Environment, former: Former, there: There) -> None:
        name = self.locate(env)
        for user in there.roles:
            self._hand_over(connection, env, user, former.owner, former)
        joining = [admin.join(connection, role) for role in there.roles]
        if not former.joined:
            joining.append(admin.join(connection, former.owner))
        admin.run(connection, joining)
        with admin.connected_to(self.server(env), name) as inner:
            for table in sorted(set(adoption.TABLES) - set(former.tables)):
                inner.execute(sql.SQL("DROP TABLE IF EXISTS public.{}").format(sql.Identifier(table)))
        leaving = [] if former.joined else [admin.leave(former.owner)]
        admin.run(connection, [*adoption.giving_back(name, former), *leaving])

    # --- copies ---

    def _dump(self, env: Environment, into: Path) -> None:
        with self._open(env) as connection:
            major = connection.info.server_version // 10000
        into.mkdir(parents=True, exist_ok=True)
        copies.dump(self._conninfo(env, self.locate(env)), major, into / self.name)

    def _export(self, env: Environment, into: Path, form: ExportForm) -> list[Exported]:
        with self._open(env) as connection, exports.snapshot(connection):
            return exports.export(connection, exports.contents(connection), form, into / self.name)

    def _load(self, env: Environment, source: Path) -> None:
        """Fill a database aside, then let it take the place of the one that is there."""
        copy = source / self.name
        copy.open("rb").close()
        with self._working(env) as connection:
            there = self._look(connection, env)
            self._refuse_foreign(connection, env, there)
            aside, before = self._aside(env)
            for name in (aside, before):
                template.remove(connection, name)
            try:
                self._fill_aside(connection, env, there, aside, copy)
                self._exchange(connection, env, there, aside, before)
            except BaseException:
                self._clear_aside(connection, env, there)
                raise
            template.remove(connection, before)

    def _clear_aside(self, connection: Admin, env: Environment, there: There) -> None:
        """Leave what was there before a load that failed."""
        for name in self._aside(env):
            template.remove(connection, name)
        if there.roles:
            admin.run(connection, [admin.leave(self.user(env))])
        else:
            self._drop_roles(connection, self._look(connection, env))

    def _aside(self, env: Environment) -> tuple[str, str]:
        """Where a copy is loaded, and how the database is called that it takes the place of."""
        name = self._golden.load_prefix + template.digest(env.id, self.name)
        return name, f"{name}_old"

    def _fill_aside(self, connection: Admin, env: Environment, there: There, aside: str, copy: Path) -> None:
        server, owner = self.server(env), sql.Identifier(self.user(env))
        template.create_empty(connection, aside, self.options)
        with admin.connected_to(server, aside) as inner:
            inner.execute("SET ROLE pg_database_owner")
            template.extend(inner, server, self.options.extensions)
        database = sql.Identifier(aside)
        steps = [
            *self._admitting(connection, env, there),
            sql.SQL("REVOKE ALL ON DATABASE {} FROM pg_database_owner").format(database),
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, owner),
        ]
        admin.run(connection, steps)
        copies.restore(self._conninfo(env, aside), connection.info.server_version // 10000, copy)

    def _exchange(self, connection: Admin, env: Environment, there: There, aside: str, before: str) -> None:
        name = sql.Identifier(self.locate(env))
        steps: list[sql.Composable] = []
        if there.database is not None:
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
            steps.append(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(name, sql.Identifier(before)))
        steps.append(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(aside), name))
        steps += self._opening(env)

        def exchange() -> None:
            adoption.end_sessions(connection, self.locate(env), *self._users(env))
            admin.run(connection, steps)

        try:
            template.patiently(exchange)
        except BaseException:
            if there.database is not None:
                connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
            raise

    # --- rehearsals and drift ---

    def _weigh(self, env: Environment) -> int:
        with self._open(env) as connection:
            return postgres_scratch.size(connection)

    @contextmanager
    def _copied(self, env: Environment, room: int) -> Iterator[Scratch]:
        with scratch.folder(self.setting.data) as folder, self._aside_database(env) as copy:
            start, size, place = time.perf_counter(), self._weigh(env), self.setting.data / folder
            self._dump(env, place)
            with self._open(copy) as connection:
                major = connection.info.server_version // 10000
            copies.restore(self._conninfo(copy, self.locate(copy)), major, place / self.name)
            (place / self.name).unlink()
            copying = time.perf_counter() - start
            with self._watching(copy, room) as watch:
                yield Scratch(dataclasses.replace(copy, home=folder), size, copying, room, watch.over)

    @contextmanager
    def _aside_database(self, env: Environment) -> Iterator[Environment]:
        """The environment as one whose database is an empty one, for the time of a block."""
        server, prefix = self.server(env), self._golden.scratch_prefix
        with (
            self._admin(server) as connection,
            postgres_scratch.database(connection, server, prefix, self.options) as login,
        ):
            name = sql.Identifier(login.user)
            settings: list[sql.Composable] = [_setting(name, *one) for one in self.options.settings.items()]
            if settings:
                admin.run(connection, settings)
            place = Place(self.name, self.kind, login.user, None, server.name)
            others = (one for one in env.places if one.name != self.name)
            yield dataclasses.replace(env, places=(*others, place), logins={**env.logins, self.name: login})

    @contextmanager
    def _watching(self, copy: Environment, room: int) -> Iterator[Watch]:
        with self._open(copy) as connection:
            watch = Watch(connection, room)
            watch.begin(None if self.schema().alembic else self.dialect.record)
            yield watch

    def _shape(self, env: Environment) -> tuple[str | None, Mapping[str, str]]:
        with self._open(env) as connection:
            return server_migrator.version(self.dialect, connection, self.schema()), shape(connection)

    def _declared_shape(self, env: Environment, version: str | None) -> Mapping[str, str]:
        server = self.server(env)
        with self._admin(server) as connection:
            if version == self.golden:
                return self._golden.ready(connection, server)
            return self._golden.shape_of(connection, server, partial(self._fill_to, version=version), f"at {version}")

    def _mend(self, env: Environment, version: str | None) -> tuple[str, ...]:
        with self._aside_database(env) as copy, self._open(copy) as golden, self._open(env) as connection:
            self._fill_to(golden, version)
            return postgres_diff.statements(golden, connection)

    # --- templates ---

    def _prepare(self) -> str | None:
        self._on_each(self._golden.ready)
        return self.golden

    def _refill(self) -> int:
        return sum(self._on_each(self._golden.refill)) if self.options.spares else 0

    def _tidy(self) -> list[str]:
        def tidy(connection: Admin, server: Server) -> list[str]:
            scratches = postgres_scratch.tidy(connection, self._golden.scratch_prefix)
            gone = [*self._golden.tidy(connection), *self._tidy_loads(connection), *scratches]
            return [f"{server.name}/{name}" for name in gone]

        removed = [name for names in self._on_each(tidy, every=True) for name in names]
        return [*removed, *scratch.clear(self.setting.data)]

    def _tidy_loads(self, connection: Admin) -> list[str]:
        """Remove what killed loads left behind."""
        removed = []
        for found in admin.databases(connection, self._golden.load_prefix):
            with admin.tried(connection, found.name.removesuffix("_old")) as free:
                if free:
                    template.remove(connection, found.name)
                    removed.append(found.name)
        return removed

    # --- users and looking at it ---

    def _enrol(self, env: Environment, login: str, password_hash: str, role: str, name: str) -> None:
        with self._open(env) as connection:
            connection.execute(
                "INSERT INTO tenantry_user (id, login, role, password, created, name) VALUES (%s, %s, %s, %s, %s, %s) "
                "ON CONFLICT (login) DO UPDATE SET password = excluded.password, role = excluded.role, "
                "active = 1, epoch = tenantry_user.epoch + 1",
                (new_id(), login.lower(), role, password_hash, history.now(), name),
            )

    def _differences(self, env: Environment, connection: Connection) -> list[str]:
        return differences(self._declared_shape(env, self.newest), shape(connection))

    def _unsafe(self, env: Environment, connection: Connection) -> list[Finding]:
        row = connection.execute(
            "SELECT has_database_privilege('public', current_database(), 'CONNECT'), "
            "bool_or(rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls) "
            "FROM pg_roles WHERE rolname = ANY (%s)",
            (list(self._users(env)),),
        ).fetchone()
        everyone, mighty = row or (False, False)
        found, name = [], sql.Identifier(self.locate(env)).as_string()
        if everyone:
            remedy = f"Run REVOKE ALL ON DATABASE {name} FROM PUBLIC; there, as its owner."
            found.append(Finding(self.name, False, f"every role may connect to {name}", remedy))
        if mighty:
            what = f"its role may do more on the server than use {name}"
            found.append(Finding(self.name, False, what, "Take the attributes away with ALTER ROLE."))
        return found

    def _measure(self, env: Environment) -> Usage:
        with self._open(env) as connection:
            (size,) = connection.execute("SELECT pg_database_size(current_database())").fetchone() or (0,)
            return Usage(bytes=size, rows=_count(connection))

    def _attack(self, env: Environment, other: Environment) -> list[Attempt]:
        def connect(database: str) -> Connection:
            return Connection.connect(self._conninfo(env, database), autocommit=True)

        attacker = Attacker(self.name, connect, self.locate(env), self.locate(other), self.user(other))
        return attacker.run(lambda: self._connect(other))

    def _plant(self, env: Environment, canary: str) -> None:
        with self._open(env) as connection:
            plant(_asking(connection), canary)

    def _seek(self, env: Environment, trace: str) -> list[str]:
        with self._open(env) as connection:
            there = connection.execute("SELECT to_regclass(%s)", [TABLE]).fetchone() != (None,)
            return seek(_asking(connection), trace) if there else []

    def _uproot(self, env: Environment) -> None:
        with self._open(env) as connection:
            uproot(_asking(connection))


def _asking(connection: Connection) -> Ask:
    def ask(statement: str, *values: object) -> Sequence[Sequence[Any]]:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else ()

    return ask


def _setting(database: sql.Identifier, name: str, value: Value) -> sql.Composed:
    values: Sequence[object] = value if isinstance(value, list) else [value]
    texts = [json.dumps(one) if isinstance(one, bool) else str(one) for one in values]
    listed = sql.SQL(", ").join(sql.Literal(text) for text in texts)
    return sql.SQL("ALTER DATABASE {} SET {} TO {}").format(database, sql.Identifier(name), listed)


def _count(connection: Connection) -> int:
    """Rows of all tables but the migration records."""
    rows = connection.execute(
        "SELECT n.nspname, c.relname, CASE WHEN pg_table_size(c.oid) > %s THEN greatest(c.reltuples, 0)::bigint END "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' "
        "AND NOT (n.nspname = 'public' AND c.relname = ANY (%s))",
        (COUNTED, list(history.BOOKKEEPING)),
    ).fetchall()
    small = [sql.SQL("(SELECT count(*) FROM {})").format(sql.Identifier(*row[:2])) for row in rows if row[2] is None]
    estimated = sum(row[2] for row in rows if row[2] is not None)
    if not small:
        return int(estimated)
    (counted,) = connection.execute(sql.SQL("SELECT {}").format(sql.SQL(" + ").join(small))).fetchone() or (0,)
    return int(estimated + counted)
