"""Change a tenant that is there: edit, rename, suspend and resume."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tenantry.errors import TenantNotFound
from tenantry.model import Environment, Status, check_move
from tenantry.operations.blueprints import Blueprints
from tenantry.operations.toolbox import VALUE, Toolbox
from tenantry.operations.verb import Verb, Work, resource_steps
from tenantry.registry import Transaction, journal, signups, tenants
from tenantry.resources import Resource

RECORD = "record"


def steps(tools: Blueprints, environments: Sequence[Environment]) -> list[tuple[str, str]]:
    """Record the change, then make anew what is made out of a tenant's names and values."""
    return [(RECORD, ""), *resource_steps(tools, environments, following=True)]


async def _remake(work: Work, step: journal.Step) -> str:
    """Make a dependent resource anew, and remove what it left under the tenant's former name."""
    resource, environment = await work.parts(step)
    await resource.create(environment)
    await _record_place(work, resource, environment)
    before = _as_before(environment, work.operation.arguments.get("before", {}))
    if resource.place(before) != resource.place(environment):
        await resource.drop(before)
    return str(work.tools.home(environment) / resource.place(environment).location)


async def _restore(work: Work, step: journal.Step) -> None:
    """Make a dependent resource as it was before; the registry is still at the new values."""
    resource, environment = await work.parts(step)
    before = _as_before(environment, work.operation.arguments.get("before", {}))
    secrets = _secrets_before(work.tools, environment, work.operation.arguments.get("secrets_before", {}))
    if resource.place(before) != resource.place(environment):
        await resource.drop(environment)
    await resource.create(dataclasses.replace(before, secrets=secrets))
    await _record_place(work, resource, before)


async def _record_place(work: Work, resource: Resource, environment: Environment) -> None:
    place = resource.place(environment)
    if environment.place(resource.name) != place:
        async with work.write() as tx:
            await tenants.set_location(tx, environment.id, resource.name, place.location)
            tx.changed(environment.tenant.id)


def _as_before(environment: Environment, before: Mapping[str, Any]) -> Environment:
    known = {key: before[key] for key in ("slug", "name", "plan", "settings") if key in before}
    hostnames = tuple(before.get("hostnames", {}).get(environment.id, environment.hostnames))
    return dataclasses.replace(
        environment, tenant=dataclasses.replace(environment.tenant, **known), hostnames=hostnames
    )


def _secrets_before(tools: Toolbox, environment: Environment, packed: Mapping[str, str | None]) -> dict[str, Any]:
    """The secret values, those that this operation touched as they were before it."""
    untouched = {name: value for name, value in environment.secrets.items() if VALUE + name not in packed}
    sealed = {field: base64.b64decode(value) for field, value in packed.items() if value is not None}
    return untouched | tools.open_values(environment, sealed)


def pack(sealed: bytes | None) -> str | None:
    """A sealed value as it lies in an operation's arguments."""
    return None if sealed is None else base64.b64encode(sealed).decode()


class Edit(Verb):
    """Changes a tenant's name, plan and settings.

    Arguments: `after` and `before` with the columns, `secrets_after` and `secrets_before` with sealed values by field.
    """

    name: ClassVar[str] = "edit"

    async def perform(self, work: Work, step: journal.Step) -> str:
        if step.kind:
            return await _remake(work, step)
        await self._record(work, "after", "tenant.edit")
        return ", ".join(sorted(work.operation.arguments["after"]))

    async def undo(self, work: Work, step: journal.Step) -> None:
        if step.kind:
            await _restore(work, step)
        else:
            await self._record(work, "before", "tenant.edit_undone")

    async def _record(self, work: Work, which: str, action: str) -> None:
        operation = work.operation
        assert operation.tenant_id is not None
        columns = operation.arguments[which]
        secrets = {
            field: packed and base64.b64decode(packed)
            for field, packed in operation.arguments.get(f"secrets_{which}", {}).items()
        }
        async with work.write() as tx:
            if await _is_so(tx, operation.tenant_id, columns, secrets):  # a worker came to here and no further
                return
            await tenants.alter(tx, [operation.tenant_id], **columns)
            for field, sealed in secrets.items():
                await tenants.drop_secret(tx, operation.tenant_id, field)
                if sealed is not None:
                    await tenants.put_secrets(tx, [(operation.tenant_id, field, sealed)])
            tx.audit(action, str(operation.tenant_slug), id=operation.tenant_id, **columns)


async def _is_so(
    tx: Transaction, tenant_id: str, columns: Mapping[str, Any], secrets: Mapping[str, bytes | None]
) -> bool:
    """Whether the registry has these values already."""
    tenant = (await tenants.environments(tx, [tenant_id]))[0].tenant
    sealed = await tenants.secrets(tx, tenant_id)
    return all(getattr(tenant, name) == value for name, value in columns.items()) and all(
        sealed.get(field) == value for field, value in secrets.items()
    )


class Rename(Verb):
    """Gives a tenant another slug. Arguments: `to`, and `before` with `slug` and `hostnames` by environment id."""

    name: ClassVar[str] = "rename"

    async def perform(self, work: Work, step: journal.Step) -> str:
        if step.kind:
            return await _remake(work, step)
        to: str = work.operation.arguments["to"]
        await self._move(work, to, "tenant.rename", work.tools.config.routing.keep_renamed)
        return to

    async def undo(self, work: Work, step: journal.Step) -> None:
        if step.kind:
            await _restore(work, step)
        else:
            await self._move(work, work.operation.arguments["before"]["slug"], "tenant.rename_undone", 0)

    async def _move(self, work: Work, to: str, action: str, hold: float) -> None:
        environments = await work.environments()
        if not environments:
            raise TenantNotFound(slug=work.operation.tenant_slug)
        tenant = environments[0].tenant
        if tenant.slug == to:
            return
        renamed = dataclasses.replace(tenant, slug=to)
        hosts = {e.id: name for e in environments for name in work.tools.hostnames(renamed, e.name)}
        async with work.write() as tx:
            await tenants.rename(tx, tenant, to, tenants.hold_until(hold), hosts)
            tx.audit(action, to, id=tenant.id, before=tenant.slug)


class Standing(Verb):
    """Suspends, resumes or activates.

    Arguments: `status`, `reason`, `before`, the status it had, and `plan`, where it gets another one.
    """

    async def perform(self, work: Work, step: journal.Step) -> str:
        if step.kind:
            return await _remake(work, step)
        operation = work.operation
        target = Status(operation.arguments["status"])
        environments = await work.environments()
        if not environments:
            raise TenantNotFound(slug=operation.tenant_slug)
        tenant = environments[0].tenant
        if tenant.status is not target:
            check_move(tenant.slug, tenant.status, target)
            reason, plan = operation.arguments["reason"], operation.arguments.get("plan", tenant.plan)
            async with work.write() as tx:
                await tenants.set_status(tx, [tenant.id], target, reason)
                if target is Status.ACTIVE:
                    await signups.end_trial(tx, tenant.id)
                told: dict[str, Any] = {"reason": reason}
                if plan != tenant.plan:
                    await tenants.alter(tx, [tenant.id], plan=plan)
                    told["plan"] = plan
                tx.audit(f"tenant.{self.name}", tenant.slug, id=tenant.id, **told)
        return target.value


class Suspend(Standing):
    """Refuses a tenant's requests; its data stay as they are."""

    name: ClassVar[str] = "suspend"


class Resume(Standing):
    """Serves a suspended tenant again."""

    name: ClassVar[str] = "resume"


class Activate(Standing):
    """Ends a trial well."""

    name: ClassVar[str] = "activate"
