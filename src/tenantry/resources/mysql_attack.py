"""Attacks on the isolation of MariaDB and MySQL databases: what one tenant's login tries on another's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Final

from tenantry.errors import TenantryError
from tenantry.model import Login
from tenantry.resources.mysql_book import BOOK
from tenantry.resources.mysql_server import Connection, Refused, connect, quote

OWN: Final = frozenset({"information_schema", "performance_schema"})
"""Databases that every login sees, in which it finds its own things only."""

THING: Final = "tenantry_attack"


class Attacker:
    """One login against another's database. Whatever gets through is undone."""

    def __init__(self, connection: Connection, login: Login, own: str, other: str) -> None:
        self._connection = connection
        self._login = login
        self._own = own
        self._other = other

    def run(self) -> list[tuple[str, str]]:
        """Every attack that got through: its name, and what it found."""
        found = [*self._connect(), *self._look(), *self._read(), *self._take(), *self._grow()]
        with suppress(Refused, TenantryError):
            self._connection.ask(f"USE {quote(self._own)}")
        return found

    def _try(self, attack: str, statement: str, undo: str = "", *, empty: bool = True) -> Iterator[tuple[str, str]]:
        """A breach where the statement is allowed; with `empty` False, only where it finds something."""
        try:
            found = self._connection.ask(statement)
        except Refused:
            return
        if undo:
            with suppress(Refused):
                self._connection.ask(undo)
        values = [value for row in found for value in row if value is not None]
        if empty or values:
            yield attack, f"{statement} gave {', '.join(map(str, values[:3])) or 'no error'}"[:200]

    def _connect(self) -> Iterator[tuple[str, str]]:
        with suppress(Refused, TenantryError), closing(connect(self._connection.server, self._login, self._other)):
            yield "connect", f"'{self._login.user}' was let into {self._other}"

    def _look(self) -> Iterator[tuple[str, str]]:
        """See that others are there."""
        for (name,) in self._connection.ask("SHOW DATABASES"):
            if name not in OWN and (name != self._own or name == self._other):
                yield "SHOW DATABASES", f"{name} is seen"
        name = f"'{self._other}'"
        yield from self._try(
            "information_schema",
            f"SELECT table_name FROM information_schema.tables WHERE table_schema = {name}",  # noqa: S608
            empty=False,
        )
        query = "SELECT user, info FROM information_schema.processlist WHERE user <> SUBSTRING_INDEX(USER(), '@', 1)"
        yield from self._try("processes", query, empty=False)
        for statement in (f"SHOW GRANTS FOR {name}", f"SHOW CREATE DATABASE {quote(self._other)}"):
            yield from self._try("SHOW", statement)

    def _read(self) -> Iterator[tuple[str, str]]:
        """Read what is others'."""
        yield from self._try("USE", f"USE {quote(self._other)}", f"USE {quote(self._own)}")
        tables = [str(name) for name, _ in self._connection.ask("SHOW FULL TABLES")][:20]
        for table in [*tables, "tenantry_schema", "tenantry_user"]:
            theirs = f"{quote(self._other)}.{quote(table)}"
            yield from self._try("SELECT", f"SELECT count(*) FROM {theirs}")  # noqa: S608
            yield from self._try("UNION", f"SELECT 1 UNION SELECT count(*) FROM {theirs}")  # noqa: S608
            yield from self._try(
                "VIEW",
                f"CREATE VIEW {THING} AS SELECT 1 AS a FROM {theirs}",  # noqa: S608
                f"DROP VIEW {THING}",
            )
        for place in ("mysql.user", "mysql.global_priv", "mysql.db", f"{BOOK}.part", f"{BOOK}.login"):
            yield from self._try("SELECT", f"SELECT count(*) FROM {place}")  # noqa: S608

    def _take(self) -> Iterator[tuple[str, str]]:
        """Change what is others', or act as them."""
        theirs = quote(self._other)
        yield from self._try("CREATE", f"CREATE TABLE {theirs}.{THING} (a INT)", f"DROP TABLE {theirs}.{THING}")
        yield from self._try(
            "DEFINER",
            f"CREATE DEFINER = '{self._other}'@'%' PROCEDURE {THING}() SELECT 1",
            f"DROP PROCEDURE {THING}",
        )
        yield from self._try("SET ROLE", f"SET ROLE {theirs}", "SET ROLE NONE")
        for right in ("SELECT", "ALL PRIVILEGES"):
            yield from self._try("GRANT", f"GRANT {right} ON {theirs}.* TO CURRENT_USER()")
        yield from self._try("GRANT", f"GRANT SELECT ON {quote(self._own)}.* TO '{self._other}'@'%'")

    def _grow(self) -> Iterator[tuple[str, str]]:
        """Get at the server itself."""
        yield from self._try("LOAD_FILE", "SELECT LOAD_FILE('/etc/passwd')", empty=False)
        yield from self._try("INTO OUTFILE", f"SELECT 1 INTO OUTFILE '/tmp/{THING}'")
        table = f"{quote(self._own)}.{THING}"
        with suppress(Refused):
            self._connection.ask(f"CREATE TEMPORARY TABLE {table} (a TEXT)")
            yield from self._try("LOAD DATA", f"LOAD DATA INFILE '/etc/passwd' INTO TABLE {table} (a)")
            self._connection.ask(f"DROP TEMPORARY TABLE {table}")
        yield from self._try("CREATE USER", f"CREATE USER {THING}", f"DROP USER {THING}")
        yield from self._try("CREATE DATABASE", f"CREATE DATABASE {THING}", f"DROP DATABASE {THING}")
        yield from self._try("SET GLOBAL", "SET GLOBAL max_connections = @@max_connections")
        for (grant,) in self._connection.ask("SHOW GRANTS"):
            if " ON *.* " in str(grant) and not str(grant).startswith("GRANT USAGE ON *.*"):
                yield "SHOW GRANTS", str(grant).partition(" TO ")[0]
