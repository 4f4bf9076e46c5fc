"""`tenantry status` and `tenantry why`: how the platform is, and where an address leads."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from tenantry.cli.options import COMMON, Common


async def status(*, common: Common = COMMON) -> None:
    """Tell how the platform is: tenants, operations, workers, limits."""
    async with common.platform() as platform:
        found = await platform.status()
    shown = found | {"workers": [f"{worker['host']}/{worker['pid']}" for worker in found.get("workers", ())]}
    common.out.record(found, {name.replace("_", " "): value for name, value in shown.items()})


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
