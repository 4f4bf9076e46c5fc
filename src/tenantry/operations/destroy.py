"""Destroy a tenant: totally, with a proof that nothing is left. There is no way back: it goes on until it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tenantry.errors import ResourceError, ServerUnavailable
from tenantry.model import Environment, Status
from tenantry.operations import drop
from tenantry.operations.toolbox import Toolbox
from tenantry.operations.verb import Verb, Work, resource_steps
from tenantry.registry import Transaction, journal, servers, tenants
from tenantry.resources import Resource

WITHDRAW, DIRECTORY, FORGET = "withdraw", "directory", "forget"


def steps(tools: Toolbox, environments: Sequence[Environment]) -> list[tuple[str, str]]:
    """Withdraw it from service, drop its resources, last made first, remove its directory, forget it."""
    return [(WITHDRAW, ""), *reversed(resource_steps(tools, environments)), (DIRECTORY, ""), (FORGET, "")]


async def leftovers(tx: Transaction, tools: Toolbox, tenant_id: str, homes: list[str]) -> list[str]:
    """What still knows a tenant that should be gone: registry rows and files."""
    found = await tenants.remains(tx, tenant_id)
    for home in dict.fromkeys(str(Path(home).parent) for home in homes):
        path = tools.config.data / home
        if path.is_symlink() or path.exists():
            found.append(f"files: {path}")
    return found


async def aside(tx: Transaction, tenant_id: str) -> list[str]:
    """What of a tenant waits to be dropped until its server answers, and by which operation."""
    return [
        f"{one.arguments['resource']}: {one.arguments['location']} on {one.arguments['server']}, which operation "
        f"{one.operation} drops"
        for one in await servers.remnants(tx, tenant_id=tenant_id)
    ]


async def still_there(tools: Toolbox, remnants: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the servers say is left of a tenant that was destroyed. Raises `ServerUnavailable`."""
    found = []
    for one in remnants:
        resource = tools.resource(one["blueprint"], one["resource"])
        if await resource.exists(drop.revive(one)):
            found.append(f"{one['resource']}: {one['location']} on {one['server']}")
    return found


class Destroy(Verb):
    """Removes a tenant and everything of it.

    Arguments: `homes`, its directories relative to the data directory, and `remnants`, what it has on servers.
    """

    name: ClassVar[str] = "destroy"
    reversible: ClassVar[bool] = False

    async def perform(self, work: Work, step: journal.Step) -> str:
        if step.kind:
            return await self._drop(work, step)
        return await {WITHDRAW: self._withdraw, DIRECTORY: self._directory, FORGET: self._forget}[step.name](work)

    async def _withdraw(self, work: Work) -> str:
        operation = work.operation
        assert operation.tenant_id is not None
        async with work.write() as tx:
            there = await tenants.environments(tx, [operation.tenant_id])
            if there and there[0].tenant.status is not Status.DESTROYING:  # else a worker came to here and no further
                await tenants.set_status(tx, [operation.tenant_id], Status.DESTROYING)
                tx.audit("tenant.withdraw", str(operation.tenant_slug), id=operation.tenant_id)
        return "no longer served"

    async def _drop(self, work: Work, step: journal.Step) -> str:
        if not await work.environments():
            return "gone"
        resource, environment = await work.parts(step)
        size = await self._size(resource, environment)
        place = environment.place(resource.name)
        if await drop.gone(work, resource, environment):
            return f"{size:,} bytes"
        assert place is not None
        return f"{place.location} is dropped when {place.server} answers"

    @staticmethod
    async def _size(resource: Resource, environment: Environment) -> int:
        try:
            return (await resource.measure(environment)).bytes if await resource.exists(environment) else 0
        except (ServerUnavailable, ResourceError):  # damaged or out of reach: that must not keep it
            return 0

    async def _directory(self, work: Work) -> str:
        environments = await work.environments()
        work.tools.remove_homes(environments)
        return ", ".join(sorted({str(Path(environment.home).parent) for environment in environments}))

    async def _forget(self, work: Work) -> str:
        operation = work.operation
        assert operation.tenant_id is not None
        async with work.write() as tx:
            there = await tenants.environments(tx, [operation.tenant_id])
            await tenants.remove(tx, [operation.tenant_id])
            left = await leftovers(tx, work.tools, operation.tenant_id, operation.arguments["homes"])
            if left:
                raise ResourceError(
                    kind="tenant",
                    resource="everything",
                    tenant=operation.tenant_slug,
                    reason="left: " + "; ".join(left),
                )
            if there:
                tx.audit("tenant.destroy", str(operation.tenant_slug), id=operation.tenant_id)
        await work.tools.registry.scrub()  # a copy of the disk must not hold the key either
        return "data key, secrets and hostnames too"

    async def complete(self, tx: Transaction, work: Work) -> Mapping[str, Any] | None:
        assert work.operation.tenant_id is not None
        tenant_id = work.operation.tenant_id
        left = await leftovers(tx, work.tools, tenant_id, work.operation.arguments["homes"])
        return {"left": left, "aside": await aside(tx, tenant_id)}
