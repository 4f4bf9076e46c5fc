"""Keys that a migration of shared tables writes as if one tenant had the tables for itself.

`REFERENCES page (id)` and `UNIQUE (slug)` are what an application's migrations say, while the keys of tables that
tenants share begin with the tenant. No key over all tenants is made of them, not for a moment: the server reads such a
key on empty stand-ins of the tables, which have the keys that one tenant's own tables would have. What it read is made
on the tables themselves, with the tenant in it. So no meaning is guessed: which columns, which actions, what name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, Final, Self

import psycopg
from psycopg import sql

from tenantry.errors import MigrationError
from tenantry.resources.postgres_run import Connection
from tenantry.resources.rows_inspect import TENANT, Constraint, inspect
from tenantry.resources.rows_plan_case import Case, Phase, Statement, Weakness
from tenantry.resources.rows_plan_tables import FORCE, LIFT, own_column, own_key, own_reference
from tenantry.resources.rows_words import Index, Span, Words, read

Row = tuple[Any, ...]
Run = Callable[[str], object]
"""Sends a statement, or a piece of it, with the values that came with it."""

_TABLE: Final = """
SELECT c.oid::int8, n.nspname, c.relname, EXISTS (SELECT FROM pg_catalog.pg_attribute a
  WHERE a.attrelid = c.oid AND a.attname = %(tenant)s AND a.attnum > 0 AND NOT a.attisdropped)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = pg_catalog.to_regclass(%(name)s) AND c.relkind IN ('r', 'p')"""

_KEYS: Final = """
SELECT i.indisprimary, ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY k (n, place)
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n
  WHERE k.place <= i.indnkeyatts AND a.attname <> %(tenant)s ORDER BY k.place)
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname = 'btree'
WHERE i.indrelid = %(table)s AND i.indisunique AND i.indimmediate AND i.indisvalid
  AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts > 1 AND EXISTS (
    SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = i.indrelid AND a.attname = %(tenant)s
      AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]))"""
"""What foreign keys can lead to, as it were without the tenant."""

_HIDDEN: Final = """
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relforcerowsecurity AND (c.oid = %(table)s OR c.oid IN (
    SELECT confrelid FROM pg_catalog.pg_constraint
    WHERE conrelid = %(table)s AND contype = 'f' AND NOT convalidated
    UNION ALL SELECT pg_catalog.to_regclass(one) FROM unnest(%(named)s::text[]) one))
  AND EXISTS (SELECT FROM pg_catalog.pg_class t WHERE t.oid = %(table)s AND t.relforcerowsecurity)"""
"""A table whose rows the owner does not see, and those that its foreign keys are to lead to."""

_TAKEN: Final = """
SELECT relname FROM pg_catalog.pg_class
WHERE relnamespace = (SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = %(table)s)
UNION SELECT conname FROM pg_catalog.pg_constraint WHERE conrelid = %(table)s"""

_MADE: Final = """
SELECT c.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = %s"""


_SCHEMA: Final = sql.SQL("CREATE SCHEMA {}")
_LIKE: Final = sql.SQL("CREATE TABLE {} (LIKE {})")
_KEY: Final = sql.SQL("ALTER TABLE {} ADD {} ({})")
_DROP: Final = sql.SQL("DROP TABLE {}")
_DROP_SCHEMAS: Final = sql.SQL("DROP SCHEMA {}")


@dataclass(frozen=True, slots=True)
class Table:
    """A table that a statement names."""

    oid: int
    schema: str
    name: str
    tenant: bool  # it has the column

    @property
    def shown(self) -> str:
        """Its name for people, and where tables are declared as shared."""
        return self.name if self.schema == "public" else f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        """Its name as SQL."""
        return sql.Identifier(self.schema, self.name)


class Keys:
    """Reads the statements of one migration, as they are sent on one connection."""

    def __init__(self, connection: Connection, shared: Sequence[str], role: str, migration: str) -> None:
        self._connection = connection
        self._shared = frozenset(shared)
        self._role = role
        self._migration = migration
        self._busy = False
        self._names: dict[int, tuple[str, str]] = {}  # of the stand-ins
        self._homes: dict[int, int] = {}  # the table that each stands for

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read what is run on the connection while the block lasts, by whomever."""
        before = self._connection.cursor_factory
        self._connection.cursor_factory = partial(_Cursor, self)  # type: ignore[assignment]
        try:
            yield
        finally:
            self._connection.cursor_factory = before

    def run(self, statement: str, execute: Run) -> None:
        """Run a statement, or what comes of it. Raises `MigrationError` for a key that tenants cannot share."""
        words = None if self._busy else read(statement)
        if words is None:
            execute(statement)
            return
        self._busy = True  # what is run meanwhile is our own
        try:
            if words.index is not None:
                execute(self._indexed(words, words.index, execute))
            elif words.makes_table or words.altered:
                self._define(words, execute)
            else:
                execute(statement)
        finally:
            self._busy = False

    # --- indexes ---

    def _indexed(self, words: Words, index: Index, execute: Run) -> str:
        """The statement of an index that begins with the tenant: so it is right from the first, CONCURRENTLY too."""
        table = self._table(words, index.table)
        if table is None or not table.tenant or index.method not in ("", "BTREE") or words.names_tenant(index.keys):
            return words.text
        edits = [words.before(index.keys[0], f'"{TENANT}", ')]
        if not index.named:
            edits.append(words.before(index.on, f"{self._name_of(words, index, table, execute)} "))
        return words.edited(edits)

    def _name_of(self, words: Words, index: Index, table: Table, execute: Run) -> str:
        """The name that the server gives an index which has none."""
        with self._standing():
            oid = self._stand_in(table)
            execute(words.edited([words.edit(index.table, self._shown(oid))]))
            ((name,),) = self._query(_MADE, (oid,))
            return sql.Identifier(self._free(str(name), table)).as_string(None)

    # --- tables ---

    def _define(self, words: Words, execute: Run) -> None:
        """Make or alter a table: all that is no key by itself first, then key after key, as the server does, too."""
        table = self._table(words, words.altered) if words.altered else None
        with self._standing():
            kept, apart = [], []
            for part in words.parts:
                text = self._led_aside(words, part)
                if table is not None and self._is_apart(words, part, table, led=text != words.part(part)):
                    apart.append((text, words.key(part)[1]))
                else:
                    kept.append(text)
            if kept:
                with self._unhidden(words, table):
                    execute(words.text[: words.words[words.parts[0][0]].start] + ", ".join(kept))
                self._lead_home()
            for text, named in apart:
                assert table is not None, "only an altered one has such parts"
                self._make(table, text, named, execute)

    @contextmanager
    def _unhidden(self, words: Words, table: Table | None) -> Iterator[None]:
        """The server checks foreign keys against the rows that the owner sees: with policies forced, none."""
        targets = [reference.table for part in words.parts for reference in words.references(part)]
        hidden: list[sql.Identifier] = []
        if table is not None and (targets or words.validates):
            named = [words.part(target) for target in targets]
            hidden = [sql.Identifier(*row) for row in self._query(_HIDDEN, {"table": table.oid, "named": named})]
        for name in hidden:
            self._execute(LIFT.format(name))
        yield
        for name in hidden:
            self._execute(FORCE.format(name))

    def _led_aside(self, words: Words, part: Span) -> str:
        """A part of a statement, its foreign keys led to stand-ins unless they name the tenant."""
        edits = []
        for reference in words.references(part):
            target = None if reference.tenant else self._table(words, reference.table)
            keys = self._query(_KEYS, {"table": target.oid, "tenant": TENANT}) if target and target.tenant else []
            if target and keys:
                edits.append(words.edit(reference.table, self._shown(self._stand_in(target, keys))))
        return words.edited(edits, part)

    def _is_apart(self, words: Words, part: Span, table: Table, *, led: bool) -> bool:
        """Whether a key is to be read on a stand-in: rows of two tenants may collide in it, or it leads to one."""
        kind, _ = words.key(part)
        if kind in ("", "FOREIGN KEY"):
            return led and bool(kind)
        return table.tenant and not (words.names_tenant(part) or words.uses_index(part))

    def _make(self, table: Table, action: str, named: bool, execute: Run) -> None:
        """Make one key of a table, as the server reads it on a stand-in."""
        oid = self._stand_in(table)
        execute(f"ALTER TABLE {self._shown(oid)} {action}")
        case = self._case()
        made = [one for one in case.found.constraints if one.table == oid]
        if len(made) != 1:
            raise self._refused(f"{action} is not one key of {table.name}", "Write each key in an action of its own.")
        name = made[0].name if named else self._free(made[0].name, table)
        home = self._homes.get(made[0].target, made[0].target)
        self._redo(case, [replace(made[0], table=table.oid, name=name, target=home)], anew=False)

    def _lead_home(self) -> None:
        """Lead foreign keys that lead to stand-ins to the tables those are for, and make their tables' keys anew.

        So a migration can fill a new table for all tenants, whose keys are the same.
        """
        if self._homes:
            case = self._case()
            tables = {one.table for one in case.found.constraints if one.target in self._homes}
            keys = [one for one in case.found.constraints if {one.table, one.target} & tables and not one.inherited]
            self._redo(case, [replace(one, target=self._homes.get(one.target, one.target)) for one in keys])

    def _redo(self, case: Case, keys: Sequence[Constraint], *, anew: bool = True) -> None:
        """Make keys with the tenant in them; `anew` where the tables have them already, without."""
        made: list[Weakness] = []
        for one in keys:
            table = case.found.relations[one.table]
            made += own_reference(case, one) if one.kind == "f" else own_key(case, table, one)
            made += own_column(case, table) if table.oid in case.tenants else ()
        refused = next((weak for weak in made if not weak.steps), None)
        if refused:
            raise self._refused(refused.what, refused.remedy)
        steps = {step.statement.as_string(None): step for weak in made for step in weak.steps}
        for step in sorted(steps.values(), key=lambda step: step.phase):
            if anew or step.phase not in (Phase.REFERENCES_OFF, Phase.KEYS_OFF):
                self._execute(step.statement)

    def _refused(self, what: str, remedy: str) -> MigrationError:
        reason = f"tenants cannot share what it makes: {what}"
        return MigrationError(migration=self._migration, reason=reason, remedy=remedy)

    # --- stand-ins ---

    @contextmanager
    def _standing(self) -> Iterator[None]:
        """Stand-ins last as long as the block. A key that still led to one would keep it from being dropped."""
        try:
            with self._connection.transaction():
                yield
                if self._names:
                    names = self._names.values()
                    self._execute(_DROP.format(_listed(sql.Identifier(*name) for name in names)))
                    self._execute(_DROP_SCHEMAS.format(_listed(sql.Identifier(schema) for schema, _ in names)))
        finally:
            self._names.clear()
            self._homes.clear()

    def _stand_in(self, table: Table, keys: Sequence[Row] = ()) -> int:
        """An empty table of the same name and columns, with these keys, in a schema of its own."""
        schema = f"tenantry_stand_in_{len(self._names) + 1}"
        name = sql.Identifier(schema, table.name)
        self._execute(_SCHEMA.format(sql.Identifier(schema)))
        self._execute(_LIKE.format(name, table.identifier))
        for primary, names in keys:
            kind = sql.SQL("PRIMARY KEY" if primary else "UNIQUE")
            self._execute(_KEY.format(name, kind, _listed(map(sql.Identifier, names))))
        ((oid,),) = self._query("SELECT %s::regclass::oid::int8", (name.as_string(None),))
        self._names[oid], self._homes[oid] = (schema, table.name), table.oid
        return int(oid)

    def _shown(self, oid: int) -> str:
        return sql.Identifier(*self._names[oid]).as_string(None)

    # --- the database ---

    def _table(self, words: Words, place: Span) -> Table | None:
        """The table that is meant, where its rows are or may become tenants'."""
        found = self._query(_TABLE, {"name": words.part(place), "tenant": TENANT})
        table = Table(*found[0]) if found else None
        return None if table and {table.shown, f"{table.schema}.{table.name}"} & self._shared else table

    def _free(self, name: str, table: Table) -> str:
        """A name that no other key of the table has, nor anything else in its schema."""
        taken = {str(one) for (one,) in self._query(_TAKEN, {"table": table.oid})}
        others = (f"{name}{number}" for number in count(1))
        return name if name not in taken else next(one for one in others if one not in taken)

    def _case(self) -> Case:
        return Case(inspect(self._connection), self._shared, self._role)

    def _query(self, query: str, values: Any) -> list[Row]:
        return self._connection.execute(query.encode(), values).fetchall()

    def _execute(self, statement: Statement) -> None:
        self._connection.execute(statement)


class _Cursor(psycopg.Cursor[Row]):
    """A cursor whose statements are read first."""

    def __init__(self, keys: Keys, connection: Connection, **options: Any) -> None:
        super().__init__(connection, **options)
        self._keys = keys

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        """Run a statement as it is, or as it is to be where tenants share tables."""
        text = query.as_string(self) if isinstance(query, sql.Composable) else query
        text = text.decode() if isinstance(text, bytes) else str(text)
        self._keys.run(text, lambda said: super(_Cursor, self).execute(said.encode(), params, **options))
        return self


def _listed(names: Iterable[sql.Identifier]) -> sql.Composed:
    return sql.SQL(", ").join(names)
