"""Tables of an SQLite file as files that other programs read: CSV (RFC 4180) or JSON, a file for each."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tenantry import users
from tenantry.model import Exported, ExportForm
from tenantry.resources.history import BOOKKEEPING
from tenantry.resources.migrator import Connection
from tenantry.resources.postgres_export import private, safe, write

_TABLES: Final = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' ORDER BY name"


def export(connection: Connection, form: ExportForm, target: Path) -> list[Exported]:
    """Write each table's rows, as of one moment, to a file in a new directory, which appears whole or not at all.

    Raises `FileExistsError` where the directory is there.
    """
    if target.exists():
        raise FileExistsError(17, "it is there already", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tenantry-") as folder:
        made = Path(folder) / "export"
        made.mkdir(mode=0o700)
        connection.execute("BEGIN")  # one moment for all of them
        try:
            names = [str(name) for (name,) in connection.execute(_TABLES).fetchall()]
            hidden = {*BOOKKEEPING, *users.PRIVATE}
            chosen = [name for name in names if name not in hidden and not name.startswith("sqlite_")]
            written = [_written(connection, name, form, made) for name in chosen]
        finally:
            connection.execute("ROLLBACK")
        made.rename(target)
    return written


def _written(connection: Connection, name: str, form: ExportForm, folder: Path) -> Exported:
    path, rows = folder / f"{safe(name)}.{form}", 0
    left_out = users.SECRETS.get(name, ())
    query = "SELECT name FROM pragma_table_info(?)"
    columns = [column for (column,) in connection.execute(query, (name,)).fetchall() if column not in left_out]
    chosen = ", ".join(_quoted(column) for column in columns)
    found = connection.execute(f"SELECT {chosen} FROM {_quoted(name)}")  # noqa: S608 -- quoted names

    def counted() -> Iterator[Sequence[Any]]:
        nonlocal rows
        for row in found:
            rows += 1
            yield row

    with open(path, "xb", opener=private) as file:
        write(file, _csv(columns, counted()) if form == "csv" else _json(columns, counted()))
        file.flush()
        os.fsync(file.fileno())
    return Exported(name, path.name, rows, path.stat().st_size)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _csv(columns: Sequence[str], rows: Iterator[Sequence[Any]]) -> Iterator[bytes]:
    """An empty text is quoted, what is NULL is not."""
    yield (",".join(_cell(column) for column in columns) + "\n").encode()
    for row in rows:
        yield (",".join(_cell(value) for value in row) + "\n").encode(errors="replace")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = _plain(value)
    quoted = not text or any(letter in text for letter in ',"\r\n')
    return '"' + text.replace('"', '""') + '"' if quoted else text


def _plain(value: Any) -> str:
    """Octets as PostgreSQL writes them."""
    return "\\x" + value.hex() if isinstance(value, bytes) else str(value)


def _json(columns: Sequence[str], rows: Iterator[Sequence[Any]]) -> Iterator[bytes]:
    """An array of objects, a row on a line."""
    begun = False
    for row in rows:
        kept = {c: _plain(v) if isinstance(v, bytes) else v for c, v in zip(columns, row, strict=True)}
        yield ((",\n" if begun else "[\n") + json.dumps(kept, ensure_ascii=False)).encode(errors="replace")
        begun = True
    yield b"\n]\n" if begun else b"[\n]\n"
