"""Platforms for tests of resources: one kind of resource each, used and looked at as its application does."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from servers import Postgres
from tenantry import paths
from tenantry.config import ResourceSpec
from tenantry.model import Environment, Login, Place, Server, Status, Tenant, new_id
from tenantry.resources import Resource, Servers, Setting, build, postgres_admin
from tenantry.resources.memory import Memory
from tenantry.resources.postgres import Postgres as PostgresResource

FIRST = """
CREATE TABLE page (id INTEGER PRIMARY KEY, title TEXT NOT NULL);
CREATE TRIGGER page_title AFTER INSERT ON page BEGIN
  UPDATE page SET title = trim(title) WHERE id = new.id;
END;
-- down
DROP TABLE page;
"""
SECOND = (
    "ALTER TABLE page ADD COLUMN body TEXT NOT NULL DEFAULT '; -- down';\n-- down\nALTER TABLE page DROP COLUMN body;\n"
)
THIRD = "CREATE INDEX page_by_title ON page (title);\n-- down\nDROP INDEX page_by_title;\n"
BROKEN = "CREATE TABLE half (id INTEGER);\nINSERT INTO nowhere VALUES (1);\n"
SEED = "INSERT INTO page (title) VALUES (' Welcome ');"


def environment(slug: str = "acme", **changes: object) -> Environment:
    """An environment of a tenant of this slug."""
    tenant = Tenant(new_id(), slug, slug.title(), "site", None, Status.ACTIVE, "abcdefghjk")
    home = f"tenants/{slug}-{tenant.id[-8:]}/production"
    return replace(
        Environment(new_id(), "production", tenant, home, hostnames=(f"{slug}.example.test",)),
        **changes,  # type: ignore[arg-type]
    )


@dataclass
class World:
    """A platform on disk with one resource of the kind under test."""

    kind: str
    root: Path
    options: dict[str, object]
    users: bool = True

    first: ClassVar[str] = FIRST
    third: ClassVar[str] = THIRD
    undo_third: ClassVar[str] = "DROP INDEX page_by_title"
    rolls_back: ClassVar[bool] = True  # a migration that fails, wholly
    no_table: ClassVar[str] = "no such table: nowhere"
    broken_reference: ClassVar[str] = "row 1 of table link refers to a row of page"
    not_unique: ClassVar[str] = "UNIQUE constraint failed"
    pieces: ClassVar[int] = 1  # what `files` has of one environment

    def setting(self) -> Setting:
        """What drivers of this platform know."""
        values = {"site_name": "{name}", "smtp_password": "none"}
        secret = frozenset({"smtp_password"})
        return Setting("site", self.root, self.root / "var", "example.test", values, secret, self.users)

    def resource(self, **options: object) -> Resource:
        """A resource built anew, as another process would build it."""
        spec = ResourceSpec.model_validate({"kind": self.kind, **(options or self.options)})
        return build("part", spec, self.setting())

    def environment(self, slug: str = "acme", **changes: object) -> Environment:
        """An environment that the resource under test can be made for."""
        return environment(slug, **changes)

    def migration(self, name: str, text: str) -> Path:
        """A migration file in the schema directory."""
        path = self.root / "schema" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(self.named(text))
        return path

    def named(self, text: str) -> str:
        """A script as files of this kind have it."""
        return text

    def files(self) -> set[str]:
        """All there is of tenants: files below their directory, or what a server has of them."""
        tenants = self.root / "var" / "tenants"
        return {str(path.relative_to(tenants)) for path in tenants.rglob("*") if not path.is_dir()}

    def path(self, resource: Resource, env: Environment) -> Path:
        """Where the resource lies on disk."""
        return self.root / "var" / env.home / resource.locate(env)

    def spoil(self, resource: Resource, env: Environment) -> Environment | None:
        """The environment so that it cannot be made; None where nothing keeps the kind from it."""
        return replace(env, home="../outside")

    def leave(self, resource: Resource, env: Environment, ending: str) -> str:
        """Leave behind what a killed process does; the name that `tidy` gives it."""
        left = self.root / "var" / env.home / f"{paths.TEMPORARY}{ending}"
        left.write_bytes(b"half")
        return f"{env.home}/{left.name}"

    def use(self, resource: Resource, env: Environment, mark: str) -> None:
        """Leave a mark in a resource, as its application would."""
        self.query(resource, env, f"INSERT INTO page (title) VALUES ('{mark}')")

    def look(self, resource: Resource, env: Environment) -> str:
        """Everything an application finds in a resource, as text."""
        return str(self.query(resource, env, "SELECT title FROM page ORDER BY id"))

    def query(self, resource: Resource, env: Environment, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement in an environment's database, past Tenantry's own statements."""
        raise NotImplementedError

    def tables(self, resource: Resource, env: Environment) -> set[str]:
        """The names of the tables in an environment's database."""
        return {row[0] for row in self.query(resource, env, "SELECT name FROM sqlite_schema WHERE type = 'table'")}

    def damage(self, resource: Resource, env: Environment) -> None:
        """Break a resource in the way its kind breaks."""
        raise NotImplementedError


