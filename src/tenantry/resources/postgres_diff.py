"""The statements that make one PostgreSQL database what another one is, by their catalogs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from psycopg import sql
from psycopg.rows import dict_row

from tenantry.resources.postgres_dialect import Connection
from tenantry.resources.postgres_shape import NAME, OURS, beginnings, begun, qualified, shape

Row = Mapping[str, Any]
_IDENT: Final = "format('%I.%I', n.nspname, {})"
"""A qualified name, quoted by the server's own function."""

_TABLES: Final = """
SELECT 'table ' || {name} AS key, c.oid::bigint AS oid, {ident} AS ident, c.relkind::text AS kind,
  quote_ident(pg_get_userbyid(c.relowner)) AS role,
  c.relpersistence = 'u' AS unlogged, c.relrowsecurity AS secured, c.relforcerowsecurity AS forced,
  pg_get_partkeydef(c.oid) IS NOT NULL OR c.relpartbound IS NOT NULL OR c.relkind = 'f' AS special,
  ARRAY(SELECT jsonb_build_object('name', quote_ident(a.attname), 'type', format_type(a.atttypid, a.atttypmod),
      'required', a.attnotnull, 'identity', a.attidentity, 'generated', a.attgenerated,
      'collation', nullif(a.attcollation::regcollation::text, '-'), 'default', pg_get_expr(d.adbin, d.adrelid))
    FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f') AND {ours}
ORDER BY c.oid"""

_SEQUENCES: Final = """
SELECT 'sequence ' || {name} AS key, {ident} AS ident, format('AS %s INCREMENT %s MINVALUE %s MAXVALUE %s START %s%s',
    s.seqtypid::regtype, s.seqincrement, s.seqmin, s.seqmax, s.seqstart, CASE WHEN s.seqcycle THEN ' CYCLE' ELSE ' NO CYCLE' END) AS terms,
  (SELECT ARRAY[d.refobjid::regclass::text, quote_ident(a.attname)] FROM pg_depend d
    JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE d.objid = c.oid AND d.deptype = 'a' AND d.classid = 'pg_class'::regclass LIMIT 1) AS owner,
  EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'i' AND d.classid = 'pg_class'::regclass) AS identity
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_sequence s ON s.seqrelid = c.oid WHERE {ours}"""  # noqa: E501

_VIEWS: Final = """
SELECT CASE c.relkind WHEN 'v' THEN 'view ' ELSE 'materialized view ' END || {name} AS key, {ident} AS ident,
  CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'MATERIALIZED VIEW' END AS word, pg_get_viewdef(c.oid) AS body,
  array_to_string(c.reloptions, ', ') AS options
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm') AND {ours} ORDER BY c.oid"""

_INDEXES: Final = """
SELECT 'index ' || {name} AS key, {ident} AS ident, i.indrelid::bigint AS owner, pg_get_indexdef(c.oid) AS made
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_index i ON i.indexrelid = c.oid
WHERE {ours} AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid)"""

_CONSTRAINTS: Final = """
SELECT 'constraint ' || coalesce(k.conrelid::regclass::text || ' ', '') || k.conname AS key, quote_ident(k.conname) AS ident,
  k.conrelid::bigint AS owner, k.contype::text AS kind, pg_get_constraintdef(k.oid) AS body, k.confrelid::bigint AS target,
  CASE WHEN k.conrelid = 0 THEN 'DOMAIN ' || format_type(k.contypid, NULL) ELSE 'TABLE ' || k.conrelid::regclass END AS on
FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND {ours} ORDER BY k.contype = 'f', k.contype = 'c', k.oid"""  # noqa: E501

_FUNCTIONS: Final = """
SELECT 'function ' || {name} || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS key,
  p.oid::bigint AS oid, p.oid::regprocedure::text AS ident, pg_get_function_result(p.oid) AS result,
  pg_get_function_arguments(p.oid) AS arguments, CASE p.prokind WHEN 'a' THEN NULL ELSE pg_get_functiondef(p.oid) END AS made
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {ours} ORDER BY p.oid"""  # noqa: E501

