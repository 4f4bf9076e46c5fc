"""Migration files: found, numbered, split into statements and told apart by checksum. Knows no database."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field, ValidationError

from tenantry.config import Frozen, Seconds
from tenantry.errors import MigrationInvalid

if TYPE_CHECKING:
    from tenantry.resources.command import Program

MIGRATIONS: Final = 9999
"""The most migrations of one schema: their numbers have four digits."""

_FILE: Final = re.compile(r"(\d{4})_([A-Za-z0-9_-]+)\.(sql|py)", re.ASCII)
_DOWN: Final = re.compile(r"^--[ \t]*down[ \t]*:?[ \t]*$", re.IGNORECASE | re.MULTILINE)
_BLANK: Final = re.compile(r"(?>\s|;|--[^\n]*+(?:\n|\Z)|/\*.*?(?:\*/|\Z))*+", re.DOTALL)  # atomic: */ ends it
_WORD: Final = re.compile(r"[A-Za-z]*", re.ASCII)
_HEAD: Final = re.compile(r"(?:[ \t]*(?:--|#)[^\n]*(?:\n|\Z)|[ \t]*\n)*")
_HEADER: Final = re.compile(r"^[ \t]*(?:--|#)[ \t]*tenantry[ \t]*:(.*)$", re.MULTILINE)
_FORBIDDEN: Final = frozenset("BEGIN COMMIT END ROLLBACK ABORT START ATTACH DETACH VACUUM".split())

Step = Callable[[Any], None]
Splitter = Callable[[str, str], tuple[str, ...]]
"""Gives the statements of a script in some dialect; its second argument names the script in errors."""


class Header(Frozen):
    """What a file says of itself in its first lines: `-- tenantry: phase=post lock_timeout=10s`, `#` in Python.

    It stands in the file, not in its name, so that it is part of the checksum and the same for all kinds of files.
    """

    phase: Literal["pre", "post"] = "pre"  # pre: the old code bears it; post: only the new code does
    transaction: Literal["on", "off"] = "on"
    lock_timeout: Seconds | None = None
    statement_timeout: Seconds | None = None
    retries: int | None = Field(default=None, ge=0, le=100)


PLAIN: Final = Header()


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file. An SQL file has statements, a Python file has functions."""

    version: str  # the file's stem, such as "0007_bookings"
    path: Path
    checksum: str  # SHA-256 of the text with plain line ends, in hex
    up: tuple[str, ...] = ()
    down: tuple[str, ...] | None = None  # None: it cannot be taken back
    header: Header = PLAIN

    @property
    def name(self) -> str:
        """The version without its number."""
        return self.version.partition("_")[2]

    @property
    def is_python(self) -> bool:
        """Whether it is a Python file with `upgrade(connection)`."""
        return self.path.suffix == ".py"

    def function(self, name: str) -> Step | None:
        """The function `upgrade` or `downgrade` of a Python file, or None where it has none."""
        found = _module(self.path, self.checksum).get(name)
        if found is not None and not callable(found):
            raise MigrationInvalid(path=self.path.name, reason=f"'{name}' is no function")
        return found


@dataclass(frozen=True, slots=True)
class Schema:
    """All migrations of a directory in their order. For an Alembic directory only the fingerprint is known here."""

    directory: Path
    migrations: tuple[Migration, ...]
    fingerprint: str  # changes with any file's name or content
    alembic: bool = False
    program: Program | None = None  # that migrates in place of files

    def between(self, applied: int, target: int) -> tuple[Migration, ...]:
        """What leads from the first `applied` migrations to the first `target`: upwards, or back in reverse order."""
        return self.migrations[applied:target] if target >= applied else self.migrations[target:applied][::-1]


EMPTY: Final = Schema(Path(), (), "")

_held: Final[ContextVar[dict[tuple[Path, Splitter], Schema] | None]] = ContextVar("held schemas", default=None)


@contextmanager
def held() -> Iterator[None]:
    """Whatever is read inside the block is as it was at its first reading: looking at files costs more than it seems.

    Holds for the threads that begin in this context, too.
    """
    token = _held.set({})
    try:
        yield
    finally:
        _held.reset(token)


def read(directory: Path, splitter: Splitter | None = None) -> Schema:
    """The schema of a directory, read again only when a file changed; without a splitter its SQL is SQLite's.

    Raises `MigrationInvalid`.
    """
    there, key = _held.get(), (directory, splitter or split)
    if there is None:
        return _current(*key)
    if key not in there:
        there[key] = _current(*key)
    return there[key]


def _current(directory: Path, splitter: Splitter) -> Schema:
    alembic = (directory / "versions").is_dir()
    try:
        files = sorted(directory.rglob("*.py")) if alembic else sorted(directory.iterdir())
        signature = tuple(_stamp(path) for path in files if _is_migration(path))
    except OSError as error:
        raise MigrationInvalid(path=str(directory), reason=f"it cannot be read ({error.strerror})") from error
    return _read(directory, alembic, signature, splitter)


def _is_migration(path: Path) -> bool:
    return path.suffix in (".sql", ".py") and path.name != "__init__.py" and not path.name.startswith(".")


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size


