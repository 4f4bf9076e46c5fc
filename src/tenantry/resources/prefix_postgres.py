"""Tables with a prefix in a PostgreSQL database."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, LiteralString

import psycopg
from psycopg import sql

from tenantry.errors import ServerUnavailable
from tenantry.model import Environment, Finding, Server, Usage, new_id
from tenantry.resources import history, postgres_admin, postgres_diff, postgres_scratch, prefix_names
from tenantry.resources.history import BOOKKEEPING
from tenantry.resources.postgres_dialect import Connection, Postgres
from tenantry.resources.postgres_diff import Catalog
from tenantry.resources.postgres_run import RECORD
from tenantry.resources.postgres_shape import definitions, is_bookkeeping
from tenantry.resources.prefix import Part, Prefix
from tenantry.resources.prefix_book import TABLE, Book
from tenantry.resources.schema import Migration
from tenantry.resources.scratch import Seen

if TYPE_CHECKING:
    import sqlalchemy

COUNTED: Final = 64 << 20
"""Bytes up to which a table's rows are counted; those of a larger one are the server's estimate."""

_PROOF: Final = sql.SQL("""
DO $tenantry$ DECLARE odd text; BEGIN
  SELECT string_agg(quote_ident(name), ', ' ORDER BY name) INTO odd FROM (
    SELECT relname AS name, relnamespace AS space FROM pg_class WHERE xmin = pg_current_xact_id()::xid
    UNION SELECT proname, pronamespace FROM pg_proc WHERE xmin = pg_current_xact_id()::xid
    UNION SELECT typname, typnamespace FROM pg_type
      WHERE xmin = pg_current_xact_id()::xid AND typtype IN ('e', 'd', 'r')
    UNION SELECT relname, relnamespace FROM pg_depend d JOIN pg_class c
      ON c.oid = d.refobjid AND d.refclassid = 'pg_class'::regclass WHERE d.xmin = pg_current_xact_id()::xid
  ) AS made JOIN pg_namespace n ON n.oid = made.space
  WHERE n.nspname !~ '^(pg_|information_schema)' AND NOT starts_with(name, {});
  IF odd IS NOT NULL THEN RAISE EXCEPTION 'it makes or changes what has no prefix: %', odd; END IF;
END $tenantry$""")
"""Whatever this transaction wrote into the catalog bears its number; so do keys and views that lead to others."""


class PrefixPostgresDialect(Postgres):
    """PostgreSQL, with the placeholder in all statements written as one prefix."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.record = sql.Identifier(f"{prefix}tenantry_schema")

    def split(self, sql: str, name: str) -> tuple[str, ...]:
        return prefix_names.split(self.parser, super().split, sql, name)

    def proof(self, connection: Connection) -> Sequence[str]:
        return (_PROOF.format(self.prefix).as_string(connection),)

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


class PostgresBook(Book):
    """The book in a PostgreSQL database."""

    table = f"""
CREATE TABLE IF NOT EXISTS {TABLE} (
  prefix text COLLATE "C" PRIMARY KEY,
  owner text NOT NULL,
  resource text NOT NULL,
  state text NOT NULL,
  changed timestamptz NOT NULL DEFAULT now()
)"""

    def ask(self, connection: Connection, statement: str, *values: str) -> Sequence[tuple[Any, ...]]:
        try:
            cursor = connection.execute(statement.encode(), values)
        except psycopg.errors.UndefinedTable:
            return []
        return cursor.fetchall() if cursor.description else []

    def make(self, connection: Connection) -> None:
        with postgres_admin.locked(connection, TABLE):  # two that make it at once would meet in the catalog
            connection.execute(self.table.encode())


_THINGS: Final = """
SELECT CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
    WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, relname::text, NULL
FROM pg_class c WHERE relnamespace = current_schema()::regnamespace AND starts_with(relname, %(prefix)s)
  AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND NOT relispartition
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND relkind = 'S' AND d.deptype IN ('a', 'i'))
UNION ALL SELECT 'ROUTINE', proname::text, pg_get_function_identity_arguments(oid)
FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND starts_with(proname, %(prefix)s)
UNION ALL SELECT CASE typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, typname::text, NULL
FROM pg_type WHERE typnamespace = current_schema()::regnamespace AND starts_with(typname, %(prefix)s)
  AND typtype IN ('e', 'd', 'r')
ORDER BY 1, 2"""

