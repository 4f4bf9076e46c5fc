"""`tenantry tenant`: make tenants and run their whole life."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, FLAG, Common, DryRun, Settings, Slug, Wait, assignments, confirm
from tenantry.cli.output import moment
from tenantry.cli.progress import carry_out
from tenantry.errors import TenantryError, UsageError
from tenantry.model import ExportForm

if TYPE_CHECKING:
    from tenantry.model import Finding
    from tenantry.platform import Platform

app = App(name="tenant", help="Make tenants and run their whole life.")

Environment = Annotated[str | None, Parameter(help="Which of the tenant's environments; else the first.")]

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
            _warn({step.name: step.caveat for step in planned if step.caveat}, common)
            return
        operation = await platform.tenants.create(slug, name, blueprint, plan, values, server)
        if await carry_out(platform, operation, common.out, wait):
            await _welcome(platform, slug, common)


def _warn(caveats: Mapping[str, str], common: Common) -> None:
    """Say what the isolation of each part does not promise; JSON has it among its fields."""
    for name, caveat in caveats.items() if not common.json else ():
        common.out.line(f"{name}: {caveat}", "yellow")


async def _welcome(platform: Platform, slug: str, common: Common) -> None:
    """The end of a create: where the tenant is, and how its first administrator signs in."""
    hostnames = [row.name for row in await platform.hostnames.list(slug)]
    credentials = await platform.tenants.credentials(slug)
    caveats = await platform.tenants.caveats(slug)
    if common.json:
        login = {"login": credentials.login, "password": credentials.password} if credentials else None
        told = {"caveats": caveats} if caveats else {}
        common.out.data({"slug": slug, "hostnames": hostnames, "credentials": login, **told})
        return
    _warn(caveats, common)
    common.out.line(f"{slug} is ready{': ' if hostnames else '.'}{', '.join(hostnames)}", "bold")
    if credentials:
        common.out.line(f"Sign in as {credentials.login} with the password below; it is shown only now.")
        common.out.line(f"  {credentials.password}")


@app.command
async def credentials(
    slug: Slug,
    /,
    *,
    resource: Annotated[
        str | None, Parameter(help="Print the login of this database in place of the administrator's; it is audited.")
    ] = None,
    environment: Environment = None,
    common: Common = COMMON,
) -> None:
    """Print the first administrator's login and password, unless they were shown before; or a database's."""
    if resource is not None:
        await _database_login(slug, resource, environment, common)
        return
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


async def _database_login(slug: str, resource: str, environment: str | None, common: Common) -> None:
    async with common.platform() as platform:
        found = await platform.tenants.login(slug, resource, environment)
    names = ("environment", "resource", "server", "database", *(["prefix"] if found.prefix else []), "user", "password")
    common.out.record(found, {name: getattr(found, name) for name in names})


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
    fields |= {"tried out until": moment(found.trial)} if found.trial else {}
    fields |= {"hostnames": [hostname.name for hostname in found.hostnames]}
    fields |= {f"set {key}": value for key, value in found.tenant.settings.items()}
    common.out.record(found, fields)
    if common.json:
        return
    parts = [
        {
            "environment": e.name,
            "part": p.name,
            "kind": p.kind,
            "schema": p.version,
            "place": f"{p.location} on {p.server}" if p.server else f"{e.home}/{p.location}",
            "user": found.users.get(f"{e.name}/{p.name}"),
        }
        for e in found.environments
        for p in e.places
    ]
    common.out.line()
    columns = ("environment", "part", "kind", "schema", "place", "user")
    common.out.table(columns if found.users else columns[:-1], parts)
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
async def activate(
    slug: Slug,
    /,
    *,
    plan: Annotated[str | None, Parameter(help="The plan it has from now on.")] = None,
    wait: Wait = True,
    common: Common = COMMON,
) -> None:
    """End a tenant's trial well, also one that is over already."""
    async with common.platform() as platform:
        if await carry_out(platform, await platform.tenants.activate(slug, plan), common.out, wait):
            _done(common, slug, "is active.")


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
    _tell(findings, common)
    return 0 if all(finding.ok for finding in findings) else 1


def _tell(findings: Sequence[Finding], common: Common) -> None:
    for finding in findings:
        mark, style = ("✓", "green") if finding.ok else ("✗", "red")
        common.out.line(f"  {mark} {finding.resource:<12} {finding.what}  {finding.remedy}".rstrip(), style)


@app.command
async def export(
    slug: Slug,
    /,
    *,
    into: Annotated[Path, Parameter(help="A directory that is not there yet.")],
    form: Annotated[ExportForm, Parameter(name="--format", help="How rows are written.")] = "csv",
    environment: Annotated[str | None, Parameter(help="That environment alone.")] = None,
    common: Common = COMMON,
) -> None:
    """Write a tenant's rows to files for other programs: one for each table, as of one moment."""
    async with common.platform() as platform:
        found = await platform.tenants.export(slug, into, form, environment)
    if common.json:
        common.out.data(found)
        return
    rows = [{"table": one.table, "rows": one.rows, "file": str(into / one.file)} for one in found]
    common.out.table(("table", "rows", "file"), rows, "It has no tables.")


