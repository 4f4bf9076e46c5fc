"""Roll back one tenant: its newest migrations are taken back while the rest of the fleet stays where it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tenantry.errors import ConfigError, SharedTables
from tenantry.model import Environment
from tenantry.operations.due import Wanted
from tenantry.operations.toolbox import Toolbox
from tenantry.operations.verb import Verb, Work
from tenantry.registry import Transaction, journal, schemas, tenants
from tenantry.resources import Resource


class Rollback(Verb):
    """Brings a tenant's resources to older versions. Arguments: `targets` by step, `pin`."""

    name: ClassVar[str] = "rollback"
    reversible: ClassVar[bool] = False  # each resource is whole at any time, at the one version or at the other

    async def perform(self, work: Work, step: journal.Step) -> str:
        resource, environment = await work.parts(step)
        done = await resource.migrate(environment, work.operation.arguments["targets"][step.name])
        async with work.write() as tx:
            await tenants.set_versions(tx, [(environment.id, resource.name, done.after)])
            if work.operation.arguments["pin"]:
                await schemas.set_pinned(tx, [(environment.id, resource.name)], True)
            tx.changed(environment.tenant.id)
        return f"{done.before or 'nothing'} → {done.after or 'nothing'}"

    async def complete(self, tx: Transaction, work: Work) -> Mapping[str, Any] | None:
        arguments = work.operation.arguments
        told = {"id": work.operation.tenant_id, "to": arguments["targets"], "pin": arguments["pin"]}
        tx.audit("tenant.rollback", str(work.operation.tenant_slug), **told)
        return {"targets": arguments["targets"]}


def plan(
    tools: Toolbox, environments: Sequence[Environment], to: str | None, only: str | None = None
) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The steps that take a tenant's resources back, and the version of each: `to`, or one migration before theirs.

    `only` is the one environment, by its name. Raises `ConfigError` where there is nothing to take back, and
    `SharedTables`.
    """
    steps: list[tuple[str, str]] = []
    targets: dict[str, str] = {}
    several = len(environments) > 1
    for environment in environments:
        for resource in tools.resources[environment.tenant.blueprint]:
            target = None if only not in (None, environment.name) else _target(resource, environment, to)
            if target is not None:
                name = f"{resource.name}@{environment.name}" if several else resource.name
                steps.append((name, resource.kind))
                targets[name] = target
    if not steps:
        slug, wanted = environments[0].tenant.slug, f"above {to}" if to else "after their first migration"
        raise ConfigError(f"Nothing of '{slug}' is {wanted}.", remedy="`tenantry migrate status` shows the versions.")
    return steps, targets


def _target(resource: Resource, environment: Environment, to: str | None) -> str | None:
    """The version to go back to; None where the resource is not above it."""
    place = environment.place(resource.name)
    if not resource.has_schema or place is None or place.version is None:
        return None
    if resource.shared and not place.prefix:
        raise SharedTables(
            slug=environment.tenant.slug, resource=resource.name, database=place.database, server=place.server
        )
    versions = resource.versions()
    if place.version not in versions:
        return None
    at = versions.index(place.version)
    if to is not None:
        target = Wanted(to=to).named(resource)
        return target if target in versions[:at] else None
    return versions[at - 1] if at else None
