"""A platform for tests of the kind `mysql`, on a real MariaDB server with TLS."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from mariadb import MariaDB
from tenantry.model import Environment, Login, Place, Server
from tenantry.resources import Resource, Servers, Setting, mysql_book
from tenantry.resources.mysql_book import State
from tenantry.resources.mysql_server import administrator, connect
from worlds import World, environment, furnish

MADE: dict[str, object] = {"schema": "schema", "seed": "seed.sql"}


@dataclass
class MysqlWorld(World):
    """A platform with a MariaDB server, whose administrator has what the documentation asks for, and nothing else."""

    server: MariaDB = field(kw_only=True)
    prefix: str = field(kw_only=True)
    login: Login = field(kw_only=True)

    first: ClassVar[str] = """
CREATE TABLE page (id INTEGER PRIMARY KEY AUTO_INCREMENT, title TEXT NOT NULL);
CREATE TRIGGER page_title BEFORE INSERT ON page FOR EACH ROW
BEGIN
  SET new.title = trim(new.title);
END;
-- down
DROP TABLE page;
"""
    third: ClassVar[str] = (
        "CREATE INDEX page_by_title ON page (title(50));\n-- down\nDROP INDEX page_by_title ON page;\n"
    )
    undo_third: ClassVar[str] = "DROP INDEX page_by_title ON page"
    no_table: ClassVar[str] = r"Table '\w+\.nowhere' doesn't exist"
    broken_reference: ClassVar[str] = "a foreign key constraint fails"
    not_unique: ClassVar[str] = "Duplicate entry 'Welcome' for key 'one_title'"
    rolls_back: ClassVar[bool] = False
    pieces: ClassVar[int] = 2

    def __post_init__(self) -> None:
        self.options = {"name": f"{self.prefix}_{{slug}}", **self.options}
        self.known = Servers([self.described()])

    def described(self, **changes: Any) -> Server:
        """The server as the platform knows it."""
        url = self.server.url(self.login.user, self.login.password)
        return replace(Server("my", "mysql", "mysql://" + url.rpartition("@")[2], url), **changes)

    def setting(self) -> Setting:
        return replace(super().setting(), servers=self.known)

    def environment(self, slug: str = "acme", **changes: object) -> Environment:
        env = environment(slug, **changes)
        resource = self.resource()
        placed = replace(env, places=(Place("part", "mysql", resource.names(env)[0], server="my"),))
        return replace(placed, logins={"part": resource.new_login(placed)})

    def files(self) -> set[str]:
        found = {f"database {name}" for name in self.server.databases()}
        found |= {f"user {name}" for name in self.server.users()}
        return {one for one in found if one.split()[1].startswith((self.prefix, "tenantry_scratch"))}

    def connect(self, resource: Resource, env: Environment) -> Any:
        """A connection by an environment's own login."""
        login = env.logins["part"]
        return self.server.connect(login.user, login.password, resource.locate(env))

    def query(self, resource: Resource, env: Environment, statement: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(self.connect(resource, env)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def tables(self, resource: Resource, env: Environment) -> set[str]:
        return {row[0] for row in self.query(resource, env, "SHOW TABLES")}

    def spoil(self, resource: Resource, env: Environment) -> Environment | None:
        self.server.run(f"CREATE DATABASE `{resource.locate(env)}`")
        return env

    def leave(self, resource: Resource, env: Environment, ending: str) -> str:
        name = f"tenantry_scratch_{ending}"
        with contextlib.closing(connect(self.described(), administrator(self.described()))) as admin:
            mysql_book.enter(admin, name, "", "site.part", State.SCRATCH)
            admin.ask(f"CREATE DATABASE {name}")
        return f"my/{name}"

    def damage(self, resource: Resource, env: Environment) -> None:
        self.query(resource, env, "ALTER TABLE page MODIFY title VARCHAR(99) NOT NULL")

    def clear(self) -> None:
        """Remove all that was made on the server."""
        for kind, name in (one.split() for one in sorted(self.files())):
            self.server.run(f"DROP DATABASE `{name}`" if kind == "database" else f"DROP USER `{name}`@'%'")
        for table in ("part", "login", "golden"):
            with contextlib.suppress(Exception):
                self.server.run(f"DELETE FROM tenantry_book.{table}")


def mysql_grants(prefix: str) -> tuple[str, ...]:
    """What an administrator gets, as docs/howto/mariadb.md has it."""
    return (
        "CREATE USER, PROCESS, CONNECTION ADMIN ON *.*",
        "ALL PRIVILEGES ON `tenantry\\_%`.*",
        f"ALL PRIVILEGES ON `{prefix}\\_%`.*",
    )


@contextlib.contextmanager
def mysql_platform(server: MariaDB, root: Path, **options: object) -> Iterator[MysqlWorld]:
    """A platform with migrations and a seed; all that it makes on the server is removed at the end."""
    prefix = f"w{secrets.token_hex(4)}"
    with server.administrator(*mysql_grants(prefix)) as (name, password):
        made = MysqlWorld("mysql", root, {**MADE, **options}, server=server, prefix=prefix, login=Login(name, password))
        try:
            furnish(made)
            yield made
        finally:
            made.clear()
