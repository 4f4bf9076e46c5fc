"""`tenantry signup`: strangers who make tenants of their own."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, Common

app = App(name="signup", help="Who is signing up, and invitations to do so.")


@app.command(name="list")
async def list_(*, common: Common = COMMON) -> None:
    """List sign-ups that wait to be confirmed, newest first."""
    async with common.platform() as platform:
        rows = await platform.signups.list()
    common.out.table(("slug", "mail", "name", "organization", "address", "expires"), rows, "Nobody is signing up.")


@app.command
async def invite(
    mail: Annotated[str | None, Parameter(help="Whose it is; without it, whoever holds the link.")] = None,
    /,
    *,
    common: Common = COMMON,
) -> None:
    """Invite somebody to sign up. Prints the link, which holds for 14 days, and once."""
    async with common.platform() as platform:
        made = await platform.signups.invite(mail)
    if common.json:
        common.out.data(made)
        return
    if made.mailed:
        common.out.line(f"A mail is on its way to {made.row.mail}.")
    elif made.fault:
        common.out.line(made.fault)
    common.out.line("Signing up begins at this address, once, within 14 days:")
    common.out.line(f"  {made.link}")


@app.command
async def invitations(*, common: Common = COMMON) -> None:
    """List invitations that were not used, newest first."""
    async with common.platform() as platform:
        rows = await platform.signups.invitations()
    common.out.table(("id", "mail", "by", "created", "expires"), rows, "Nobody is invited.")


@app.command
async def uninvite(invitation: Annotated[str, Parameter(help="Its id.")], /, *, common: Common = COMMON) -> None:
    """Take an invitation back."""
    async with common.platform() as platform:
        await platform.signups.uninvite(invitation)
    common.out.line("It opens nothing any more.")