@app.command
async def rotate(
    slug: Annotated[str | None, Parameter(help="The tenant's slug.")] = None,
    /,
    *,
    all_: Annotated[bool, FLAG, Parameter(name="--all", help="Every tenant's, 50 tenants at a time.")] = False,
    wait: Wait = True,
    common: Common = COMMON,
) -> None:
    """Give a tenant's databases new logins. The old ones hold until every process has the new ones."""
    if (slug is None) != all_:
        raise UsageError("Name one tenant, or all of them with --all.")
    async with common.platform() as platform:
        operation = await platform.tenants.rotate([slug] if slug else ())
        ended = await carry_out(platform, operation, common.out, wait)
    if ended and common.json:
        common.out.data(ended)


@app.command
async def rotate_keys(
    slug: Slug,
    /,
    *,
    now: Annotated[bool, FLAG, Parameter(help="Sign with them now, and believe no token of the ones before.")] = False,
    common: Common = COMMON,
) -> None:
    """Give a tenant other keys for its tokens. They are published now and sign in an hour."""
    async with common.platform() as platform:
        found = await platform.tenants.rotate_keys(slug, now)
    if common.json:
        common.out.data(found)
        return
    since, until = f"{found.since:%Y-%m-%d %H:%M:%S} UTC", found.until
    old = f"the ones before are believed until {until:%H:%M:%S}" if until else "no token of the ones before is believed"
    _done(common, slug, f"signs its tokens with other keys from {since}; {old}.")


@app.command
async def adopt(
    slug: Slug,
    /,
    *,
    resource: Annotated[str, Parameter(help="The part of the blueprint that it becomes, such as db.")],
    server: Annotated[str | None, Parameter(help="The server that the database lies on.")] = None,
    database: Annotated[str | None, Parameter(help="The database's name there.")] = None,
    file: Annotated[Path | None, Parameter(help="For an SQLite database, its file, as the worker sees it.")] = None,
    move: Annotated[bool, FLAG, Parameter(help="Remove the file when the tenant is live; else it stays.")] = False,
    at: Annotated[str | None, Parameter(help="The last migration whose changes it has; none before the first.")] = None,
    environment: Environment = None,
    name: Annotated[str | None, Parameter(help="What people read; else the slug.")] = None,
    blueprint: Annotated[str | None, Parameter(help="What it is made of; needed where there are several.")] = None,
    plan: Annotated[str | None, Parameter(help="What it may use; else the first plan.")] = None,
    settings: Settings = None,
    yes: Annotated[bool, FLAG, Parameter(help="Do not ask.")] = False,
    dry_run: DryRun = False,
    wait: Wait = True,
    common: Common = COMMON,
) -> int:
    """Make a tenant around a database that is there already. Shows how it differs from the golden schema first."""
    from tenantry.platform import Source

    source = Source(resource, at, server, database, file, move, environment)
    fields = {"name": name, "blueprint": blueprint, "plan": plan, "settings": assignments(settings)}
    async with common.platform() as platform:
        planned, findings = await platform.tenants.plan_adopt(slug, source, **fields)
        drifted = not all(finding.ok for finding in findings)
        if dry_run:
            _show_plan(planned, findings, common)
            return 1 if drifted else 0
        if not yes:
            if not common.json:
                _show_plan(planned, findings, common)
            confirm(slug, f"This makes {database or file} the tenant '{slug}'.", common)
        operation = await platform.tenants.adopt(slug, source, **fields)
        if await carry_out(platform, operation, common.out, wait):
            await _welcome(platform, slug, common)
    return 0


def _show_plan(planned: Any, findings: Sequence[Finding], common: Common) -> None:
    if common.json:
        common.out.data({"plan": planned, "findings": findings})
        return
    common.out.table(PLAN, planned)
    _tell(findings, common)


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
            confirm(slug, f"This removes everything of '{slug}' for ever.", common)
        if await carry_out(platform, await platform.tenants.destroy(slug), common.out, wait):
            _done(common, slug, "is gone. Its slug can be used again.")


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
    from tenantry.platform.csvfile import text_of

    text = text_of(file)  # which the platform, elsewhere perhaps, could not read
    async with common.platform() as platform:
        operation = await platform.tenants.import_text(text, str(file), blueprint, plan)
        ended = await carry_out(platform, operation, common.out, wait)
    if ended and common.json:
        common.out.data(ended)


def _done(common: Common, slug: str, what: str) -> None:
    if common.json:
        common.out.data({"slug": slug, "message": f"{slug} {what}"})
    common.out.line(f"{slug} {what}", "bold")


@app.command
async def announce(
    slugs: Annotated[list[str] | None, Parameter(help="Tenants' slugs; else all that are served.")] = None,
    /,
    *,
    begins: Annotated[str, Parameter(help="When it begins: 2026-11-28T02:00, in UTC where it names no zone.")],
    ends: Annotated[str, Parameter(help="When it ends.")],
    about: Annotated[str, Parameter(help="Why, and what it means for tenants.")] = "",
    common: Common = COMMON,
) -> None:
    """Tell tenants' admins by mail when something is maintained. Whoever was told does not hear it twice."""
    async with common.platform() as platform:
        found = await platform.tenants.announce(begins, ends, about, slugs or ())
        if not common.elsewhere:
            await platform.mails.deliver(alone=True)
    if common.json:
        common.out.data(found)
        return
    common.out.line(f"{found.queued} letters are queued; {found.before} tenants were told before.", "bold")
    for why, named in (("nothing is sent to their address", found.held), ("no address", found.unreachable)):
        if named:
            common.out.line(f"Not told, {why}: {', '.join(named)}", "yellow")
