"""`tenantry tenant`: make tenants and run their whole life."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, FLAG, Common, DryRun, Settings, Slug, Wait, assignments
from tenantry.cli.output import moment
from tenantry.cli.progress import carry_out
from tenantry.errors import NotConfirmed, TenantryError

if TYPE_CHECKING:
    from tenantry.platform import Platform

app = App(name="tenant", help="Make tenants and run their whole life.")

PLAN = ("name", "kind", "detail")


@app.command
async def create(
    slug: Slug,
    /,
    *,
    name: Annotated[str | None, Parameter(help="What people read; else the slug.")] = None,
    blueprint: Annotated[str | None, Parameter(help="What it is made of; needed where there are several.")] = None,
    plan: Annotated[str | None, Parameter(help="What it may use; else the first plan.")] = None,
    settings: Settings = None,
    server: Annotated[str | None, Parameter(help="The server its database goes to; else placement chooses.")] = None,
    dry_run: DryRun = False,
    wait: Wait = True,
    common: Common = COMMON,
) -> None:
    """Make a tenant: its databases, directories, files and host names. Prints the first password, once."""
    async with common.platform() as platform:
        values = assignments(settings)
        if dry_run:
            planned = await platform.tenants.plan_create(slug, name, blueprint, plan, values, server)
            common.out.table(PLAN, planned)
            return
        operation = await platform.tenants.create(slug, name, blueprint, plan, values, server)
        if await carry_out(platform, operation, common.out, wait):
            await _welcome(platform, slug, common)


async def _welcome(platform: Platform, slug: str, common: Common) -> None:
    """The end of a create: where the tenant is, and how its first administrator signs in."""
    hostnames = [row.name for row in await platform.hostnames.list(slug)]
    credentials = await platform.tenants.credentials(slug)
    if common.json:
        login = {"login": credentials.login, "password": credentials.password} if credentials else None
        common.out.data({"slug": slug, "hostnames": hostnames, "credentials": login})
        return
    common.out.line(f"{slug} is ready{': ' if hostnames else '.'}{', '.join(hostnames)}", "bold")
    if credentials:
        common.out.line(f"Sign in as {credentials.login} with the password below; it is shown only now.")
        common.out.line(f"  {credentials.password}")


@app.command
async def credentials(slug: Slug, /, *, common: Common = COMMON) -> None:
    """Print the first administrator's login and password, unless they were shown before."""
    async with common.platform() as platform:
        found = await platform.tenants.credentials(slug)
    if found is None:
        raise TenantryError(
            f"The first password of '{slug}' was shown before, or there is none.",
            remedy="An administrator of the tenant can set a new one.",
        )
    if common.json:
        common.out.data({"login": found.login, "password": found.password})
    else:
        common.out.line(f"Sign in as {found.login} with the password below; it is shown only now.")
        common.out.line(f"  {found.password}")


@app.command(name="list")
async def list_(
    *,
    search: Annotated[str | None, Parameter(help="Only those whose slug or name holds this.")] = None,
    status: Annotated[str | None, Parameter(help="creating, trialing, active, suspended or destroying.")] = None,
    blueprint: Annotated[str | None, Parameter(help="Only those made of this blueprint.")] = None,
    limit: Annotated[int, Parameter(help="How many at most.")] = 100,
    after: Annotated[str | None, Parameter(help="Begin behind this slug: the last of the page before.")] = None,
    common: Common = COMMON,
) -> None:
    """List tenants in the order of their slugs."""
    async with common.platform() as platform:
        rows = await platform.tenants.list(search, status, blueprint, limit, after)
    common.out.table(("slug", "name", "blueprint", "plan", "status", "created"), rows, "No tenant is here.")
    if rows and len(rows) == limit:
        common.out.line(f"There may be more: --after {rows[-1].slug}")


@app.command
async def show(slug: Slug, /, *, common: Common = COMMON) -> None:
    """Show a tenant: its parts, host names and latest operations."""
    async with common.platform() as platform:
        found = await platform.tenants.show(slug)
    row = found.row
    fields = {name: getattr(row, name) for name in ("slug", "name", "blueprint", "plan", "status", "reason")}
    fields |= {"client id": row.client_id, "created": moment(row.created)}
    fields |= {"hostnames": [hostname.name for hostname in found.hostnames]}
    fields |= {f"set {key}": value for key, value in found.tenant.settings.items()}
    common.out.record(found, fields)
    if common.json:
        return
    parts = [
        {"environment": e.name, "part": p.name, "kind": p.kind, "schema": p.version, "place": f"{e.home}/{p.location}"}
        for e in found.environments
        for p in e.places
    ]
    common.out.line()
    common.out.table(("environment", "part", "kind", "schema", "place"), parts)
    common.out.line()
    common.out.table(("verb", "state", "created", "id"), found.operations)
    if found.credentials_wait:
        common.out.line(f"The first password waits: `tenantry tenant credentials {slug}`.", "yellow")


