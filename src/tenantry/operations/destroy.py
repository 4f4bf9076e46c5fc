"""Destroy a tenant: totally, with a proof that nothing is left. There is no way back: it goes on until it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tenantry.errors import ResourceError
from tenantry.model import Environment, Status
from tenantry.operations.toolbox import Toolbox
from tenantry.operations.verb import Verb, Work, resource_steps
from tenantry.registry import Transaction, journal, tenants

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


class Destroy(Verb):
    """Removes a tenant and everything of it. Arguments: `homes`, its directories relative to the data directory."""

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
            await tenants.set_status(tx, [operation.tenant_id], Status.DESTROYING)
            tx.audit("tenant.withdraw", str(operation.tenant_slug), id=operation.tenant_id)
        return "no longer served"

    async def _drop(self, work: Work, step: journal.Step) -> str:
        if not await work.environments():
            return "gone"
        resource, environment = await work.parts(step)
        size = (await resource.measure(environment)).bytes if await resource.exists(environment) else 0
        await resource.drop(environment)
        if await resource.exists(environment):
            raise ResourceError(
                kind=resource.kind, resource=resource.name, tenant=environment.tenant.slug, reason="it is still there"
            )
        return f"{size:,} bytes"

    async def _directory(self, work: Work) -> str:
        environments = await work.environments()
        work.tools.remove_homes(environments)
        return ", ".join(sorted({str(Path(environment.home).parent) for environment in environments}))

    async def _forget(self, work: Work) -> str:
        operation = work.operation
        assert operation.tenant_id is not None
        async with work.write() as tx:
            await tenants.remove(tx, [operation.tenant_id])
            left = await leftovers(tx, work.tools, operation.tenant_id, operation.arguments["homes"])
            if left:
                raise ResourceError(
                    kind="tenant",
                    resource="everything",
                    tenant=operation.tenant_slug,
                    reason="left: " + "; ".join(left),
                )
            tx.audit("tenant.destroy", str(operation.tenant_slug), id=operation.tenant_id)
        await work.tools.registry.scrub()  # a copy of the disk must not hold the key either
        return "data key, secrets and hostnames too"

    async def complete(self, tx: Transaction, work: Work) -> Mapping[str, Any] | None:
        assert work.operation.tenant_id is not None
        left = await leftovers(tx, work.tools, work.operation.tenant_id, work.operation.arguments["homes"])
        return {"left": left}
