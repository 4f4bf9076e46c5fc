"""Tables with a prefix in a MariaDB or MySQL database."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pymysql.cursors import SSCursor

from tenantry.errors import ResourceError, ServerUnavailable, ServerUnfit, TenantryError
from tenantry.model import Environment, Finding, Server, Usage, new_id
from tenantry.resources import history, mysql_diff, mysql_scratch, mysql_script, mysql_server, prefix_names
from tenantry.resources.history import BOOKKEEPING
from tenantry.resources.mysql_dialect import MySQL
from tenantry.resources.mysql_script import Item
from tenantry.resources.mysql_server import NO_TABLE, Connection, Refused, administrator, connect, quote, told
from tenantry.resources.prefix import Part, Prefix
from tenantry.resources.prefix_book import TABLE, Book
from tenantry.resources.schema import Migration
from tenantry.resources.scratch import Seen

if TYPE_CHECKING:
    import sqlalchemy


class PrefixMySQLDialect(MySQL):
    """MariaDB and MySQL, with the placeholder in all statements written as one prefix."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.record = quote(f"{prefix}tenantry_schema")

    def split(self, sql: str, name: str) -> tuple[str, ...]:
        return prefix_names.split(self.parser, super().split, sql, name)

    def step(self, connection: Connection, migration: Migration, up: bool, *rest: Any) -> None:
        super().step(connection, prefix_names.rendered(migration, self.prefix), up, *rest)

    def columns(self, connection: Connection, tables: Sequence[str]) -> Mapping[str, Collection[str]]:
        found = super().columns(connection, [f"{self.prefix}{name}" for name in tables])
        return {name.removeprefix(self.prefix): columns for name, columns in found.items()}

    def script(self, connection: Connection, sql: Sequence[str], name: str) -> None:
        super().script(connection, [prefix_names.render(one, self.prefix) for one in sql], name)

    @contextmanager
    def lent(self, connection: Connection, name: str, *rest: Any) -> Iterator[sqlalchemy.Connection]:
        with super().lent(connection, name, *rest) as outer:
            prefix_names.watch(outer, self.parser, self.prefix, name)
            yield outer


class MySQLBook(Book):
    """The book in a MariaDB or MySQL database."""

    table = f"""
CREATE TABLE IF NOT EXISTS {TABLE} (
  prefix VARCHAR(64) NOT NULL PRIMARY KEY,
  owner VARCHAR(36) NOT NULL,
  resource VARCHAR(190) NOT NULL,
  state VARCHAR(10) NOT NULL,
  changed TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin"""

    def ask(self, connection: Connection, statement: str, *values: str) -> Sequence[tuple[Any, ...]]:
        try:
            return connection.ask(statement, *values)
        except Refused as error:
            if error.number == NO_TABLE:
                return []
            raise

    def make(self, connection: Connection) -> None:
        connection.ask(self.table)


