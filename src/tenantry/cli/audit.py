"""`tenantry audit`: who did what, and the proof that nobody changed it."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, Common

app = App(name="audit", help="Who did what, and the proof that nobody changed it.")


@app.command(name="list")
async def list_(
    *,
    tenant: Annotated[str | None, Parameter(help="Only what was done to this tenant.")] = None,
    actor: Annotated[str | None, Parameter(help="Only what this one did, such as admin:ana@example.org.")] = None,
    action: Annotated[str | None, Parameter(help="Only this (tenant.suspend), or all of a noun (tenant).")] = None,
    since: Annotated[str | None, Parameter(help="Only from this day or moment on, in UTC: 2026-11-21.")] = None,
    until: Annotated[str | None, Parameter(help="Only before this day or moment, in UTC.")] = None,
    limit: Annotated[int, Parameter(help="How many at most.")] = 50,
    before: Annotated[int | None, Parameter(help="Only entries older than this number.")] = None,
    common: Common = COMMON,
) -> None:
    """List what was done, newest first."""
    async with common.platform() as platform:
        entries = await platform.audit.list(limit, tenant, before, actor, action, since, until)
    common.out.table(("seq", "at", "actor", "action", "subject", "detail"), entries, "Nothing was done yet.")


@app.command
async def verify(*, common: Common = COMMON) -> None:
    """Walk the chain of all entries; the exit status is 1 where one was changed, left out or put in."""
    async with common.platform() as platform:
        report = await platform.audit.verify()
    if common.json:
        common.out.data(report)
    common.out.line(f"{report.entries} entries are whole. The newest one's hash: {report.head}", "green")
