"""`tenantry scim`: organizations' directories, which their providers keep up to date."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, FLAG, LISTED, After, Common, Limit, Search
from tenantry.cli.output import many, moment
from tenantry.platform.scim import ScimDetails

app = App(name="scim", help="Organizations' directories by SCIM 2.0: who joins, and who leaves.")

Organization: TypeAlias = Annotated[str, Parameter(help="The organization's name, or its id.")]


@app.command
async def show(organization: Organization, /, *, common: Common = COMMON) -> None:
    """Show how an organization's directory is kept: its address, its tokens, how many people there are."""
    async with common.platform() as platform:
        _show(common, await platform.scim.show(organization))


@app.command
async def people(
    organization: Organization,
    /,
    *,
    search: Search = None,
    limit: Limit = LISTED,
    after: After = None,
    common: Common = COMMON,
) -> None:
    """List people of an organization's directory by their user names."""
    async with common.platform() as platform:
        rows = await platform.scim.people(organization, search, limit, after)
    common.out.table(("user_name", "name", "active", "groups", "signed_in", "changed"), rows, "Nobody is here.")


@app.command
async def token(
    organization: Organization,
    /,
    *,
    name: Annotated[str, Parameter(help="What people call it, such as the provider's name.")],
    common: Common = COMMON,
) -> None:
    """Make a token for an organization's provider. It is shown once, and holds until it is revoked."""
    async with common.platform() as platform:
        made = await platform.scim.token(organization, name)
    if common.json:
        common.out.data(made)
        return
    common.out.line(f"The token '{made.row.name}' holds until it is revoked; it is shown only now.")
    common.out.line(f"  {made.token}")
    common.out.line(f"The provider's address is {made.address}")


@app.command
async def revoke(
    organization: Organization,
    token: Annotated[str, Parameter(help="Its id, as `tenantry scim show` names it.")],
    /,
    *,
    common: Common = COMMON,
) -> None:
    """Let a token open nothing any more."""
    async with common.platform() as platform:
        _show(common, await platform.scim.revoke(organization, token))


@app.command
async def require(
    organization: Organization,
    /,
    *,
    off: Annotated[bool, FLAG, Parameter(help="Let others sign in, too, again.")] = False,
    common: Common = COMMON,
) -> None:
    """Let nobody sign in by an organization whom its directory does not know."""
    async with common.platform() as platform:
        _show(common, await platform.scim.require(organization, not off))


@app.command
async def remove(organization: Organization, /, *, common: Common = COMMON) -> None:
    """Keep an organization's directory no more. Whoever was shut out stays so."""
    async with common.platform() as platform:
        _show(common, await platform.scim.remove(organization))


def _show(common: Common, found: ScimDetails) -> None:
    fields: dict[str, object] = {"organization": found.organization, "address": found.address, "kept": found.kept}
    if found.kept:
        fields |= {"required": found.required, "people": f"{found.people}, {found.active} of them active"}
        fields |= {"groups": found.groups, "waits": many(found.waiting, "change")}
        fields["tokens"] = [
            f"{one.name} ({one.id}, used {moment(one.used) if one.used else 'never'})" for one in found.tokens
        ]
    common.out.record(found, fields)