_CROSSINGS: Final = """
SELECT 'the foreign key ' || k.conname || ' leads from ' || a.relname || ' to ' || b.relname
FROM pg_constraint k JOIN pg_class a ON a.oid = k.conrelid JOIN pg_class b ON b.oid = k.confrelid
WHERE k.contype = 'f' AND starts_with(a.relname, %(prefix)s) <> starts_with(b.relname, %(prefix)s)
UNION SELECT 'the view ' || v.relname || ' shows ' || t.relname
FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
JOIN pg_class v ON v.oid = r.ev_class JOIN pg_class t ON t.oid = d.refobjid AND d.refclassid = 'pg_class'::regclass
JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE starts_with(v.relname, %(prefix)s) <> starts_with(t.relname, %(prefix)s)
  AND n.nspname !~ '^(pg_|information_schema)'
ORDER BY 1"""

_TABLES: Final = """
SELECT c.relname::text, array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attname IS NOT NULL)
FROM pg_class c LEFT JOIN pg_attribute a
  ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND starts_with(c.relname, %s)
GROUP BY c.relname ORDER BY c.relname"""

_KEYS: Final = """
SELECT c.relname::text, k.conname::text, pg_get_constraintdef(k.oid)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
WHERE k.contype = 'f' AND k.conparentid = 0 AND starts_with(c.relname, %s) ORDER BY 1, 2"""

_TRIGGERS: Final = """
SELECT c.relname::text, t.tgname::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND t.tgenabled = 'O' AND starts_with(c.relname, %s) ORDER BY 1, 2"""

_SEQUENCES: Final = """
SELECT relname::text, seqincrement FROM pg_class JOIN pg_sequence ON seqrelid = oid
WHERE relnamespace = current_schema()::regnamespace AND starts_with(relname, %s) ORDER BY 1"""

_SIZE: Final = """
SELECT relname::text, pg_total_relation_size(oid), greatest(reltuples, 0)::bigint FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'm') AND starts_with(relname, %s)"""


