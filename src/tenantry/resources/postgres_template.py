"""Golden templates on a PostgreSQL server, and warm spares cloned from them ahead of time."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import psycopg
from psycopg import sql

from tenantry.errors import NameTaken, ServerUnfit
from tenantry.model import Server
from tenantry.resources import Setting
from tenantry.resources import postgres_admin as admin
from tenantry.resources.postgres_admin import Admin
from tenantry.resources.postgres_dialect import Connection
from tenantry.resources.postgres_shape import shape

TRIES: Final = 5
"""How often a template is made again that another process, which knows a newer schema, removed."""

BUSY_SECONDS: Final = 10.0
"""How long to wait for a database that somebody is connected to."""

Fill = Callable[[Connection], object]
Grow = Callable[[Connection], bool]
"""Brings an older template up to what a new one is; False, and as it was, where it cannot be that one's past."""


def digest(*parts: str) -> str:
    """48 bits of a hash over several texts, in hex: part of a database's name."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


class Golden:
    """The golden template of one resource, on any number of servers.

    Its name holds a hash of platform, blueprint and resource, so that platforms sharing a server never meet, and the
    fingerprint of what it is made of. Everything in it belongs to `pg_database_owner`, a role whose only member is
    whoever owns the database: so a clone belongs to its tenant, wholly, without a statement inside it.
    """

    def __init__(
        self,
        setting: Setting,
        resource: str,
        options: Any,
        fingerprint: Callable[[], str],
        fill: Fill,
        kin: Callable[[], str | None] = lambda: None,
        grow: Grow = lambda _: False,
    ) -> None:
        self._options = options
        self._fingerprint = fingerprint
        self._fill = fill
        self._kin = kin  # what else than migrations it is made of; None where none is built on an older one
        self._grow = grow
        whose = digest(setting.platform or str(setting.data), setting.blueprint, resource)
        self._prefix = f"tenantry_t_{whose}_"
        self.load_prefix = f"tenantry_l_{whose}_"  # of databases that a copy is loaded into
        self.scratch_prefix = f"tenantry_x_{whose}_"  # of databases for the time of one call
        self._known: dict[tuple[str, str], Mapping[str, str]] = {}

    @property
    def name(self) -> str:
        """The template's name as the files are now."""
        return self._prefix + self._fingerprint()[:12]

    # --- the template ---

    def ready(self, connection: Admin, server: Server) -> Mapping[str, str]:
        """The shape of the template, which is made now where it is missing or the blueprint changed."""
        name = self.name
        if (server.name, name) not in self._known:
            found = self._find(connection, server, name)
            if found is None:
                with admin.locked(connection, name):  # whoever waited here finds it made
                    found = self._find(connection, server, name)
                    if found is None:
                        found = self._make(connection, server, name)
            self._known[server.name, name] = found
        return self._known[server.name, name]

    def _find(self, connection: Admin, server: Server, name: str) -> Mapping[str, str] | None:
        found = admin.database(connection, name)
        if found is None:
            return None
        if found.mark.get("tenantry") != "template":
            raise NameTaken(kind="database", name=name, server=server.name)
        shape: Mapping[str, str] = found.mark["shape"]
        return shape

    def _make(self, connection: Admin, server: Server, name: str) -> Mapping[str, str]:
        temporary = f"{name}_new"
        remove(connection, temporary)
        try:
            made = self._grown(connection, server, temporary) or self._build(connection, server, temporary, self._fill)
            self._publish(connection, temporary, name, made)
        except BaseException:
            remove(connection, temporary)
            raise
        return made

    def _grown(self, connection: Admin, server: Server, name: str) -> Mapping[str, str] | None:
        """Bring up an older template, which is quicker than from nothing; None where there is none that fits.

        A copy of it takes most of the time that a template takes. Whoever still wants the older one makes it anew.
        """
        kin = self._kin()
        for older in admin.databases(connection, self._prefix) if kin else ():
            if older.mark.get("tenantry") != "template" or older.mark.get("kin") != kin:
                continue
            with suppress(psycopg.errors.InvalidCatalogName, psycopg.errors.ObjectInUse):  # tidied away meanwhile
                self._take_over(connection, older.name, name)
                with self._entered(server, name) as inner:
                    if self._grow(inner):
                        return shape(inner)
                with suppress(psycopg.errors.DuplicateDatabase):
                    self._publish(connection, name, older.name, older.mark["shape"])
                remove(connection, name)
        return None

    def _take_over(self, connection: Admin, template: str, name: str) -> None:
        """Let a template be an unfinished one under this name, which nobody clones."""
        old, new = sql.Identifier(template), sql.Identifier(name)
        steps = [
            sql.SQL("ALTER DATABASE {} RENAME TO {}").format(old, new),
            sql.SQL("COMMENT ON DATABASE {} IS NULL").format(new),
            sql.SQL("ALTER DATABASE {} IS_TEMPLATE false ALLOW_CONNECTIONS true").format(new),
        ]
        patiently(lambda: admin.run(connection, steps))

    def _build(self, connection: Admin, server: Server, name: str, fill: Fill) -> Mapping[str, str]:
        with self._filled(connection, server, name, fill) as inner:
            return shape(inner)

    @contextmanager
    def _filled(self, connection: Admin, server: Server, name: str, fill: Fill) -> Iterator[Connection]:
        create_empty(connection, name, self._options)
        with self._entered(server, name) as inner:
            extend(inner, server, self._options.extensions)
            fill(inner)
            yield inner

    @contextmanager
    def _entered(self, server: Server, name: str) -> Iterator[Connection]:
        with admin.connected_to(server, name) as inner:
            inner.execute("SET ROLE pg_database_owner")
            yield inner

    def shape_of(self, connection: Admin, server: Server, fill: Fill, what: str) -> Mapping[str, str]:
        """The shape of a database that is filled in another way: `what` tells it from others."""
        with self.aside(connection, server, fill, what) as inner:
            return shape(inner)

    @contextmanager
    def aside(self, connection: Admin, server: Server, fill: Fill, what: str) -> Iterator[Connection]:
        """A database that is filled in another way, for the time of a block: `what` tells it from others."""
        name = self._prefix + digest(what)
        with admin.locked(connection, name):
            remove(connection, f"{name}_new")
            try:
                with self._filled(connection, server, f"{name}_new", fill) as inner:
                    yield inner
            finally:
                remove(connection, f"{name}_new")

    def _publish(self, connection: Admin, temporary: str, name: str, made: Mapping[str, str]) -> None:
        old, new = sql.Identifier(temporary), sql.Identifier(name)
        mark = admin.write_mark("template", shape=made, kin=self._kin())
        steps = [
            sql.SQL("ALTER DATABASE {} RENAME TO {}").format(old, new),
            sql.SQL("ALTER DATABASE {} IS_TEMPLATE true ALLOW_CONNECTIONS false").format(new),
            sql.SQL("COMMENT ON DATABASE {} IS {}").format(new, mark),
        ]
        patiently(lambda: admin.run(connection, steps))

    def clone(self, connection: Admin, server: Server, name: str, more: sql.Composable) -> None:
        """Clone the template; `more` is what CREATE DATABASE is to be told besides. Nobody can connect to it yet."""
        words = sql.SQL("CREATE DATABASE {} TEMPLATE {} ALLOW_CONNECTIONS false {}")
        for left in range(TRIES, 0, -1):
            self.ready(connection, server)
            template = self.name
            statement = words.format(sql.Identifier(name), sql.Identifier(template), more)
            try:
                patiently(partial(connection.execute, statement))
                return
            except psycopg.errors.InvalidCatalogName:
                if left == 1:
                    raise
                self._known.pop((server.name, template), None)

    def tidy(self, connection: Admin) -> list[str]:
        """Remove templates and spares of older blueprints, and halves whose maker is gone; the names removed.

        The older templates stay for as long as there is no new one, which grows out of one of them.
        """
        name, removed = self.name, []
        there = admin.databases(connection, self._prefix)
        grown = any(found.name == name for found in there)
        for found in there:
            spare = found.name.startswith(f"{name}_s") and found.mark
            past = not grown and found.mark.get("tenantry") == "template"
            if found.name == name or spare or past:
                continue
            with admin.tried(connection, found.name[: len(name)]) as free:
                if free:
                    remove(connection, found.name)
                    removed.append(found.name)
        return removed

    # --- warm spares ---

    def refill(self, connection: Admin, server: Server) -> int:
        """Make the spares that are missing; how many were made."""
        self.ready(connection, server)
        name = self.name
        with admin.locked(connection, name):
            there = admin.databases(connection, f"{name}_s")
            for half in there:
                if not half.mark:
                    self._finish(connection, half.name)
            for surplus in there[self._options.spares :]:
                remove(connection, surplus.name)
            missing: int = self._options.spares - len(there)
            for _ in range(missing):
                spare = f"{name}_s{secrets.token_hex(4)}"
                self.clone(connection, server, spare, sql.SQL(""))
                self._finish(connection, spare)
        return max(missing, 0)

    def _finish(self, connection: Admin, spare: str) -> None:
        database = sql.Identifier(spare)
        admin.run(
            connection,
            [
                sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database),
                sql.SQL("COMMENT ON DATABASE {} IS {}").format(database, admin.write_mark("spare")),
            ],
        )

    def take(self, connection: Admin) -> str | None:
        """The name of a spare that nobody else takes before this transaction ends; None where there is none."""
        query = """
        WITH spare AS MATERIALIZED (
          SELECT datname FROM pg_database
          WHERE starts_with(datname, %s) AND NOT datallowconn AND shobj_description(oid, 'pg_database') IS NOT NULL)
        SELECT datname FROM spare WHERE pg_try_advisory_xact_lock(hashtextextended(datname::text, 0)) LIMIT 1"""
        row = connection.execute(query, (f"{self.name}_s",)).fetchone()
        return str(row[0]) if row else None


