"""Queries on the schema versions at which tenants' resources stand. Each takes the transaction it belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, true, update

from tenantry.model import Status
from tenantry.registry import servers, tables, tenants
from tenantry.registry.database import IN_LIMIT, Transaction, chunks


@dataclass(frozen=True, slots=True)
class PartRow:
    """A resource of a tenant's environment, or of all tenants that share its tables, and its schema version."""

    slug: str  # of a shared one "database on server"
    tenant_id: str  # of a shared one the first tenant's, as is the environment's
    environment_id: str
    environment: str
    version: str | None
    server: str | None
    location: str
    tenants: int = 1  # that share it


def _parts(blueprint: str, resource: str, columns: Sequence[Any]) -> Select[Any]:
    """A query over a resource of a blueprint's tenants, without those being made or destroyed."""
    tenant, environment, part = tables.tenant, tables.environment, tables.resource
    return (
        select(*columns)
        .select_from(tenant)
        .join(environment, environment.c.tenant_id == tenant.c.id)
        .join(part, part.c.environment_id == environment.c.id)
        .where(tenant.c.blueprint == blueprint, part.c.name == resource)
        .where(tenant.c.status.not_in([Status.CREATING.value, Status.DESTROYING.value]))
    )


def _elsewhere(version: str | None, everyone: bool) -> ColumnElement[bool]:
    column = tables.resource.c.version
    if everyone:
        return true()
    return column.is_not(None) if version is None else or_(column.is_(None), column != version)


_OF_ONE: Final = tables.resource.c.location.contains("/")
"""Whether a resource in a shared database has tables of its own there."""


async def not_at(
    tx: Transaction,
    blueprint: str,
    resource: str,
    version: str | None,
    *,
    at: Sequence[str | None] | None = None,
    slugs: Sequence[str] = (),
    shared: bool = False,
    everyone: bool = False,
) -> list[PartRow]:
    """A blueprint's resources of this name at another schema version, in the order their tenants were made.

    With `everyone`, those at this one, too. `at` narrows it to those at one of these. Of a `shared` kind only those
    with tables of their own. Those of tenants being made or destroyed, and those that are pinned, are left out.
    """
    tenant, environment, part = tables.tenant, tables.environment, tables.resource
    columns = (tenant.c.slug, tenant.c.id, environment.c.id, environment.c.name)
    query = _parts(blueprint, resource, (*columns, part.c.version, part.c.server, part.c.location))
    query = query.where(_elsewhere(version, everyone), part.c.pinned.is_(False)).order_by(tenant.c.id, environment.c.id)
    if at is not None:
        query = query.where(
            or_(part.c.version.in_([one for one in at if one]), part.c.version.is_(None) & (None in at))
        )
    if slugs:
        query = query.where(tenant.c.slug.in_(slugs))
    if shared:
        query = query.where(_OF_ONE)
    return [PartRow(*row) for row in await tx.all(query)]


async def shared_not_at(
    tx: Transaction, blueprint: str, resource: str, version: str | None, everyone: bool = False
) -> list[PartRow]:
    """The shared tables of a blueprint's resource that are at another schema version, each once; or all."""
    tenant, environment, part = tables.tenant, tables.environment, tables.resource
    first = func.min(tenant.c.id + "/" + environment.c.id)
    columns = (part.c.server, part.c.location, func.min(part.c.version), first, func.count())
    query = _parts(blueprint, resource, columns).where(_elsewhere(version, everyone), _OF_ONE.is_(False))
    rows = await tx.all(query.group_by(part.c.server, part.c.location).order_by(part.c.server, part.c.location))
    found = []
    for server, location, version, one, number in rows:
        tenant_id, _, environment_id = one.partition("/")
        name = f"{location} on {server}"
        found.append(PartRow(name, tenant_id, environment_id, "all", version, server, location, number))
    return found


async def sharing(tx: Transaction, server: str, location: str, resource: str) -> tuple[str, str] | None:
    """The ids of the first tenant and environment with this resource in a shared database; None where none is left."""
    found = await all_sharing(tx, server, location, resource, 1)
    return found[0] if found else None


