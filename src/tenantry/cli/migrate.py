"""`tenantry migrate`: bring the tenants' databases to the newest schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from tenantry.cli import rehearse
from tenantry.cli.options import COMMON, Common, DryRun, Slug, Wait
from tenantry.cli.progress import carry_out

if TYPE_CHECKING:
    from tenantry.platform import Platform

app = App(name="migrate", help="Bring the tenants' databases to the newest schema.")
rehearse.register(app)

Blueprint = Annotated[str | None, Parameter(help="Only tenants made of this blueprint.")]
To = Annotated[str | None, Parameter(help="A version older or newer than theirs; else the newest.")]
Phase = Annotated[
    Literal["pre", "post"] | None,
    Parameter(help="Only what the old code bears (pre), or also what only the new code does (post)."),
]
Tenants = Annotated[list[str] | None, Parameter(name="--tenant", help="Only this tenant; may be repeated.")]
Everyone = Annotated[
    bool,
    Parameter(name="--all", help="Also those at their schema: Tenantry's own tables for users come up to date."),
]
Report = Annotated[
    Path | None, Parameter(help="Where a report is written as JSON and Markdown: a directory, or a file's name.")
]

DUE = ("slug", "environment", "blueprint", "resource", "server", "version", "target", "tenants")


@app.command
async def plan(
    *,
    blueprint: Blueprint = None,
    to: To = None,
    phase: Phase = None,
    tenants: Tenants = None,
    everyone: Everyone = False,
    common: Common = COMMON,
) -> None:
    """Print what is not at its schema, in the order in which it would be migrated."""
    async with common.platform() as platform:
        due = await platform.migrations.plan(blueprint, to, tenants or (), phase, everyone)
    common.out.table(DUE, due, "Every tenant is at its schema.")


@app.command
async def run(
    *,
    canary: Annotated[int, Parameter(help="How many tenants are migrated first; one failure among them ends it.")] = 1,
    waves: Annotated[str, Parameter(help="Rising shares of the others, such as 10%,50%,100%.")] = "100%",
    parallel: Annotated[
        int | None, Parameter(help="How many tenants at a time on each server; else migrate.parallel.")
    ] = None,
    rate: Annotated[str | None, Parameter(help="At most so many tenants in all: 20/s, 300/m or 5000/h.")] = None,
    stop_after: Annotated[
        str | None, Parameter(help="End after so many failures (3), or more than a share of those tried (1%).")
    ] = None,
    blueprint: Blueprint = None,
    to: To = None,
    phase: Phase = None,
    tenants: Tenants = None,
    everyone: Everyone = False,
    rehearsal: Annotated[
        str | None,
        Parameter(name="--rehearse", help="First rehearse so many tenants (20, 10%); stop where any would fail."),
    ] = None,
    report: Report = None,
    dry_run: DryRun = False,
    wait: Wait = True,
    common: Common = COMMON,
) -> int:
    """Migrate: the template of new tenants, a canary, then waves. A failed tenant holds nobody up."""
    async with common.platform() as platform:
        if dry_run:
            due = await platform.migrations.plan(blueprint, to, tenants or (), phase, everyone)
            common.out.table(DUE, due, "Every tenant is at its schema.")
            return 0
        if report is not None:
            platform.migrations.make_room(report)
        if rehearsal is not None:
            trial = await platform.rehearsals.run(
                rehearsal, parallel=parallel, to=to, phase=phase, blueprint=blueprint, slugs=tenants or ()
            )
            if not await rehearse.passed(platform, trial, common.out):
                return 1
        operation = await platform.migrations.run(
            canary,
            [wave.strip() for wave in waves.split(",")],
            parallel=parallel,
            rate=rate,
            stop_after=stop_after,
            to=to,
            phase=phase,
            blueprint=blueprint,
            slugs=tenants or (),
            everyone=everyone,
        )
        try:
            ended = await carry_out(platform, operation, common.out, wait)
        finally:
            if report is not None and wait:
                await _write(platform, operation.id, report, common)
    if ended and common.json:
        common.out.data(ended)
    return 0


@app.command
async def status(*, common: Common = COMMON) -> None:
    """Count the tenants of each blueprint at each schema, and name those that are pinned to theirs."""
    async with common.platform() as platform:
        fleets = await platform.migrations.status()
    rows = [
        {
            "blueprint": fleet.blueprint,
            "resource": fleet.resource,
            "version": version,
            "tenants": count,
            "newest": version == fleet.newest,
            "pinned": [one.slug for one in fleet.pinned if one.version == version],
        }
        for fleet in fleets
        for version, count in sorted(fleet.versions.items(), key=lambda pair: pair[0] or "")
    ]
    columns = ("blueprint", "resource", "version", "tenants", "newest", "pinned")
    common.out.table(columns, rows, "No tenant has a schema.")


@app.command
async def pause(*, common: Common = COMMON) -> None:
    """Let the run that is under way rest, after the batches at hand."""
    async with common.platform() as platform:
        found = await platform.operations.pause((await platform.migrations.under_way()).id)
    if common.json:
        common.out.data(found)
    common.out.line(f"{found.id} is {found.state.value}. Go on: `tenantry migrate resume`.")


@app.command
async def resume(*, wait: Wait = True, common: Common = COMMON) -> None:
    """Let the run that is paused go on."""
    async with common.platform() as platform:
        found = await platform.operations.resume((await platform.migrations.under_way()).id)
        ended = await carry_out(platform, found, common.out, wait)
    if ended and common.json:
        common.out.data(ended)


@app.command
async def rollback(
    slug: Slug,
    /,
    *,
    to: Annotated[str | None, Parameter(help="The version to go back to; else one migration back.")] = None,
    environment: Annotated[str | None, Parameter(help="Only this environment of the tenant.")] = None,
    pin: Annotated[
        bool, Parameter(show_default=False, negative="", help="Leave it there: runs pass it over until `unpin`.")
    ] = False,
    wait: Wait = True,
    common: Common = COMMON,
) -> None:
    """Take migrations of one tenant back, while the others stay where they are."""
    async with common.platform() as platform:
        operation = await platform.migrations.rollback(slug, to, environment=environment, pin=pin)
        ended = await carry_out(platform, operation, common.out, wait)
    if ended and common.json:
        common.out.data(ended)


@app.command
async def unpin(slug: Slug, /, *, common: Common = COMMON) -> None:
    """Let the next run bring a tenant up again that was pinned to its version."""
    async with common.platform() as platform:
        rows = await platform.migrations.unpin(slug)
    common.out.table(("slug", "environment", "version"), rows, f"Nothing of '{slug}' is pinned.")


@app.command
async def report(
    operation: Annotated[str, Parameter(help="The operation's id, or enough of its beginning or end.")],
    /,
    *,
    into: Annotated[
        Path | None, Parameter(help="Write it as JSON and Markdown: a directory, or a file's name. Else it is printed.")
    ] = None,
    common: Common = COMMON,
) -> None:
    """Tell what a run did: its waves, each failure with its cause and remedy, times, and versions."""
    from tenantry.operations.report import NAMED

    async with common.platform() as platform:
        if into is not None:
            await _write(platform, operation, into, common)
            return
        found = await platform.migrations.report(operation, NAMED)
    if common.json:
        common.out.data(found)
    common.out.line(found.as_markdown().rstrip())


async def _write(platform: Platform, operation: str, where: Path, common: Common) -> None:
    for path in await platform.migrations.write_report(operation, where):
        common.out.line(f"Report: {path}")
