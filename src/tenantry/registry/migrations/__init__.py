"""Brings the control database to the newest schema when a platform is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, text

from tenantry.errors import RegistryUnavailable

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext, RevisionStep
    from alembic.script import ScriptDirectory

HEAD: Final = "0015"
"""The newest revision. A test compares it with the files, so that a start need not load Alembic to look."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One step from a schema of the control database to the next."""

    id: str
    what: str


def pending(connection: Connection) -> list[Revision]:
    """What is missing, in its order. Raises `RegistryUnavailable` when the database is newer than this program."""
    at = current(connection)
    if at == HEAD:
        return []
    from alembic.script import ScriptDirectory

    steps = _steps(ScriptDirectory(Path(__file__).parent), (at,) if at else ())
    return [Revision(step.revision.revision, (step.revision.doc or "").rstrip(".")) for step in steps]


def upgrade(connection: Connection) -> bool:
    """Apply what is missing, inside the connection's writing transaction; True when anything was.

    Raises `RegistryUnavailable` when the database is newer than this program.
    """
    if current(connection) == HEAD:
        return False
    _run(connection)
    return True


def current(connection: Connection) -> str | None:
    """The revision the database is at; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return version


def _run(connection: Connection) -> None:
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(Path(__file__).parent)
    context = MigrationContext.configure(connection, opts={"fn": lambda at, _context: _steps(script, at)})
    with Operations.context(context):
        context.run_migrations()


def _steps(script: ScriptDirectory, at: tuple[str, ...] | MigrationContext) -> list[RevisionStep]:
    from alembic.util import CommandError

    try:
        return list(script._upgrade_revs("head", at))  # type: ignore[arg-type]
    except CommandError as error:
        raise RegistryUnavailable(
            reason=f"it is at revision {at}, which this version of Tenantry does not know",
            remedy="Install the version of Tenantry that wrote it, or a newer one.",
        ) from error
