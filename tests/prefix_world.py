"""Platforms for tests of the kind `prefix`: one database on a real server, and a login that may use nothing else."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import psycopg
from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from ground import Ground
from mariadb import MariaDB
from mysql_world import MysqlWorld
from servers import Postgres
from tenantry.model import Environment, Place, Server
from tenantry.resources import Resource, Servers, Setting
from tenantry.resources.prefix import Prefix
from tenantry.resources.prefix_book import Entry, State
from worlds import PostgresWorld, World, environment, furnish

MADE: dict[str, object] = {"schema": "schema", "seed": "seed.sql"}
NAMES = re.compile(
    r"\b(?<!\{prefix\})(page|page_title|page_by_title|trim_title|link|half|nowhere|stray|more|one_title|tenantry_user)\b"
)
"""The names of tables, indexes and so on that tests use, wherever a file or a query has them."""


@dataclass
class PrefixWorld(World):
    """A platform whose tenants share a database."""

    url: str = field(kw_only=True)  # of the database, with its one login

    server_kind: ClassVar[str]
    pieces: ClassVar[int] = 2

    def __post_init__(self) -> None:
        self.known = Servers([self.described()])

    def described(self, **changes: Any) -> Server:
        """The server as the platform knows it."""
        head, _, tail = self.url.partition("://")
        plain = f"{head}://{tail.rpartition('@')[2]}"
        return replace(Server("db", self.server_kind, plain, self.url), **changes)

    def setting(self) -> Setting:
        return replace(super().setting(), servers=self.known, server_kinds={"db": self.server_kind})

    def environment(self, slug: str = "acme", **changes: object) -> Environment:
        env = environment(slug, **changes)
        placed = replace(env, places=(Place("part", "prefix", self.resource().names(env)[0], server="db"),))
        return replace(placed, logins={"part": self.resource().new_login(placed)})

    def named(self, text: str) -> str:
        return NAMES.sub(r"{prefix}\1", text)

    def prefix(self, resource: Resource, env: Environment) -> str:
        """How an environment's tables begin."""
        return resource.locate(env).partition("/")[2]

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement as it is, by the one login."""
        return self.run_all([statement])

    def run_all(self, statements: list[str]) -> list[tuple[Any, ...]]:
        """Run statements one by one in one session; the rows of the last one."""
        raise NotImplementedError

    def query(self, resource: Resource, env: Environment, statement: str) -> list[tuple[Any, ...]]:
        return self.run(self.named(statement).replace("{prefix}", self.prefix(resource, env)))

    def everything(self) -> list[str]:
        """All that lies in the database: tables, views, sequences and routines."""
        raise NotImplementedError

    def tables(self, resource: Resource, env: Environment) -> set[str]:
        own = self.prefix(resource, env)
        return {name.removeprefix(own) for name in self.everything() if name.startswith(own)}

    def files(self) -> set[str]:
        found = self.everything()
        told = self.run("SELECT prefix FROM tenantry_prefix") if "tenantry_prefix" in found else []
        tables = {f"tables {name.partition('__')[0]}__" for name in found if not name.startswith("tenantry_prefix")}
        return tables | {f"entry {prefix}" for (prefix,) in told}

    def spoil(self, resource: Resource, env: Environment) -> Environment | None:
        self.query(resource, env, "CREATE TABLE stray (id INTEGER)")
        return env

    def leave(self, resource: Resource, env: Environment, ending: str) -> str:
        assert isinstance(resource, Prefix)
        prefix = f"z{ending}__"
        with resource._connect(self.described(), self.database) as connection:
            resource.book.enter(connection, Entry(prefix, "", resource._title, State.SCRATCH))
        self.run(f"CREATE TABLE {prefix}page (id INTEGER)")
        return f"db/{self.database}/{prefix}"

    @property
    def database(self) -> str:
        """The name of the database."""
        return str(make_url(self.url).database)


@dataclass
class PostgresPrefixWorld(PrefixWorld):
    """The database lies on PostgreSQL."""

    server_kind: ClassVar[str] = "postgres"
    first: ClassVar[str] = PostgresWorld.first
    no_table: ClassVar[str] = 'relation "acme__nowhere" does not exist'
    broken_reference: ClassVar[str] = 'violates foreign key constraint "acme__link_acme__page_fkey"'
    not_unique: ClassVar[str] = 'could not create unique index "t3__one_title"'

    def run_all(self, statements: list[str]) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursors = [connection.execute(statement.encode()) for statement in statements]
            return cursors[-1].fetchall() if cursors and cursors[-1].description else []

    def everything(self) -> list[str]:
        query = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace UNION SELECT proname FROM "
        return [name for (name,) in self.run(f"{query} pg_proc WHERE pronamespace = 'public'::regnamespace")]

    def damage(self, resource: Resource, env: Environment) -> None:
        self.query(resource, env, "ALTER TABLE page ALTER COLUMN title TYPE varchar(99)")


@dataclass
class MysqlPrefixWorld(PrefixWorld):
    """The database lies on MariaDB."""

    server: MariaDB = field(kw_only=True)

    server_kind: ClassVar[str] = "mysql"
    first: ClassVar[str] = MysqlWorld.first
    third: ClassVar[str] = MysqlWorld.third
    undo_third: ClassVar[str] = MysqlWorld.undo_third
    no_table: ClassVar[str] = r"Table '\w+\.acme__nowhere' doesn't exist"
    broken_reference: ClassVar[str] = MysqlWorld.broken_reference
    not_unique: ClassVar[str] = "Duplicate entry 'Welcome' for key 't3__one_title'"
    rolls_back: ClassVar[bool] = False

    def run_all(self, statements: list[str]) -> list[tuple[Any, ...]]:
        url = make_url(self.url)
        opened = self.server.connect(url.username or "", url.password, url.database)
        with contextlib.closing(opened) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def everything(self) -> list[str]:
        query = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() UNION SELECT "
        found = self.run(f"{query} routine_name FROM information_schema.routines WHERE routine_schema = DATABASE()")
        return [name for (name,) in found]

    def damage(self, resource: Resource, env: Environment) -> None:
        self.query(resource, env, "ALTER TABLE page MODIFY title VARCHAR(99) NOT NULL")


@contextlib.contextmanager
def postgres_prefixes(server: Postgres, root: Path, **options: object) -> Iterator[PostgresPrefixWorld]:
    """A platform with migrations and a seed, in a database of its own on a PostgreSQL server."""
    with server.database() as url:
        made = PostgresPrefixWorld("prefix", root, {**MADE, **options}, url=url)
        furnish(made)
        yield made


@contextlib.contextmanager
def mysql_prefixes(server: MariaDB, root: Path, **options: object) -> Iterator[MysqlPrefixWorld]:
    """The like of it on a MariaDB server."""
    with maria_database(server) as url:
        made = MysqlPrefixWorld("prefix", root, {**MADE, **options}, url=url, server=server)
        furnish(made)
        yield made


@contextlib.contextmanager
def maria_database(server: MariaDB) -> Iterator[str]:
    """The address of an empty database, with the password of a user who has it and nothing else."""
    database = f"w{secrets.token_hex(4)}"
    server.run(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
    try:
        with server.administrator(f"ALL PRIVILEGES ON `{database}`.*") as (user, password):
            yield make_url(server.url(user, password)).set(database=database).render_as_string(hide_password=False)
    finally:
        server.run(f"DROP DATABASE {database}")


TOML = """
[platform]
name = "Ground"
domain = "localhost"
data = "var"
[servers.db]
kind = "{kind}"
url = {{{{env = "DB_URL"}}}}

