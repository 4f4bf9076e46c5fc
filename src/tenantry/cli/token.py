"""`tenantry token`: what programs call the API by."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, Common

app = App(name="token", help="Tokens by which programs call the API.")


@app.command(name="list")
async def list_(
    *,
    admin: Annotated[str | None, Parameter(help="Only those of this admin user.")] = None,
    common: Common = COMMON,
) -> None:
    """List tokens: whose each is, what it may do, until when, and when it was last used."""
    async with common.platform() as platform:
        rows = await platform.tokens.list(admin)
    common.out.table(("name", "mail", "scopes", "created", "expires", "used", "id"), rows, "No token is here.")


@app.command
async def create(
    name: Annotated[str, Parameter(help="What it is for, such as deploy.")],
    /,
    *,
    scope: Annotated[list[str], Parameter(help="What it may do, such as tenants:read; may be repeated.")],
    admin: Annotated[str | None, Parameter(help="Whose it is: it may never do more than its owner.")] = None,
    days: Annotated[int | None, Parameter(help="For how long it holds; 90 where nothing is said.")] = None,
    common: Common = COMMON,
) -> None:
    """Make a token. Prints it, once."""
    async with common.platform() as platform:
        made = await platform.tokens.create(name, scope, days, admin)
    if common.json:
        common.out.data(made)
        return
    common.out.line(f"{made.row.mail}'s token '{name}' holds until {made.row.expires:%Y-%m-%d}; it is shown only now.")
    common.out.line(f"  {made.token}")


@app.command
async def revoke(token: Annotated[str, Parameter(help="Its id, or its name.")], /, *, common: Common = COMMON) -> None:
    """Let a token open nothing any more."""
    async with common.platform() as platform:
        await platform.tokens.revoke(token)
    if common.json:
        common.out.data({"token": token})
    common.out.line(f"The token '{token}' opens nothing any more.", "bold")
