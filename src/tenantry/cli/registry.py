"""`tenantry registry`: the control database itself."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, Common, DryRun
from tenantry.errors import UsageError

if TYPE_CHECKING:
    from tenantry.platform.control import Control
    from tenantry.registry.copying import Copied

app = App(name="registry", help="The control database: how it is, its schema, and moving it to another database.")


@app.command
async def status(*, common: Common = COMMON) -> None:
    """Tell where the control database is, at which revision, how large, and what it holds."""
    found = await _control(common).status()
    shown = {
        "where": found.where,
        "server": found.server,
        "revision": found.revision or "none: it is empty",
        "newest": found.newest,
        "size": f"{found.bytes / 1e6:.1f} MB",
        "newest change": found.change,
        "engine": f"{found.engine.where}, {found.engine.notes} notes" if found.engine else "none yet",
        "connections": [f"{name}: {count}" for name, count in found.connections.items()],
        "rows": [f"{name}: {count}" for name, count in found.rows.items() if count],
    }
    common.out.record(found, shown)
    if found.revision and found.pending:
        common.out.line(f"{len(found.pending)} to apply: `tenantry registry migrate`.", "yellow")


@app.command
async def migrate(*, dry_run: DryRun = False, common: Common = COMMON) -> None:
    """Bring the control database to the schema of this version of Tenantry.

    On SQLite every start does it. On PostgreSQL, where other hosts may run another version, only this command does.
    """
    applied = await _control(common).migrate(dry_run)
    if common.json:
        common.out.data(applied)
    for revision in applied:
        common.out.line(f"  {'·' if dry_run else '✓'} {revision.id}  {revision.what}")
    if not applied:
        common.out.line("It is at the newest revision.")


@app.command
async def copy(
    *,
    to: Annotated[
        str | None, Parameter(help="The address of an empty database. Others on this host can read it; see --to-env.")
    ] = None,
    to_env: Annotated[
        str | None, Parameter(help="The variable, of the environment or in .env, that holds the address.")
    ] = None,
    common: Common = COMMON,
) -> None:
    """Copy the control database into an empty one, on PostgreSQL or SQLite, and prove the copy.

    Workers have to be ended; servers may go on. Without --to and --to-env the address is asked for. What changes in
    tenantry.toml is printed, and left to you.
    """
    control = _control(common)
    copied = await control.copy(_address(control, to, to_env), _Progress(common).tell)
    if common.json:
        common.out.data(copied)
        return
    _tell_what_is_next(common, copied, to_env)


def _control(common: Common) -> Control:
    from tenantry.platform.control import Control

    return Control(common.config)


def _address(control: Control, to: str | None, to_env: str | None) -> str:
    """Where to copy to. Raises `UsageError`."""
    if to and to_env:
        raise UsageError("--to and --to-env both name a database.", remedy="Give one of them.")
    if to:
        return to
    if to_env:
        from tenantry.config.sources import variables_of

        found = variables_of(control.config.root).get(to_env)
        if not found:
            raise UsageError(f"The variable {to_env} is not set, nor is it in .env.", remedy="Set it, or use --to.")
        return found
    if not sys.stdin.isatty():
        raise UsageError("No database is named.", remedy="Name the variable that holds its address with --to-env.")
    return getpass.getpass("Address of the empty database (not shown): ")


class _Progress:
    """A line for each table when it is over."""

    def __init__(self, common: Common) -> None:
        self._out = common.out
        self._told: set[str] = set()

    def tell(self, table: str, done: int, total: int) -> None:
        if done == total and total and table not in self._told:
            self._told.add(table)
            self._out.line(f"  ✓ {table:<16} {total:>9,} rows")


def _tell_what_is_next(common: Common, copied: Copied, to_env: str | None) -> None:
    out = common.out
    out.line(
        f"{sum(copied.rows.values()):,} rows copied and compared; {copied.entries:,} audit entries are whole.", "green"
    )
    out.line("Nothing uses the copy yet. In tenantry.toml:")
    out.line()
    out.line("  [platform]")
    if copied.target.startswith("sqlite") and not to_env:
        out.line(f'  control = "{copied.target}"')
    else:
        out.line(f'  control = {{env = "{to_env or "CONTROL_DATABASE_URL"}"}}')
    out.line()
    out.line("Then start the workers, restart the servers, and move the old control database away:")
    out.line(f"  {copied.source}")