@app.command
async def edit(
    slug: Slug,
    /,
    *,
    name: Annotated[str | None, Parameter(help="What people read.")] = None,
    plan: Annotated[str | None, Parameter(help="What it may use.")] = None,
    settings: Settings = None,
    unset: Annotated[
        list[str] | None, Parameter(help="A value that goes back to its default; may be repeated.")
    ] = None,
    wait: Wait = True,
    common: Common = COMMON,
) -> None:
    """Change a tenant's name, plan and values, and make anew what is rendered from them."""
    async with common.platform() as platform:
        operation = await platform.tenants.edit(slug, name, plan, assignments(settings), unset or ())
        if await carry_out(platform, operation, common.out, wait):
            _done(common, slug, "is changed.")


@app.command
async def rename(
    slug: Slug,
    to: Annotated[str, Parameter(help="The new slug.")],
    /,
    *,
    wait: Wait = True,
    common: Common = COMMON,
) -> None:
    """Give a tenant another slug. Its host names follow; the old ones redirect for a while."""
    async with common.platform() as platform:
        if await carry_out(platform, await platform.tenants.rename(slug, to), common.out, wait):
            hostnames = [row.name for row in await platform.hostnames.list(to) if row.former_until is None]
            _done(common, slug, f"is now {to}: {', '.join(hostnames)}")


@app.command
async def suspend(
    slug: Slug,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why; kept with the tenant and in the audit log.")] = "",
    wait: Wait = True,
    common: Common = COMMON,
) -> None:
    """Refuse a tenant's requests from now on. Its data stay as they are."""
    async with common.platform() as platform:
        if await carry_out(platform, await platform.tenants.suspend(slug, reason), common.out, wait):
            _done(common, slug, "is suspended.")


@app.command
async def resume(slug: Slug, /, *, wait: Wait = True, common: Common = COMMON) -> None:
    """Serve a suspended tenant again."""
    async with common.platform() as platform:
        if await carry_out(platform, await platform.tenants.resume(slug), common.out, wait):
            _done(common, slug, "is served again.")


@app.command
async def check(slug: Slug, /, *, common: Common = COMMON) -> int:
    """Test every part of a tenant, or prove that nothing is left of one that was destroyed."""
    from tenantry.errors import TenantNotFound

    async with common.platform() as platform:
        try:
            findings = await platform.tenants.check(slug)
        except TenantNotFound:
            left = await platform.tenants.leftovers(slug)
            common.out.table(("left",), [{"left": each} for each in left], f"Nothing is left of '{slug}'.")
            return 1 if left else 0
    if common.json:
        common.out.data(findings)
    for finding in findings:
        mark, style = ("✓", "green") if finding.ok else ("✗", "red")
        common.out.line(f"  {mark} {finding.resource:<12} {finding.what}  {finding.remedy}".rstrip(), style)
    return 0 if all(finding.ok for finding in findings) else 1


@app.command
async def destroy(
    slug: Slug,
    /,
    *,
    yes: Annotated[bool, FLAG, Parameter(help="Do not ask.")] = False,
    dry_run: DryRun = False,
    wait: Wait = True,
    common: Common = COMMON,
) -> None:
    """Remove a tenant and everything of it: databases, files, keys, host names. There is no way back."""
    async with common.platform() as platform:
        planned = await platform.tenants.plan_destroy(slug)
        if dry_run:
            common.out.table(PLAN, planned)
            return
        if not yes:
            _confirm(slug, common)
        if await carry_out(platform, await platform.tenants.destroy(slug), common.out, wait):
            _done(common, slug, "is gone. Its slug can be used again.")


def _confirm(slug: str, common: Common) -> None:
    """Ask for the slug. Raises `NotConfirmed` where it is not typed, or nobody is there to be asked."""
    if common.json or not sys.stdin.isatty():
        raise NotConfirmed(slug=slug)
    common.out.line(f"This removes everything of '{slug}' for ever.", "red")
    try:
        typed = input("Type the slug to go on: ")
    except EOFError:
        typed = ""
    if typed.strip() != slug:
        raise NotConfirmed(slug=slug)


@app.command(name="import")
async def import_(
    file: Annotated[Path, Parameter(help="A CSV file with the columns slug, name, plan, blueprint, and any value.")],
    /,
    *,
    blueprint: Annotated[str | None, Parameter(help="For rows that name none.")] = None,
    plan: Annotated[str | None, Parameter(help="For rows that name none.")] = None,
    wait: Wait = True,
    common: Common = COMMON,
) -> None:
    """Make every tenant of a CSV file. Each bad row is named with its line, and the others go on."""
    async with common.platform() as platform:
        operation = await platform.tenants.import_csv(file, blueprint, plan)
        ended = await carry_out(platform, operation, common.out, wait)
    if ended and common.json:
        common.out.data(ended)


def _done(common: Common, slug: str, what: str) -> None:
    if common.json:
        common.out.data({"slug": slug, "message": f"{slug} {what}"})
    common.out.line(f"{slug} {what}", "bold")
