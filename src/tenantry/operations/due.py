"""What of the fleet is not at the schema it should have."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tenantry.errors import ConfigError, MigrationInvalid, SharedTables, TenantryError
from tenantry.model import Environment
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import Transaction, schemas
from tenantry.resources import Phase, Resource

SAMPLES: Final = 3
"""Tenants of each version that are asked before a run whether the files are still what was applied."""


@dataclass(frozen=True, slots=True)
class Due:
    """One resource of one tenant, or of all that share its tables, that is not at the schema it should have."""

    slug: str  # of shared tables "database on server"
    tenant_id: str
    environment_id: str
    environment: str
    version: str | None
    blueprint: str
    resource: str
    target: str | None
    server: str | None = None
    location: str = ""
    tenants: int = 1
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Pinned:
    """A resource that fleet migrations leave where it is."""

    slug: str
    environment: str
    version: str | None


@dataclass(frozen=True, slots=True)
class Fleet:
    """How many resources of a blueprint stand at which schema, and which of them are pinned."""

    blueprint: str
    resource: str
    newest: str | None
    versions: Mapping[str | None, int]
    pinned: tuple[Pinned, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run is asked to do."""

    blueprint: str | None = None
    to: str | None = None
    phase: Phase | None = None
    slugs: tuple[str, ...] = ()
    everyone: bool = False  # those at their schema, too: users' tables of an older Tenantry come up to date

    def named(self, resource: Resource) -> str | None:
        """The version of a resource that was asked for by name or number. Raises `ConfigError`."""
        if self.to is None:
            return resource.newest
        versions = resource.versions()
        chosen = [version for version in versions if self.to in (version, version.split("_")[0])]
        if not chosen:
            raise ConfigError(f"There is no migration '{self.to}'.", remedy=f"Known: {', '.join(versions)}.")
        return chosen[0]

    def check(self) -> None:
        """Raise `ConfigError` for a version and a phase together."""
        if self.to is not None and self.phase is not None:
            raise ConfigError("A version and a phase cannot both be given.", remedy="Leave --to or --phase away.")


ALL: Final = Wanted()


def with_schema(tools: Toolbox, blueprint: str | None = None) -> Iterator[Resource]:
    """The resources that have migrations, of all blueprints or of one."""
    for name, resources in tools.resources.items():
        for resource in resources:
            if resource.has_schema and blueprint in (None, name) and resource.newest is not None:
                yield resource


async def due(tx: Transaction, tools: Toolbox, wanted: Wanted = ALL) -> list[Due]:
    """What is not at its target, in one query a resource, in the order the tenants were made.

    Raises `SharedTables` for a tenant that cannot be migrated alone.
    """
    found: list[Due] = []
    for resource in with_schema(tools, wanted.blueprint):
        for target, at in await _targets(tx, resource, wanted):
            found += await _behind(tx, resource, target, at, wanted)
    return found


async def _targets(
    tx: Transaction, resource: Resource, wanted: Wanted
) -> list[tuple[str | None, Sequence[str | None] | None]]:
    """To which versions a run brings those that are at which versions; None: at whichever."""
    if wanted.phase != "pre":
        return [(wanted.named(resource), None)]
    there: dict[str | None, list[str | None]] = {}
    for version in await schemas.versions(tx, resource.setting.blueprint, resource.name):
        there.setdefault(_target(resource, version), []).append(version)
    return list(there.items())


def _target(resource: Resource, version: str | None) -> str | None:
    try:
        return resource.target("pre", version)
    except MigrationInvalid:  # a version of other files than these: the run names the tenant
        return resource.newest


async def _behind(
    tx: Transaction, resource: Resource, target: str | None, at: Sequence[str | None] | None, wanted: Wanted
) -> list[Due]:
    blueprint, name = resource.setting.blueprint, resource.name
    slugs, everyone = wanted.slugs, wanted.everyone
    rows = await schemas.not_at(
        tx, blueprint, name, target, at=at, slugs=slugs, shared=resource.shared, everyone=everyone
    )
    alone = [_due(resource, row, target) for row in rows]
    if not resource.shared:
        return alone
    rows = await schemas.shared_not_at(tx, blueprint, name, target, everyone)
    together = [_due(resource, row, target, shared=True) for row in rows if at is None or row.version in at]
    if together and slugs:
        where = together[0]
        raise SharedTables(slug=slugs[0], resource=name, database=where.location, server=where.server)
    return [*together, *alone]


def _due(resource: Resource, row: schemas.PartRow, target: str | None, *, shared: bool = False) -> Due:
    return Due(
        slug=row.slug,
        tenant_id=row.tenant_id,
        environment_id=row.environment_id,
        environment=row.environment,
        version=row.version,
        blueprint=resource.setting.blueprint,
        resource=resource.name,
        target=target,
        server=row.server,
        location=row.location,
        tenants=row.tenants,
        shared=shared,
    )


async def release(tx: Transaction, tools: Toolbox, wanted: Wanted) -> None:
    """Record to which versions a run of the whole fleet brings it: new tenants are made there from now on."""
    await tools.learn_released(tx)
    for resource in with_schema(tools, wanted.blueprint):
        target = resource.golden if wanted.phase == "pre" else wanted.named(resource)
        if target is not None and resource.posts():
            await schemas.set_released(tx, resource.setting.blueprint, resource.name, target)


async def refuse_edited(tx: Transaction, tools: Toolbox, found: Sequence[Due]) -> None:
    """Raise `MigrationInvalid` where the files contradict what is applied, before anything is made out of them.

    One tenant at fault may be at fault itself, so that a few of each version are asked, and all have to say so.
    """
    samples: dict[tuple[str, str, str | None], list[Due]] = {}
    for one in found:
        some = samples.setdefault((one.blueprint, one.resource, one.version), [])
        if len(some) < SAMPLES:
            some.append(one)
    for (blueprint, name, _), some in samples.items():
        resource = tools.resource(blueprint, name)
        environments = {e.id: e for e in await tools.all_environments(tx, list({one.tenant_id for one in some}))}
        faults = await asyncio.gather(*(_contradiction(resource, environments[one.environment_id]) for one in some))
        if faults[0] is not None and all(faults):
            raise faults[0]


async def _contradiction(resource: Resource, environment: Environment) -> MigrationInvalid | None:
    try:
        await resource.version(environment)
    except MigrationInvalid as error:
        return error
    except TenantryError:  # it cannot be asked; the run names it
        return None
    return None
