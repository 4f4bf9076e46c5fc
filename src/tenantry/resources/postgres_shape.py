"""What a PostgreSQL database is made of, each thing by its name: so that two databases can be compared."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from psycopg import sql

from tenantry.resources.history import BOOKKEEPING
from tenantry.resources.postgres_dialect import Connection

OURS: Final = r"""
n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.objid = {oid} AND e.classid = '{catalog}'::regclass AND e.deptype = 'e')
"""
"""Neither PostgreSQL's own nor an extension's."""

NAME: Final = "CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || {}"

_RELATIONS: Final = """
SELECT CASE c.relkind WHEN 'S' THEN 'sequence ' WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view '
    WHEN 'c' THEN 'type ' WHEN 'f' THEN 'foreign table ' ELSE 'table ' END || {name},
  concat_ws(' ',
    c.relkind, c.relpersistence, c.relrowsecurity, c.relforcerowsecurity,
    (SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
        a.attgenerated, a.attcollation::regcollation, pg_get_expr(d.adbin, d.adrelid)), ',' ORDER BY a.attname)
      FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind <> 'S'),
    (SELECT concat_ws(' ', s.seqtypid::regtype, s.seqincrement, s.seqmin, s.seqmax, s.seqstart, s.seqcycle)
      FROM pg_sequence s WHERE s.seqrelid = c.oid),
    CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
    pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'S', 'v', 'm', 'c', 'f') AND {ours}"""

_INDEXES: Final = """
SELECT 'index ' || {name}, pg_get_indexdef(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_index i ON i.indexrelid = c.oid
WHERE {ours} AND i.indisvalid AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid)"""

_CONSTRAINTS: Final = """
SELECT 'constraint ' || coalesce(k.conrelid::regclass::text || ' ', '') || k.conname,
  concat_ws(' ', pg_get_constraintdef(k.oid), k.convalidated)
FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND {ours}"""

_FUNCTIONS: Final = """
SELECT 'function ' || {name} || '(' || pg_get_function_identity_arguments(p.oid) || ')',
  CASE p.prokind WHEN 'a' THEN 'aggregate' ELSE pg_get_functiondef(p.oid) END
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {ours}"""

_TRIGGERS: Final = """
SELECT 'trigger ' || {name} || ' ' || t.tgname, concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND {ours}"""

_TYPES: Final = """
SELECT CASE t.typtype WHEN 'd' THEN 'domain ' ELSE 'type ' END || {name},
  concat_ws(' ', t.typtype, t.typnotnull, t.typdefault, format_type(nullif(t.typbasetype, 0), t.typtypmod),
    (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid))
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype IN ('e', 'd', 'r') AND {ours}"""

_POLICIES: Final = """
SELECT 'policy ' || {name} || ' ' || o.polname,
  concat_ws(' ', o.polcmd, o.polpermissive, pg_get_expr(o.polqual, o.polrelid), pg_get_expr(o.polwithcheck, o.polrelid))
FROM pg_policy o JOIN pg_class c ON c.oid = o.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {ours}"""

_REST: Final = """
SELECT 'schema ' || n.nspname, '' FROM pg_namespace n WHERE n.nspname <> 'public' AND {ours}
UNION ALL SELECT 'extension ' || extname, '' FROM pg_extension WHERE extname <> 'plpgsql'"""


def _query() -> str:
    parts = (
        (_RELATIONS, "c.relname", "c.oid", "pg_class"),
        (_INDEXES, "c.relname", "c.oid", "pg_class"),
        (_CONSTRAINTS, "k.conname", "coalesce(nullif(k.conrelid, 0), k.contypid)", "pg_class"),
        (_FUNCTIONS, "p.proname", "p.oid", "pg_proc"),
        (_TRIGGERS, "c.relname", "c.oid", "pg_class"),
        (_TYPES, "t.typname", "t.oid", "pg_type"),
        (_POLICIES, "c.relname", "c.oid", "pg_class"),
        (_REST, "n.nspname", "n.oid", "pg_namespace"),
    )
    made = [
        text.format(name=NAME.format(column), ours=OURS.format(oid=oid, catalog=catalog))
        for text, column, oid, catalog in parts
    ]
    return " UNION ALL ".join(made)


_QUERY: Final = _query()
"""All in one: names unqualified for the schema `public`, definitions qualified in full."""


def shape(connection: Connection, beginning: str = "", named: str = "") -> dict[str, str]:
    """Each table, index, constraint, view, function and so on by its name, with a short hash of its definition.

    Columns count by name: their order may differ after a way back down. With a beginning only what is named so, told
    as if it were `named` instead.
    """
    found = definitions(connection, beginning)
    if beginning:
        bare, other = beginnings(beginning, ""), beginnings(beginning, named)
        return {
            other(name).replace("public.", ""): _hash(other(t)) for name, t in found if not is_bookkeeping(bare(name))
        }
    return {name.replace("public.", ""): _hash(text) for name, text in found if not is_bookkeeping(name)}


def beginnings(old: str, new: str) -> Callable[[str], str]:
    """What lets all names in a text that have one beginning have another one."""
    return partial(re.compile(rf"(?<![\w$]){re.escape(old)}").sub, new)


def begun(beginning: str) -> sql.Literal:
    """The pattern of what a shape calls something whose name begins so."""
    return sql.Literal(f'[ ."]{beginning}')


def definitions(connection: Connection, beginning: str = "") -> list[tuple[str, str]]:
    """The whole of it: each name and definition, in which all is qualified in full; of things whose names begin so."""
    query = sql.SQL("SELECT name, text FROM ({}) AS found (name, text) WHERE name ~ {}")
    with qualified(connection):
        rows = connection.execute(query.format(sql.SQL(_QUERY), begun(beginning))).fetchall()
    return [(str(name), str(text or "")) for name, text in rows]


@contextmanager
def qualified(connection: Connection) -> Iterator[None]:
    """Have the server tell all names in full."""
    with connection.transaction():
        connection.execute("SET LOCAL search_path TO ''")
        yield
        connection.execute("SET LOCAL search_path TO DEFAULT")  # it holds as long as a transaction around this one


def is_bookkeeping(name: str) -> bool:
    """Whether something is a table of the records of migrations, or a part of one; a name alone hides nothing."""
    kind, _, rest = name.partition(" ")
    table = rest.removeprefix("public.")
    return (table if kind == "table" else table.partition(" ")[0] if kind in _PARTS else "") in BOOKKEEPING


_PARTS: Final = ("constraint", "trigger", "policy")
"""What stands under its table's name."""

_CASTS: Final = re.compile(r"::(?:character varying|character|bpchar|text)(?:\(\d+\))?(?:\[\])*|[()\s]")


def _hash(text: str) -> str:
    """A hash without casts between texts and without brackets: the server sets others when a copy is loaded."""
    return hashlib.sha256(_CASTS.sub("", text).encode()).hexdigest()[:10]
