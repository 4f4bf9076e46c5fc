"""What is made of one MariaDB or MySQL database in another, and what a migration does to its tables there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Final

from tenantry.errors import TenantryError
from tenantry.model import Held
from tenantry.resources import mysql_script
from tenantry.resources.mysql_server import Connection, Refused, product
from tenantry.resources.scratch import Seen
from tenantry.resources.shapes import differences

WEIGHED: Final = 0.25
"""Seconds between two looks at the size of a scratch database."""

LOCK: Final = "exclusive metadata lock"


def fill(target: Connection, source: Connection, database: str) -> None:
    """Make what a database holds, as of one moment, in an empty one; nothing is written to disk in between."""
    source.ask(mysql_script.SESSION)
    source.ask("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    source.ask("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    found = mysql_script.items(source, database)
    mysql_script.run(target, chain(mysql_script.tables_of(source, found), mysql_script.code_of(found)))


def size(admin: Connection, database: str) -> int:
    """The bytes of a database's files, as its administrator sees them."""
    name = "".join(c if c.isalnum() or c == "_" else f"@{ord(c):04x}" for c in database)
    pattern = name.replace("_", "\\_") + "/%"
    query = (
        f"SELECT coalesce(sum(file_size), 0) FROM information_schema.{_inner(admin, 'TABLESPACES')} WHERE name LIKE %s"  # noqa: S608
    )
    ((found,),) = admin.ask(query, pattern)
    return int(found)


def _inner(admin: Connection, what: str) -> str:
    """How a server calls one of InnoDB's own tables."""
    return f"INNODB_{'SYS_' if product(admin)[0] == 'MariaDB' else ''}{what}"


class Watch:
    """Looks on while migrations run in a scratch database, as far as the server tells what they do.

    Neither server lists the locks on tables unless it was started so. But each change of a table's definition takes an
    exclusive lock on it, at least as it begins and ends; and a table that was written anew has another number.
    """

    def __init__(self, admin: Connection, inner: Connection, database: str, room: int) -> None:
        self._admin, self._inner, self._database, self._room = admin, inner, database, room

    @contextmanager
    def over(self) -> Iterator[Seen]:
        """Look on for the time of a block; what was seen is there at its end."""
        seen, before, numbers = Seen(), self._shape(), self._numbers()
        over = threading.Event()
        looking = threading.Thread(target=self._look_on, args=(seen, over), daemon=True)
        looking.start()
        try:
            yield seen
        finally:
            over.set()
            looking.join()
        if seen.outgrown:
            return
        tables = {name.removeprefix("table ") for name in before if name.startswith("table ")}
        after = self._numbers()
        rewritten = {name for name in tables if name in after and numbers.get(name) != after[name]}
        seen.rewritten = tuple(sorted(rewritten))
        touched = rewritten | {_table_of(what) for what in differences(self._shape(), before)}
        seen.locks = tuple(Held(name, LOCK, "reads and writes", 0.0) for name in sorted(touched & tables))

    def _shape(self) -> dict[str, str]:
        return mysql_script.shape(mysql_script.items(self._inner, self._database))

    def _numbers(self) -> dict[str, str]:
        """Each table with the number of what it is stored as."""
        query = f"SELECT name, table_id FROM information_schema.{_inner(self._admin, 'TABLES')} WHERE name LIKE %s"  # noqa: S608
        pattern = self._database.replace("_", "\\_") + "/%"
        return {str(name).partition("/")[2]: str(number) for name, number in self._admin.ask(query, pattern)}

    def _look_on(self, seen: Seen, over: threading.Event) -> None:
        with suppress(TenantryError, Refused):  # the server is gone, as the migration notices as well
            while not over.wait(WEIGHED):
                self._weigh(seen)
            self._weigh(seen)

    def _weigh(self, seen: Seen) -> None:
        if self._size() > self._room:
            seen.outgrown = True
            for number in self._sessions():
                with suppress(Refused):  # it ended by itself
                    self._admin.ask(f"KILL CONNECTION {number}")

    def _size(self) -> int:
        return size(self._admin, self._database)

    def _sessions(self) -> list[int]:
        """The sessions that migrate."""
        query = "SELECT id FROM information_schema.processlist WHERE user = %s"
        return [int(number) for (number,) in self._admin.ask(query, self._database)]


def _table_of(difference: str) -> str:
    """The table that a difference is about: "column body of page differs", "table page is missing"."""
    name = difference.removesuffix(" is missing").removesuffix(" is not declared").removesuffix(" differs")
    return name.rpartition(" of ")[2] if " of " in name else name.removeprefix("table ")
