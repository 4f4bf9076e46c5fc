"""Queries on tenants, their environments, hostnames and secrets. Each takes the transaction it belongs to."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from tenantry.errors import HostTaken, SlugTaken, TenantNotFound
from tenantry.model import Environment, KeyTurn, Place, Status, Tenant
from tenantry.refusals import InvalidRequest
from tenantry.registry import sso, support, tables
from tenantry.registry.database import IN_LIMIT, Transaction, chunks, now, plain

FIELD: Final = "\x1f"
RECORD: Final = "\x1e"
TAKEN: Final = "taken"


@dataclass(frozen=True, slots=True)
class TenantRow:
    """A tenant as lists show it."""

    id: str
    slug: str
    name: str
    blueprint: str
    plan: str | None
    status: str
    reason: str
    client_id: str
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True)
class HostnameRow:
    """A hostname as lists show it."""

    name: str
    slug: str
    environment: str
    custom: bool
    canonical: bool
    former_until: datetime | None


_ROW: Final = (
    tables.tenant.c.id,
    tables.tenant.c.slug,
    tables.tenant.c.name,
    tables.tenant.c.blueprint,
    tables.tenant.c.plan,
    tables.tenant.c.status,
    tables.tenant.c.reason,
    tables.tenant.c.client_id,
    tables.tenant.c.created,
    tables.tenant.c.updated,
)


def fold(name: str) -> str:
    """How names are compared in a search: without case, accents and control characters, alike on every database."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if unicodedata.category(letter)[0] not in "CM")


async def find(tx: Transaction, slug: str) -> TenantRow:
    """The tenant of this slug. Raises `TenantNotFound`."""
    row = await tx.first(select(*_ROW).where(tables.tenant.c.slug == plain(slug)))
    if row is None:
        raise TenantNotFound(slug=slug)
    return TenantRow(*row)


async def by_id(tx: Transaction, tenant_id: str) -> TenantRow | None:
    """The tenant of this id, if it is there."""
    row = await tx.first(select(*_ROW).where(tables.tenant.c.id == tenant_id))
    return TenantRow(*row) if row else None


async def exists(tx: Transaction, tenant_id: str) -> bool:
    """Whether the tenant of this id is there still."""
    return await tx.first(select(tables.tenant.c.id).where(tables.tenant.c.id == tenant_id)) is not None


def holds(search: str) -> ColumnElement[bool]:
    """Whether a tenant's slug or name holds a text, however it is written."""
    columns = (tables.tenant.c.slug, tables.tenant.c.folded)
    return or_(*(column.contains(fold(search), autoescape=True) for column in columns))


SORTS: Final[Mapping[str, Column[Any]]] = {
    "slug": tables.tenant.c.slug,
    "name": tables.tenant.c.folded,
    "created": tables.tenant.c.created,
    "status": tables.tenant.c.status,
}
"""By what lists of tenants are ordered; tenants that are alike in it, by their slugs."""


async def page(
    tx: Transaction,
    *,
    search: str | None = None,
    status: str | None = None,
    blueprint: str | None = None,
    plan: str | None = None,
    sort: str = "slug",
    after: str | None = None,
    before: str | None = None,
    limit: int = 100,
    admin: str | None = None,
) -> list[TenantRow]:
    """Tenants in an order, those after or before a cursor, at most `limit`; of one admin, those assigned to her.

    `sort` is one of `SORTS`, with "-" before it for the other direction; a cursor is what `cursor` makes of a row.
    Raises `InvalidRequest` for others.
    """
    query = select(*_ROW).limit(limit)
    if search:
        query = query.where(holds(search))
    columns = tables.tenant.c
    for column, value in ((columns.status, status), (columns.blueprint, blueprint), (columns.plan, plan)):
        if value:
            query = query.where(column == plain(value))
    if admin:
        query = query.where(columns.id.in_(tables.tenants_of(admin)))
    falling = sort.startswith("-")
    key = SORTS.get(sort.removeprefix("-"))
    if key is None:
        raise InvalidRequest(where="sort", reason=f"'{sort[:40]}' is none of {', '.join(SORTS)}")
    if after:
        query = query.where(_beyond(key, after, falling))
    if before:
        query = query.where(_beyond(key, before, not falling))
    back = bool(before) and not after
    ways = [column.desc() if falling is not back else column.asc() for column in dict.fromkeys((key, columns.slug))]
    rows = [TenantRow(*row) for row in await tx.all(query.order_by(*ways))]
    return rows[::-1] if back else rows