_TRIGGERS: Final = """
SELECT 'trigger ' || {name} || ' ' || t.tgname AS key, quote_ident(t.tgname) AS ident, {ident} AS on,
  c.oid::bigint AS owner, t.tgfoid::bigint AS function, pg_get_triggerdef(t.oid) AS made, t.tgenabled::text AS enabled
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND {ours} ORDER BY t.oid"""

_TYPES: Final = """
SELECT CASE t.typtype WHEN 'd' THEN 'domain ' ELSE 'type ' END || {name} AS key, format_type(t.oid, NULL) AS ident,
  t.typtype::text AS kind, t.typnotnull AS required, t.typdefault AS default, format_type(nullif(t.typbasetype, 0), t.typtypmod) AS base,
  ARRAY(SELECT quote_literal(e.enumlabel) FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder) AS labels,
  ARRAY(SELECT quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
    WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS fields
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class r ON r.oid = t.typrelid
WHERE (t.typtype IN ('e', 'd', 'r') OR r.relkind = 'c') AND {ours} ORDER BY t.oid"""  # noqa: E501

_POLICIES: Final = """
SELECT 'policy ' || {name} || ' ' || o.polname AS key, quote_ident(o.polname) AS ident, {ident} AS on, c.oid::bigint AS owner,
  format('AS %s FOR %s TO %s%s%s', CASE WHEN o.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
    CASE o.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
    (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ') FROM unnest(o.polroles) r),
    ' USING (' || pg_get_expr(o.polqual, o.polrelid) || ')', ' WITH CHECK (' || pg_get_expr(o.polwithcheck, o.polrelid) || ')') AS body
FROM pg_policy o JOIN pg_class c ON c.oid = o.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {ours}"""  # noqa: E501

_SCHEMAS: Final = """
SELECT 'schema ' || n.nspname AS key, quote_ident(n.nspname) AS ident FROM pg_namespace n
WHERE n.nspname <> 'public' AND {ours}"""

_EXTENSIONS: Final = """
SELECT 'extension ' || extname AS key, quote_ident(extname) AS ident FROM pg_extension WHERE extname <> 'plpgsql'"""

_QUERIES: Final = {
    "tables": (_TABLES, "c.relname", "c.oid", "pg_class"),
    "sequences": (_SEQUENCES, "c.relname", "c.oid", "pg_class"),
    "views": (_VIEWS, "c.relname", "c.oid", "pg_class"),
    "indexes": (_INDEXES, "c.relname", "c.oid", "pg_class"),
    "constraints": (_CONSTRAINTS, "k.conname", "coalesce(nullif(k.conrelid, 0), k.contypid)", "pg_class"),
    "functions": (_FUNCTIONS, "p.proname", "p.oid", "pg_proc"),
    "triggers": (_TRIGGERS, "c.relname", "c.oid", "pg_class"),
    "types": (_TYPES, "t.typname", "t.oid", "pg_type"),
    "policies": (_POLICIES, "c.relname", "c.oid", "pg_class"),
    "schemas": (_SCHEMAS, "n.nspname", "n.oid", "pg_namespace"),
    "extensions": (_EXTENSIONS, "", "0", "pg_class"),
}


class Catalog:
    """What a database is made of, each thing by the name that its shape has for it.

    With a beginning only what is named so, told as if it were `named` instead.
    """

    def __init__(self, connection: Connection, beginning: str = "", named: str = "") -> None:
        told = partial(_told, beginnings(beginning, named)) if beginning else dict
        with qualified(connection):
            self._kinds = {kind: told(_read(connection, beginning, *query)) for kind, query in _QUERIES.items()}
        self.shape = shape(connection, beginning, named)
        self._owners = {table["oid"]: key for key, table in self.tables.items()}

    def __getattr__(self, kind: str) -> dict[str, Row]:
        return self._kinds[kind]

    def table_of(self, row: Row, field: str = "owner") -> str | None:
        """The name of the table that a constraint, index, trigger or policy is of."""
        return self._owners.get(row[field])


