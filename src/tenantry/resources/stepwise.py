"""Migrations that are no transaction: which of their statements ran, and where the next run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenantry.errors import MigrationError
from tenantry.resources.schema import Migration, checksum


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A migration that stopped in the middle."""

    version: str
    done: int  # how many of its statements are done
    prefix: str  # their checksum
    begun: bool  # whether it was cut off while the next one ran
    back: bool  # whether it was being taken back

    @property
    def what(self) -> str:
        """It in one sentence."""
        way = "was half taken back" if self.back else "stopped in the middle"
        return f"the migration {self.version} {way}, behind statement {self.done}"


def prefix(body: Sequence[str]) -> str:
    """The checksum of statements that ran, so that nobody changes them afterwards."""
    return checksum("\0".join(body))


def resume(migration: Migration, body: Sequence[str], there: Unfinished | None, up: bool) -> tuple[int, bool] | None:
    """Behind how many statements to go on, and whether the next one was cut off; None: it begins now.

    Raises `MigrationError` where it stopped on the other way, or its first statements were changed since.
    """
    if there is None or there.version != migration.version:
        return None
    if there.back == up:
        way = "forwards" if up else "back"
        raise MigrationError(
            migration=migration.version,
            reason=f"it cannot go {way}: {there.what}",
            remedy="Run the migration to where it was going first, then this one.",
        )
    if there.prefix != prefix(body[: there.done]):
        raise MigrationError(
            migration=migration.version,
            reason=f"its first {there.done} statements ran already and were changed since",
            remedy="Put them back as they were; only the later ones may be corrected.",
        )
    return there.done, there.begun


def stopped(migration: Migration, number: int, count: int, reason: str, shown: str) -> MigrationError:
    """The error of a migration that stopped at one of its statements, counted from 0."""
    where = f"statement {number + 1} of {count}{'; what is before it stays' if number else ''}"
    return MigrationError(
        migration=migration.version,
        reason=f"{reason}, in: {shown} ({where})",
        remedy=(
            f"Correct the migration from statement {number + 1} on, then run `tenantry migrate run` again: "
            "it goes on there."
        ),
    )
