"""Copies of the tables of one prefix: their rows and counters, and the version of the schema that they belong to.

The schema itself is made anew by its migrations, under whatever prefix the copy is loaded to. Lines of JSON tell what
comes; behind that of a table its rows stand as its server writes them, up to a line `\\.`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from tenantry import paths
from tenantry.errors import TenantryError

if TYPE_CHECKING:
    from tenantry.resources.prefix import Prefix

FORMAT: Final = 1
END: Final = b"\\.\n"
LAST: Final = b'{"whole": true}\n'


class CopyDamaged(TenantryError):
    """The copy '{path}' is not loaded, since {reason}."""

    code = "resource.copy_damaged"
    remedy = "Nothing was changed. Take another copy."


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy that is open for reading, behind its first line."""

    path: Path
    file: IO[bytes]
    server: str  # kind of the server it was made on
    version: str | None


def write(resource: Prefix, connection: Any, prefix: str, version: str | None, into: Path) -> None:
    """Write all rows of a prefix to a file, which appears whole or not at all."""
    into.mkdir(parents=True, exist_ok=True)
    with paths.directory_beneath(into) as folder, paths.new_file(folder, resource.name) as file:
        file.write(_line(tenantry="prefix", format=FORMAT, server=resource.server_kind, version=version))
        for table, columns in resource._tables(connection, prefix).items():
            file.write(_line(table=table, columns=columns))
            for lines in resource._write_rows(connection, f"{prefix}{table}", columns):
                file.write(lines)
            file.write(END)
        file.write(_line(counters=resource._counters(connection, prefix)))
        file.write(LAST)


def _line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


@contextmanager
def opened(path: Path) -> Iterator[Copied]:
    """A copy that was written to its end. Raises `CopyDamaged`."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - len(LAST)))
        whole = file.read() == LAST
        file.seek(0)
        first = _read(path, file) if whole else {}
        if not whole or first.get("format") != FORMAT:
            reason = "it has no end" if not whole else f"its format is {first.get('format')}, not {FORMAT}"
            raise CopyDamaged(path=path.name, reason=reason)
        yield Copied(path, file, str(first["server"]), first["version"])


def _read(path: Path, file: IO[bytes]) -> dict[str, Any]:
    try:
        found = json.loads(file.readline())
    except ValueError as error:
        raise CopyDamaged(path=path.name, reason="it has a line that is no JSON") from error
    return found if isinstance(found, dict) else {}


def take_in(resource: Prefix, connection: Any, prefix: str, copied: Copied) -> None:
    """Put the rows of a copy into the tables of a prefix, in place of those there are. Raises `CopyDamaged`."""
    tables = resource._tables(connection, prefix)
    with resource._filling(connection, prefix):
        while "table" in (part := _read(copied.path, copied.file)):
            table, columns = part["table"], list(part["columns"])
            lacking = [table] if table not in tables else sorted(set(columns) - set(tables[table]))
            if lacking:
                reason = f"its schema {copied.version or 'none'} has no '{lacking[0]}'"
                raise CopyDamaged(path=copied.path.name, reason=reason)
            lines = _rows(copied)
            resource._read_rows(connection, f"{prefix}{table}", columns, lines)
            for _ in lines:
                raise CopyDamaged(path=copied.path.name, reason=f"rows of '{table}' are left over")
        resource._set_counters(connection, prefix, dict(part.get("counters", {})))


def _rows(copied: Copied) -> Iterator[bytes]:
    for line in iter(copied.file.readline, END):
        if not line:
            raise CopyDamaged(path=copied.path.name, reason="it ends within a table")
        yield line
