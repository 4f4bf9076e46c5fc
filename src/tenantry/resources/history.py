"""Which migrations a database has had, by its records and the files, and how Alembic's run. Knows no database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tenantry.errors import MigrationError, MigrationInvalid
from tenantry.resources.schema import PLAIN, Migration, Schema, header

if TYPE_CHECKING:  # both take half a second to import, and plain SQL files need neither
    import sqlalchemy
    from alembic.script import ScriptDirectory

BOOKKEEPING: Final = frozenset({"tenantry_schema", "alembic_version", "tenantry_canary", "tenantry_tenants"})
"""Tables that tell the version, which tenants share the others, or that are there while the isolation is verified."""

OWN_TRANSACTION: Final = "a migration cannot begin, commit or roll back: it runs in one transaction with its record"

_alembic_lock: Final = threading.Lock()  # alembic's `op` is one global of the process


def now() -> str:
    """This moment in UTC, as ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def short(statement: str) -> str:
    """A statement on one line of at most 120 characters, for messages."""
    text = " ".join(statement.split())
    return text if len(text) <= 120 else f"{text[:119]}…"


# --- versions -----------------------------------------------------------------------------------------------------


def versions(schema: Schema) -> tuple[str, ...]:
    """The versions of a schema, oldest first. Raises `MigrationInvalid`."""
    if schema.program is not None:
        return (schema.program.newest(),)
    if schema.alembic:
        return _revisions(schema)
    return tuple(migration.version for migration in schema.migrations)


def posts(schema: Schema) -> frozenset[str]:
    """Those of a schema's versions that only new code bears. Raises `MigrationInvalid`."""
    if schema.alembic:
        return _revisions_after(schema)
    return frozenset(migration.version for migration in schema.migrations if migration.header.phase == "post")


def refuse_program(schema: Schema, path: str) -> None:
    """Raise `MigrationInvalid` for a schema that is not made of files."""
    if schema.program is not None:
        reason = "its schema is a program's, so that nothing here knows what a version of it is made of"
        raise MigrationInvalid(path=path, reason=reason, remedy="Use the program's own means.")


def applied(records: Sequence[tuple[str, str]], schema: Schema) -> int:
    """How many of the schema's migrations a database has, by its records (version, checksum): always the first ones.

    Raises `MigrationInvalid` where the records contradict the files.
    """
    for (name, checksum), migration in zip(records, schema.migrations, strict=False):
        if name != migration.version:
            raise _unknown(name, versions(schema))
        if checksum != migration.checksum:
            raise MigrationInvalid(
                path=migration.path.name,
                reason="it was changed after it had been applied",
                remedy="Put the file back as it was, and make the change in a new migration.",
            )
    if len(records) > len(schema.migrations):
        raise _unknown(records[len(schema.migrations)][0], versions(schema))
    return len(records)


def newest(records: Sequence[tuple[str, str]], schema: Schema) -> str | None:
    """The newest version that records (version, checksum) name. Raises `MigrationInvalid` as `applied` does."""
    if schema.program is not None:
        return records[-1][0] if records else None
    count = applied(records, schema)
    return records[count - 1][0] if count else None


def newest_revision(heads: Iterable[str], schema: Schema) -> str | None:
    """The newest of the revisions that Alembic's table names. Raises `MigrationInvalid` for an unknown one."""
    order, found = versions(schema), list(heads)
    unknown = [head for head in found if head not in order]
    if unknown:
        raise _unknown(unknown[0], order)
    return max(found, key=order.index, default=None)


def contradiction(path: str, recorded: str | None, said: str | None) -> MigrationInvalid:
    """The error of a database that is to be adopted at one version, and records another."""
    return MigrationInvalid(
        path=path,
        reason=f"its own records say that it is at {recorded or 'no version'}, not at {said or 'none'}",
        remedy=f"Adopt it with --at {recorded or 'none'}, or put its records right first.",
    )


def _unknown(name: str, order: tuple[str, ...]) -> MigrationInvalid:
    newest = f"the newest is {order[-1]}" if order else "there are none"
    return MigrationInvalid(
        path=name,
        reason=f"the database has this migration, but it is not among the files; {newest}",
        remedy="Bring the file back, or deploy the application that has it.",
    )


def position(order: tuple[str, ...], name: str | None) -> int:
    """How many versions there are up to this one; None is before the first."""
    return 0 if name is None else order.index(name) + 1


def check_reversible(migration: Migration) -> None:
    """Raise `MigrationError` for a migration that cannot be taken back."""
    reversible = migration.function("downgrade") if migration.is_python else migration.down is not None
    if not reversible:
        way = "function 'downgrade(connection)'" if migration.is_python else "section '-- down'"
        raise MigrationError(
            migration=migration.version,
            reason=f"it cannot be taken back, since it has no {way}",
            remedy=f"Add the {way} in a copy of this release, or restore a backup.",
        )


# --- Alembic ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _script(schema: Schema) -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory(schema.directory)


@lru_cache(maxsize=16)
def _revisions(schema: Schema) -> tuple[str, ...]:
    """Alembic's revisions, oldest first, from base to the one head."""
    try:
        with _alembic_lock:
            script = _script(schema)
            heads = script.get_heads()
            order = tuple(found.revision for found in script.walk_revisions())[::-1]
    except Exception as error:  # a revision file that cannot be loaded raises whatever it does
        raise MigrationInvalid(path=str(schema.directory), reason=f"{type(error).__name__}: {error}") from error
    if len(heads) > 1:
        raise MigrationInvalid(
            path=str(schema.directory),
            reason=f"it has several heads: {', '.join(heads)}",
            remedy="Join them with `alembic merge heads`.",
        )
    return order


@lru_cache(maxsize=16)
def _revisions_after(schema: Schema) -> frozenset[str]:
    """The revisions whose files say `phase=post`; they can say nothing else, since a run is one transaction."""
    _revisions(schema)  # its errors are the same ones
    found = set()
    with _alembic_lock:
        for one in _script(schema).walk_revisions():
            name = Path(one.path).name
            said = header(Path(one.path).read_text("utf-8"), name)
            if said.model_copy(update={"phase": "pre"}) != PLAIN:
                raise MigrationInvalid(path=name, reason="a revision of Alembic's can say phase=post, and nothing more")
            if said.phase == "post":
                found.add(one.revision)
    return frozenset(found)


Lend = Callable[[], AbstractContextManager["sqlalchemy.Connection"]]
"""Opens a transaction and lends a SQLAlchemy connection inside it."""


def revise(lend: Lend, schema: Schema, before: str | None, to: str | None) -> None:
    """Run Alembic's revisions up or down to a version, without the project's env.py, on the connection that is lent."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    script, order = _script(schema), _revisions(schema)
    back = position(order, to) < position(order, before)

    def steps(heads: Any, _: MigrationContext) -> Any:
        if back:
            return script._downgrade_revs(to or "base", heads)
        return script._upgrade_revs(to or "base", heads)

    with _alembic_lock, lend() as outer:
        context = MigrationContext.configure(connection=outer, opts={"fn": steps, "script": script})
        with Operations.context(context):
            context.run_migrations()