[blueprints.lab.resources]
db = {{{{kind = "prefix", schema = "schema/"}}}}
[blueprints.lab.resources.config]
kind = "rendered"
template = "templates/env.json.j2"
target = "{{root}}/rendered/{{{{slug}}}}/env.json"

[blueprints.lab.hostnames]
production = "{{{{slug}}}}.{{{{domain}}}}"

[blueprints.lab.values]
site_name = "{{{{name}}}}"
share = 1
smtp_password = {{{{default = "", secret = true}}}}
"""
PAGES = {
    "postgres": "CREATE TABLE {prefix}page (id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, title text);\n",
    "mysql": "CREATE TABLE {prefix}page (id integer AUTO_INCREMENT PRIMARY KEY, title text);\n",
}


class PrefixGround(Ground):
    """A platform whose tenants share a database on a real server, on which it may use nothing else."""

    def __init__(self, root: Path, kind: str, url: str) -> None:
        super().__init__(root, TOML.format(kind=kind))
        self.kind, self.url = kind, url
        self.migration("0001_pages.sql", PAGES[kind])
        self._known(url)

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement by the one login, past Tenantry; its rows, if it gives any."""
        with self._engine().begin() as connection:
            result = connection.exec_driver_sql(statement)
            return [tuple(row) for row in result] if result.returns_rows else []

    def _engine(self) -> Engine:
        url = driven(self.url)
        password = (url.password or "").encode() if self.kind == "mysql" else url.password  # PyMySQL's text is Latin-1
        return create_engine(url, poolclass=NullPool, connect_args={"password": password})

    def change_password(self, password: str) -> None:
        """Give the one login another password, on the server and in the address."""
        how = "ALTER ROLE CURRENT_USER PASSWORD '{}'" if self.kind == "postgres" else "SET PASSWORD = PASSWORD('{}')"
        self.ask(how.format(password))
        self._known(make_url(self.url).set(password=password).render_as_string(hide_password=False))

    def _known(self, url: str) -> None:
        path = self.root / ".env"
        lines = [line for line in path.read_text().splitlines() if not line.startswith("DB_URL=")]
        path.write_text("\n".join([*lines, f"DB_URL='{url.replace(chr(39), '%27')}'", ""]))
        self.url = url

    def left(self) -> list[str]:
        """Tables and other things in the database, and entries of its book."""
        space = "DATABASE()" if self.kind == "mysql" else "current_schema()"
        query = f"SELECT table_name FROM information_schema.tables WHERE table_schema = {space}"
        found = [str(name) for (name,) in self.ask(query) if name != "tenantry_prefix"]
        return sorted(found + [f"entry {prefix}" for (prefix,) in self.ask("SELECT prefix FROM tenantry_prefix")])


def driven(url: str) -> URL:
    """The address with the drivers that SQLAlchemy is to take."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    return parsed.set(drivername="mysql+pymysql").update_query_dict({"charset": "utf8mb4"})
