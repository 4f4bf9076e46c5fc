"""`tenantry server`: the servers that tenants' databases lie on."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, FLAG, Common, DryRun, confirm
from tenantry.errors import UsageError

if TYPE_CHECKING:
    from tenantry.model import Finding
    from tenantry.platform.servers import ServerRow

app = App(name="server", help="The servers that tenants' databases lie on.")

BAR = 10
"""Characters of the bar that shows how full a server is."""

COLUMNS = ("name", "kind", "address", "state", "used", "connections", "labels", "answers")

Name = Annotated[str, Parameter(help="The server's name.")]
UrlEnv = Annotated[
    str | None,
    Parameter(help="The variable that holds the administrator's URL; else it is asked for, or read from a pipe."),
]
Capacity = Annotated[int | None, Parameter(help="How many databases it takes; else there is no limit.")]
Labels = Annotated[
    list[str] | None, Parameter(name="--label", help="What blueprints choose servers by; may be repeated.")
]


@app.command(name="list")
async def list_(
    *,
    ask: Annotated[
        bool, FLAG, Parameter(negative="--no-ask", help="Ask each whether it answers (as it does), or do not.")
    ] = True,
    common: Common = COMMON,
) -> None:
    """List servers: state, room, labels, and whether each answers."""
    async with common.platform() as platform:
        rows = await platform.servers.list(ask=ask)
    if common.json:
        common.out.data(rows)
        return
    columns = COLUMNS if ask else COLUMNS[:-1]
    common.out.table(columns, [_shown(row) for row in rows], "No server is here.")


def _shown(row: ServerRow) -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in ("name", "kind", "address", "state", "connections", "labels")}
    return {**fields, "used": bar(row.used, row.capacity), "answers": _answer(row)}


def bar(used: int, capacity: int | None) -> str:
    """How full a server is: █ for what is used of its capacity, and the figures."""
    if capacity is None:
        return str(used)
    full = BAR if used >= capacity else used * BAR // capacity
    return f"{'█' * full}{'░' * (BAR - full)} {used} / {capacity}"


def _answer(row: ServerRow) -> str:
    if row.answers is None:
        return f"no: {row.faults[0]}" if row.faults else "no"
    faults = f", {len(row.faults)} faults" if len(row.faults) > 1 else f", {row.faults[0]}" if row.faults else ""
    return f"in {row.answers:.0f} ms{faults}"


@app.command
async def show(name: Name, /, *, common: Common = COMMON) -> None:
    """Show a server, and the tenants on it."""
    async with common.platform() as platform:
        found = await platform.servers.show(name)
    shown = _shown(found.row) | {"declared": found.row.declared}
    sharing = [f"{database} ({tenants} tenants)" for database, tenants in found.shared.items()]
    lists = {"tenants": found.tenants, "shared databases": sharing, "to be dropped": found.dropping}
    common.out.record(found, {**shown, **lists})


@app.command
async def add(
    name: Name,
    /,
    *,
    kind: Annotated[str, Parameter(help="postgres or mysql.")],
    url_env: UrlEnv = None,
    capacity: Capacity = None,
    connections: Annotated[int, Parameter(help="How many connections one process opens to it at most.")] = 80,
    labels: Labels = None,
    unchecked: Annotated[bool, FLAG, Parameter(help="Add it even where a check finds fault.")] = False,
    dry_run: DryRun = False,
    common: Common = COMMON,
) -> None:
    """Let tenants be placed on a server. It is checked first; its URL is sealed with the platform key."""
    url = _url(name, url_env)
    async with common.platform() as platform:
        if dry_run:
            _, findings = await platform.servers.plan_add(name, kind, url, capacity, connections, labels or ())
            tell({name: findings}, common)
            return
        row = await platform.servers.add(name, kind, url, capacity, connections, labels or (), unchecked=unchecked)
    _done(row, "is open to new tenants.", common)


def _url(name: str, variable: str | None) -> str:
    """The administrator's URL, from a variable, a prompt that does not show it, or a pipe."""
    if variable is not None:
        found = os.environ.get(variable, "")
        if not found:
            raise UsageError(f"The variable {variable} is not set.", remedy="Set it, or leave --url-env away.")
        return found
    if sys.stdin.isatty():
        return getpass.getpass(f"URL of {name}'s administrator, with its password: ").strip()
    return sys.stdin.readline().strip()


