"""The tables that tenants share, in the order of their foreign keys."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from tenantry.resources.postgres_dialect import Connection
from tenantry.resources.rows_plan import SETTING, TENANT

MARKER: Final = "tenantry_tenants"
"""The table with a row for each tenant that has its rows here."""

MARKER_TABLE: Final = f"""
CREATE TABLE IF NOT EXISTS public.{MARKER} (
  {TENANT} uuid NOT NULL PRIMARY KEY,
  slug text NOT NULL,
  created timestamptz NOT NULL DEFAULT now()
)"""

TRACE: Final = "tenantry_trace"
"""The table that holds a tenant's canary while the isolation is verified."""

TRACE_TABLE: Final = f"CREATE TABLE IF NOT EXISTS public.{TRACE} (canary varchar(100) PRIMARY KEY)"

_QUERY: Final = """
SELECT c.oid, n.nspname, c.relname, c.relkind = 'p',
  ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    AND a.attgenerated = '' AND a.attname <> %(tenant)s ORDER BY a.attnum),
  ARRAY(SELECT k.confrelid::bigint FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'f'),
  EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A'))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname !~ '^pg_'
AND {which}
AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.objid = c.oid AND e.classid = 'pg_class'::regclass AND e.deptype = 'e')
ORDER BY n.nspname, c.relname"""


_TENANTS: Final = _QUERY.format(
    which="EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = %(tenant)s "
    "AND a.atttypid = 'uuid'::regtype AND NOT a.attisdropped)"
)
_SHARED: Final = _QUERY.format(
    which="ARRAY[n.nspname || '.' || c.relname, CASE n.nspname WHEN 'public' THEN c.relname END] && %(shared)s"
)


@dataclass(frozen=True, slots=True)
class Table:
    """A table in which each row belongs to a tenant, or to all."""

    oid: int
    schema: str
    name: str
    parted: bool  # it has partitions, which go with it
    columns: tuple[str, ...]  # but for the tenant, and those the server generates
    references: frozenset[int]  # tables that its foreign keys lead to
    triggers: bool  # whether it has triggers of its own

    @property
    def shown(self) -> str:
        """Its name for people; in the schema `public` without it."""
        return self.name if self.schema == "public" else f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        """Its name as SQL."""
        return sql.Identifier(self.schema, self.name)

    @property
    def only(self) -> sql.Composable:
        """Its own rows: those of tables that inherit from it are theirs."""
        return self.identifier if self.parted else sql.SQL("ONLY {}").format(self.identifier)

    def of(self, key: str) -> sql.Composable:
        """What follows FROM where the rows of a tenant are asked for."""
        return sql.SQL("{} WHERE {} = {}").format(self.only, sql.Identifier(TENANT), key)

    @property
    def listed(self) -> sql.Composable:
        """Its columns as SQL."""
        return sql.SQL(", ").join(map(sql.Identifier, self.columns))


@contextmanager
def working_for(connection: Connection, key: str) -> Iterator[None]:
    """One transaction that works for the tenant of this key: the policies hold for the owner, too."""
    with connection.transaction():
        connection.execute("SELECT set_config(%s, %s, true)", (SETTING, key))
        yield


def tables(connection: Connection, shared: Collection[str]) -> list[list[Table]]:
    """The tables but the markers', those that others refer to first; such as refer to one another are in one list."""
    apart = {MARKER, *shared}
    found = _read(connection, _TENANTS, {"tenant": TENANT})
    return in_order([one for one in found if not {one.shown, f"{one.schema}.{one.name}"} & apart])


def common(connection: Connection, shared: Collection[str]) -> list[Table]:
    """The tables whose rows belong to all tenants."""
    return _read(connection, _SHARED, {"tenant": TENANT, "shared": list(shared)})


def _read(connection: Connection, query: str, values: Mapping[str, object]) -> list[Table]:
    rows = connection.execute(query.encode(), values).fetchall()
    return [Table(*row[:4], tuple(row[4]), frozenset(row[5]), row[6]) for row in rows]  # type: ignore[call-arg]


