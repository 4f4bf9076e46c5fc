"""Tenants whose databases lie on PostgreSQL servers, made with plain SQL, and a feed that tells of them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import make_url

import servers
from mariadb import MariaDB
from tenantry.credentials import USER_TABLE
from tenantry.model import Changes, Environment, Loaded, Login, Place, Server, ServerState, Status, Tenant, new_id
from tenantry.runtime import Runtime, Settings
from tenantry.runtime.settings import PoolLimits

TABLES = f"{USER_TABLE['postgresql']}; CREATE TABLE note (text text NOT NULL)"


LIMITS = PoolLimits()


class Fleet:
    """The registry in miniature: tenants on servers. A login is 'sealed' as user:password."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.seq = 0
        self.known: dict[str, Server] = {}
        self.tenants: dict[str, Environment] = {}
        self.log: list[Changes] = []
        self.made: list[tuple[servers.Postgres, str]] = []
        self.roles: list[tuple[servers.Postgres, str]] = []
        self.on_maria: list[tuple[MariaDB, str]] = []

    # --- what is there ---

    def server(self, name: str, server: servers.Postgres, connections: int = 50) -> Server:
        """Make a running server known."""
        known = Server(name, "postgres", f"postgresql://127.0.0.1:{server.port}/postgres", connections=connections)
        return self.enter(known)

    def enter(self, server: Server) -> Server:
        self.known[server.name] = server
        self._tell(frozenset(), ())
        return server

    def change_server(self, name: str, **changes: Any) -> None:
        self.enter(dataclasses.replace(self.known[name], **changes))

    def tenants_on(self, name: str, server: servers.Postgres, slugs: Sequence[str]) -> list[Environment]:
        """A database and a role for each slug, on a server that is known under a name."""
        made = []
        with psycopg.connect(server.url(), autocommit=True) as admin:
            template = f"template_{new_id()[-12:]}"
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(template)))
            self.made.append((server, template))
            with psycopg.connect(server.url(template), autocommit=True) as connection:
                connection.execute(TABLES)
                connection.execute("INSERT INTO note VALUES ('old')")
                connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC")
            for slug in slugs:
                user, password = f"{slug}_{new_id()[-8:]}", f"of-{slug}{servers.ODD}"
                role = sql.Identifier(user)
                admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password))
                admin.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(role, role, sql.Identifier(template))
                )
                admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(role))
                self.made.append((server, user))
                made.append(self.place(slug, name, user, Login(user, password)))
        return made

    def maria(self, name: str, server: MariaDB, slugs: Sequence[str], connections: int = 50) -> list[Environment]:
        """Make a MariaDB server known, with a database and a user for each slug."""
        url = make_url(server.url()).set(username=None, password=None)
        self.enter(Server(name, "mysql", url.render_as_string(), connections=connections))
        made = []
        with contextlib.closing(server.connect()) as admin, admin.cursor() as cursor:
            for slug in slugs:
                login = Login(f"{slug}_{new_id()[-8:]}", f"of-{slug}{servers.ODD}")
                cursor.execute(f"CREATE DATABASE `{login.user}`")
                cursor.execute("CREATE USER %s@'%%' IDENTIFIED BY %s", (login.user, login.password))
                cursor.execute(f"GRANT ALL ON `{login.user}`.* TO %s@'%%'", (login.user,))
                cursor.execute(f"USE `{login.user}`")
                cursor.execute(USER_TABLE["mysql"])
                self.on_maria.append((server, login.user))
                made.append(self.place(slug, name, login.user, login, "mysql"))
        return made

    def clear(self) -> None:
        """Drop what was made on servers that still run."""
        for maria, name in self.on_maria:
            maria.run(f"DROP DATABASE `{name}`", f"DROP USER `{name}`@`%`")
        for server in {id(server): server for server, _ in self.made}.values():
            if server.process.poll() is not None:
                continue
            with psycopg.connect(server.url(), autocommit=True) as admin:
                names = [name for one, name in self.made if one is server]
                for name in map(sql.Identifier, names):
                    admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
                for name in map(sql.Identifier, [*names, *(name for one, name in self.roles if one is server)]):
                    admin.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(name))

    def user_on(self, server: servers.Postgres, environment: Environment) -> Login:
        """Another login that reaches a tenant's database."""
        database = environment.places[0].location
        login = Login(f"{database}_b", f"new{servers.ODD}")
        server.run(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}").format(
                sql.Identifier(login.user), login.password, sql.Identifier(database)
            )
        )
        self.roles.append((server, login.user))
        return login

    def place(self, slug: str, server: str, database: str, login: Login, kind: str = "postgres") -> Environment:
        """A tenant whose database is there already."""
        tenant = Tenant(new_id(), slug, slug.title(), "lab", None, Status.ACTIVE)
        place = Place("db", kind, database, None, server, sealed(login))
        home = f"tenants/{slug}-{tenant.id[-8:]}/production"
        return self.put(Environment(new_id(), "production", tenant, home, (place,), (f"{slug}.example.com",)))

    def put(self, environment: Environment) -> Environment:
        self.tenants[environment.id] = environment
        self._tell(frozenset({environment.tenant.id}), (environment,))
        return environment

    def change(self, environment: Environment, **changes: Any) -> Environment:
        """Change a tenant."""
        return self.put(dataclasses.replace(environment, tenant=dataclasses.replace(environment.tenant, **changes)))

    def rotate(self, environment: Environment, login: Login) -> Environment:
        """Let the runtimes know another login."""
        place = dataclasses.replace(environment.places[0], sealed=sealed(login))
        return self.put(dataclasses.replace(environment, places=(place,)))

    def _tell(self, tenants: frozenset[str], environments: tuple[Environment, ...]) -> None:
        self.seq += 1
        self.log.append(Changes(self.seq, tenants, environments, tuple(self.known.values())))

    # --- the source of a runtime ---

    async def load(self) -> Loaded:
        return Loaded(self.seq, list(self.tenants.values()), list(self.known.values()))

    async def follow(self, since: int) -> AsyncIterator[Changes]:
        while True:
            for changes in [changes for changes in self.log if changes.seq > since]:
                since = changes.seq
                yield changes
            await asyncio.sleep(0.005)

    def runtime(self, pool: PoolLimits = LIMITS, **changes: Any) -> Runtime:
        """A runtime of these tenants, not started."""
        values: dict[str, Any] = {"users": {"lab": "db"}, "pools": {("lab", "db"): pool}, "secure_cookies": False}
        settings = Settings(domain="example.com", data=self.data, **values | changes)
        return Runtime(settings, self, lambda environment: environment.id.encode(), opened)


def sealed(login: Login) -> bytes:
    return f"{login.user}:{login.password}".encode()


def opened(environment: Environment, place: Place, server: Server) -> Login:
    user, _, password = place.sealed.decode().partition(":")
    return Login(user, password)


__all__ = ["Fleet", "PoolLimits", "ServerState", "opened", "sealed"]