def cursor(row: TenantRow, sort: str = "slug") -> str:
    """Where a row stands in an order: what `page` goes on from."""
    name = sort.removeprefix("-")
    keys = {"name": fold(row.name), "created": row.created.isoformat(), "status": row.status}
    return f"{keys[name]} {row.slug}" if name in keys else row.slug


def _beyond(key: Column[Any], place: str, falling: bool) -> ColumnElement[bool]:
    """Whether a row stands behind a cursor, in this direction."""
    text, _, slug = plain(place).rpartition(" ")
    value: Any = text
    if key is tables.tenant.c.created:
        try:
            value = datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            raise InvalidRequest(where="after", reason=f"'{place[:60]}' is no place in this order") from None
    own = tables.tenant.c.slug
    further = own < slug if falling else own > slug
    if key is own:
        return further
    return or_(key < value if falling else key > value, and_(key == value, further))


async def count(tx: Transaction) -> int:
    """How many tenants there are, those being created among them."""
    return int(await tx.scalar(select(func.count()).select_from(tables.tenant)))


async def counts(tx: Transaction) -> dict[str, int]:
    """How many tenants there are of each status."""
    rows = await tx.all(select(tables.tenant.c.status, func.count()).group_by(tables.tenant.c.status))
    return {row[0]: row[1] for row in rows}


async def taken(tx: Transaction, slugs: Sequence[str]) -> dict[str, str]:
    """Which of these slugs cannot be had: slug → why."""
    found: dict[str, str] = {}
    for some in chunks(slugs, IN_LIMIT):
        for (slug,) in await tx.all(select(tables.tenant.c.slug).where(tables.tenant.c.slug.in_(some))):
            found[slug] = TAKEN
        query = (
            select(tables.former_slug.c.slug, tables.tenant.c.slug, tables.former_slug.c.until)
            .join(tables.tenant)
            .where(tables.former_slug.c.slug.in_(some), tables.former_slug.c.until > now())
        )
        for slug, owner, until in await tx.all(query):
            found[slug] = f"held for '{owner}', which was renamed, until {until:%Y-%m-%d}"
        query = select(tables.sign_up.c.held).where(tables.sign_up.c.held.in_(some), tables.sign_up.c.expires > now())
        found.update((slug, "held for somebody who is signing up") for (slug,) in await tx.all(query))
    return found


# --- environments -------------------------------------------------------------------------------------------------


IDS: Final[BindParameter[Any]] = bindparam("ids", expanding=True)
"""Of tenants, where a query is about some; its statement is made once, which costs more than to run it."""


@cache
def _environments_query(some: bool) -> Select[Any]:
    tenant, environment = tables.tenant, tables.environment
    query = (
        select(
            tenant.c.id,
            tenant.c.slug,
            tenant.c.name,
            tenant.c.blueprint,
            tenant.c.plan,
            tenant.c.status,
            tenant.c.client_id,
            cast(tenant.c.settings, Text),
            tenant.c.key_turns,
            environment.c.id,
            environment.c.name,
            environment.c.home,
            tables.data_key.c.sealed,
            tables.trial.c.until,
        )
        .join(environment, environment.c.tenant_id == tenant.c.id)
        .join(tables.data_key, tables.data_key.c.tenant_id == tenant.c.id)
        .outerjoin(tables.trial, tables.trial.c.tenant_id == tenant.c.id)
        .order_by(environment.c.id)
    )
    return query.where(tenant.c.id.in_(IDS)) if some else query


def _of_tenants(query: Select[Any], environment_id: ColumnElement[str], some: bool) -> Select[Any]:
    inner = select(tables.environment.c.id).where(tables.environment.c.tenant_id.in_(IDS))
    return query.where(environment_id.in_(inner)) if some else query


def _given(ids: Sequence[str] | None) -> dict[str, Any]:
    return {} if ids is None else {"ids": ids}


@cache
def _places_query(some: bool) -> Select[Any]:
    """Packed to one text in the database."""
    resource = tables.resource
    packed = func.aggregate_strings(
        resource.c.name
        + FIELD
        + resource.c.kind
        + FIELD
        + resource.c.location
        + FIELD
        + func.coalesce(resource.c.version, ""),
        RECORD,
    )
    query = select(resource.c.environment_id, packed).where(resource.c.server.is_(None))
    return _of_tenants(query.group_by(resource.c.environment_id), resource.c.environment_id, some)


