"""A platform whose tenants' databases lie on PostgreSQL servers, and what is on these servers, past Tenantry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

from ground import Ground
from mariadb import MariaDB
from servers import Postgres

TOML = """
[platform]
name = "Ground"
domain = "localhost"
data = "var"
{servers}
[worker]
overlap = "{overlap}"

[blueprints.lab.resources]
db = {{{{kind = "{kind}", name = "{prefix}_{{{{slug}}}}", schema = "schema/"{options}}}}}
[blueprints.lab.resources.config]
kind = "rendered"
template = "templates/env.json.j2"
target = "{{root}}/rendered/{{{{slug}}}}/env.json"

[blueprints.lab.values]
site_name = "{{{{name}}}}"
share = 1
smtp_password = {{{{default = "", secret = true}}}}
"""
SERVER = """
[servers.{name}]
kind = "{kind}"
url = {{env = "{variable}"}}
{more}
"""


class Shelves(Ground):
    """A platform on disk with servers `pg1`, `pg2`, …; its administrators may make databases and roles, no more."""

    def __init__(
        self, root: Path, *known: Postgres, options: str = "", more: tuple[str, ...] = (), overlap: str = "200ms"
    ) -> None:
        self.prefix = "t" + root.parent.name[-20:].replace("-", "_") + format(id(self) % 0xFFFFF, "x")
        self.known = {f"pg{number}": server for number, server in enumerate(known, 1)}
        extra = dict(zip(self.known, (*more, *[""] * len(known)), strict=False))
        tables = "".join(
            SERVER.format(kind="postgres", name=name, variable=f"{name.upper()}_ADMIN_URL", more=extra[name])
            for name in self.known
        )
        servers = tables.replace("{", "{{").replace("}", "}}")
        super().__init__(
            root, TOML.format(kind="postgres", servers=servers, prefix=self.prefix, options=options, overlap=overlap)
        )
        self.admins = {name: server.administrator() for name, server in self.known.items()}
        with (root / ".env").open("a") as file:
            for name, url in self.admins.items():
                file.write(f"{name.upper()}_ADMIN_URL='{url}'\n")

    def left(self, name: str) -> list[str]:
        """The databases and roles of this platform's tenants on a server, templates and spares as well."""
        found = [f"database {one}" for (one,) in self.query(name, "SELECT datname FROM pg_database ORDER BY 1")]
        found += [f"role {one}" for (one,) in self.query(name, "SELECT rolname FROM pg_roles ORDER BY 1")]
        mine = (f"database {self.prefix}_", f"role {self.prefix}_")
        return [one for one in found if one.startswith(mine)]

    def query(self, name: str, statement: str, database: str = "postgres") -> list[Any]:
        """Run one statement as the superuser of a server."""
        with psycopg.connect(self.known[name].url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def clear(self) -> None:
        """Drop what is left on the servers that others use as well."""
        for name, server in self.known.items():
            if server.process.poll() is None:
                everything = self.left(name)
                for one in everything:
                    if one.startswith("database "):
                        self.query(name, f'DROP DATABASE "{one.removeprefix("database ")}" WITH (FORCE)')
                for one in everything:
                    if one.startswith("role "):
                        self.query(name, f'DROP ROLE "{one.removeprefix("role ")}"')


class MariaShelves(Ground):
    """The like of it on one MariaDB server, `db`."""

    def __init__(self, root: Path, server: MariaDB) -> None:
        self.prefix = f"m{format(id(self) % 0xFFFFFFF, 'x')}"
        self.server = server
        table = SERVER.format(kind="mysql", name="db", variable="DB_ADMIN_URL", more="")
        tables = table.replace("{", "{{").replace("}", "}}")
        super().__init__(
            root, TOML.format(kind="mysql", servers=tables, prefix=self.prefix, options="", overlap="200ms")
        )
        with (root / ".env").open("a") as file:
            file.write(f"DB_ADMIN_URL='{server.url()}'\n")

    def left(self) -> list[str]:
        """The databases and users of this platform's tenants, and what the server's book has about them."""
        found = [f"database {name}" for name in self.server.databases()]
        found += [f"user {name}" for name in self.server.users()]
        if "tenantry_book" in self.server.databases():
            found += [f"entry {name}" for (name,) in self.server.run("SELECT name FROM tenantry_book.part")]
            found += [f"login {name}" for (name,) in self.server.run("SELECT user FROM tenantry_book.login")]
        return sorted(one for one in found if one.split()[1].startswith((f"{self.prefix}_", f"old_{self.prefix}_")))