class SqliteWorld(World):
    """A platform with SQLite files."""

    def query(self, resource: Resource, env: Environment, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path(resource, env))) as connection, connection:
            return connection.execute(statement).fetchall()

    def damage(self, resource: Resource, env: Environment) -> None:
        with self.path(resource, env).open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 8192)


class MemoryWorld(World):
    """A platform with databases in memory."""

    pieces = 0

    def spoil(self, resource: Resource, env: Environment) -> Environment | None:
        return None

    def query(self, resource: Resource, env: Environment, statement: str) -> list[tuple[Any, ...]]:
        assert isinstance(resource, Memory)
        with resource._open(env) as connection:
            return connection.execute(statement).fetchall()

    def damage(self, resource: Resource, env: Environment) -> None:
        assert isinstance(resource, Memory)
        resource.stores[env.id] = resource.stores[env.id][:4096] + b"\xff" * (len(resource.stores[env.id]) - 4096)


class DirectoryWorld(World):
    """A platform with directories."""

    pieces = 0

    def use(self, resource: Resource, env: Environment, mark: str) -> None:
        paths.write_beneath(self.path(resource, env), "deep/er/mark", mark.encode())

    def look(self, resource: Resource, env: Environment) -> str:
        found = sorted(self.path(resource, env).rglob("*"))
        return "".join(file.read_text() for file in found if file.is_file())

    def damage(self, resource: Resource, env: Environment) -> None:
        (self.path(resource, env) / "out").symlink_to("/etc")


class RenderedWorld(World):
    """A platform with rendered files."""

    def use(self, resource: Resource, env: Environment, mark: str) -> None:
        self.path(resource, env).write_text(mark)

    def look(self, resource: Resource, env: Environment) -> str:
        return self.path(resource, env).read_text()

    def damage(self, resource: Resource, env: Environment) -> None:
        self.path(resource, env).write_text("edited by hand")