async def all_sharing(
    tx: Transaction, server: str, location: str, resource: str, limit: int | None = None
) -> list[tuple[str, str]]:
    """The ids of all tenants and environments with this resource in a shared database, the oldest first."""
    tenant, environment, part = tables.tenant, tables.environment, tables.resource
    query = (
        select(tenant.c.id, environment.c.id)
        .join(environment, environment.c.tenant_id == tenant.c.id)
        .join(part, part.c.environment_id == environment.c.id)
        .where(part.c.server == server, part.c.location == location, part.c.name == resource)
        .where(tenant.c.status.not_in([Status.CREATING.value, Status.DESTROYING.value]))
    )
    rows = await tx.all(query.order_by(tenant.c.id, environment.c.id).limit(limit))
    return [(row[0], row[1]) for row in rows]


async def set_shared_version(tx: Transaction, server: str, location: str, resource: str, version: str | None) -> None:
    """Record the schema version of shared tables for all their tenants at once, told in one change."""
    part = tables.resource
    where = and_(part.c.server == server, part.c.location == location, part.c.name == resource)
    await tx.execute(update(part).where(where).values(version=version))
    tx.changed(servers.mark(server, location))


async def set_pinned(tx: Transaction, rows: Sequence[tuple[str, str]], pinned: bool) -> None:
    """Let fleet migrations leave resources (environment id, name) at their version, or no longer."""
    part = tables.resource
    for environment_id, name in rows:
        where = and_(part.c.environment_id == environment_id, part.c.name == name)
        await tx.execute(update(part).where(where).values(pinned=pinned))


async def pinned(tx: Transaction, blueprint: str, resource: str) -> list[PartRow]:
    """The resources of this name that are pinned, by their tenants' slugs."""
    tenant, environment, part = tables.tenant, tables.environment, tables.resource
    columns = (tenant.c.slug, tenant.c.id, environment.c.id, environment.c.name)
    query = _parts(blueprint, resource, (*columns, part.c.version, part.c.server, part.c.location))
    rows = await tx.all(query.where(part.c.pinned.is_(True)).order_by(tenant.c.slug, environment.c.name))
    return [PartRow(*row) for row in rows]


async def unpin(tx: Transaction, tenant_id: str) -> list[tuple[str, str, str | None]]:
    """Let fleet migrations bring a tenant's resources up again; which: (environment's name, resource, version)."""
    environment, part = tables.environment, tables.resource
    query = (
        select(environment.c.id, environment.c.name, part.c.name, part.c.version)
        .join(part, part.c.environment_id == environment.c.id)
        .where(environment.c.tenant_id == tenant_id, part.c.pinned.is_(True))
        .order_by(environment.c.id, part.c.name)
    )
    rows = await tx.all(query)
    await set_pinned(tx, [(row[0], row[2]) for row in rows], False)
    return [(row[1], row[2], row[3]) for row in rows]


async def versions(tx: Transaction, blueprint: str, resource: str) -> dict[str | None, int]:
    """How many of a blueprint's resources of this name stand at which schema version."""
    query = (
        select(tables.resource.c.version, func.count())
        .join(tables.environment, tables.environment.c.id == tables.resource.c.environment_id)
        .join(tables.tenant, tables.tenant.c.id == tables.environment.c.tenant_id)
        .where(tables.tenant.c.blueprint == blueprint, tables.resource.c.name == resource)
        .group_by(tables.resource.c.version)
    )
    return {row[0]: row[1] for row in await tx.all(query)}


def _released_key(blueprint: str, resource: str) -> str:
    return f"released {hashlib.sha256(f'{blueprint}.{resource}'.encode()).hexdigest()[:16]}"


async def set_released(tx: Transaction, blueprint: str, resource: str, version: str) -> None:
    """Keep to which version a run is bringing the fleet."""
    await tenants.put_meta(tx, _released_key(blueprint, resource), version.encode())


async def released(tx: Transaction, blueprint: str, resource: str) -> str | None:
    """The version that the last run was to bring the fleet to; None where there was none."""
    found = await tenants.get_meta(tx, _released_key(blueprint, resource))
    return found.decode() if found is not None else None


async def pinned_among(tx: Transaction, environment_ids: Sequence[str]) -> set[tuple[str, str]]:
    """Which resources (environment id, name) of these environments are pinned."""
    part = tables.resource
    found: set[tuple[str, str]] = set()
    for some in chunks(environment_ids, IN_LIMIT):
        query = select(part.c.environment_id, part.c.name).where(part.c.environment_id.in_(some))
        found.update((row[0], row[1]) for row in await tx.all(query.where(part.c.pinned.is_(True))))
    return found
