"""Tables of a PostgreSQL database as files that other programs read: CSV (RFC 4180) or JSON, a file for each."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import psycopg
from psycopg import sql

from tenantry import users as users_tables
from tenantry.model import Exported, ExportForm
from tenantry.resources.history import BOOKKEEPING
from tenantry.resources.postgres_dialect import Connection

BLOCK: Final = 1 << 18
"""Bytes that are written at a time."""

_UNSAFE: Final = re.compile(r'[\x00-\x1f\x7f"%*./:<>?\\|]')

_TABLES: Final = """
SELECT n.nspname, c.relname, c.relkind = 'p', ARRAY(SELECT a.attname::text FROM pg_attribute a
  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT (n.nspname = 'public' AND c.relname = ANY (%s))
  AND NOT EXISTS (
    SELECT FROM pg_depend e WHERE e.objid = c.oid AND e.classid = 'pg_class'::regclass AND e.deptype = 'e')
ORDER BY n.nspname, c.relname"""


@dataclass(frozen=True, slots=True)
class Content:
    """Rows that become a file."""

    schema: str
    name: str
    columns: Sequence[str]
    source: sql.Composable  # what follows FROM

    @property
    def is_private(self) -> bool:
        """Whether no export holds it."""
        return self.schema == "public" and self.name in users_tables.PRIVATE

    @property
    def query(self) -> sql.Composed:
        """The rows, each with its columns in their order."""
        hidden = users_tables.SECRETS.get(self.name, ()) if self.schema == "public" else ()
        shown = sql.SQL(", ").join(sql.Identifier(name) for name in self.columns if name not in hidden)
        return sql.SQL("SELECT {} FROM {}").format(shown, self.source)


def contents(connection: Connection) -> list[Content]:
    """All tables of a database, with the rows of their partitions; those without that inherit from them."""
    rows = connection.execute(_TABLES, (list(BOOKKEEPING),)).fetchall()
    only = (sql.SQL("ONLY {}"), sql.SQL("{}"))
    return [
        Content(schema, name, columns, only[parted].format(sql.Identifier(schema, name)))
        for schema, name, parted, columns in rows
    ]


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """A transaction that sees everything as of one moment, and changes nothing."""
    before = connection.isolation_level, connection.read_only
    connection.isolation_level, connection.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
    try:
        with connection.transaction():
            yield
    finally:
        connection.isolation_level, connection.read_only = before


def export(connection: Connection, found: Sequence[Content], form: ExportForm, target: Path) -> list[Exported]:
    """Write each table's rows to a file in a new directory, which appears whole or not at all.

    Rows are streamed: memory does not grow with them. Raises `FileExistsError` where the directory is there.
    """
    if target.exists():
        raise FileExistsError(17, "it is there already", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tenantry-") as folder:
        made = Path(folder) / "export"
        made.mkdir(mode=0o700)
        written = [_written(connection, one, form, made) for one in found if not one.is_private]
        made.rename(target)
    return written


def _written(connection: Connection, one: Content, form: ExportForm, folder: Path) -> Exported:
    shown = one.name if one.schema == "public" else f"{one.schema}.{one.name}"
    path = folder / f"{'' if one.schema == 'public' else safe(one.schema) + '.'}{safe(one.name)}.{form}"
    with open(path, "xb", opener=private) as file:
        rows = (_csv if form == "csv" else _json)(connection, one, file)
        file.flush()
        os.fsync(file.fileno())
    return Exported(shown, path.name, rows, path.stat().st_size)


def private(path: str, flags: int) -> int:
    """Open a file that its owner alone reads."""
    return os.open(path, flags, 0o600)


def safe(name: str) -> str:
    """A table's name as part of a file's: a dot in it is no dot between schema and table."""
    return _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", name)


def _csv(connection: Connection, one: Content, file: IO[bytes]) -> int:
    """An empty text is quoted, what is NULL is not."""
    words = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER, ENCODING 'UTF8')").format(one.query)
    with connection.cursor() as cursor:
        with cursor.copy(words) as copy:
            write(file, (bytes(piece) for piece in copy))
        return cursor.rowcount


def _json(connection: Connection, one: Content, file: IO[bytes]) -> int:
    """An array of objects, a row on a line."""
    words = sql.SQL("COPY (SELECT row_to_json(r)::text FROM ({}) r) TO STDOUT (ENCODING 'UTF8')").format(one.query)
    with connection.cursor() as cursor:
        with cursor.copy(words) as copy:
            write(file, _listed(str(text) for (text,) in copy.rows()))
        return cursor.rowcount


def _listed(rows: Iterator[str]) -> Iterator[bytes]:
    first = next(rows, None)
    yield b"[" if first is None else f"[\n{first}".encode()
    for row in rows:
        yield f",\n{row}".encode()
    yield b"\n]\n"


def write(file: IO[bytes], pieces: Iterator[bytes]) -> None:
    """Several rows at a time."""
    block = bytearray()
    for piece in pieces:
        block += piece
        if len(block) >= BLOCK:
            file.write(block)
            block.clear()
    file.write(block)