def _read(connection: Connection, beginning: str, text: str, column: str, oid: str, catalog: str) -> dict[str, Row]:
    """What one query finds; nothing else is so much as described, for others may be dropping it at this moment."""
    query: sql.SQL | sql.Composed = sql.SQL(
        text.format(name=NAME.format(column), ident=_IDENT.format(column), ours=OURS.format(oid=oid, catalog=catalog))
    )
    if beginning:
        query = sql.SQL("SELECT * FROM ({}) AS found WHERE key ~ {}").format(query, begun(beginning))
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query).fetchall()
    return {row["key"].replace("public.", ""): row for row in rows}


def _told(renamed: Callable[[str], str], rows: Mapping[str, Row]) -> dict[str, Row]:
    """The same by other names."""
    return {renamed(key): _renamed(row, renamed) for key, row in rows.items()}


def _renamed(value: Any, renamed: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return renamed(value)
    if isinstance(value, list):
        return [_renamed(one, renamed) for one in value]
    return {key: _renamed(one, renamed) for key, one in value.items()} if isinstance(value, dict) else value


def statements(golden: Connection | Catalog, found: Connection | Catalog) -> tuple[str, ...]:
    """What to run in `found`, in this order, so that it is made of what `golden` is made of.

    What cannot be said in a statement ends the list as comments that begin with "-- by hand". Statements that lose
    data have a comment before them that says so.
    """
    then, now = (one if isinstance(one, Catalog) else Catalog(one) for one in (golden, found))
    return tuple(_Difference(then, now).statements())


@dataclass(slots=True)
class _Changes:
    """The things of one kind that differ."""

    missing: dict[str, Row]
    extra: dict[str, Row]
    changed: dict[str, tuple[Row, Row]]  # as it is to be, and as it is

    @property
    def gone(self) -> dict[str, Row]:
        """What is dropped: the extra ones, and the changed as they are."""
        return self.extra | {key: now for key, (_, now) in self.changed.items()}

    @property
    def made(self) -> dict[str, Row]:
        """What is made: the missing ones, and the changed as they are to be."""
        return self.missing | {key: then for key, (then, _) in self.changed.items()}

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra or self.changed)


