"""Queries on servers and what lies on them. Each takes the transaction it belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import and_, delete, func, select, update

from tenantry.errors import ServerUnknown
from tenantry.model import NOTHING, Server, ServerState, Status, shared_login_field
from tenantry.registry import tables
from tenantry.registry.database import IN_LIMIT, Transaction, chunks, now, plain
from tenantry.registry.vault import Vault

CHANGED: Final = "server:"
"""A change of a server stands in the feed under its sign, which begins so."""

SHARED: Final = "shared:"
"""A change of all tenants that share a database stands in the feed under its mark, which begins so."""

DROP: Final = "drop"
"""The verb of operations that drop what a tenant left on a server."""


async def known(tx: Transaction, vault: Vault | None = None) -> dict[str, Server]:
    """All servers by name; with the vault, the administrators' URLs of those that were added by command are opened."""
    table = tables.server
    found, shared = {}, await _shared(tx)
    for row in await tx.all(select(table).order_by(table.c.name)):
        opened = vault.open_platform(CHANGED + row.name, row.sealed) if vault and row.sealed else ""
        found[row.name] = Server(
            name=row.name,
            kind=row.kind,
            address=row.address,
            admin=opened,
            capacity=row.capacity,
            connections=row.connections,
            labels=frozenset(row.labels),
            state=ServerState(row.state),
            shared=shared.get(row.name, NOTHING),
        )
    return found


async def _shared(tx: Transaction) -> dict[str, dict[str, bytes]]:
    """The sealed logins of shared databases, by server and database."""
    table = tables.shared_login
    found: dict[str, dict[str, bytes]] = {}
    for server, database, sealed in await tx.all(select(table.c.server, table.c.database, table.c.sealed)):
        found.setdefault(server, {})[database] = sealed
    return found


async def put_shared(tx: Transaction, server: str, database: str, sealed: bytes) -> None:
    """Enter the sealed login of a database that tenants share, or its new one; tells all processes."""
    table = tables.shared_login
    there = (table.c.server == server) & (table.c.database == database)
    changed = await tx.execute(update(table).where(there).values(sealed=sealed))
    if not changed.rowcount:
        await tx.insert(table, [{"server": server, "database": database, "sealed": sealed, "created": now()}])
    tx.changed(_sign(server))


def _sign(server: str) -> str:
    """What stands for a server, however long its name, where the id of a tenant would stand (36 characters)."""
    return CHANGED + hashlib.sha256(server.encode()).hexdigest()[:28]


async def forget_shared(tx: Transaction, server: str, database: str) -> None:
    """Forget the login of a database that tenants shared; tells all processes."""
    table = tables.shared_login
    await tx.execute(delete(table).where((table.c.server == server) & (table.c.database == database)))
    tx.changed(CHANGED + server)


def mark(server: str, database: str) -> str:
    """What stands for all tenants that share a database, where the id of one tenant would stand (36 characters)."""
    return SHARED + hashlib.sha256(f"{server}/{database}".encode()).hexdigest()[:28]


async def marked(tx: Transaction, marks: Collection[str]) -> set[str]:
    """The ids of the tenants that these marks stand for."""
    found: set[str] = set()
    places = [(server, database) for server, some in (await _shared(tx)).items() for database in some] if marks else []
    for server, database in places:
        if mark(server, database) in marks:
            environment, resource = tables.environment, tables.resource
            query = select(environment.c.tenant_id).join(resource, resource.c.environment_id == environment.c.id)
            rows = await tx.all(query.where(resource.c.server == server, resource.c.location == database))
            found.update(row[0] for row in rows)
    return found


async def added(tx: Transaction) -> set[str]:
    """The names of servers that were added by command, not declared in tenantry.toml."""
    table = tables.server
    return {row[0] for row in await tx.all(select(table.c.name).where(table.c.sealed.is_not(None)))}


async def put(tx: Transaction, server: Server, sealed: bytes | None = None) -> None:
    """Enter a server, or what is new of it; tells all processes. `sealed` is its administrator's URL."""
    table = tables.server
    columns: dict[str, Any] = {
        "kind": server.kind,
        "address": server.address,
        "sealed": sealed,
        "capacity": server.capacity,
        "connections": server.connections,
        "labels": sorted(server.labels),
        "state": server.state.value,
    }
    changed = await tx.execute(update(table).where(table.c.name == server.name).values(**columns))
    if not changed.rowcount:
        await tx.insert(table, [{"name": server.name, "created": now(), **columns}])
    tx.changed(_sign(server.name))


async def set_state(tx: Transaction, name: str, state: ServerState) -> None:
    """Open, drain or close a server; tells all processes. Raises `ServerUnknown`."""
    table = tables.server
    changed = await tx.execute(update(table).where(table.c.name == plain(name)).values(state=state.value))
    if not changed.rowcount:
        raise ServerUnknown(server=name, known=", ".join(await known(tx)) or "none")
    tx.changed(_sign(name))


