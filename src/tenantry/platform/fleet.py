"""Migrations of the whole fleet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tenantry.errors import TenantNotFound
from tenantry.model import new_id
from tenantry.operations import migrate
from tenantry.operations.migrate import Due, Fleet
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import journal, tenants

ALL_AT_ONCE: Final = ("100%",)


class Migrations:
    """Bringing tenants' schemas to what the blueprints declare."""

    def __init__(self, tools: Toolbox) -> None:
        self._tools = tools
        self._registry = tools.registry

    async def plan(self, blueprint: str | None = None, to: str | None = None, tenants: Sequence[str] = ()) -> list[Due]:
        """What is not at its schema, in the order in which it would be migrated."""
        async with self._registry.read() as tx:
            return await migrate.due(tx, self._tools, blueprint=blueprint, to=to, slugs=tenants)

    async def status(self) -> list[Fleet]:
        """How many tenants of each blueprint stand at which schema."""
        found = []
        async with self._registry.read() as tx:
            for blueprint, resource in migrate.targets(self._tools):
                newest = self._tools.resource(blueprint, resource).newest
                found.append(Fleet(blueprint, resource, newest, await tenants.versions(tx, blueprint, resource)))
        return found

    async def run(
        self,
        canary: int = 1,
        waves: Sequence[str] = ALL_AT_ONCE,
        *,
        parallel: int = 2,
        stop_after: str | None = None,
        to: str | None = None,
        blueprint: str | None = None,
        slugs: Sequence[str] = (),
    ) -> journal.Operation:
        """Queue a migration of everything that is not at its schema: a canary first, then waves.

        `waves` are rising percentages of what follows the canary. `stop_after` is a number of failures ("3") or a share
        of the tenants tried ("1%"). Raises `ConfigError`, `TenantNotFound`, or
        `MigrationInvalid` for a migration that was edited after it had been applied.
        """
        migrate.parse_stop(stop_after)
        percents = migrate.parse_percents(waves)
        async with self._registry.read() as tx:
            await migrate.refuse_edited(tx, self._tools, await migrate.due(tx, self._tools, blueprint=blueprint, to=to))
        async with self._registry.write() as tx:
            for slug in slugs:
                await tenants.find(tx, slug)
            found = await migrate.due(tx, self._tools, blueprint=blueprint, to=to, slugs=slugs)
            steps, items = migrate.plan(migrate.waves(found, canary, percents))
            operation_id = new_id()
            arguments = {"stop_after": stop_after, "parallel": parallel, "to": to}
            await journal.submit(tx, operation_id, "migrate", steps, arguments=arguments, items=items)
            tx.audit("platform.migrate", "platform", operation=operation_id, tenants=len(items), to=to)
            return await journal.get(tx, operation_id)


__all__ = ["Migrations", "TenantNotFound"]