class PostgresPrefix(Prefix):
    """The kind `prefix` on PostgreSQL."""

    server_kind = "postgres"
    faults = (OSError, psycopg.Error)
    dialect = PrefixPostgresDialect()
    book = PostgresBook()

    @classmethod
    def _probe(cls, server: Server) -> list[Finding]:
        return postgres_admin.probe(server, databases=False)

    @contextmanager
    def _connect(self, server: Server, database: str) -> Iterator[Connection]:
        try:
            with postgres_admin.connected_to(server, database) as connection:
                yield connection
        except ServerUnavailable:
            self.setting.servers.silent(server.name)
            raise

    @contextmanager
    def _locked(self, connection: Connection, name: str) -> Iterator[None]:
        with postgres_admin.locked(connection, name):
            yield

    def _is_free(self, connection: Connection, name: str) -> bool:
        with postgres_admin.tried(connection, name) as free:
            return free

    def _objects(self, connection: Connection, prefix: str) -> list[str]:
        return [str(name) for _, name, _ in connection.execute(_THINGS, {"prefix": prefix})]

    def _clear(self, connection: Connection, prefix: str) -> None:
        """All or nothing. What another thing still needs is tried again behind it; what others need is refused."""
        with connection.transaction():
            left = self._drops(connection, prefix)
            while left:
                again = [one for one in left if self._refused(connection, one)]
                if len(again) == len(left):
                    connection.execute(left[0])
                left = again

    def _drops(self, connection: Connection, prefix: str) -> list[sql.Composed]:
        found = connection.execute(_THINGS, {"prefix": prefix}).fetchall()
        tables = [sql.Identifier(name) for kind, name, _ in found if kind == "TABLE"]
        drops = [
            sql.SQL("DROP {} {}{}").format(
                sql.SQL(kind), sql.Identifier(name), sql.SQL("" if arguments is None else f"({arguments})")
            )
            for kind, name, arguments in found
            if kind != "TABLE"
        ]
        return [*drops, *([sql.SQL("DROP TABLE {}").format(sql.SQL(", ").join(tables))] if tables else [])]

    def _refused(self, connection: Connection, statement: sql.Composed) -> bool:
        try:
            with connection.transaction():
                connection.execute(statement)
        except psycopg.errors.DependentObjectsStillExist:
            return True
        return False

    def _look(self, connection: Connection, prefix: str) -> dict[str, str]:
        ((space,),) = connection.execute("SELECT current_schema()").fetchall()
        own = re.compile(rf"(?<![\w$]){re.escape(prefix)}")

        def plain(text: str) -> str:
            return own.sub("", text.replace(f"{space}.", ""))

        found = {plain(name): plain(text) for name, text in definitions(connection, prefix)}
        return {name: text for name, text in found.items() if not is_bookkeeping(name)}

    def _crossings(self, connection: Connection, prefix: str) -> list[str]:
        return [str(what) for (what,) in connection.execute(_CROSSINGS.encode(), {"prefix": prefix})]

    def _way(self, golden: Part, found: Part) -> tuple[str, ...]:
        return postgres_diff.statements(Catalog(*golden, named=found[1]), Catalog(*found, named=found[1]))

    def _run(self, connection: Connection, statement: str) -> None:
        connection.execute(statement.encode())

    def _taken(self, connection: Connection, prefix: str) -> int:
        return sum(int(size) for _, size, _ in connection.execute(_SIZE, (prefix,)))

    @contextmanager
    def _watching(
        self, beside: Connection, inner: Connection, prefix: str, room: int
    ) -> Iterator[Callable[[], AbstractContextManager[Seen]]]:
        watch = _Watch(beside, room, prefix, inner.info.backend_pid, partial(self._taken, beside, prefix))
        watch.begin(self._at(prefix).dialect.record)
        yield watch.over

    def _size(self, connection: Connection, prefix: str) -> Usage:
        taken = rows = 0
        for name, size, estimate in connection.execute(_SIZE, (prefix,)).fetchall():
            taken += int(size)
            if name.removeprefix(prefix) in BOOKKEEPING:
                continue
            if size > COUNTED:
                rows += int(estimate)
            else:
                query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))
                rows += int((connection.execute(query).fetchone() or (0,))[0])
        return Usage(bytes=taken, rows=rows)

    def _enrol(self, env: Environment, login: str, password_hash: str, role: str, name: str) -> None:
        table = sql.Identifier(f"{self._parts(env)[1]}tenantry_user")
        statement = sql.SQL(
            "INSERT INTO {table} AS known (id, login, role, password, created, name) VALUES (%s, %s, %s, %s, %s, %s) "
            "ON CONFLICT (login) DO UPDATE SET password = excluded.password, role = excluded.role, "
            "active = 1, epoch = known.epoch + 1"
        ).format(table=table)
        with self._open(env) as connection:
            connection.execute(statement, (new_id(), login.lower(), role, password_hash, history.now(), name))

    # --- copies ---

    @contextmanager
    def _snapshot(self, connection: Connection) -> Iterator[None]:
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield

    def _tables(self, connection: Connection, prefix: str) -> dict[str, list[str]]:
        found = {name.removeprefix(prefix): columns or [] for name, columns in connection.execute(_TABLES, (prefix,))}
        return {name: columns for name, columns in found.items() if name not in BOOKKEEPING and columns}

    def _counters(self, connection: Connection, prefix: str) -> dict[str, int]:
        counters = {}
        for name, step in connection.execute(_SEQUENCES, (prefix,)).fetchall():
            query = sql.SQL("SELECT last_value + CASE WHEN is_called THEN {} ELSE 0 END FROM {}")
            row = connection.execute(query.format(sql.Literal(step), sql.Identifier(name))).fetchone()
            counters[name.removeprefix(prefix)] = int(row[0]) if row else 1
        return counters

    def _set_counters(self, connection: Connection, prefix: str, counters: dict[str, int]) -> None:
        for name, value in counters.items():
            place = sql.Identifier(f"{prefix}{name}").as_string(connection)
            connection.execute("SELECT setval(%s::regclass, %s, false)", (place, value))

    @contextmanager
    def _filling(self, connection: Connection, prefix: str) -> Iterator[None]:
        with connection.transaction():
            keys = connection.execute(_KEYS, (prefix,)).fetchall()
            triggers = connection.execute(_TRIGGERS, (prefix,)).fetchall()
            names = [sql.Identifier(prefix + table) for table in self._tables(connection, prefix)]
            for table, key, _ in keys:
                _alter(connection, table, "DROP CONSTRAINT", key)
            for table, trigger in triggers:
                _alter(connection, table, "DISABLE TRIGGER", trigger)
            if names:
                connection.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(names)))
            yield
            for table, trigger in triggers:
                _alter(connection, table, "ENABLE TRIGGER", trigger)
            for table, key, definition in keys:
                _alter(connection, table, "ADD CONSTRAINT", key, definition)

    def _write_rows(self, connection: Connection, table: str, columns: list[str]) -> Iterator[bytes]:
        query = sql.SQL("COPY {} ({}) TO STDOUT").format(sql.Identifier(table), _list(columns))
        with connection.cursor().copy(query) as out:
            for line in out:
                yield bytes(line)

    def _read_rows(self, connection: Connection, table: str, columns: list[str], lines: Iterator[bytes]) -> None:
        query = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), _list(columns))
        with connection.cursor().copy(query) as into:
            for line in lines:
                into.write(line)

    def _copy_rows(self, connection: Connection, source: str, target: str, columns: list[str]) -> None:
        statement = sql.SQL("INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {}")
        connection.execute(statement.format(sql.Identifier(target), sql.Identifier(source), columns=_list(columns)))