class MysqlPrefix(Prefix):
    """The kind `prefix` on MariaDB and MySQL."""

    server_kind = "mysql"
    faults = (OSError, Refused)
    dialect = PrefixMySQLDialect()
    book = MySQLBook()

    @classmethod
    def _probe(cls, server: Server) -> list[Finding]:
        return mysql_server.probe(server, databases=False)

    @contextmanager
    def _connect(self, server: Server, database: str) -> Iterator[Connection]:
        try:
            connection = connect(server, administrator(server), database)
        except ServerUnavailable:
            self.setting.servers.silent(server.name)
            raise
        except Refused as error:
            reason = f"it refuses its login, or the database '{database}': {error.text}"
            raise ServerUnfit(server=server.name, reason=reason) from error
        with closing(connection):
            yield connection

    @contextmanager
    def _locked(self, connection: Connection, name: str) -> Iterator[None]:
        with mysql_server.locked(connection, _lock(name)):
            yield

    def _is_free(self, connection: Connection, name: str) -> bool:
        return connection.ask("SELECT IS_FREE_LOCK(%s)", _lock(name)) == [("1",)]

    # --- what there is ---

    def _things(self, connection: Connection, prefix: str) -> list[tuple[str, str]]:
        """Kind and name of all that begins with a prefix, what needs others first."""
        found = []
        for kind, query in _THINGS.items():
            names = (str(name) for (name, *_) in connection.ask(query))
            found += [(kind, name) for name in sorted(names) if name.startswith(prefix)]
        return found

    def _objects(self, connection: Connection, prefix: str) -> list[str]:
        return [name for _, name in self._things(connection, prefix)]

    def _clear(self, connection: Connection, prefix: str) -> None:
        crossings = self._crossings(connection, prefix)
        inward = [what for what in crossings if f" to {prefix}" in what]
        if inward:
            raise ResourceError(
                kind=self.kind, resource=self.name, tenant=prefix, reason=f"its tables cannot go: {inward[0]}"
            )
        with _unchecked(connection):
            for kind, name in self._things(connection, prefix):
                connection.ask(f"DROP {kind} IF EXISTS {quote(name)}")

    def _items(self, connection: Connection, prefix: str, named: str) -> list[Item]:
        """All that begins with a prefix but records, as if it began otherwise."""
        ((database,),) = connection.ask("SELECT DATABASE()")
        own = re.compile(rf"(?<![\w$]){re.escape(prefix)}")
        return [
            replace(item, name=named + item.name.removeprefix(prefix), create=own.sub(named, item.create))
            for item in mysql_script.items(connection, str(database), prefix)
            if item.name.removeprefix(prefix) not in BOOKKEEPING
        ]

    def _look(self, connection: Connection, prefix: str) -> dict[str, str]:
        return mysql_script.shape(self._items(connection, prefix, ""))

    def _way(self, golden: Part, found: Part) -> tuple[str, ...]:
        return mysql_diff.statements(self._items(*golden, found[1]), self._items(*found, found[1]))

    def _run(self, connection: Connection, statement: str) -> None:
        connection.ask(statement)

    def _taken(self, connection: Connection, prefix: str) -> int:
        found = connection.ask(_TAKEN)
        return sum(int(size) for name, size in found if str(name).startswith(prefix))

    @contextmanager
    def _watching(
        self, beside: Connection, inner: Connection, prefix: str, room: int
    ) -> Iterator[Callable[[], AbstractContextManager[Seen]]]:
        yield _Watch(beside, inner.thread_id(), room, partial(self._look, beside, prefix), prefix, self._taken).over

    def _crossings(self, connection: Connection, prefix: str) -> list[str]:
        keys = [
            f"the foreign key {key} leads from {table} to {other}"
            for key, table, other in connection.ask(_REFERENCES)
            if table.startswith(prefix) != other.startswith(prefix)
        ]
        others = [name for (name, *_) in connection.ask(_THINGS["TABLE"]) if not name.startswith(prefix)]
        views = [
            f"the view {view} shows {name}"
            for view, text in connection.ask(_VIEWS)
            if view.startswith(prefix)
            for name in others
            if quote(name) in text
        ]
        return sorted([*keys, *views])

    def _size(self, connection: Connection, prefix: str) -> Usage:
        for table in self._tables(connection, prefix):
            connection.ask(f"ANALYZE NO_WRITE_TO_BINLOG TABLE {quote(prefix + table)}")
        return Usage(*mysql_script.size(connection, prefix))

    def _enrol(self, env: Environment, login: str, password_hash: str, role: str, name: str) -> None:
        table = quote(f"{self._parts(env)[1]}tenantry_user")
        with self._open(env) as connection:
            connection.ask(
                f"INSERT INTO {table} (id, login, role, password, created, name) VALUES (%s, %s, %s, %s, %s, %s) "  # noqa: S608
                "ON DUPLICATE KEY UPDATE "
                "password = VALUES(password), role = VALUES(role), active = 1, epoch = epoch + 1",
                *(new_id(), login.lower(), role, password_hash, history.now(), name),
            )

    # --- copies ---

    @contextmanager
    def _snapshot(self, connection: Connection) -> Iterator[None]:
        connection.ask("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.ask("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        yield
        connection.ask("COMMIT")

    def _tables(self, connection: Connection, prefix: str) -> dict[str, list[str]]:
        tables = [name for (name, *_) in connection.ask(_THINGS["TABLE"]) if name.startswith(prefix)]
        columns: dict[str, list[str]] = {name: [] for name in sorted(tables)}
        for table, column, extra in connection.ask(_COLUMNS):
            if table in columns and " GENERATED" not in str(extra).upper():
                columns[table].append(str(column))
        plain = {name.removeprefix(prefix): found for name, found in columns.items()}
        return {name: found for name, found in plain.items() if name not in BOOKKEEPING and found}

    def _counters(self, connection: Connection, prefix: str) -> dict[str, int]:
        """Of sequences and of columns that count by themselves, these by the name of their table."""
        found = {name: int(value) for name, value in connection.ask(_COUNTING) if name.startswith(prefix)}
        for name, *_ in connection.ask(_THINGS["SEQUENCE"]):
            if name.startswith(prefix):
                ((value,),) = connection.ask(f"SELECT next_not_cached_value FROM {quote(name)}")  # noqa: S608
                found[name] = int(value)
        return {name.removeprefix(prefix): value for name, value in sorted(found.items())}

    def _set_counters(self, connection: Connection, prefix: str, counters: dict[str, int]) -> None:
        sequences = {name for (name, *_) in connection.ask(_THINGS["SEQUENCE"])}
        for name, value in counters.items():
            if prefix + name in sequences:
                connection.ask(f"ALTER SEQUENCE {quote(prefix + name)} RESTART WITH {int(value)}")
            else:
                connection.ask(f"ALTER TABLE {quote(prefix + name)} AUTO_INCREMENT = {int(value)}")

    @contextmanager
    def _filling(self, connection: Connection, prefix: str) -> Iterator[None]:
        """The rows change in one transaction; triggers cannot, and what stops between is made anew by the next load."""
        triggers = [item for item in mysql_script.items(connection, "", prefix) if item.kind == "trigger"]
        with _unchecked(connection):
            for item in triggers:
                connection.ask(f"DROP TRIGGER {quote(item.name)}")
            connection.ask("START TRANSACTION")
            try:
                for table in self._tables(connection, prefix):
                    connection.ask(f"DELETE FROM {quote(prefix + table)}")  # noqa: S608
                yield
                connection.ask("COMMIT")
            except BaseException:
                with suppress(TenantryError, Refused):
                    connection.ask("ROLLBACK")
                raise
            finally:
                with suppress(TenantryError):  # with the connection gone, the check finds them missing
                    for item in triggers:
                        connection.ask(f"SET SESSION sql_mode = '{item.mode}'")
                        connection.ask(item.create)

    def _write_rows(self, connection: Connection, table: str, columns: list[str]) -> Iterator[bytes]:
        with told(connection.server), connection.cursor(SSCursor) as cursor:
            cursor.execute(f"SELECT {_list(columns)} FROM {quote(table)}")  # noqa: S608 - quoted names
            for row in cursor:
                yield f"({', '.join(map(mysql_script.literal, row))})\n".encode()

    def _read_rows(self, connection: Connection, table: str, columns: list[str], lines: Iterator[bytes]) -> None:
        start = f"INSERT INTO {quote(table)} ({_list(columns)}) VALUES\n"
        some: list[str] = []
        size = 0
        for line in lines:
            some.append(line.decode().removesuffix("\n"))
            size += len(some[-1])
            if size > mysql_script.CHUNK:
                connection.ask(start + ",\n".join(some))
                some, size = [], 0
        if some:
            connection.ask(start + ",\n".join(some))

    def _copy_rows(self, connection: Connection, source: str, target: str, columns: list[str]) -> None:
        listed = _list(columns)
        connection.ask(f"INSERT INTO {quote(target)} ({listed}) SELECT {listed} FROM {quote(source)}")  # noqa: S608


class _Watch(mysql_scratch.Watch):
    """Looks on while migrations run on the tables of one prefix, beside all others of the database."""

    def __init__(
        self,
        beside: Connection,
        session: int,
        room: int,
        shape: Callable[[], dict[str, str]],
        prefix: str,
        taken: Callable[[Connection, str], int],
    ) -> None:
        ((database,),) = beside.ask("SELECT DATABASE()")
        beside.ask("SET SESSION lock_wait_timeout = 1")
        super().__init__(beside, beside, str(database), room)
        self._session, self._shaped, self._prefix, self._taken = session, shape, prefix, taken

    def _shape(self) -> dict[str, str]:
        return self._shaped()

    def _numbers(self) -> dict[str, str]:
        try:
            found = super()._numbers()
        except Refused as error:
            if error.number != NO_PROCESS:
                raise
            return {}
        return {name.removeprefix(self._prefix): number for name, number in found.items()}

    def _size(self) -> int:
        for table in self._tables():
            with suppress(Refused):  # a statement that changes it runs
                self._admin.ask(f"ANALYZE NO_WRITE_TO_BINLOG TABLE {quote(table)}")
        return self._taken(self._admin, self._prefix)

    def _tables(self) -> list[str]:
        return [str(name) for (name, *_) in self._admin.ask(_THINGS["TABLE"]) if name.startswith(self._prefix)]

    def _sessions(self) -> list[int]:
        return [self._session]


NO_PROCESS: Final = 1227
"""What a server says to a login that may not see what it stores where: it has not the privilege PROCESS."""

_TAKEN: Final = (
    "SELECT table_name, coalesce(data_length + index_length, 0) FROM information_schema.tables "
    "WHERE table_schema = DATABASE() AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')"
)
_THINGS: Final = {
    "VIEW": "SELECT table_name FROM information_schema.views WHERE table_schema = DATABASE()",
    "EVENT": "SELECT event_name FROM information_schema.events WHERE event_schema = DATABASE()",
    "PROCEDURE": (
        "SELECT routine_name FROM information_schema.routines "
        "WHERE routine_schema = DATABASE() AND routine_type = 'PROCEDURE'"
    ),
    "FUNCTION": (
        "SELECT routine_name FROM information_schema.routines "
        "WHERE routine_schema = DATABASE() AND routine_type = 'FUNCTION'"
    ),
    "TABLE": (
        "SELECT table_name FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')"
    ),
    "SEQUENCE": (
        "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type = 'SEQUENCE'"
    ),
}
"""What may begin with a prefix, in the order in which it can go; triggers go with their tables."""

_REFERENCES: Final = (
    "SELECT constraint_name, table_name, referenced_table_name FROM information_schema.referential_constraints "
    "WHERE constraint_schema = DATABASE()"
)
_VIEWS: Final = "SELECT table_name, view_definition FROM information_schema.views WHERE table_schema = DATABASE()"
_COLUMNS: Final = (
    "SELECT table_name, column_name, extra FROM information_schema.columns WHERE table_schema = DATABASE() "
    "ORDER BY table_name, ordinal_position"
)
_COUNTING: Final = (
    "SELECT table_name, auto_increment FROM information_schema.tables "
    "WHERE table_schema = DATABASE() AND auto_increment IS NOT NULL AND table_type = 'BASE TABLE'"
)


def _lock(name: str) -> str:
    """The name of a lock in at most 64 characters, which is what MySQL takes."""
    return f"tenantry {hashlib.sha256(name.encode()).hexdigest()[:32]}"


@contextmanager
def _unchecked(connection: Connection) -> Iterator[None]:
    """Have tables and rows come and go in any order, as they are."""
    settings = ("sql_mode", "time_zone", "foreign_key_checks", "unique_checks")
    (before,) = connection.ask(f"SELECT {', '.join(f'@@SESSION.{name}' for name in settings)}")
    connection.ask(mysql_script.SESSION)
    try:
        yield
    finally:
        with suppress(TenantryError, Refused):
            for name, value in zip(settings, before, strict=True):
                connection.ask(f"SET SESSION {name} = %s", int(value) if name.endswith("checks") else value)


def _list(columns: Sequence[str]) -> str:
    return ", ".join(map(quote, columns))
