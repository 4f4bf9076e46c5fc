"""Attacks on the isolation of MariaDB and MySQL databases: what one tenant's login tries on another's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from tenantry.errors import TenantryError
from tenantry.model import Attempt, Breach, Login, Untried
from tenantry.resources.mysql_book import BOOK
from tenantry.resources.mysql_server import Connection, Refused, connect, quote

OWN: Final = frozenset({"information_schema", "performance_schema"})
"""Databases that every login sees, in which it finds its own things only."""

THING: Final = "tenantry_attack"
ROOT: Final = "'root'@'%'"

REFUSED: Final = frozenset({1044, 1045, 1095, 1141, 1142, 1143, 1227, 1290, 1370, 1396, 1410, 1419, 1698, 1958, 1959})
"""Numbers of the errors by which a server says that a login may not."""

SYSTEM: Final = ("mysql.user", "mysql.global_priv", "mysql.db", f"{BOOK}.part", f"{BOOK}.login")
"""Tables with the logins and rights of all."""


class Attacker:
    """One login against another's database. Whatever gets through is undone."""

    def __init__(self, name: str, connection: Connection, login: Login, own: str, other: str, user: str) -> None:
        self._name = name
        self._connection = connection
        self._login = login
        self._own = own
        self._other = other
        self._same = user == login.user
        self._user = f"{connection.escape(user)}@'%'"  # the other's

    def run(self) -> list[Attempt]:
        """Everything that is tried, and what came of it."""
        found = [*self._connect(), *self._look(), *self._read(), *self._take(), *self._grow()]
        with suppress(Refused, TenantryError):
            self._connection.ask(f"USE {quote(self._own)}")
        return found

    def _try(self, attack: str, statement: str, undo: str = "", *, empty: bool = True) -> Attempt:
        """A breach where the statement is allowed; with `empty` False, only where it finds something."""
        try:
            found = self._connection.ask(statement)
        except Refused as error:
            return (Attempt if error.number in REFUSED else Untried)(self._name, attack, f"{statement}: {error}"[:200])
        if undo:
            with suppress(Refused):
                self._connection.ask(undo)
        values = [value for row in found for value in row if value is not None]
        if not empty and not values:
            return Attempt(self._name, attack, "there is nothing")
        shown = ", ".join(map(str, values[:3])) or "no error"
        return Breach(self._name, attack, f"{statement} gave {shown}"[:200])

    def _connect(self) -> Iterator[Attempt]:
        what = "connect"
        try:
            connect(self._connection.server, self._login, self._other).close()
        except Refused as error:
            yield (Attempt if error.number in REFUSED else Untried)(self._name, what, str(error))
        except TenantryError as error:
            yield Untried(self._name, what, error.message)
        else:
            yield Breach(self._name, what, f"'{self._login.user}' was let into {self._other}")

    def _look(self) -> Iterator[Attempt]:
        """See that others are there."""
        names = [str(name) for (name,) in self._connection.ask("SHOW DATABASES")]
        seen = [name for name in names if name not in OWN and (name != self._own or name == self._other)]
        what = "SHOW DATABASES"
        yield Breach(self._name, what, f"{', '.join(seen)[:200]} seen") if seen else Attempt(self._name, what)
        name = self._connection.escape(self._other)
        for table in ("tables", "routines", "triggers"):
            column = {"tables": "table_schema", "routines": "routine_schema", "triggers": "trigger_schema"}[table]
            query = f"SELECT {column} FROM information_schema.{table} WHERE {column} = {name} LIMIT 3"  # noqa: S608
            yield self._try(f"information_schema.{table}", query, empty=False)
        query = "SELECT user, info FROM information_schema.processlist WHERE user <> SUBSTRING_INDEX(USER(), '@', 1)"
        yield self._try("processes", query, empty=False)
        yield self._try("SHOW GRANTS of another", f"SHOW GRANTS FOR {self._user}")
        yield self._try("SHOW CREATE DATABASE", f"SHOW CREATE DATABASE {quote(self._other)}")

    def _read(self) -> Iterator[Attempt]:
        """Read what is others'."""
        yield self._try("USE", f"USE {quote(self._other)}", f"USE {quote(self._own)}")
        tables = [str(name) for name, _ in self._connection.ask("SHOW FULL TABLES")][:20]
        for table in dict.fromkeys([*tables, "tenantry_schema", "tenantry_user"]):
            theirs = f"{quote(self._other)}.{quote(table)}"
            yield self._try("SELECT", f"SELECT count(*) FROM {theirs}")  # noqa: S608
            yield self._try("UNION", f"SELECT 1 UNION SELECT count(*) FROM {theirs}")  # noqa: S608
            yield self._try(
                "VIEW",
                f"CREATE VIEW {THING} AS SELECT 1 AS a FROM {theirs}",  # noqa: S608
                f"DROP VIEW {THING}",
            )
        for place in SYSTEM:
            yield self._try(f"SELECT {place}", f"SELECT count(*) FROM {place}")  # noqa: S608

    def _take(self) -> Iterator[Attempt]:
        """Change what is others', or act as them."""
        theirs = quote(self._other)
        yield self._try("CREATE", f"CREATE TABLE {theirs}.{THING} (a INT)", f"DROP TABLE {theirs}.{THING}")
        yield self._try(
            "DEFINER",
            f"CREATE DEFINER = {ROOT if self._same else self._user} PROCEDURE {THING}() SELECT 1",
            f"DROP PROCEDURE {THING}",
        )
        yield self._try("SET ROLE", f"SET ROLE {theirs}", "SET ROLE NONE")
        for right in ("SELECT", "ALL PRIVILEGES"):
            yield self._try(f"GRANT {right}", f"GRANT {right} ON {theirs}.* TO CURRENT_USER()")
        yield self._try("GRANT to another", f"GRANT SELECT ON {quote(self._own)}.* TO {self._user}")
        if not self._same:
            yield self._try("SET PASSWORD", f"SET PASSWORD FOR {self._user} = ''")

    def _grow(self) -> Iterator[Attempt]:
        """Get at the server itself."""
        yield self._try("LOAD_FILE", "SELECT LOAD_FILE('/etc/passwd')", empty=False)
        yield self._try("INTO OUTFILE", f"SELECT 1 INTO OUTFILE '/tmp/{THING}'")
        yield self._load_data()
        yield self._try("CREATE USER", f"CREATE USER {THING}", f"DROP USER {THING}")
        yield self._try("CREATE DATABASE", f"CREATE DATABASE {THING}", f"DROP DATABASE {THING}")
        yield self._try("SET GLOBAL", "SET GLOBAL max_connections = @@max_connections")
        rights = [str(grant).partition(" TO ")[0] for (grant,) in self._connection.ask("SHOW GRANTS")]
        wide = [right for right in rights if " ON *.* " in f"{right} " and not right.startswith("GRANT USAGE ON *.*")]
        what = "rights on the whole server"
        yield Breach(self._name, what, "; ".join(wide)) if wide else Attempt(self._name, what)

    def _load_data(self) -> Attempt:
        what, table = "LOAD DATA", f"{quote(self._own)}.{THING}"
        try:
            self._connection.ask(f"CREATE TEMPORARY TABLE {table} (a TEXT)")
        except Refused as error:
            return Untried(self._name, what, str(error))
        try:
            return self._try(what, f"LOAD DATA INFILE '/etc/passwd' INTO TABLE {table} (a)")
        finally:
            with suppress(Refused):
                self._connection.ask(f"DROP TEMPORARY TABLE {table}")
