"""`tenantry org`: organizations, whose tenants share a way to sign in."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, LISTED, After, Common, Limit, Search
from tenantry.cli.output import many

app = App(name="org", help="Organizations: tenants that belong together.")

Organization: TypeAlias = Annotated[str, Parameter(help="Its name, or its id.")]
Slugs: TypeAlias = Annotated[list[str], Parameter(help="Tenants' slugs.")]


@app.command(name="list")
async def list_(*, common: Common = COMMON) -> None:
    """List organizations by name."""
    async with common.platform() as platform:
        rows = await platform.organizations.list()
    common.out.table(("name", "mail", "tenants", "created"), rows, "No organization is here.")


@app.command
async def show(
    organization: Organization,
    /,
    *,
    search: Search = None,
    limit: Limit = LISTED,
    after: After = None,
    common: Common = COMMON,
) -> None:
    """Show an organization and its tenants."""
    async with common.platform() as platform:
        found = await platform.organizations.show(organization, search, limit, after)
    fields = {"name": found.row.name, "mail": found.row.mail, "created": found.row.created}
    fields |= {"has": many(found.row.tenants, "tenant"), "tenants": list(found.tenants)}
    common.out.record(found, fields)


@app.command
async def create(
    name: Annotated[str, Parameter(help="What people call it.")],
    /,
    *,
    mail: Annotated[str, Parameter(help="Its administrator's mail address.")],
    common: Common = COMMON,
) -> None:
    """Make an organization."""
    async with common.platform() as platform:
        row = await platform.organizations.create(name, mail)
    _done(common, row.name, "is here. Put tenants into it: `tenantry org assign`.")


@app.command
async def edit(
    organization: Organization,
    /,
    *,
    name: Annotated[str | None, Parameter(help="What people call it.")] = None,
    mail: Annotated[str | None, Parameter(help="Its administrator's mail address.")] = None,
    common: Common = COMMON,
) -> None:
    """Change an organization's name or its administrator's address."""
    async with common.platform() as platform:
        row = await platform.organizations.edit(organization, name, mail)
    _done(common, row.name, "is changed.")


@app.command
async def assign(organization: Organization, slugs: Slugs, /, *, common: Common = COMMON) -> None:
    """Put tenants into an organization, out of any other."""
    async with common.platform() as platform:
        row = await platform.organizations.assign(organization, slugs)
    _done(common, row.name, f"has {many(row.tenants, 'tenant')}.")


@app.command
async def unassign(organization: Organization, slugs: Slugs, /, *, common: Common = COMMON) -> None:
    """Take tenants out of an organization."""
    async with common.platform() as platform:
        row = await platform.organizations.unassign(organization, slugs)
    _done(common, row.name, f"has {many(row.tenants, 'tenant')}.")


@app.command
async def remove(organization: Organization, /, *, common: Common = COMMON) -> None:
    """Forget an organization. Its tenants stay, and belong to none."""
    async with common.platform() as platform:
        freed = await platform.organizations.remove(organization)
    _done(common, organization, f"is gone; {len(freed)} tenants belong to none now.")


def _done(common: Common, subject: str, what: str) -> None:
    if common.json:
        common.out.data({"organization": subject, "message": f"{subject} {what}"})
    common.out.line(f"{subject} {what}", "bold")
