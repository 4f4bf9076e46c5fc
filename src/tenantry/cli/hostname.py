"""`tenantry hostname`: the names that lead to tenants."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, Common, Slug

PAGE = 1000
"""Host names that are asked for at a time."""

app = App(name="hostname", help="The names that lead to tenants.")


@app.command(name="list")
async def list_(
    slug: Annotated[str | None, Parameter(help="Only those of this tenant.")] = None, /, *, common: Common = COMMON
) -> None:
    """List host names: where each leads, and whether it only redirects since a rename."""
    async with common.platform() as platform:
        rows = list(some := await platform.hostnames.list(slug, limit=PAGE))
        while slug is None and len(some) == PAGE:
            rows += (some := await platform.hostnames.list(limit=PAGE, after=rows[-1].name))
    columns = ("name", "slug", "environment", "custom", "canonical", "former_until")
    common.out.table(columns, rows, "No host name is here.")


@app.command
async def add(
    slug: Slug,
    host: Annotated[str, Parameter(help="A DNS name, such as www.example.com.")],
    /,
    *,
    environment: Annotated[str, Parameter(help="Which of the tenant's environments it leads to.")] = "production",
    common: Common = COMMON,
) -> None:
    """Let one more name lead to a tenant."""
    async with common.platform() as platform:
        name = await platform.hostnames.add(slug, host, environment)
    if common.json:
        common.out.data({"slug": slug, "name": name, "environment": environment})
    common.out.line(f"{name} leads to {slug}.")


@app.command
async def remove(host: Annotated[str, Parameter(help="The name.")], /, *, common: Common = COMMON) -> None:
    """Let a name lead nowhere."""
    async with common.platform() as platform:
        name = await platform.hostnames.remove(host)
    if common.json:
        common.out.data({"name": name})
    common.out.line(f"{name} leads nowhere now.")
