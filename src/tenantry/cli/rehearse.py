"""`tenantry migrate rehearse` and `tenantry migrate drift`: what a migration would do, and what was done past it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, Common, Wait
from tenantry.cli.progress import carry_out
from tenantry.errors import OperationFailed

if TYPE_CHECKING:
    from tenantry.cli.output import Output
    from tenantry.platform import Platform
    from tenantry.platform.drift import Looked
    from tenantry.platform.rehearse import Report
    from tenantry.registry.journal import Operation

Blueprint = Annotated[str | None, Parameter(help="Only tenants made of this blueprint.")]
Sample = Annotated[str | None, Parameter(help="Only so many tenants (20), or such a share of them (10%); else all.")]
Seed = Annotated[int | None, Parameter(help="Choose the sample that this number chose before.")]
Parallel = Annotated[int | None, Parameter(help="How many tenants at a time on each server; else migrate.parallel.")]

DIFFERENCES = 20
"""Differences of one group that are shown; with --json all are."""


async def rehearse(
    *,
    sample: Sample = None,
    disk: Annotated[str, Parameter(help="The room that all copies have together, such as 500MB.")] = "5GB",
    parallel: Parallel = None,
    seed: Seed = None,
    blueprint: Blueprint = None,
    to: Annotated[str | None, Parameter(help="A version older or newer than theirs; else the newest.")] = None,
    phase: Annotated[Literal["pre", "post"] | None, Parameter(help="Only up to this phase.")] = None,
    tenants: Annotated[list[str] | None, Parameter(name="--tenant", help="Only this tenant; may be repeated.")] = None,
    report: Annotated[Path | None, Parameter(help="Write what was found to this file, .json or .md.")] = None,
    show: Annotated[str | None, Parameter(help="Show this rehearsal again, by its operation's id.")] = None,
    wait: Wait = True,
    common: Common = COMMON,
) -> int:
    """Migrate scratch copies of tenants: which would fail, what is locked, how long the fleet takes."""
    async with common.platform() as platform:
        if show is not None:
            return await tell(platform, show, common.out, report)
        operation = await platform.rehearsals.run(
            sample,
            disk=disk,
            parallel=parallel,
            seed=seed,
            to=to,
            phase=phase,
            blueprint=blueprint,
            slugs=tenants or (),
        )
        if not wait:
            await carry_out(platform, operation, common.out, wait)
            return 0
        return await followed(platform, operation, common.out, report)


async def passed(platform: Platform, operation: Operation, out: Output) -> bool:
    """Follow a rehearsal that comes before something else; with --json it is told only where any tenant would fail."""
    if not out.as_json:
        return await followed(platform, operation, out) == 0
    await platform.operations.finish(operation.id)
    found = await platform.rehearsals.report(operation.id)
    if found.well:
        return True
    out.data(found)
    return False


async def followed(platform: Platform, operation: Operation, out: Output, where: Path | None = None) -> int:
    """Follow a rehearsal to its end and tell what it found; 1 where any tenant would fail."""
    failed: OperationFailed | None = None
    if out.as_json:
        await platform.operations.finish(operation.id)
    else:
        try:
            await carry_out(platform, operation, out, wait=True)
        except OperationFailed as error:
            failed = error
    status = await tell(platform, operation.id, out, where)
    if failed is not None and not status:
        raise failed
    return status


async def tell(platform: Platform, operation_id: str, out: Output, where: Path | None) -> int:
    """Print a rehearsal's report, and write it where asked; 1 where any tenant would fail."""
    from tenantry.platform.rehearse import write

    found = await platform.rehearsals.report(operation_id)
    if where is not None:
        write(found, where)
    if out.as_json:
        out.data(found)
    else:
        _print(found, out)
    return 0 if found.well else 1


def _print(found: Report, out: Output) -> None:
    from tenantry.platform.rehearse import METHOD, duration, locked

    for one in found.skipped:
        out.line(f"  – {one.tenant} skipped: {one.reason}", "yellow")
    for part in found.parts:
        out.line(f"  {part.told}")
    rows = [
        {
            "migration": line.version,
            "copies": line.tenants,
            "median": duration(line.median),
            "slowest": f"{duration(line.slowest)} ({line.tenant})",
            "locks": "; ".join(map(locked, line.locks)),
            "written anew": ", ".join(line.rewritten),
        }
        for line in found.migrations
    ]
    out.table(("migration", "copies", "median", "slowest", "locks", "written anew"), rows, "Nothing was migrated.")
    for share in found.forecast:
        expected = f"{duration(share.seconds)} ± {duration(share.error)}"
        out.line(f"Forecast for {share.server}: {share.tenants} tenants in {expected}, by {share.measured} measured.")
    if found.forecast:
        whole = f"{found.seconds / 60:.2f} ± {found.error / 60:.2f} minutes"
        out.line(f"Forecast for the fleet: {whole}, {found.parallel} at a time on each server.", "bold")
        out.line(METHOD)
    count = f"{found.rehearsed} of {found.due} rehearsed, {len(found.failures)} would fail"
    out.line(f"{count}, {len(found.skipped)} skipped; seed {found.seed}.", "bold")


async def drift(
    slugs: Annotated[list[str] | None, Parameter(help="Tenants; else all.")] = None,
    /,
    *,
    sample: Sample = None,
    seed: Seed = None,
    blueprint: Blueprint = None,
    sql: Annotated[bool, Parameter(negative="", help="Print the SQL that would undo it. It is never run.")] = False,
    write: Annotated[Path | None, Parameter(help="Write that SQL to a file.")] = None,
    parallel: Parallel = None,
    common: Common = COMMON,
) -> int:
    """Compare tenants' schemas with the golden one of their version, and show what differs as SQL."""
    from tenantry.platform.drift import script

    async with common.platform() as platform:
        found = await platform.drifts.find(
            slugs or (),
            sample=sample,
            seed=seed,
            blueprint=blueprint,
            with_sql=sql or common.json or write is not None,
            parallel=parallel,
        )
    scripts = [script(one) for one in found.drift if one.statements]
    if write is not None:
        write.write_text("\n".join(scripts), "utf-8")
    if common.json:
        common.out.data(found)
    else:
        _differences(found, common.out)
        for text in scripts if sql else ():
            common.out.line(f"\n{text.rstrip()}")
    return 1 if found.drift else 0


def _differences(found: Looked, out: Output) -> None:
    for one in found.drift:
        shown = ", ".join(one.tenants[:5]) + (f" and {len(one.tenants) - 5} more" if len(one.tenants) > 5 else "")
        out.line(f"{shown} ({one.blueprint}.{one.resource} at {one.version or 'no version'})", "bold")
        for what in [one.error] if one.error else one.differences[:DIFFERENCES]:
            out.line(f"  ✗ {what}", "red")
        if len(one.differences) > DIFFERENCES:
            out.line(f"    and {len(one.differences) - DIFFERENCES} more")
    for resource in found.left_out:
        out.line(f"{resource}, cannot be compared.", "yellow")
    many = sum(len(one.tenants) for one in found.drift)
    out.line(f"{many} of {found.resources} databases of {found.tenants} tenants differ.", "bold")


def register(app: App) -> None:
    """Put both commands among those of a noun."""
    app.command(rehearse)
    app.command(drift)
