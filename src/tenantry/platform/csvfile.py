"""Reads lists of tenants to import."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from slugify import slugify

from tenantry.errors import ConfigError, SlugTaken, TenantryError
from tenantry.model import SLUG_LENGTH
from tenantry.operations.bulk import REFUSED
from tenantry.registry import journal

MAX_ROWS: Final = 100_000
COLUMNS: Final = ("slug", "name", "plan", "blueprint")


@dataclass(frozen=True, slots=True)
class Row:
    """One tenant of the list; `line` counts from 1, the heading being line 1."""

    line: int
    slug: str
    name: str | None
    plan: str | None
    blueprint: str | None
    settings: Mapping[str, str]
    fault: str | None = None


def text_of(path: Path) -> str:
    """What a CSV file holds. Raises `ConfigError` where it cannot be read, naming the line that is not UTF-8."""
    try:
        return decoded(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise ConfigError(f"There is no '{path}'.", remedy="Name a CSV file.") from None
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read: {error.strerror}.", remedy="Name a CSV file.") from error


def decoded(content: bytes, file: str) -> str:
    """The text of a file. Raises `ConfigError`, naming the line that is not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{file}, line {line}: this is not UTF-8.", remedy="Save the file as UTF-8.") from error


def rows_of(text: str, file: str) -> list[Row]:
    """The rows of a CSV text with a heading. A row without a slug gets one made of its name.

    Raises `ConfigError`, naming the line, when the text as a whole cannot be read.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        heading = [name.strip() for name in reader.fieldnames or []]
    except csv.Error as error:
        raise ConfigError(f"{file}, line 1: {error}.", remedy="Correct the quotes.") from error
    if not {"slug", "name"} & set(heading):
        raise ConfigError(
            f"{file}, line 1: the heading has neither 'slug' nor 'name', but: {', '.join(heading) or 'nothing'}.",
            remedy="Name the columns slug, name, plan, blueprint, and any value of the blueprint.",
        )
    twice = next((name for name in heading if name and heading.count(name) > 1), None)
    if twice:
        raise ConfigError(f"{file}, line 1: the heading has '{twice}' twice.", remedy="Name each column once.")
    reader.fieldnames = heading
    try:
        rows = [_row(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise ConfigError(f"{file}, line {reader.line_num + 1}: {error}.", remedy="Correct the quotes.") from error
    if len(rows) > MAX_ROWS:
        raise ConfigError(f"'{file}' has {len(rows):,} rows.", remedy=f"Import at most {MAX_ROWS:,} at a time.")
    return rows


def _row(line: int, cells: Mapping[str, Any]) -> Row:
    known = {name: _bare((cells.get(name) or "").strip()) for name in COLUMNS}
    settings = {key: _bare(value.strip()) for key, value in cells.items() if key and key not in COLUMNS and value}
    slug = known["slug"] or slugify(known["name"], max_length=SLUG_LENGTH, word_boundary=True)
    fault = "it has more cells than the heading" if any(cells.get(None) or ()) else None  # type: ignore[call-overload]
    return Row(line, slug, known["name"] or None, known["plan"] or None, known["blueprint"] or None, settings, fault)


def item(row: Row, used: Mapping[str, str], describe: Callable[[Row], dict[str, Any]]) -> journal.NewItem:
    """The row as an item of an import; one that cannot be is an item that has failed, with its line and reason."""
    try:
        if row.fault:
            raise ConfigError(f"line {row.line}: {row.fault}.", remedy="Put quotes around cells that hold commas.")
        arguments = describe(row)
        if row.slug in used:
            raise SlugTaken(f"'{row.slug}' is {used[row.slug]}.")
    except TenantryError as error:
        named = error.as_dict() | {"message": f"line {row.line}: {error.message}"}
        return journal.NewItem(REFUSED, row.slug, {"line": row.line}, named)
    return journal.NewItem(0, row.slug, {**arguments, "line": row.line})


FORMULA: Final = "=+-@\t\r\n＝＋－＠"
"""What spreadsheets take for the beginning of a formula."""


def written(rows: Iterable[Sequence[str]]) -> str:
    """Rows as CSV (RFC 4180). A cell that a spreadsheet would take for a formula begins with an apostrophe."""
    out = io.StringIO(newline="")
    csv.writer(out).writerows([f"'{cell}" if cell[:1] in FORMULA and cell else cell for cell in row] for row in rows)
    return out.getvalue()


def _bare(cell: str) -> str:
    """A cell without the apostrophe that `written` put there."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] and cell[1] in FORMULA else cell