async def remove(tx: Transaction, name: str) -> None:
    """Forget a server; tells all processes."""
    await tx.execute(delete(tables.server).where(tables.server.c.name == name))
    await tx.execute(delete(tables.shared_login).where(tables.shared_login.c.server == name))
    tx.changed(_sign(name))


async def load(tx: Transaction) -> dict[str, int]:
    """How many resources lie on each server that has any."""
    resource = tables.resource
    query = select(resource.c.server, func.count()).where(resource.c.server.is_not(None)).group_by(resource.c.server)
    return {row[0]: row[1] for row in await tx.all(query)}


async def used_names(tx: Transaction, kind: str, names: Collection[str]) -> set[str]:
    """Which of these database names a resource of this kind has, or had and is still to be dropped, on any server."""
    resource = tables.resource
    left = {str(one.arguments["location"]) for one in await remnants(tx) if one.arguments["kind"] == kind}
    found = left & set(names)
    for some in chunks(list(names), IN_LIMIT):
        query = select(resource.c.location).where(resource.c.kind == kind, resource.c.location.in_(some))
        found.update(row[0] for row in await tx.all(query))
    return found


async def has_name(tx: Transaction, server: str, name: str) -> bool:
    """Whether a tenant has a database of this name on this server, or had and it is still to be dropped."""
    resource = tables.resource
    query = select(resource.c.name).where(resource.c.server == server, resource.c.location == name).limit(1)
    left = (one.arguments["location"] for one in await remnants(tx, server=server))
    return name in left or await tx.first(query) is not None


@dataclass(frozen=True, slots=True)
class Remnant:
    """What a tenant that is gone left on a server, and the operation that is to drop it."""

    operation: str
    tenant_id: str
    slug: str
    arguments: Mapping[str, Any]  # what its driver needs to find it


async def remnants(tx: Transaction, *, server: str | None = None, tenant_id: str | None = None) -> list[Remnant]:
    """What is still to be dropped: of all servers or one, of all tenants or one."""
    table = tables.operation
    query = select(table.c.id, table.c.tenant_id, table.c.tenant_slug, table.c.arguments)
    query = query.where(table.c.verb == DROP, table.c.state.not_in(["done", "cancelled"])).order_by(table.c.id)
    if tenant_id is not None:
        query = query.where(table.c.tenant_id == tenant_id)
    found = [Remnant(*row) for row in await tx.all(query)]
    return [one for one in found if server in (None, one.arguments["server"])]


async def tenants_on(tx: Transaction, server: str, limit: int = 100) -> list[str]:
    """Slugs of tenants with a resource on a server, in their order, at most `limit`."""
    tenant, environment, resource = tables.tenant, tables.environment, tables.resource
    query = (
        select(tenant.c.slug)
        .join(environment, environment.c.tenant_id == tenant.c.id)
        .join(resource, resource.c.environment_id == environment.c.id)
        .where(resource.c.server == plain(server))
        .distinct()
        .order_by(tenant.c.slug)
        .limit(limit)
    )
    return [row[0] for row in await tx.all(query)]


async def with_logins(tx: Transaction) -> list[tuple[str, str]]:
    """The tenants (id, slug) that have a login on a server, in the order they were made; not those that are going."""
    tenant, environment, resource = tables.tenant, tables.environment, tables.resource
    query = (
        select(tenant.c.id, tenant.c.slug)
        .join(environment, environment.c.tenant_id == tenant.c.id)
        .join(resource, resource.c.environment_id == environment.c.id)
        .where(resource.c.sealed.is_not(None))
        .where(tenant.c.status.not_in([Status.CREATING.value, Status.DESTROYING.value]))
        .distinct()
        .order_by(tenant.c.id)
    )
    return [(row[0], row[1]) for row in await tx.all(query)]


async def set_login(tx: Transaction, rows: Sequence[tuple[str, str, str, bytes]]) -> None:
    """Record new sealed logins: (tenant id, environment id, resource, sealed); tells all processes."""
    resource = tables.resource
    for tenant_id, environment_id, name, sealed in rows:
        where = and_(resource.c.environment_id == environment_id, resource.c.name == name)
        await tx.execute(update(resource).where(where).values(sealed=sealed))
        tx.changed(tenant_id)


async def reseal(tx: Transaction, vault: Vault) -> None:
    """Seal every administrator's URL and the login of every shared database with the current platform key."""
    table = tables.server
    for row in await tx.all(select(table.c.name, table.c.sealed).where(table.c.sealed.is_not(None))):
        field = CHANGED + row.name
        sealed = vault.seal_platform(field, vault.open_platform(field, row.sealed))
        await tx.execute(update(table).where(table.c.name == row.name).values(sealed=sealed))
    for server, logins in (await _shared(tx)).items():
        for database, before in logins.items():
            field = shared_login_field(server, database)
            await put_shared(tx, server, database, vault.seal_platform(field, vault.open_platform(field, before)))


def by_name(servers: Collection[Server]) -> Mapping[str, Server]:
    """Servers by their names."""
    return {server.name: server for server in servers}