async def _places(tx: Transaction, ids: Sequence[str] | None) -> dict[str, tuple[Place, ...]]:
    """Places by environment; equal ones are made once and shared."""
    made: dict[str, tuple[Place, ...]] = {}
    found: dict[str, tuple[Place, ...]] = {}
    for environment_id, text in await tx.all(_places_query(ids is not None), _given(ids)):
        places = made.get(text)
        if places is None:
            places = made[text] = tuple(_place(record) for record in sorted(text.split(RECORD)))
        found[environment_id] = places
    for environment_id, place in await _places_on_servers(tx, ids):
        found[environment_id] = tuple(sorted((*found.get(environment_id, ()), place), key=lambda one: one.name))
    return found


@cache
def _places_on_servers_query(some: bool) -> Select[Any]:
    c = tables.resource.c
    query = select(c.environment_id, c.name, c.kind, c.location, c.version, c.server, c.sealed)
    return _of_tenants(query.where(c.server.is_not(None)), c.environment_id, some)


async def _places_on_servers(tx: Transaction, ids: Sequence[str] | None) -> list[tuple[str, Place]]:
    """No two of these are equal, so nothing is gained by packing them."""
    rows = await tx.all(_places_on_servers_query(ids is not None), _given(ids))
    return [
        (environment_id, Place(name, kind, location, version, server, sealed or b""))
        for environment_id, name, kind, location, version, server, sealed in rows
    ]


def _place(record: str) -> Place:
    name, kind, location, version = record.split(FIELD)
    return Place(name, kind, location, version or None)


@cache
def _hostnames_query(some: bool) -> Select[Any]:
    hostname = tables.hostname
    query = select(hostname.c.environment_id, hostname.c.name, hostname.c.former_until).order_by(
        hostname.c.environment_id, hostname.c.position, hostname.c.name
    )
    return _of_tenants(query, hostname.c.environment_id, some)