def create_empty(connection: Admin, name: str, options: Any, owner: str | None = None) -> None:
    """A database without tables, closed to everybody but its owner, with the blueprint's encoding.

    Without an owner named, it belongs to the administrator.
    """
    database = sql.Identifier(name)
    words = (("ENCODING", options.encoding), ("LOCALE", options.locale), ("ICU_LOCALE", options.icu_locale))
    given: list[sql.Composable] = [sql.SQL(f"{word} {{}}").format(value) for word, value in words if value]
    if options.icu_locale:
        given.append(sql.SQL("LOCALE_PROVIDER icu"))
    if owner is not None:
        given.append(sql.SQL("OWNER {}").format(sql.Identifier(owner)))
    template = sql.SQL("CREATE DATABASE {} TEMPLATE {} ALLOW_CONNECTIONS false {}")
    statement = template.format(database, sql.Identifier(options.base), sql.SQL(" ").join(given))
    patiently(lambda: connection.execute(statement))
    admin.run(
        connection,
        [
            sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database),
            sql.SQL("GRANT ALL ON DATABASE {} TO pg_database_owner").format(database),
            sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(database),
        ],
    )


def extend(connection: Connection, server: Server, extensions: Sequence[str]) -> None:
    """Add extensions to a database. Raises `ServerUnfit`."""
    for extension in extensions:
        try:
            connection.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS {} CASCADE").format(sql.Identifier(extension)))
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
            remedy = "Install its package on the server, or take it out of `extensions` in tenantry.toml."
            reason = f"it has no extension '{extension}'"
            raise ServerUnfit(server=server.name, reason=reason, remedy=remedy) from error
        except psycopg.errors.InsufficientPrivilege as error:
            remedy = "Let one create it in a database that is a template, and name that database as `base`."
            reason = f"only a superuser may create the extension '{extension}'"
            raise ServerUnfit(server=server.name, reason=reason, remedy=remedy) from error


def remove(connection: Admin, name: str) -> None:
    """Remove a database, template or not, with whoever is connected to it; nothing where it is gone."""
    database, found = sql.Identifier(name), admin.database(connection, name)
    if found is None:
        return
    with admin.acting(connection, found.owner):
        connection.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(database))
        patiently(lambda: connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(database)))


def patiently(action: Callable[[], object]) -> None:
    """Do what nobody may be connected for, again for a while where somebody is: ends of sessions take time."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            action()
            return
        except psycopg.errors.ObjectInUse:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
