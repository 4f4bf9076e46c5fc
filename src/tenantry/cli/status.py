"""`tenantry status` and `tenantry why`: how the platform is, and where an address leads."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from tenantry.cli.options import COMMON, FLAG, Common


async def status(*, common: Common = COMMON) -> None:
    """Tell how the platform is: tenants, operations, workers, limits."""
    async with common.platform() as platform:
        found = await platform.status()
    shown = found | {"workers": [f"{worker['host']}/{worker['pid']}" for worker in found.get("workers", ())]}
    common.out.record(found, {name.replace("_", " "): value for name, value in shown.items()})


async def statistics(
    *,
    days: Annotated[int, Parameter(help="How many days back, 1 to 366; with --json each of them is told.")] = 30,
    common: Common = COMMON,
) -> None:
    """Tell the platform in numbers: tenants, users and other counted things, storage, requests, operations."""
    async with common.platform() as platform:
        found = await platform.statistics.show(days)
    worked = {name: sum(getattr(one, name) for one in found.operations) for name in ("done", "failed", "cancelled")}
    shown: dict[str, Any] = {
        "tenants": found.tenants,
        **{thing.name.replace("_", " "): thing.number for thing in found.things},
    }
    shown |= {"storage": f"{found.storage.bytes} bytes, {found.storage.rows} rows, {found.storage.files} files"}
    shown |= {f"on {one.name or 'this machine'}": f"{one.bytes} bytes" for one in found.by_server}
    shown |= {"operations": ", ".join(f"{number} {name}" for name, number in worked.items())}
    if found.requests is not None:
        by_day = {"site requests": found.served, "sessions begun": found.begun, "API requests": found.requests}
        shown |= {name: sum(one.number or 0 for one in days or ()) for name, days in by_day.items()}
        shown |= {"admin users": found.admins, "active sessions": found.sessions, "tokens": found.tokens}
        shown |= {"organizations": found.organizations}
    common.out.record(found, shown)


async def settings(
    part: Annotated[str, Parameter(help="Only settings whose names hold this.")] = "",
    /,
    *,
    written: Annotated[bool, FLAG, Parameter(help="Only those that are written somewhere.")] = False,
    common: Common = COMMON,
) -> None:
    """List the settings in force, and the line, variable or default that each comes from. Secrets are hidden."""
    async with common.platform() as platform:
        rows = [row for row in await platform.settings() if part.lower() in row.key.lower()]
    shown = [row for row in rows if not written or row.source != "default"]
    common.out.table(("key", "value", "source"), shown, "No setting is like that.")


async def why(
    url: Annotated[str, Parameter(help="A host name or an address, such as https://acme.example.com/pages.")],
    /,
    *,
    common: Common = COMMON,
) -> None:
    """Tell which tenant an address leads to, and by which rule."""
    from tenantry.application import why as trace

    async with common.platform() as platform:
        lines = await trace(platform.config, platform.registry, url)
    if common.json:
        common.out.data({"url": url, "lines": lines})
    for line in lines:
        common.out.line(line)