class _Difference:
    """The way from one catalog to the other: first what goes, then what comes, each in the order it can."""

    def __init__(self, golden: Catalog, found: Catalog) -> None:
        self.golden, self.found = golden, found
        self.by_hand: list[str] = []
        self.tables, self.types = self._changes("tables"), self._changes("types")
        self.functions, self.sequences = self._changes("functions"), self._changes("sequences")
        self._replaced = {
            now["oid"]
            for then, now in self.functions.changed.values()
            if (then["result"], then["arguments"]) != (now["result"], now["arguments"])
        } | {row["oid"] for row in self.functions.extra.values()}
        self.constraints = self._changes("constraints", self._keyed)
        self.indexes, self.policies = self._changes("indexes"), self._changes("policies")
        self.triggers = self._changes("triggers", lambda row: row["function"] in self._replaced)
        moved = self.tables or self.types or self._replaced
        self.views = self._changes("views", (lambda _: True) if moved or self._views_differ() else None)

    def _changes(self, kind: str, also: Callable[[Row], bool] | None = None) -> _Changes:
        """How the things of a kind differ; `also` names more of those found that are to be made anew."""
        then, now = self.golden._kinds[kind], self.found._kinds[kind]
        wanted, there = self.golden.shape, self.found.shape
        both = [key for key in then if key in now and key in wanted]
        return _Changes(
            {key: row for key, row in then.items() if key in wanted and key not in now},
            {key: row for key, row in now.items() if key in there and key not in then},
            {key: (then[key], now[key]) for key in both if wanted[key] != there.get(key) or (also and also(now[key]))},
        )

    def _views_differ(self) -> bool:
        return bool(self._changes("views"))

    def _keyed(self, row: Row) -> bool:
        """Whether a foreign key refers to a table whose keys are made anew."""
        keys = self._changes("constraints").gone.values()
        return row["kind"] == "f" and row["target"] in {key["owner"] for key in keys if key["kind"] in "pu"}

    def statements(self) -> Iterator[str]:
        """All of them."""
        made = [*self._going(), *self._coming()]
        if made:
            yield "SET check_function_bodies = off"
        yield from made
        yield from (f"-- by hand: {what}" for what in sorted(self.by_hand))

    # --- what goes ---

    def _going(self) -> Iterator[str]:
        here = self._stays
        yield from (f"DROP TRIGGER {r['ident']} ON {r['on']}" for r in here(self.triggers.gone))
        yield from (f"DROP POLICY {r['ident']} ON {r['on']}" for r in here(self.policies.gone))
        yield from (f"DROP {r['word']} IF EXISTS {r['ident']} CASCADE" for r in self.views.gone.values())
        going = sorted(here(self.constraints.gone), key=lambda row: row["kind"] != "f")
        yield from (f"ALTER {r['on']} DROP CONSTRAINT {r['ident']}" for r in going)
        yield from (f"DROP INDEX {r['ident']}" for r in here(self.indexes.gone))
        yield from self._columns(self._leave)
        if self.tables.extra:
            names = ", ".join(row["ident"] for row in self.tables.extra.values())
            yield f"-- loses the rows of {names}\nDROP TABLE {names}"
        replaced = [row["ident"] for row in self.functions.gone.values() if row["oid"] in self._replaced]
        yield from (f"DROP ROUTINE {name}" for name in replaced)
        extra = (row for row in self.sequences.extra.values() if not row["identity"])
        yield from (f"DROP SEQUENCE IF EXISTS {row['ident']}" for row in extra)
        kinds = ((r["ident"], "DOMAIN" if r["kind"] == "d" else "TYPE") for r in self.types.extra.values())
        yield from (f"DROP {word} {name}" for name, word in kinds)
        yield from (f"DROP EXTENSION {row['ident']}" for row in self._changes("extensions").extra.values())
        yield from (f"DROP SCHEMA {row['ident']}" for row in self._changes("schemas").extra.values())

    def _stays(self, rows: Mapping[str, Row]) -> list[Row]:
        """Those whose table is not dropped with all that is on it."""
        return [row for row in rows.values() if self.found.table_of(row) not in self.tables.extra]

    def _columns(self, change: Callable[[str, Row | None, Row | None], Iterable[str]]) -> Iterator[str]:
        """What a change says to each pair of columns of the tables that differ."""
        for then, now in self.tables.changed.values():
            wanted = {column["name"]: column for column in then["columns"]}
            there = {column["name"]: column for column in now["columns"]}
            for name in [*wanted, *(name for name in there if name not in wanted)]:
                if wanted.get(name) != there.get(name):
                    yield from change(now["ident"], wanted.get(name), there.get(name))

    def _leave(self, table: str, then: Row | None, now: Row | None) -> Iterator[str]:
        if now is None:
            return
        column = f"ALTER TABLE {table} ALTER COLUMN {now['name']}"
        if then is None or then["generated"] != now["generated"] or (now["generated"] and now != then):
            kept = "" if now["generated"] else f"-- loses what is in the column {now['name']}\n"
            yield f"{kept}ALTER TABLE {table} DROP COLUMN {now['name']}"
        elif now["identity"] and not then["identity"]:
            yield f"{column} DROP IDENTITY"
        elif now["default"] is not None and (then["default"] != now["default"] or then["type"] != now["type"]):
            yield f"{column} DROP DEFAULT"

    # --- what comes ---

    def _coming(self) -> Iterator[str]:
        yield from (f"CREATE SCHEMA {row['ident']}" for row in self._changes("schemas").missing.values())
        yield from (f"CREATE EXTENSION {row['ident']}" for row in self._changes("extensions").missing.values())
        yield from self._types()
        yield from self._sequences()
        for key, row in self.functions.made.items():
            if row["made"] is None:
                self.by_hand.append(f"{key} is missing or differs")
            else:
                yield row["made"].rstrip()
        yield from self._tables()
        yield from self._owned()
        wanted = self.constraints.made.values()
        yield from (f"ALTER {r['on']} ADD CONSTRAINT {r['ident']} {r['body']}" for r in wanted)
        yield from map(_view, self._in_order("views"))
        yield from (row["made"] for row in self._in_order("indexes"))
        for row in self.triggers.made.values():
            yield row["made"]
            if row["enabled"] != "O":
                yield f"ALTER TABLE {row['on']} {_ENABLED[row['enabled']]} TRIGGER {row['ident']}"
        yield from (f"CREATE POLICY {r['ident']} ON {r['on']} {r['body']}" for r in self.policies.made.values())

    def _owned(self) -> Iterator[str]:
        """What ties sequences to their columns: both have to belong to the same role."""
        roles = {row["ident"]: row["role"] for row in self.found.tables.values()}
        for row in self.sequences.made.values():
            if row["owner"] and not row["identity"]:
                table, column = row["owner"]
                if table in roles:
                    yield f"ALTER SEQUENCE {row['ident']} OWNER TO {roles[table]}"
                yield f"ALTER SEQUENCE {row['ident']} OWNED BY {table}.{column}"

    def _in_order(self, kind: str) -> list[Row]:
        """What is made of a kind, in the order in which the golden one has it; indexes of new views among them."""
        made = getattr(self, kind).made
        if kind == "indexes":
            tables = {table["oid"] for table in self.golden.tables.values()}
            if self.views.made:
                made |= {key: row for key, row in self.golden.indexes.items() if row["owner"] not in tables}
        return [row for key, row in self.golden._kinds[kind].items() if key in made]

    def _types(self) -> Iterator[str]:
        for key, row in self.types.missing.items():
            match row["kind"]:
                case "e":
                    yield f"CREATE TYPE {row['ident']} AS ENUM ({', '.join(row['labels'])})"
                case "d":
                    default = f" DEFAULT {row['default']}" if row["default"] else ""
                    yield f"CREATE DOMAIN {row['ident']} AS {row['base']}{default}{' NOT NULL' * row['required']}"
                case "c":
                    yield f"CREATE TYPE {row['ident']} AS ({', '.join(row['fields'])})"
                case _:
                    self.by_hand.append(f"{key} is missing")
        for key, (then, now) in self.types.changed.items():
            yield from self._type(key, then, now)

    def _type(self, key: str, then: Row, now: Row) -> Iterator[str]:
        """What changes a type that values may be of."""
        labels = [label for label in then["labels"] if label in now["labels"]]
        if then["kind"] == now["kind"] == "d" and then["base"] == now["base"]:
            alter = f"ALTER DOMAIN {now['ident']}"
            yield f"{alter} SET DEFAULT {then['default']}" if then["default"] else f"{alter} DROP DEFAULT"
            yield f"{alter} {'SET' if then['required'] else 'DROP'} NOT NULL"
        elif then["kind"] == now["kind"] == "e" and labels == now["labels"]:
            for number, label in enumerate(then["labels"]):
                if label not in labels:
                    where = f"AFTER {then['labels'][number - 1]}" if number else f"BEFORE {now['labels'][0]}"
                    yield f"ALTER TYPE {now['ident']} ADD VALUE {label} {where}"
        else:
            self.by_hand.append(f"{key} differs: values may be of it")

    def _sequences(self) -> Iterator[str]:
        for row in self.sequences.missing.values():
            if not row["identity"]:
                yield f"CREATE SEQUENCE {row['ident']} {row['terms']}"
        for then, now in self.sequences.changed.values():
            yield f"ALTER SEQUENCE {now['ident']} {then['terms']}"

    def _tables(self) -> Iterator[str]:
        for key, row in self.tables.missing.items():
            if row["special"]:
                self.by_hand.append(f"{key} is missing: it is partitioned or foreign")
                continue
            columns = ",\n  ".join(map(_column, row["columns"]))
            unlogged = "UNLOGGED " if row["unlogged"] else ""
            yield f"CREATE {unlogged}TABLE {row['ident']} (\n  {columns}\n)"
            yield from _security(row["ident"], row, {"secured": False, "forced": False})
        for key, (then, now) in self.tables.changed.items():
            if then["special"] or now["special"]:
                self.by_hand.append(f"{key} differs: it is partitioned or foreign")
            if then["unlogged"] != now["unlogged"]:
                yield f"ALTER TABLE {now['ident']} SET {'UNLOGGED' if then['unlogged'] else 'LOGGED'}"
            yield from _security(now["ident"], then, now)
        yield from self._columns(_arrive)