@lru_cache(maxsize=64)
def _read(directory: Path, alembic: bool, signature: tuple[tuple[str, int, int], ...], splitter: Splitter) -> Schema:
    paths = [Path(path) for path, _, _ in signature]
    texts = [_text(path) for path in paths]
    names = [path.relative_to(directory).as_posix() for path in paths]
    total = fingerprint(f"{name}\0{checksum(text)}" for name, text in zip(names, texts, strict=True))
    if alembic:
        return Schema(directory, (), total, alembic=True)
    numbered = enumerate(zip(paths, texts, strict=True), start=1)
    found = (_migration(path, text, number, splitter) for number, (path, text) in numbered)
    return Schema(directory, tuple(found), total)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise MigrationInvalid(path=path.name, reason="it is not UTF-8 text", remedy="Save it as UTF-8.") from error


def checksum(text: str) -> str:
    """SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(parts: Iterable[str]) -> str:
    """64 bits of a hash over several texts, in hex: enough to tell versions of one blueprint apart."""
    return checksum("\n".join(parts))[:16]


def _migration(path: Path, text: str, number: int, splitter: Splitter) -> Migration:
    match = _FILE.fullmatch(path.name)
    if match is None:
        raise MigrationInvalid(path=path.name, reason="its name has not the form 0001_name.sql or 0001_name.py")
    if int(match[1]) != number:
        twice = "is taken by the file before it" if int(match[1]) < number else f"comes where {number:04} is missing"
        raise MigrationInvalid(path=path.name, reason=f"its number {match[1]} {twice}")
    head = header(text, path.name)
    if match[3] == "py":
        if head.transaction == "off":
            raise MigrationInvalid(path=path.name, reason="transaction=off is for SQL files, and this is a Python file")
        return Migration(path.stem, path, checksum(text), header=head)
    up, *down = _DOWN.split(text)
    if len(down) > 1:
        raise MigrationInvalid(path=path.name, reason="it has more than one line '-- down'")
    backwards = splitter(down[0], path.name) if down else None
    return Migration(path.stem, path, checksum(text), splitter(up, path.name), backwards, head)


def header(text: str, name: str) -> Header:
    """What the comments at the top of a file say. Raises `MigrationInvalid` for unknown words and for later lines."""
    head = _HEAD.match(text)
    top = head[0] if head else ""
    if len(_HEADER.findall(text)) > len(_HEADER.findall(top)):
        remedy = "Move it to the top of the file."
        raise MigrationInvalid(
            path=name, reason="it has a line '-- tenantry:' behind its first statement", remedy=remedy
        )
    words = " ".join(_HEADER.findall(top)).split()
    if not words:
        return PLAIN
    said = dict(word.partition("=")[::2] for word in words)
    if len(said) < len(words):
        raise MigrationInvalid(path=name, reason="its lines '-- tenantry:' say something twice", remedy="Say it once.")
    try:
        return Header.model_validate(said)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        known = f"It may say: {', '.join(Header.model_fields)}; such as phase=post."
        reason = f"its line '-- tenantry:' says {fault['loc'][0]}={fault['input']}"
        raise MigrationInvalid(path=name, reason=reason, remedy=known) from error


# --- statements ---------------------------------------------------------------------------------------------------


def split(sql: str, name: str, complete: Callable[[str], bool] = sqlite3.complete_statement) -> tuple[str, ...]:
    """The statements of a script, each for one call of `execute`. `complete` knows the dialect's quotes and bodies.

    Raises `MigrationInvalid` for a statement that does not end and for those that end the migration's transaction
    or reach another database.
    """
    statements, start, end = [], 0, sql.find(";")
    while end >= 0:
        if complete(sql[start : end + 1]):
            statements.append(sql[start : end + 1])
            start = end + 1
        end = sql.find(";", end + 1)
    rest = sql[start:]
    if not _is_blank(rest):
        if not complete(f"{rest}\n;"):
            raise MigrationInvalid(path=name, reason=f"the statement that begins '{_opening(rest)}' does not end")
        statements.append(rest)
    return tuple(_allowed(statement, name) for statement in statements if not _is_blank(statement))


def _is_blank(sql: str) -> bool:
    return _BLANK.fullmatch(sql) is not None


def _opening(sql: str) -> str:
    return " ".join(_BLANK.sub("", sql, count=1).split())[:40]


def _allowed(statement: str, name: str) -> str:
    """The statement, unless its first word ends transactions: SQL knows such words nowhere else."""
    blank = _BLANK.match(statement)
    word = _WORD.match(statement, blank.end() if blank else 0)
    if word and word[0].upper() in _FORBIDDEN:
        raise MigrationInvalid(
            path=name,
            reason=f"it has the statement {word[0].upper()}",
            remedy="Remove it: each migration runs in a transaction of its own, inside one database.",
        )
    return statement


# --- Python files -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def _module(path: Path, version: str) -> dict[str, Any]:
    """The names of a Python migration; read again when its checksum changed."""
    spec = importlib.util.spec_from_file_location(f"tenantry_migration_{path.stem}_{version[:8]}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise MigrationInvalid(path=path.name, reason=f"it cannot be loaded ({error!r})") from error
    if not callable(getattr(module, "upgrade", None)):
        raise MigrationInvalid(path=path.name, reason="it has no function 'upgrade(connection)'")
    return vars(module)
