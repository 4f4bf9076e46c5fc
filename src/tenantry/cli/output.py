"""What commands print: tables and progress on a terminal, plain lines in a pipe, JSON where it was asked for."""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def safe(text: object) -> str:
    """Text without control characters, which could drive the reader's terminal; new lines and tabs stay."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "\ufffd" for c in str(text)
    )


def plain(value: Any) -> Any:
    """A value as JSON can hold it. Fields that do not show in a dataclass's repr are secret, and left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.repr}
    if hasattr(value, "model_dump"):  # what a platform elsewhere gave, which holds no secret
        return value.model_dump(mode="json")
    match value:
        case Enum():
            return value.value
        case Mapping():
            return {str(key): plain(inner) for key, inner in value.items()}
        case datetime():
            return value.isoformat()
        case PurePath():
            return str(value)
        case list() | tuple() | set() | frozenset():
            return [plain(inner) for inner in value]
    return value


def cell(value: Any) -> str:
    """A value as a table shows it."""
    value = plain(value)
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(cell, value)) or "–"
    return safe(json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value)


def many(number: int, noun: str) -> str:
    """A number of things, in words: "1 tenant", "12,000 tenants"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def moment(value: datetime | None) -> str:
    """A time as a table shows it: in the reader's own zone, to the second."""
    return value.astimezone().strftime("%Y-%m-%d %H:%M:%S") if value else "–"


class Output:
    """Where a command prints."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    @cached_property
    def console(self) -> Console:
        from rich.console import Console

        return Console(highlight=False, markup=False, emoji=False)

    @property
    def live(self) -> bool:
        """Whether somebody watches on a terminal."""
        return not self.as_json and sys.stdout.isatty()

    def data(self, value: Any) -> None:
        """One JSON document."""
        print(json.dumps(plain(value), ensure_ascii=False, indent=2))

    def line(self, text: object = "", style: str = "") -> None:
        """A line for people; with --json nothing."""
        if self.live:
            self.console.print(safe(text), style=style or None, soft_wrap=True)
        elif not self.as_json:
            print(safe(text), flush=True)

    def paragraph(self, text: str, style: str = "", indent: int = 4) -> None:
        """A line that may be long: on a terminal its words are broken off at the edge, and go on further in."""
        if not self.live:
            self.line(text, style)
            return
        edge = max(self.console.width - 1, 2 * indent)
        for part in textwrap.wrap(
            text, edge, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
        ):
            self.line(part, style)

    def table(self, columns: Sequence[str], rows: Iterable[Any], none: str = "") -> None:
        """Rows of dataclasses or mappings: with --json all of each, otherwise these columns, or `none`."""
        rows = list(rows)
        if self.as_json:
            self.data(rows)
        elif rows:
            self._grid(columns, [[_text(row, column) for column in columns] for row in rows])
        elif none:
            self.line(none)

    def record(self, value: Any, fields: Mapping[str, Any]) -> None:
        """One thing: with --json the whole value, otherwise these fields, each on its line."""
        if self.as_json:
            self.data(value)
            return
        width = max(map(len, fields), default=0)
        for name, inner in fields.items():
            self.line(f"{name.ljust(width)}  {moment(inner) if isinstance(inner, datetime) else cell(inner)}")

    def _grid(self, columns: Sequence[str], cells: list[list[str]]) -> None:
        titles = [column.replace("_", " ") for column in columns]
        if self.live:
            from rich import box
            from rich.table import Table
            from rich.text import Text

            table = Table(*titles, box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
            for row in cells:
                table.add_row(*map(Text, row))
            self.console.print(table)
            return
        widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
        for row in (titles, *cells):
            print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _text(row: Any, column: str) -> str:
    value = row.get(column) if isinstance(row, Mapping) else getattr(row, column)
    return moment(value) if isinstance(value, datetime) else cell(value)