class _Watch(postgres_scratch.Watch):
    """Looks on while migrations run on the tables of one prefix, beside all others of the database."""

    def __init__(self, connection: Connection, room: int, prefix: str, pid: int, taken: Callable[[], int]) -> None:
        super().__init__(connection, room)
        self._prefix, self._pid, self._taken = prefix, pid, taken

    def begin(self, record: sql.Composable | None) -> None:
        if record is not None:
            self._connection.execute(RECORD.format(record=record))
        own = [sql.Identifier(f"{self._prefix}{name}") for name in ("tenantry_rehearsal", "tenantry_schema")]
        self._tell(f"{self._prefix}tenantry", own[0], own[1:])

    def _tables(self) -> dict[int, tuple[str, int | None]]:
        known = {oid: (name.rpartition(".")[2], file) for oid, (name, file) in super()._tables().items()}
        own = {oid: (name, file) for oid, (name, file) in known.items() if name.startswith(self._prefix)}
        bare = {oid: (name.removeprefix(self._prefix), file) for oid, (name, file) in own.items()}
        return {oid: (name, file) for oid, (name, file) in bare.items() if name not in BOOKKEEPING}

    def _look(self) -> tuple[float, list[str]]:
        row = self._connection.execute(f"{postgres_scratch.LOOK[:-1]} AND pid = {self._pid})".encode()).fetchone()
        assert row is not None
        return row[0], row[1]

    def _size(self) -> int:
        return self._taken()

    def _end(self) -> None:
        self._connection.execute("SELECT pg_terminate_backend(%s)", (self._pid,))


def _list(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _alter(connection: Connection, table: str, change: LiteralString, name: str, definition: str = "") -> None:
    """Change a table; a definition is in the server's own words."""
    words = (sql.SQL("ALTER TABLE"), sql.Identifier(table), sql.SQL(change), sql.Identifier(name))
    connection.execute(sql.SQL(" ").join([*words, sql.SQL(definition)]))
