"""`tenantry migrate`: bring the tenants' databases to the newest schema."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, Common, DryRun, Wait
from tenantry.cli.progress import carry_out

app = App(name="migrate", help="Bring the tenants' databases to the newest schema.")

Blueprint = Annotated[str | None, Parameter(help="Only tenants made of this blueprint.")]
To = Annotated[str | None, Parameter(help="A version older or newer than theirs; else the newest.")]
Tenants = Annotated[list[str] | None, Parameter(name="--tenant", help="Only this tenant; may be repeated.")]

DUE = ("slug", "environment", "blueprint", "resource", "version", "target")


@app.command
async def plan(*, blueprint: Blueprint = None, to: To = None, tenants: Tenants = None, common: Common = COMMON) -> None:
    """Print what is not at its schema, in the order in which it would be migrated."""
    async with common.platform() as platform:
        due = await platform.migrations.plan(blueprint, to, tenants or ())
    common.out.table(DUE, due, "Every tenant is at its schema.")


@app.command
async def run(
    *,
    canary: Annotated[int, Parameter(help="How many tenants are migrated first; one failure among them ends it.")] = 1,
    waves: Annotated[str, Parameter(help="Rising shares of the others, such as 10%,50%,100%.")] = "100%",
    parallel: Annotated[int, Parameter(help="How many tenants at a time.")] = 2,
    stop_after: Annotated[str | None, Parameter(help="End after so many failures (3), or such a share (1%).")] = None,
    blueprint: Blueprint = None,
    to: To = None,
    tenants: Tenants = None,
    dry_run: DryRun = False,
    wait: Wait = True,
    common: Common = COMMON,
) -> None:
    """Migrate: the template of new tenants, a canary, then waves. A failed tenant holds nobody up."""
    async with common.platform() as platform:
        if dry_run:
            due = await platform.migrations.plan(blueprint, to, tenants or ())
            common.out.table(DUE, due, "Every tenant is at its schema.")
            return
        operation = await platform.migrations.run(
            canary,
            [wave.strip() for wave in waves.split(",")],
            parallel=parallel,
            stop_after=stop_after,
            to=to,
            blueprint=blueprint,
            slugs=tenants or (),
        )
        ended = await carry_out(platform, operation, common.out, wait)
    if ended and common.json:
        common.out.data(ended)


@app.command
async def status(*, common: Common = COMMON) -> None:
    """Count the tenants of each blueprint at each schema."""
    async with common.platform() as platform:
        fleets = await platform.migrations.status()
    rows = [
        {
            "blueprint": fleet.blueprint,
            "resource": fleet.resource,
            "version": version,
            "tenants": count,
            "newest": version == fleet.newest,
        }
        for fleet in fleets
        for version, count in sorted(fleet.versions.items(), key=lambda pair: pair[0] or "")
    ]
    common.out.table(("blueprint", "resource", "version", "tenants", "newest"), rows, "No tenant has a schema.")
