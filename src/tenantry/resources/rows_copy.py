"""One tenant's rows out of tables that many share: copied, put back, and removed."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any, Final

from psycopg import sql

from tenantry.resources import postgres_export as exports
from tenantry.resources.postgres_dialect import Connection
from tenantry.resources.rows_plan import TENANT
from tenantry.resources.rows_tables import Table, common, flat, holders, mark, tables, unmark, working_for

FORMAT: Final = 1
CONTENTS: Final = "contents.json"
BLOCK: Final = 1 << 18
"""Bytes of a copy read at a time."""

BATCH: Final = 5_000
"""Rows removed in one transaction, so that each is short."""

PASSES: Final = 3
"""How often tables are gone through whose triggers write rows while others are removed."""

_COLUMN: Final = sql.Identifier(TENANT)


class Unfit(Exception):
    """Why a copy cannot be loaded into these tables."""


# --- out ----------------------------------------------------------------------------------------------------------


def dump(connection: Connection, shared: Collection[str], key: str, version: str | None, target: Path) -> None:
    """Write a tenant's rows as of one moment to a ZIP file, a member for each table; it appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tenantry-") as folder:
        path = Path(folder) / target.name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive, snapshot(connection, key):
            found = flat(tables(connection, shared))
            contents = {"format": FORMAT, "schema": version, "tables": [_described(table) for table in found]}
            archive.writestr(CONTENTS, json.dumps(contents, indent=1))
            for number, table in enumerate(found):
                with archive.open(_member(number), "w", force_zip64=True) as member:
                    _copy_out(connection, table, key, member)
        path.chmod(0o600)
        with path.open("rb") as written:
            os.fsync(written.fileno())
        path.replace(target)


@contextmanager
def snapshot(connection: Connection, key: str) -> Iterator[None]:
    """A transaction that sees a tenant's rows as of one moment, and changes nothing."""
    with exports.snapshot(connection), working_for(connection, key):
        yield


def _described(table: Table) -> dict[str, Any]:
    return {"schema": table.schema, "name": table.name, "columns": table.columns}


def _member(number: int) -> str:
    return f"{number:04}.copy"


def _copy_out(connection: Connection, table: Table, key: str, into: IO[bytes]) -> None:
    statement = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(table.listed, table.of(key))
    pieces: list[bytes] = []
    size = 0
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for piece in copy:  # a row each: so several are written at a time
            pieces.append(bytes(piece))
            size += len(piece)
            if size >= BLOCK:
                into.write(b"".join(pieces))
                pieces.clear()
                size = 0
    into.write(b"".join(pieces))


# --- in -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Archive:
    """A copy that was opened: which member holds a table's rows, and of which columns."""

    file: zipfile.ZipFile
    tables: Mapping[tuple[str, str], tuple[str, tuple[str, ...]]]  # (schema, name) → (member, columns)


@contextmanager
def opened(source: Path) -> Iterator[Archive]:
    """A copy that `dump` wrote. Raises `Unfit`, or `OSError` where there is none."""
    try:
        with source.open("rb") as raw, zipfile.ZipFile(raw) as file:
            contents = json.loads(file.read(CONTENTS))
            if contents["format"] != FORMAT:
                raise Unfit(f"it has the format {contents['format']}, not {FORMAT}")
            listed = {
                (str(one["schema"]), str(one["name"])): (_member(number), tuple(map(str, one["columns"])))
                for number, one in enumerate(contents["tables"])
            }
            yield Archive(file, listed)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise Unfit(f"it is no copy of a tenant's rows, or a damaged one ({error})") from error


def load(connection: Connection, shared: Collection[str], key: str, slug: str, archive: Archive) -> None:
    """Put a copy in the place of all rows a tenant has, in one transaction; the rows become this tenant's."""
    with working_for(connection, key):
        groups = tables(connection, shared)
        _refuse_unfit(archive, flat(groups))
        with _without_triggers(connection, [table for table in flat(groups) if table.triggers]):
            for group in reversed(groups):
                _remove_at_once(connection, group, key)
            mark(connection, key, slug)
            numbers = count()
            for group in groups:
                there = [table for table in group if (table.schema, table.name) in archive.tables]
                _insert(connection, {f"tenantry_load_{next(numbers)}": table for table in there}, key, archive)
            _move_sequences(connection, flat(groups), key)


def _refuse_unfit(archive: Archive, found: Sequence[Table]) -> None:
    """Newer tables and columns than the copy's stay empty or get their defaults; what is gone has no place."""
    known = {(table.schema, table.name): table for table in found}
    for name, (_, columns) in archive.tables.items():
        if name not in known:
            raise Unfit(f"it has the table {'.'.join(name)}, which there is no longer")
        gone = [column for column in columns if column not in known[name].columns]
        if gone:
            raise Unfit(f"its table {'.'.join(name)} has the column {gone[0]}, which there is no longer")


@contextmanager
def _without_triggers(connection: Connection, found: Sequence[Table]) -> Iterator[None]:
    """A copy holds what triggers wrote already. Other tenants' writes to these tables wait meanwhile."""
    for table in found:
        connection.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(table.identifier))
    yield
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for table in found:
        connection.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(table.identifier))


