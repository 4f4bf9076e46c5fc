"""The table of one row that holds a canary while `tenantry verify` looks whether others see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

TABLE: Final = "tenantry_canary"
FILE: Final = ".canary-of-tenantry"
"""The file that holds it in a directory."""

Ask = Callable[..., Sequence[Sequence[Any]]]
"""Runs a statement with its values and gives its rows."""


def plant(ask: Ask, canary: str, mark: str = "%s") -> None:
    """Put it into the database, alone; `mark` stands for a value."""
    ask(f"CREATE TABLE IF NOT EXISTS {TABLE} (canary VARCHAR(100) NOT NULL)")
    ask(f"DELETE FROM {TABLE}")  # noqa: S608 -- a constant
    ask(f"INSERT INTO {TABLE} (canary) VALUES ({mark})", canary)  # noqa: S608 -- constants


def seek(ask: Ask, trace: str) -> list[str]:
    """Every canary of this trace in the table, which must be there."""
    return [str(row[0]) for row in ask(f"SELECT canary FROM {TABLE}") if str(row[0]).startswith(trace)]  # noqa: S608


def uproot(ask: Ask) -> None:
    """Remove the table."""
    ask(f"DROP TABLE IF EXISTS {TABLE}")