@dataclass
class PostgresWorld(World):
    """A platform with a PostgreSQL server, whose administrator may make databases and roles, and nothing else."""

    server: Postgres = field(kw_only=True)
    prefix: str = field(default_factory=lambda: f"w{secrets.token_hex(4)}")

    first: ClassVar[str] = """
CREATE TABLE page (id INTEGER GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, title TEXT NOT NULL);
CREATE FUNCTION trim_title() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  new.title := trim(new.title);
  RETURN new;
END $$;
CREATE TRIGGER page_title BEFORE INSERT ON page FOR EACH ROW EXECUTE FUNCTION trim_title();
-- down
DROP TABLE page;
DROP FUNCTION trim_title();
"""
    no_table: ClassVar[str] = 'relation "nowhere" does not exist'
    broken_reference: ClassVar[str] = 'violates foreign key constraint "link_page_fkey"'
    not_unique: ClassVar[str] = 'could not create unique index "one_title"'
    pieces: ClassVar[int] = 2

    def __post_init__(self) -> None:
        self.options = {"name": f"{self.prefix}_{{slug}}", **self.options}
        self.admin = self.server.administrator()
        self.known = Servers([self.described()])

    def described(self, **changes: Any) -> Server:
        """The server as the platform knows it."""
        plain = make_url(self.admin)._replace(username=None, password=None).render_as_string()
        return replace(Server("pg", "postgres", plain, self.admin), **changes)

    def setting(self) -> Setting:
        return replace(super().setting(), servers=self.known)

    def environment(self, slug: str = "acme", **changes: object) -> Environment:
        env = environment(slug, **changes)
        resource = self.resource()
        placed = replace(env, places=(Place("part", "postgres", resource.names(env)[0], server="pg"),))
        return replace(placed, logins={"part": resource.new_login(placed)})

    def files(self) -> set[str]:
        query = (
            "SELECT 'database ' || datname FROM pg_database WHERE starts_with(datname, %(prefix)s) "
            "UNION SELECT 'role ' || rolname FROM pg_roles WHERE starts_with(rolname, %(prefix)s)"
        )
        with psycopg.connect(self.server.url()) as connection:
            return {str(row[0]) for row in connection.execute(query, {"prefix": self.prefix})}

    def databases(self) -> set[str]:
        """All databases of the platform, templates and spares too."""
        query = "SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = %s OR starts_with(datname, %s)"
        with psycopg.connect(self.server.url()) as connection:
            return {str(row[0]) for row in connection.execute(query, (make_url(self.admin).username, self.prefix))}

    def connect(self, resource: Resource, env: Environment, **changes: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection by an environment's own login."""
        login = env.logins["part"]
        wanted = {"database": resource.locate(env), "user": login.user, "password": login.password} | changes
        return psycopg.connect(self.server.url(**wanted), autocommit=True)

    def query(self, resource: Resource, env: Environment, statement: str) -> list[tuple[Any, ...]]:
        with self.connect(resource, env) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def tables(self, resource: Resource, env: Environment) -> set[str]:
        return {row[0] for row in self.query(resource, env, "SELECT relname FROM pg_class WHERE relkind = 'r'")}

    def spoil(self, resource: Resource, env: Environment) -> Environment | None:
        self.server.run(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(resource.locate(env))))
        return env

    def leave(self, resource: Resource, env: Environment, ending: str) -> str:
        assert isinstance(resource, PostgresResource)
        name = f"{resource._golden.name[:-12]}{'0' * 12}_{ending}"
        with psycopg.connect(self.admin, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"pg/{name}"

    def damage(self, resource: Resource, env: Environment) -> None:
        self.query(resource, env, "ALTER TABLE page ALTER COLUMN title TYPE varchar(99)")

    def roles(self) -> set[str]:
        """The roles of the platform."""
        with psycopg.connect(self.server.url()) as connection:
            rows = connection.execute("SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", (self.prefix,))
            return {str(row[0]) for row in rows}

    def clear(self) -> None:
        """Remove all that was made on the server."""
        postgres_admin.forget()
        for name in self.databases():
            database = sql.Identifier(name)
            self.server.run(
                sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(database),
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database),
            )
        for role in [*sorted(self.roles(), reverse=True), str(make_url(self.admin).username)]:
            self.server.run(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@dataclass
class RowsWorld(PostgresWorld):
    """A platform whose tenants share the tables of one database."""

    no_table: ClassVar[str] = 'relation "nowhere" does not exist'
    broken_reference: ClassVar[str] = 'null value in column "tenant_id" of relation "link"'
    pieces: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.options = {key: value for key, value in self.options.items() if key != "name"}
        self.options = {"database": f"{self.prefix}_all", **self.options}
        self.password = secrets.token_urlsafe(12)

    def environment(self, slug: str = "acme", **changes: object) -> Environment:
        env = environment(slug, **changes)
        database = str(self.options["database"])
        place = Place("part", "rows", database, server="pg")
        return replace(env, places=(place,), logins={"part": Login(f"{database}_app", self.password)})

    def files(self) -> set[str]:
        """The tenants that have rows, or a marker, in any table."""
        database = str(self.options["database"])
        with psycopg.connect(self.server.url()) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone():
                return set()
        with psycopg.connect(self.server.url(database)) as connection:
            names = connection.execute(
                "SELECT attrelid::regclass::text FROM pg_attribute JOIN pg_class c ON c.oid = attrelid "
                "WHERE attname = 'tenant_id' AND relkind IN ('r', 'p')"
            ).fetchall()
            return {
                f"tenant {key}"
                for (name,) in names
                for (key,) in connection.execute(f"SELECT DISTINCT tenant_id FROM {name}".encode())
            }

    def query(self, resource: Resource, env: Environment, statement: str) -> list[tuple[Any, ...]]:
        """What defines something is done by the tables' owner, all else by the application for its tenant."""
        database = str(self.options["database"])
        if statement.split()[0] in ("CREATE", "ALTER", "DROP"):
            with psycopg.connect(self.server.url(database), autocommit=True) as connection:
                connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(f"{database}_owner")))
                connection.execute(statement.encode())
            return []
        with self.connect(resource, env) as connection, connection.transaction():
            connection.execute("SELECT set_config('tenantry.tenant', %s, true)", (env.key,))
            cursor = connection.execute(statement.encode())
            if not cursor.description:
                return []
            shown = [place for place, column in enumerate(cursor.description) if column.name != "tenant_id"]
            return [tuple(row[place] for place in shown) for row in cursor]

    def tables(self, resource: Resource, env: Environment) -> set[str]:
        with psycopg.connect(self.server.url(str(self.options["database"]))) as connection:
            return {str(row[0]) for row in connection.execute("SELECT relname FROM pg_class WHERE relkind = 'r'")}

    def spoil(self, resource: Resource, env: Environment) -> Environment | None:
        return None

    def leave(self, resource: Resource, env: Environment, ending: str) -> str:
        name = f"{resource._golden.name[:-12]}{'0' * 12}_{ending}"  # type: ignore[attr-defined]
        with psycopg.connect(self.admin, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"pg/{name}"


WORLDS: dict[str, type[World]] = {
    "memory": MemoryWorld,
    "sqlite": SqliteWorld,
    "directory": DirectoryWorld,
    "rendered": RenderedWorld,
}
"""The kinds that need no server."""

OPTIONS: dict[str, dict[str, object]] = {
    "directory": {},
    "rendered": {"template": "templates/env.json.j2"},
}
"""What kinds without a schema take."""


def furnish(world: World) -> None:
    """Give a world two migrations, a seed and a template."""
    world.migration("0001_pages.sql", world.first)
    world.migration("0002_bodies.sql", SECOND)
    (world.root / "seed.sql").write_text(world.named(SEED))
    (world.root / "templates").mkdir()
    (world.root / "templates" / "env.json.j2").write_text(
        '{"name": {{ values.site_name | json }}, "host": {{ hostname | json }}, "slug": "{{ slug }}"}\n'
    )