def in_order(found: Sequence[Table]) -> list[list[Table]]:
    """Strongly connected components, each after those it leads to (Tarjan, SIAM Journal on Computing 1(2), 1972)."""
    return _Ordering({table.oid: table for table in found}).groups


class _Ordering:
    def __init__(self, found: Mapping[int, Table]) -> None:
        self.groups: list[list[Table]] = []
        self._found = found
        self._number: dict[int, int] = {}
        self._lowest: dict[int, int] = {}
        self._stack: list[int] = []
        for oid in found:
            if oid not in self._number:
                self._walk(oid)

    def _walk(self, start: int) -> None:
        """Without recursion: chains of foreign keys may be long."""
        path = [(start, self._enter(start))]
        while path:
            oid, rest = path[-1]
            following = next(rest, None)
            if following is None:
                path.pop()
                if path:
                    before = path[-1][0]
                    self._lowest[before] = min(self._lowest[before], self._lowest[oid])
                self._leave(oid)
            elif following not in self._number:
                path.append((following, self._enter(following)))
            elif following in self._stack:
                self._lowest[oid] = min(self._lowest[oid], self._number[following])

    def _enter(self, oid: int) -> Iterator[int]:
        self._number[oid] = self._lowest[oid] = len(self._number)
        self._stack.append(oid)
        return iter(sorted(self._found[oid].references & self._found.keys()))

    def _leave(self, oid: int) -> None:
        if self._lowest[oid] == self._number[oid]:
            start = self._stack.index(oid)
            self.groups.append([self._found[one] for one in self._stack[start:]])
            del self._stack[start:]


def flat(groups: Sequence[Sequence[Table]]) -> list[Table]:
    """All tables of these lists."""
    return [table for group in groups for table in group]


# --- the marker ---------------------------------------------------------------------------------------------------


def is_marked(connection: Connection, key: str) -> bool:
    """Whether the tenant of this key has its rows here."""
    words = sql.SQL("SELECT 1 FROM public.{} WHERE {} = %s").format(sql.Identifier(MARKER), sql.Identifier(TENANT))
    return connection.execute(words, (key,)).fetchone() is not None


def mark(connection: Connection, key: str, slug: str) -> bool:
    """Note that the tenant has its rows here; whether that is new. A second one who does so waits for the first."""
    words = sql.SQL(
        "INSERT INTO public.{marker} ({tenant}, slug) VALUES (%s, %s) "
        "ON CONFLICT ({tenant}) DO UPDATE SET slug = excluded.slug RETURNING xmax = 0"
    ).format(marker=sql.Identifier(MARKER), tenant=sql.Identifier(TENANT))
    row = connection.execute(words, (key, slug)).fetchone()
    return bool(row and row[0])


def unmark(connection: Connection, key: str) -> None:
    """Forget the tenant."""
    words = sql.SQL("DELETE FROM public.{} WHERE {} = %s").format(sql.Identifier(MARKER), sql.Identifier(TENANT))
    connection.execute(words, (key,))


# --- a tenant's rows ----------------------------------------------------------------------------------------------


def holders(connection: Connection, found: Sequence[Table], key: str) -> list[str]:
    """The tables that hold rows of a tenant, by name."""
    if not found:
        return []
    words = sql.SQL("SELECT {} WHERE EXISTS (SELECT FROM {} WHERE {} = {})")
    parts = [words.format(table.shown, table.only, sql.Identifier(TENANT), key) for table in found]
    return [str(name) for (name,) in connection.execute(sql.SQL(" UNION ALL ").join(parts))]


def measure(connection: Connection, found: Sequence[Table], key: str) -> tuple[int, int]:
    """Bytes and number of a tenant's rows. Indexes and what the server keeps beside a row are not counted."""
    words = sql.SQL("SELECT count(*), coalesce(sum(pg_column_size(t.*)), 0) FROM {} AS t WHERE t.{} = {}")
    rows = size = 0
    for table in found:
        counted = connection.execute(words.format(table.only, sql.Identifier(TENANT), key)).fetchone() or (0, 0)
        rows, size = rows + int(counted[0]), size + int(counted[1])
    return size, rows
