"""What the keys of shared tables tell one tenant of another's rows: by refusing a value, and by the time they take.

The other's own rows serve as models: an application's visitor may guess a name or a number, so it is known here.
"""

from __future__ import annotations

import json
import random
import string
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import psycopg
from psycopg import sql

from tenantry.model import Attempt, Breach, Untried
from tenantry.resources import timing
from tenantry.resources.postgres_attack import line
from tenantry.resources.postgres_dialect import Connection
from tenantry.resources.rows_plan import SETTING, TENANT
from tenantry.resources.rows_tables import Table, working_for

LARGEST: Final = 10_000
"""Characters of the largest row that serves as a model."""

MODELS: Final = 40
"""Rows of the other's that are looked at for keys."""

TIMED: Final = 1
"""Tables whose keys are timed in each attack, drawn by lot: over many tenants each has its turn."""

NO_PARTITION: Final = "23514"
"""A row that no partition takes; a check that a row breaks has a name as well."""

_KEYS: Final = """
SELECT array_agg(a.attname::text) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
  AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
WHERE i.indrelid = %s AND i.indisunique AND i.indexprs IS NULL AND i.indpred IS NULL
GROUP BY i.indexrelid HAVING bool_or(a.attname = %s) AND bool_or(a.attname <> %s)
  AND bool_and(a.attname = %s OR a.atttypid IN ('text'::regtype, 'varchar'::regtype, 'uuid'::regtype,
    'int2'::regtype, 'int4'::regtype, 'int8'::regtype))"""
"""The keys of a table within its tenants whose values can be made up."""

_WITHIN: Final = """
SELECT bool_or(a.attname = %s) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[])
WHERE n.nspname = %s AND c.relname = %s"""
"""Whether an index has the tenant in it; it bears the name of its constraint."""


def attack(name: str, connection: Connection, found: Sequence[Table], own: str, other: str) -> Iterator[Attempt]:
    """Put rows like the other's into its tables and into one's own, and see who notices, and how fast."""
    tried = [_Table(name, connection, table, own, other) for table in found]
    for one in tried:
        yield one.add()
        if one.model is not None:
            yield one.collide()
    timed = [(one, keys) for one in tried for keys in one.made_up()]
    random.shuffle(timed)
    for one, keys in timed[:TIMED]:
        yield one.time(keys)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the other's as its JSON, where no number loses digits, and what is put in place of some of it."""

    text: str
    changed: Mapping[str, object] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, object]:
        """Its columns."""
        found: dict[str, object] = json.loads(self.text)
        return {**found, **self.changed}


