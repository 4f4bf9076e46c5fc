"""Measuring what tenants take up: in the background, some at a time, kept until the next time."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Final

from tenantry.errors import TenantryError
from tenantry.model import PRODUCTION, Environment, Usage
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import statistics
from tenantry.registry.database import now

KEPT: Final = timedelta(hours=1)
"""How old a measurement becomes before the next."""

AT_ONCE: Final = 20
"""Tenants that are measured at one look."""

log: Final = logging.getLogger("tenantry.worker")


async def measure_some(tools: Toolbox, at_once: int = AT_ONCE) -> None:
    """Measure some tenants whose measurement is old, and those that have none."""
    async with tools.registry.read() as tx:
        ids = await statistics.unmeasured(tx, now() - KEPT, at_once)
        environments = await tools.all_environments(tx, ids) if ids else []
    found = [one for environment in environments for one in await _measured(tools, environment)]
    counted = [one for environment in environments for one in await _counted(tools, environment)]
    if found:
        async with tools.registry.write() as tx:
            await statistics.put_usage(tx, found)
            await statistics.put_counts(tx, counted)


async def _measured(tools: Toolbox, environment: Environment) -> list[tuple[str, str, Usage | None]]:
    resources = {one.name: one for one in tools.resources.get(environment.tenant.blueprint, ())}
    found: list[tuple[str, str, Usage | None]] = []
    for place in environment.places:
        usage = None
        if place.name in resources:
            try:
                usage = await resources[place.name].measure(environment)
            except TenantryError as error:  # its server may be away: the others are measured still
                log.warning("%s of %s was not measured: %s", place.name, environment.tenant.slug, error)
        found.append((environment.id, place.name, usage))
    return found


async def _counted(tools: Toolbox, environment: Environment) -> list[tuple[str, str, int]]:
    """What there is of each counted thing in a tenant (id, name, number)."""
    if tools.count is None or environment.name != PRODUCTION or not environment.tenant.status.served:
        return []
    return [(environment.tenant.id, name, number) for name, number in (await tools.count(environment)).items()]