@app.command(name="set")
async def set_(
    name: Name,
    /,
    *,
    capacity: Annotated[int | None, Parameter(help="How many databases it takes.")] = None,
    unlimited: Annotated[bool, FLAG, Parameter(help="There is no limit to the databases it takes.")] = False,
    connections: Annotated[int | None, Parameter(help="How many connections one process opens to it at most.")] = None,
    labels: Labels = None,
    url_env: Annotated[str | None, Parameter(help="The variable that holds the administrator's new URL.")] = None,
    common: Common = COMMON,
) -> None:
    """Change a server that was added by command; what is not named stays."""
    url = _url(name, url_env) if url_env else None
    async with common.platform() as platform:
        row = await platform.servers.set(
            name, capacity=capacity, unlimited=unlimited, connections=connections, labels=labels, url=url
        )
    _done(row, "is changed.", common)


@app.command
async def check(
    name: Annotated[str | None, Parameter(help="Only this one; else each.")] = None, /, *, common: Common = COMMON
) -> int:
    """Test servers: reachable, version, TLS, room, and every privilege that is missing."""
    async with common.platform() as platform:
        found = await platform.servers.check(name)
    if not found:
        common.out.line("No server is here.")
    return tell(found, common)


def tell(found: dict[str, Sequence[Finding]] | Any, common: Common) -> int:
    """A line for each finding; 1 where one is a fault."""
    if common.json:
        common.out.data(found)
    for name, findings in found.items():
        for finding in _faults_last(findings):
            mark, style = ("✓", "green") if finding.ok else ("✗", "red")
            common.out.line(f"  {mark} {name:<12} {finding.what}  {finding.remedy}".rstrip(), style)
    return 0 if all(finding.ok for findings in found.values() for finding in findings) else 1


def _faults_last(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: not finding.ok)


@app.command(name="open")
async def open_(name: Name, /, *, common: Common = COMMON) -> None:
    """Place new tenants on a server again, and serve those that are there."""
    async with common.platform() as platform:
        row = await platform.servers.open(name)
    _done(row, "is open to new tenants.", common)


@app.command
async def drain(name: Name, /, *, common: Common = COMMON) -> None:
    """Place no more tenants on a server; those that are there are served."""
    async with common.platform() as platform:
        row = await platform.servers.drain(name)
    _done(row, f"takes no new tenants; what lies on it ({row.used}) is served.", common)


@app.command
async def close(name: Name, /, *, common: Common = COMMON) -> None:
    """Serve nobody from a server, for maintenance: its tenants are refused with a clear error."""
    async with common.platform() as platform:
        row = await platform.servers.close(name)
    _done(row, f"is closed; what lies on it ({row.used}) is not served.", common)


@app.command
async def remove(name: Name, /, *, dry_run: DryRun = False, common: Common = COMMON) -> None:
    """Forget a server that nothing lies on. The server itself is not touched."""
    async with common.platform() as platform:
        await platform.servers.remove(name, dry_run=dry_run)
    what = "can be removed." if dry_run else "is removed."
    if common.json:
        common.out.data({"name": name, "message": f"{name} {what}"})
    common.out.line(f"{name} {what}")


@app.command(name="drop-shared")
async def drop_shared(
    name: Name,
    database: Annotated[str, Parameter(help="The database that tenants shared.")],
    /,
    *,
    yes: Annotated[bool, FLAG, Parameter(help="Do not ask.")] = False,
    common: Common = COMMON,
) -> None:
    """Drop a database that tenants shared, with its roles. Refused while any tenant has a row there."""
    async with common.platform() as platform:
        if not yes:
            confirm(database, f"This drops the database '{database}' on {name} for ever.", common)
        await platform.servers.drop_shared(name, database)
    if common.json:
        common.out.data({"server": name, "database": database})
    common.out.line(f"{database} is dropped.")


def _done(row: ServerRow, what: str, common: Common) -> None:
    if common.json:
        common.out.data(row)
    common.out.line(f"{row.name} {what}", "bold")
