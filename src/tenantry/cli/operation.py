"""`tenantry operation`: what is being done, was done and failed."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, Common, Wait
from tenantry.cli.progress import carry_out, failures, step_line, watch

NAMED = 1000
"""Tenants that failed which are named."""

app = App(name="operation", help="What is being done, was done and failed.")

Id = Annotated[str, Parameter(help="The operation's id, or enough of its beginning or end.")]


@app.command(name="list")
async def list_(
    *,
    state: Annotated[
        str | None, Parameter(help="queued, running, pausing, paused, cancelling, done, failed or cancelled.")
    ] = None,
    tenant: Annotated[str | None, Parameter(help="Only those on this tenant.")] = None,
    verb: Annotated[str | None, Parameter(help="Only those that do this, such as migrate.")] = None,
    limit: Annotated[int, Parameter(help="How many at most.")] = 50,
    common: Common = COMMON,
) -> None:
    """List operations, newest first."""
    async with common.platform() as platform:
        rows = await platform.operations.list(state=state, tenant=tenant, verb=verb, limit=limit)
    columns = ("created", "verb", "tenant_slug", "state", "done", "failed", "total", "actor", "id")
    common.out.table(columns, rows, "No operation is here.")


@app.command
async def show(operation: Id, /, *, common: Common = COMMON) -> None:
    """Show an operation: its steps, and what failed with its error."""
    async with common.platform() as platform:
        details = await platform.operations.show(operation, NAMED)
    found = details.operation
    names = ("id", "verb", "tenant_slug", "state", "attempt", "done", "failed", "total", "actor", "worker_id")
    times = ("created", "started", "ended")
    common.out.record(details, {name.replace("_", " "): getattr(found, name) for name in (*names, *times)})
    for step in details.steps:
        common.out.line(step_line(step))
    failures(details, common.out)
    if found.error:
        common.out.line(f"error[{found.error.get('code')}]: {found.error.get('message')}  {found.error.get('remedy')}")


@app.command(name="watch")
async def watch_(operation: Id, /, *, common: Common = COMMON) -> None:
    """Follow an operation to its end, and run it here where no worker lives; the exit status is its own."""
    async with common.platform() as platform:
        details = await platform.operations.show(operation, NAMED)
        ended = await watch(platform, details.operation, common.out, finish=True)
    if common.json:
        common.out.data(ended)


@app.command
async def resume(operation: Id, /, *, wait: Wait = True, common: Common = COMMON) -> None:
    """Try a failed operation again, or let a paused one go on. What it finished is not repeated."""
    async with common.platform() as platform:
        ended = await carry_out(platform, await platform.operations.resume(operation), common.out, wait)
    if ended and common.json:
        common.out.data(ended)


@app.command
async def pause(operation: Id, /, *, common: Common = COMMON) -> None:
    """Let an operation on many tenants rest after the batches under way; `resume` lets it go on."""
    async with common.platform() as platform:
        found = await platform.operations.pause(operation)
    if common.json:
        common.out.data(found)
    common.out.line(f"{found.id} is {found.state.value}. Go on: `tenantry operation resume {found.id}`.")


@app.command
async def cancel(operation: Id, /, *, common: Common = COMMON) -> None:
    """Ask an operation to stop. What it made is undone where its verb can be."""
    async with common.platform() as platform:
        found = await platform.operations.cancel(operation)
    if common.json:
        common.out.data(found)
    common.out.line(f"{found.id} is {found.state.value}. Follow it: `tenantry operation watch {found.id}`.")