class _Table:
    """A table, and a row of the other's in it."""

    def __init__(self, name: str, connection: Connection, table: Table, own: str, other: str) -> None:
        self.name = name
        self.connection = connection
        self.table = table
        self.own = own
        self.other = other
        self.model = next(iter(self._rows(1)), None)

    def _rows(self, count: int) -> list[_Row]:
        """Rows of the other's, none that is very large."""
        query = sql.SQL("SELECT j FROM (SELECT to_jsonb(t)::text AS j FROM {} t LIMIT {}) s WHERE length(j) < {}")
        try:
            with working_for(self.connection, self.other):
                found = self.connection.execute(query.format(self.table.identifier, count, LARGEST)).fetchall()
        except psycopg.Error:  # a table that applications may not read gives nothing away
            return []
        rows = [_Row(text) for (text,) in found]
        return [row for row in rows if row.values.get(TENANT) == self.other]

    def _insert(self, row: _Row, key: str) -> tuple[psycopg.Error | None, float]:
        """Add a row for a tenant, working for oneself: the server's refusal, and the seconds; it is rolled back."""
        columns = sql.SQL(", ").join(map(sql.Identifier, (*self.table.columns, TENANT)))
        statement = sql.SQL(
            "INSERT INTO {0} ({1}) OVERRIDING SYSTEM VALUE "
            "SELECT {1} FROM jsonb_populate_record(NULL::{0}, %s::jsonb || %s::jsonb)"
        ).format(self.table.identifier, columns)
        values, refused = (row.text, json.dumps({**row.changed, TENANT: key})), None
        with self.connection.transaction(force_rollback=True):
            self.connection.execute("SELECT set_config(%s, %s, true)", (SETTING, self.own))
            start = time.perf_counter()
            try:
                self.connection.execute(statement, values, prepare=False)
            except psycopg.Error as error:
                refused = error
            return refused, time.perf_counter() - start

    def add(self) -> Attempt:
        """A row for the other; where it has none, one that its table need not take."""
        what = f"add a row for the other to {self.table.shown}"
        error, _ = self._insert(self.model or _Row("{}"), self.other)
        if error is None:
            return Breach(self.name, what, "it was done")
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return Attempt(self.name, what, line(error))
        if error.sqlstate == NO_PARTITION and not error.diag.constraint_name:
            return Attempt(self.name, what, "no partition takes it")
        if isinstance(error, psycopg.IntegrityError):
            return Breach(self.name, what, f"only a constraint refused it: {error.diag.message_primary}")
        return Untried(self.name, what, line(error))

    def collide(self) -> Attempt:
        """A row of one's own that is like the other's: a key that holds over all tenants refuses it."""
        what = f"collide with the other's keys in {self.table.shown}"
        assert self.model is not None
        error, _ = self._insert(self.model, self.own)
        if not isinstance(error, psycopg.errors.UniqueViolation | psycopg.errors.ExclusionViolation):
            return Attempt(self.name, what, line(error) if error else "it was taken")
        index = error.diag.constraint_name
        row = self.connection.execute(_WITHIN, (TENANT, error.diag.schema_name, index)).fetchone()
        if row == (True,):
            return Attempt(self.name, what, "one's own row has that key")
        return Breach(self.name, what, f"{index} tells that another tenant has it")

    # --- by the clock ---

    def made_up(self) -> list[Sequence[str]]:
        """The columns, but for the tenant, of keys within a tenant whose values can be made up."""
        if self.model is None:
            return []
        found = self.connection.execute(_KEYS, (self.table.oid, *[TENANT] * 3)).fetchall()
        return [[column for column in columns if column != TENANT] for (columns,) in found]

    def time(self, columns: Sequence[str]) -> Attempt:
        """Whether a row of one's own takes longer with a key that the other has than with one that nobody has."""
        what = "time collisions of keys"
        shown = f"{', '.join(columns)} of {self.table.shown}"
        lot = random.Random()  # noqa: S311 -- values to compare with
        theirs = [row for row in self._rows(MODELS) if not self._has(self.own, row, columns)]
        made = [row for model in theirs if (row := _like(model, columns, lot)) is not None]
        nobodys = [row for row in made if not any(self._has(key, row, columns) for key in (self.own, self.other))]
        if not nobodys or len({self._end(row) for row in (*theirs, *nobodys)}) > 1:  # then times say nothing
            return Attempt(self.name, what, f"{shown}: no two rows are alike but for that")
        found = timing.compare(timing.pairs(*(partial(self._seconds, rows, lot) for rows in (theirs, nobodys))))
        told = f"{shown}: {found.seconds * 1e6:+.0f} µs where the other has it, give or take {found.blur * 1e6:.0f}"
        if found.apart:
            return Breach(self.name, what, told)
        if found.blur > timing.BLUR:
            return Untried(self.name, what, f"the machine is too uneven just now; {told}")
        return Attempt(self.name, what, told)

    def _seconds(self, rows: Sequence[_Row], lot: random.Random) -> float:
        return self._insert(lot.choice(rows), self.own)[1]

    def _end(self, row: _Row) -> tuple[str | None, str | None] | None:
        """How the server ends it, when it is one's own."""
        error, _ = self._insert(row, self.own)
        return (error.sqlstate, error.diag.constraint_name) if error else None

    def _has(self, key: str, row: _Row, columns: Sequence[str]) -> bool:
        """Whether a tenant has a row with the same key."""
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        query = sql.SQL(
            "SELECT FROM {0} WHERE ({1}) = (SELECT {1} FROM jsonb_populate_record(NULL::{0}, %s::jsonb || %s::jsonb))"
        ).format(self.table.identifier, names)
        with working_for(self.connection, key):
            return self.connection.execute(query, (row.text, json.dumps(dict(row.changed)))).fetchone() is not None


def _like(row: _Row, columns: Sequence[str], lot: random.Random) -> _Row | None:
    """The same row with another key of the same look; None where none can be made up."""
    values = row.values
    changed = {column: _other_value(values[column], lot) for column in columns}
    return _Row(row.text, changed) if any(changed[column] != values[column] for column in columns) else None


def _other_value(value: object, lot: random.Random) -> object:
    """Digits for digits and letters for letters, so that text keeps its form and its length, and a UUID is one."""
    if isinstance(value, int):
        return lot.randint(1, max(1000, abs(value)))
    if not isinstance(value, str):
        return value
    small = "abcdef" if set(value) <= set("0123456789abcdef-") else string.ascii_lowercase
    sets = {string.digits: string.digits, string.ascii_lowercase: small, string.ascii_uppercase: string.ascii_uppercase}
    letters = {letter: choice for some, choice in sets.items() for letter in some}
    return "".join(lot.choice(letters.get(letter, letter)) for letter in value)