def _insert(connection: Connection, aside: Mapping[str, Table], key: str, archive: Archive) -> None:
    """Put the rows of tables that refer to one another in, by one statement: foreign keys are checked at its end.

    The rows wait in temporary tables, since the server refuses COPY where policies hold.
    """
    steps: list[sql.Composable] = []
    for name, table in aside.items():
        member, columns = archive.tables[table.schema, table.name]
        listed = sql.SQL(", ").join(map(sql.Identifier, columns))
        _copy_in(connection, name, table, listed, member, archive)
        words = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}")
        names, values = [_COLUMN, *map(sql.Identifier, columns)], [sql.Literal(key), *map(sql.Identifier, columns)]
        listings = (sql.SQL(", ").join(names), sql.SQL(", ").join(values))
        steps.append(words.format(table.identifier, *listings, sql.Identifier("pg_temp", name)))
    _together(connection, steps)
    for name in aside:
        connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier("pg_temp", name)))


def _copy_in(
    connection: Connection, name: str, table: Table, listed: sql.Composable, member: str, archive: Archive
) -> None:
    temporary = sql.Identifier("pg_temp", name)
    words = sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA")
    connection.execute(words.format(sql.Identifier(name), listed, table.identifier))
    with (
        archive.file.open(member) as source,
        connection.cursor() as cursor,
        cursor.copy(sql.SQL("COPY {} FROM STDIN").format(temporary)) as copy,
    ):
        while block := source.read(BLOCK):
            copy.write(block)


def _together(connection: Connection, steps: Sequence[sql.Composable]) -> None:
    """Several changes as one statement."""
    if not steps:
        return
    named = [sql.SQL("{} AS ({})").format(sql.Identifier(f"s{number}"), one) for number, one in enumerate(steps[:-1])]
    start = sql.SQL("WITH {} ").format(sql.SQL(", ").join(named)) if named else sql.SQL("")
    connection.execute(start + steps[-1])


_SEQUENCES: Final = """
SELECT c.oid::bigint, a.attname, pg_get_serial_sequence(format('%%I.%%I', n.nspname, c.relname), a.attname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.oid = ANY (%s) AND pg_get_serial_sequence(format('%%I.%%I', n.nspname, c.relname), a.attname) IS NOT NULL"""


def _move_sequences(connection: Connection, found: Sequence[Table], key: str | None) -> None:
    """Let no sequence give a number that was loaded. It is never moved back: others count on from it."""
    by_oid = {table.oid: table for table in found}
    whose = sql.SQL("true") if key is None else sql.SQL("{} = {}").format(_COLUMN, key)
    words = sql.SQL(
        "SELECT setval({name}::regclass, most) FROM (SELECT max({column}) AS most FROM {table} WHERE {whose}) "
        "AS loaded WHERE most > coalesce(pg_sequence_last_value({name}::regclass), 0)"
    )
    for oid, column, sequence in connection.execute(_SEQUENCES, (list(by_oid),)).fetchall():
        names = {"column": sql.Identifier(column), "table": by_oid[oid].only, "whose": whose}
        connection.execute(words.format(name=sequence, **names))


# --- across -------------------------------------------------------------------------------------------------------


def share(source: Connection, target: Connection, shared: Collection[str]) -> None:
    """Let the rows that belong to all tenants be in another database what they are in this one."""
    found = common(target, shared)
    with target.transaction(), _without_triggers(target, [table for table in found if table.triggers]):
        _together(target, [sql.SQL("DELETE FROM {}").format(table.only) for table in found])
        steps: list[sql.Composable] = []
        for number, table in enumerate(found):
            aside = sql.Identifier(f"tenantry_share_{number}")
            words = sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA")
            target.execute(words.format(aside, table.listed, table.identifier))
            out, into = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT"), sql.SQL("COPY pg_temp.{} FROM STDIN")
            with (
                source.cursor().copy(out.format(table.listed, table.only)) as rows,
                target.cursor().copy(into.format(aside)) as copy,
            ):
                for row in rows:
                    copy.write(row)
            insert = sql.SQL("INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM pg_temp.{}")
            steps.append(insert.format(table.identifier, aside, columns=table.listed))
        _together(target, steps)
        _move_sequences(target, found, None)


# --- away ---------------------------------------------------------------------------------------------------------


def remove(connection: Connection, shared: Collection[str], key: str) -> list[str]:
    """Remove all rows of a tenant, in short transactions, last its marker; the tables that still hold some."""
    groups = tables(connection, shared)
    left = [table.shown for table in flat(groups)]
    for _ in range(PASSES):
        for group in reversed(groups):
            if any(table.shown in left for table in group):
                _remove(connection, group, key)
        with working_for(connection, key):
            left = holders(connection, flat(groups), key)
            if not left:
                unmark(connection, key)
                break
    return left


def _remove(connection: Connection, group: Sequence[Table], key: str) -> None:
    if len(group) > 1 or group[0].oid in group[0].references or group[0].parted:
        with working_for(connection, key):
            _remove_at_once(connection, group, key)
        return
    words = sql.SQL(
        "DELETE FROM {table} WHERE {tenant} = {key} "
        "AND ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {tenant} = {key} LIMIT {limit}))"
    ).format(table=group[0].only, tenant=_COLUMN, key=key, limit=BATCH)
    gone = BATCH
    while gone == BATCH:
        with working_for(connection, key):
            gone = connection.execute(words).rowcount


def _remove_at_once(connection: Connection, group: Sequence[Table], key: str) -> None:
    """Remove the rows of tables that refer to one another, by one statement: foreign keys are checked at its end."""
    words = sql.SQL("DELETE FROM {} WHERE {} = {}")
    _together(connection, [words.format(table.only, _COLUMN, key) for table in group])
