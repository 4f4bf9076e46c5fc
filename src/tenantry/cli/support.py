"""`tenantry support`: look into a tenant, for a while and for a reason."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, FLAG, Common, Slug

app = App(name="support", help="Look into a tenant, for a while and for a reason, seen by its people.")


@app.command(name="open")
async def open_(
    slug: Slug,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why: the tenant's people read it, and the audit log keeps it.")],
    minutes: Annotated[int, Parameter(help="For how long.")] = 30,
    writes: Annotated[bool, FLAG, Parameter(help="Let things be changed by it; otherwise it looks only.")] = False,
    common: Common = COMMON,
) -> None:
    """Open support access into a tenant. Prints a link that holds for five minutes, and once."""
    async with common.platform() as platform:
        made = await platform.support.open(slug, reason, minutes, writes)
    if common.json:
        common.out.data(made)
        return
    common.out.line(f"Support access to {slug} until {made.row.expires:%Y-%m-%d %H:%M} UTC. Follow within 5 minutes:")
    common.out.line(f"  {made.link}")


@app.command(name="list")
async def list_(
    slug: Annotated[str | None, Parameter(help="Only those into this tenant.")] = None,
    /,
    *,
    limit: Annotated[int, Parameter(help="At most so many.")] = 100,
    common: Common = COMMON,
) -> None:
    """List who looked into which tenant, newest first."""
    async with common.platform() as platform:
        rows = await platform.support.list(slug, limit)
    fields = ("slug", "state", "who", "reason", "writes", "created", "expires", "used", "ended", "id")
    common.out.table(fields, rows, "Nobody looked into a tenant.")


@app.command
async def end(
    slug: Slug,
    access: Annotated[str, Parameter(help="Its id, as `tenantry support list` shows it.")],
    /,
    *,
    common: Common = COMMON,
) -> None:
    """End support access now, in every process."""
    async with common.platform() as platform:
        row = await platform.support.end(slug, access)
    if common.json:
        common.out.data(row)
        return
    common.out.line(f"Support access to {slug} is over.", "bold")