_ENABLED: Final = {"D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}
_IDENTITY: Final = {"a": "GENERATED ALWAYS AS IDENTITY", "d": "GENERATED BY DEFAULT AS IDENTITY"}


def _view(row: Row) -> str:
    options = f" WITH ({row['options']})" if row["options"] else ""
    return f"CREATE {row['word']} {row['ident']}{options} AS\n{row['body'].rstrip().removesuffix(';')}"


def _security(table: str, then: Row, now: Row) -> Iterator[str]:
    if then["secured"] != now["secured"]:
        yield f"ALTER TABLE {table} {'ENABLE' if then['secured'] else 'DISABLE'} ROW LEVEL SECURITY"
    if then["forced"] != now["forced"]:
        yield f"ALTER TABLE {table} {'FORCE' if then['forced'] else 'NO FORCE'} ROW LEVEL SECURITY"


def _collated(column: Row) -> str:
    return f"{column['type']} COLLATE {column['collation']}" if column["collation"] else str(column["type"])


def _column(column: Row) -> str:
    parts = [column["name"], _collated(column) if column["collation"] != '"default"' else str(column["type"])]
    if column["generated"]:
        parts.append(f"GENERATED ALWAYS AS ({column['default']}) STORED")
    elif column["identity"]:
        parts.append(_IDENTITY[column["identity"]])
    elif column["default"] is not None:
        parts.append(f"DEFAULT {column['default']}")
    if column["required"]:
        parts.append("NOT NULL")
    return " ".join(parts)


def _arrive(table: str, then: Row | None, now: Row | None) -> Iterator[str]:
    """What makes a column, or makes it what it is to be."""
    if then is None:
        return
    if now is None or then["generated"] or now["generated"]:
        yield f"ALTER TABLE {table} ADD COLUMN {_column(then)}"
        return
    column = f"ALTER TABLE {table} ALTER COLUMN {then['name']}"
    if (then["type"], then["collation"]) != (now["type"], now["collation"]):
        yield f"{column} TYPE {_collated(then)} USING {then['name']}::{then['type']}"
    if then["required"] != now["required"]:
        yield f"{column} {'SET' if then['required'] else 'DROP'} NOT NULL"
    if then["identity"] and then["identity"] != now["identity"]:
        words = _IDENTITY[then["identity"]]
        yield f"{column} SET {words.removesuffix(' AS IDENTITY')}" if now["identity"] else f"{column} ADD {words}"
    elif then["default"] is not None and (then["default"] != now["default"] or then["type"] != now["type"]):
        yield f"{column} SET DEFAULT {then['default']}"