async def _hostnames(
    tx: Transaction, ids: Sequence[str] | None
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    current: dict[str, tuple[str, ...]] = {}
    former: dict[str, tuple[str, ...]] = {}
    moment = now()
    for environment_id, name, until in await tx.all(_hostnames_query(ids is not None), _given(ids)):
        if until is None:
            current[environment_id] = (*current.get(environment_id, ()), name)
        elif until > moment:
            former[environment_id] = (*former.get(environment_id, ()), name)
    return current, former


async def environments(tx: Transaction, ids: Iterable[str] | None = None) -> list[Environment]:
    """The environments of these tenants, or of all; a tenant's own stand together, in the order they were made."""
    if ids is None:
        return await _load(tx, None)
    found: list[Environment] = []
    for some in chunks(list(ids), IN_LIMIT):
        found += await _load(tx, some)
    return found


@cache
def _former_slugs_query(some: bool) -> Select[Any]:
    c = tables.former_slug.c
    query = select(c.tenant_id, c.slug).where(c.until > bindparam("moment"))
    return query.where(c.tenant_id.in_(IDS)) if some else query


async def _load(tx: Transaction, ids: Sequence[str] | None) -> list[Environment]:
    former_slugs: dict[str, tuple[str, ...]] = {}
    for tenant_id, slug in await tx.all(_former_slugs_query(ids is not None), {"moment": now(), **_given(ids)}):
        former_slugs[tenant_id] = (*former_slugs.get(tenant_id, ()), slug)
    accesses = await support.standing(tx, ids)
    sign_ons = await sso.sign_ons(tx, ids)
    places = await _places(tx, ids)
    hostnames, former = await _hostnames(tx, ids)
    tenants: dict[str, Tenant] = {}
    statuses = {status.value: status for status in Status}
    opened: dict[str, dict[str, Any]] = {}  # most tenants have the same settings, namely none
    result = []
    for row in await tx.all(_environments_query(ids is not None), _given(ids)):
        tenant_id, slug, name, blueprint, plan, status, client_id, settings, turns, *rest = row
        env_id, env_name, home, sealed, until = rest
        tenant = tenants.get(tenant_id)
        if settings not in opened:
            opened[settings] = json.loads(settings)
        if tenant is None:
            tenant = tenants[tenant_id] = Tenant(
                id=tenant_id,
                slug=slug,
                name=name,
                blueprint=blueprint,
                plan=plan,
                status=statuses[status],
                client_id=client_id,
                settings=opened[settings],
                former=former_slugs.get(tenant_id, ()),
                support=accesses.get(tenant_id, ()),
                sign_on=sign_ons.get(tenant_id),
                trial=until if status == Status.TRIALING else None,
                key_turns=tuple(KeyTurn(*turn) for turn in turns or ()),
            )
        result.append(
            Environment(
                id=env_id,
                name=env_name,
                tenant=tenant,
                home=home,
                places=places.get(env_id, ()),
                hostnames=hostnames.get(env_id, ()),
                former=former.get(env_id, ()),
                sealed_key=sealed,
            )
        )
    return result


# --- changes ------------------------------------------------------------------------------------------------------


async def insert_many(tx: Transaction, environments: Sequence[Environment], sealed: Mapping[str, bytes]) -> None:
    """Enter new tenants with their environments, places, hostnames and data keys.

    Raises `SlugTaken` or `HostTaken` when another transaction was quicker; nothing is entered then.
    """
    moment = now()
    tenants = {environment.tenant.id: environment.tenant for environment in environments}
    rows = [
        {
            "id": tenant.id,
            "slug": tenant.slug,
            "name": tenant.name,
            "folded": fold(tenant.name),
            "blueprint": tenant.blueprint,
            "plan": tenant.plan,
            "status": tenant.status.value,
            "client_id": tenant.client_id,
            "settings": dict(tenant.settings),
            "created": moment,
            "updated": moment,
        }
        for tenant in tenants.values()
    ]
    try:
        await tx.insert(tables.tenant, rows)
    except IntegrityError as error:
        raise SlugTaken(slug=", ".join(sorted(tenant.slug for tenant in tenants.values())[:5])) from error
    await tx.insert(
        tables.environment,
        [{"id": e.id, "tenant_id": e.tenant.id, "name": e.name, "home": e.home} for e in environments],
    )
    await tx.insert(
        tables.resource,
        [
            {
                "environment_id": e.id,
                "name": p.name,
                "kind": p.kind,
                "location": p.location,
                "version": p.version,
                "server": p.server,
                "sealed": p.sealed or None,
            }
            for e in environments
            for p in e.places
        ],
    )
    await tx.insert(tables.data_key, [{"tenant_id": key, "sealed": value} for key, value in sealed.items()])
    await add_hostnames(tx, [(e.id, name, position) for e in environments for position, name in enumerate(e.hostnames)])


async def add_hostnames(tx: Transaction, rows: Sequence[tuple[str, str, int]], *, custom: bool = False) -> None:
    """Let names lead to environments: (environment id, name, position). Raises `HostTaken`."""
    names = [name for _, name, _ in rows]
    twice = next((name for name, number in Counter(names).items() if number > 1), None)
    clash = twice or min(await hosts_taken(tx, names), default=None)
    if clash:
        raise HostTaken(host=clash)
    await tx.insert(
        tables.hostname,
        [{"environment_id": e, "name": n, "position": p, "custom": custom, "former_until": None} for e, n, p in rows],
    )


async def set_status(tx: Transaction, ids: Sequence[str], status: Status, reason: str = "") -> None:
    """Give tenants a status."""
    await alter(tx, ids, status=status.value, reason=reason)


async def alter(tx: Transaction, ids: Sequence[str], **columns: Any) -> None:
    """Change columns of tenants, and tell all processes."""
    if "name" in columns:
        columns["folded"] = fold(columns["name"])
    for some in chunks(ids, IN_LIMIT):
        statement = update(tables.tenant).where(tables.tenant.c.id.in_(some)).values(updated=now(), **columns)
        await tx.execute(statement)
    tx.changed(*ids)


async def set_versions(tx: Transaction, rows: Sequence[tuple[str, str, str | None]]) -> None:
    """Record the schema versions of resources: (environment id, resource, version)."""
    by_version: dict[tuple[str, str | None], list[str]] = {}
    for environment_id, name, version in rows:
        by_version.setdefault((name, version), []).append(environment_id)
    for (name, version), ids in by_version.items():
        for some in chunks(ids, IN_LIMIT):
            where = and_(tables.resource.c.name == name, tables.resource.c.environment_id.in_(some))
            await tx.execute(update(tables.resource).where(where).values(version=version))


async def set_location(tx: Transaction, environment_id: str, name: str, location: str) -> None:
    """Record where a resource lies."""
    where = and_(tables.resource.c.environment_id == environment_id, tables.resource.c.name == name)
    await tx.execute(update(tables.resource).where(where).values(location=location))


async def rename(tx: Transaction, tenant: Tenant, to: str, until: datetime, hosts: Mapping[str, str]) -> None:
    """Give a tenant another slug; its hostnames made of the old one redirect until then.

    `hosts` maps an environment's id to its new canonical hostname. Raises `SlugTaken` where another tenant came to the
    new slug first: nothing holds it between the wish and this.
    """
    former = tables.former_slug
    await tx.execute(delete(former).where(former.c.slug.in_([to, tenant.slug])))
    try:
        await alter(tx, [tenant.id], slug=to)
    except IntegrityError as error:
        raise SlugTaken(slug=to) from error
    if to != tenant.slug and until > now():
        await tx.insert(former, [{"slug": tenant.slug, "tenant_id": tenant.id, "until": until}])
    hostname = tables.hostname
    for environment_id, name in hosts.items():
        own = and_(hostname.c.environment_id == environment_id, hostname.c.custom.is_(False))
        await tx.execute(delete(hostname).where(own, hostname.c.name == name))
        stay = update(hostname).where(own, hostname.c.former_until.is_(None))
        await tx.execute(stay.values(former_until=until, position=hostname.c.position + 1))
        await add_hostnames(tx, [(environment_id, name, 0)])


async def remove(tx: Transaction, ids: Sequence[str]) -> None:
    """Forget tenants wholly, with everything that hangs on them."""
    for some in chunks(ids, IN_LIMIT):
        inner = select(tables.environment.c.id).where(tables.environment.c.tenant_id.in_(some))
        for table in (tables.hostname, tables.resource, tables.scim_mark, tables.scim_shut):
            await tx.execute(delete(table).where(table.c.environment_id.in_(inner)))
        own = (tables.environment, tables.secret, tables.data_key, tables.former_slug, tables.admin_tenant)
        for table in (*own, tables.support_access, tables.counted, tables.trial, tables.welcome):
            await tx.execute(delete(table).where(table.c.tenant_id.in_(some)))
        await tx.execute(delete(tables.tenant).where(tables.tenant.c.id.in_(some)))
    tx.changed(*ids)


async def remains(tx: Transaction, tenant_id: str) -> list[str]:
    """Which rows still know a tenant that should be gone, as "table: count"."""
    inner = select(tables.environment.c.id).where(tables.environment.c.tenant_id == tenant_id)
    checks: list[tuple[Table, ColumnElement[bool]]] = [
        (table, table.c.environment_id.in_(inner)) for table in (tables.hostname, tables.resource)
    ]
    checks += [
        (table, table.c.tenant_id == tenant_id)
        for table in (tables.environment, tables.secret, tables.data_key, tables.former_slug)
    ]
    checks.append((tables.tenant, tables.tenant.c.id == tenant_id))
    found = []
    for table, where in checks:
        number = await tx.scalar(select(func.count()).select_from(table).where(where))
        if number:
            found.append(f"{table.name}: {number}")
    return found


async def forget_former(tx: Transaction) -> int:
    """Remove redirects whose time is over; how many."""
    moment = now()
    gone = [
        row[0]
        for row in await tx.all(
            select(tables.environment.c.tenant_id)
            .join(tables.hostname, tables.hostname.c.environment_id == tables.environment.c.id)
            .where(tables.hostname.c.former_until <= moment)
        )
    ]
    gone += [
        row[0]
        for row in await tx.all(select(tables.former_slug.c.tenant_id).where(tables.former_slug.c.until <= moment))
    ]
    if gone:
        await tx.execute(delete(tables.hostname).where(tables.hostname.c.former_until <= moment))
        await tx.execute(delete(tables.former_slug).where(tables.former_slug.c.until <= moment))
        tx.changed(*gone)
    return len(gone)


# --- hostnames ----------------------------------------------------------------------------------------------------


_HOSTNAMES: Final = (
    select(
        tables.hostname.c.name,
        tables.tenant.c.slug,
        tables.environment.c.name,
        tables.hostname.c.custom,
        (tables.hostname.c.position == 0).label("canonical"),
        tables.hostname.c.former_until,
    )
    .join(tables.environment, tables.environment.c.id == tables.hostname.c.environment_id)
    .join(tables.tenant, tables.tenant.c.id == tables.environment.c.tenant_id)
)


async def hostnames(tx: Transaction, slug: str) -> list[HostnameRow]:
    """The hostnames of a tenant, by its environments, the canonical ones first."""
    hostname, environment, tenant = tables.hostname, tables.environment, tables.tenant
    query = _HOSTNAMES.where(tenant.c.slug == plain(slug))
    order = (environment.c.name, hostname.c.position, hostname.c.name)
    return [HostnameRow(*row) for row in await tx.all(query.order_by(*order))]


async def hostname(tx: Transaction, name: str) -> HostnameRow | None:
    """One hostname; None where it leads to nobody."""
    row = await tx.first(_HOSTNAMES.where(tables.hostname.c.name == plain(name)))
    return HostnameRow(*row) if row else None


async def hostnames_page(
    tx: Transaction, limit: int, after: str | None = None, admin: str | None = None
) -> list[HostnameRow]:
    """Hostnames by name, those after a name, at most `limit`; of one admin, those of the tenants assigned to her."""
    query = _HOSTNAMES.order_by(tables.hostname.c.name).limit(limit)
    if after:
        query = query.where(tables.hostname.c.name > plain(after))
    if admin:
        query = query.where(tables.tenant.c.id.in_(tables.tenants_of(admin)))
    return [HostnameRow(*row) for row in await tx.all(query)]


async def hosts_taken(tx: Transaction, names: Sequence[str]) -> set[str]:
    """Which of these hostnames lead to a tenant already."""
    await forget_former(tx)  # redirects whose time is over hold nothing
    found: set[str] = set()
    for some in chunks(names, IN_LIMIT):
        found.update(
            row[0] for row in await tx.all(select(tables.hostname.c.name).where(tables.hostname.c.name.in_(some)))
        )
    return found


async def remove_hostname(tx: Transaction, name: str) -> None:
    """Let a name lead nowhere."""
    await tx.execute(delete(tables.hostname).where(tables.hostname.c.name == name))


async def custom_hostnames(tx: Transaction, environment_id: str) -> int:
    """How many positions an environment's hostnames take."""
    query = select(func.coalesce(func.max(tables.hostname.c.position), -1)).where(
        tables.hostname.c.environment_id == environment_id
    )
    return int(await tx.scalar(query)) + 1


# --- secrets ------------------------------------------------------------------------------------------------------


async def put_secrets(tx: Transaction, rows: Sequence[tuple[str, str, bytes]]) -> None:
    """Keep sealed values: (tenant id, field, sealed). A value that is there is replaced."""
    by_field: dict[str, list[str]] = {}
    for tenant_id, field, _ in rows:
        by_field.setdefault(field, []).append(tenant_id)
    for field, ids in by_field.items():
        for some in chunks(ids, IN_LIMIT):
            where = and_(tables.secret.c.field == field, tables.secret.c.tenant_id.in_(some))
            await tx.execute(delete(tables.secret).where(where))
    await tx.insert(tables.secret, [{"tenant_id": t, "field": f, "sealed": s} for t, f, s in rows])


async def secrets(tx: Transaction, tenant_id: str) -> dict[str, bytes]:
    """A tenant's sealed values by field."""
    query = select(tables.secret.c.field, tables.secret.c.sealed).where(tables.secret.c.tenant_id == tenant_id)
    return {row.field: row.sealed for row in await tx.all(query)}


async def drop_secret(tx: Transaction, tenant_id: str, field: str) -> bool:
    """Forget a sealed value; whether there was one."""
    where = and_(tables.secret.c.tenant_id == tenant_id, tables.secret.c.field == field)
    return (await tx.execute(delete(tables.secret).where(where))).rowcount > 0


async def data_keys(tx: Transaction) -> list[tuple[str, bytes]]:
    """Every tenant's sealed data key."""
    return [(t, s) for t, s in await tx.all(select(tables.data_key.c.tenant_id, tables.data_key.c.sealed))]


async def put_data_key(tx: Transaction, tenant_id: str, sealed: bytes) -> None:
    """Replace a tenant's sealed data key."""
    await tx.execute(update(tables.data_key).where(tables.data_key.c.tenant_id == tenant_id).values(sealed=sealed))


async def put_meta(tx: Transaction, key: str, value: bytes) -> None:
    """Keep a fact about the platform."""
    await tx.execute(delete(tables.meta).where(tables.meta.c.key == key))
    await tx.execute(insert(tables.meta).values(key=key, value=value))


async def get_meta(tx: Transaction, key: str) -> bytes | None:
    """A fact about the platform, or None."""
    value: bytes | None = await tx.scalar(select(tables.meta.c.value).where(tables.meta.c.key == key))
    return value


def hold_until(seconds: float) -> datetime:
    """The moment until which an old slug redirects."""
    return now() + timedelta(seconds=seconds)
