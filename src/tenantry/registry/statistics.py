"""Counts over the whole platform, and what tenants' resources take up. Each takes the transaction it belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVarTuple

from sqlalchemy import ColumnElement, Select, delete, func, or_, select, update

from tenantry.model import Status, Usage
from tenantry.registry import tables
from tenantry.registry.database import Transaction, now
from tenantry.registry.journal import State

Columns = TypeVarTuple("Columns")

ENDS: Final = (State.DONE, State.FAILED, State.CANCELLED)


@dataclass(frozen=True, slots=True)
class Share:
    """What one tenant or one server takes up."""

    name: str
    bytes: int
    resources: int


@dataclass(frozen=True, slots=True)
class Storage:
    """What all tenants take up, as it was last measured."""

    bytes: int
    rows: int
    files: int
    measured: int  # resources
    resources: int
    oldest: datetime | None  # measurement of those counted


def _hers(query: Select[*Columns], tenant_id: ColumnElement[str], admin_id: str | None) -> Select[*Columns]:
    """Only what belongs to the tenants of one admin; None: all."""
    return query if admin_id is None else query.where(tenant_id.in_(tables.tenants_of(admin_id)))


KINDS: Final = ("status", "blueprint", "plan")
"""By what tenants are counted."""


async def tenants_by(tx: Transaction, admin_id: str | None = None) -> dict[str, dict[str, int]]:
    """By status, blueprint and plan ("" for none), how many tenants there are of each, the most first."""
    columns = [func.coalesce(tables.tenant.c[kind], "") for kind in KINDS]
    found: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    query = _hers(select(*columns, func.count()).group_by(*columns), tables.tenant.c.id, admin_id)
    for *values, number in await tx.all(query):
        for kind, value in zip(KINDS, values, strict=True):
            found[kind][value] += number
    return {kind: dict(counts.most_common()) for kind, counts in found.items()}


async def made_by_day(tx: Transaction, since: datetime, admin_id: str | None = None) -> dict[str, int]:
    """How many of today's tenants were made on each day since a moment."""
    table = tables.tenant
    day = tx.day(table.c.created)
    query = select(day, func.count()).where(table.c.created >= since).group_by(day)
    rows = await tx.all(_hers(query, table.c.id, admin_id))
    return {str(row[0]): row[1] for row in rows}


async def operations_by_day(tx: Transaction, since: datetime, admin_id: str | None = None) -> dict[str, dict[str, int]]:
    """By day and by how they ended ("open" where they did not), how many operations were asked for."""
    table = tables.operation
    first = f"{int(since.timestamp() * 1000):012x}"
    day = tx.day(table.c.created)
    query = select(day, table.c.state, func.count()).where(table.c.id >= f"{first[:8]}-{first[8:]}")  # UUIDv7: by age
    found: dict[str, dict[str, int]] = {}
    query = _hers(query, table.c.tenant_id, admin_id)
    for when, state, number in await tx.all(query.group_by(day, table.c.state)):
        name = state if state in ENDS else "open"
        counts = found.setdefault(str(when), {})
        counts[name] = counts.get(name, 0) + number
    return found


async def operations_by_state(tx: Transaction) -> dict[str, int]:
    """How many operations there are of each state."""
    state = tables.operation.c.state
    found = {row[0]: row[1] for row in await tx.all(select(state, func.count()).group_by(state))}
    return {state.value: found.get(state.value, 0) for state in State}


async def longest_wait(tx: Transaction) -> float:
    """Seconds since the oldest operation that waits for a worker could have been taken; 0 where none waits."""
    table, moment = tables.operation.c, now()
    since = func.min(func.coalesce(table.due, table.created))
    first = await tx.first(select(since).where(table.state == State.QUEUED.value))
    return 0.0 if first is None or first[0] is None else max(0.0, (moment - first[0]).total_seconds())


async def head(tx: Transaction) -> tuple[int, int]:
    """The numbers of the newest entry of the audit log and of the newest change."""
    row = await tx.first(select(tables.head.c.audit_seq, tables.head.c.change_seq))
    return (0, 0) if row is None else (row[0], row[1])


async def people(tx: Transaction) -> Mapping[str, int]:
    """How many admin users, sessions, tokens and organizations there are; used: tokens within a day."""
    moment = now()
    admin, session, token = tables.admin_user, tables.admin_session, tables.api_token
    queries: dict[str, tuple[Any, ColumnElement[bool] | None]] = {
        "admins": (admin, None),
        "sessions": (session, session.c.expires > moment),
        "tokens": (token, token.c.expires > moment),
        "tokens_used": (token, token.c.used > moment - timedelta(days=1)),
        "organizations": (tables.organization, None),
    }
    found = {}
    for name, (table, where) in queries.items():
        query = select(func.count()).select_from(table)
        found[name] = int(await tx.scalar(query if where is None else query.where(where)))
    return found


# --- storage ------------------------------------------------------------------------------------------------------


def _of(query: Select[*Columns], admin_id: str | None) -> Select[*Columns]:
    """Only the resources of one admin's tenants; None: all."""
    if admin_id is None:
        return query
    own = select(tables.environment.c.id).where(tables.environment.c.tenant_id.in_(tables.tenants_of(admin_id)))
    return query.where(tables.resource.c.environment_id.in_(own))


async def storage(tx: Transaction, admin_id: str | None = None) -> tuple[Storage, list[Share]]:
    """What all tenants take up; and what lies on each server, the most first ("" for the data directory)."""
    part = tables.resource.c
    used = func.coalesce(func.sum(part.used_bytes), 0)
    sums = [used, *(func.coalesce(func.sum(column), 0) for column in (part.used_rows, part.used_files))]
    counts = (func.count(part.used_bytes), func.count(), func.min(part.measured))
    query = select(part.server, *sums, *counts).group_by(part.server).order_by(used.desc())
    rows = await tx.all(_of(query, admin_id))
    oldest = min((row[6] for row in rows if row[6] is not None), default=None)
    size, number, files, measured, resources = (sum(int(row[at]) for row in rows) for at in range(1, 6))
    total = Storage(size, number, files, measured, resources, oldest)
    return total, [Share(row[0] or "", int(row[1]), row[5]) for row in rows]


async def largest(tx: Transaction, limit: int, admin_id: str | None = None) -> list[Share]:
    """The tenants that take up most."""
    tenant, environment, part = tables.tenant, tables.environment, tables.resource
    size, number = func.sum(part.c.used_bytes).label("size"), func.count().label("number")
    inner = (
        select(environment.c.tenant_id, size, number)
        .join(part, part.c.environment_id == environment.c.id)
        .where(part.c.used_bytes.is_not(None))
        .group_by(environment.c.tenant_id)
        .order_by(size.desc(), environment.c.tenant_id)
        .limit(limit)
    )
    most = _hers(inner, environment.c.tenant_id, admin_id).subquery()
    query = select(tenant.c.slug, most.c.size, most.c.number).join(most, most.c.tenant_id == tenant.c.id)
    rows = await tx.all(query.order_by(most.c.size.desc(), tenant.c.slug))
    return [Share(row[0], int(row[1]), row[2]) for row in rows]


async def unmeasured(tx: Transaction, before: datetime, limit: int) -> list[str]:
    """The ids of some tenants that have something which was not measured since a moment."""
    tenant, environment, part = tables.tenant, tables.environment, tables.resource
    query = (
        select(tenant.c.id)
        .join(environment, environment.c.tenant_id == tenant.c.id)
        .join(part, part.c.environment_id == environment.c.id)
        .where(or_(part.c.measured.is_(None), part.c.measured < before))
        .where(tenant.c.status.not_in([Status.CREATING.value, Status.DESTROYING.value]))
        .distinct()
        .limit(limit)
    )
    return [row[0] for row in await tx.all(query)]


async def put_usage(tx: Transaction, found: Sequence[tuple[str, str, Usage | None]]) -> None:
    """Keep what (environment id, resource) took up just now; None: it could not be measured, and stays as it was."""
    part = tables.resource
    for environment_id, name, usage in found:
        values: dict[str, Any] = {"measured": now()}
        if usage is not None:
            values |= {"used_bytes": usage.bytes, "used_rows": usage.rows, "used_files": usage.files}
        where = (part.c.environment_id == environment_id, part.c.name == name)
        await tx.execute(update(part).where(*where).values(**values))


# --- counted things -----------------------------------------------------------------------------------------------

COUNTED: Final = "counted:"
"""How the name begins by which a day keeps how much of something there was."""

API: Final = "api"
"""The name by which a day keeps requests to the API."""

SERVED: Final = "served:"
"""How the name begins by which a day keeps what tenants were asked for: requests, and sessions that began."""


async def put_counts(tx: Transaction, found: Sequence[tuple[str, str, int]]) -> None:
    """Keep what was counted just now (tenant id, name, number), and what that makes of today."""
    table, moment = tables.counted, now()
    for tenant_id, name, number in found:
        await tx.execute(delete(table).where(table.c.tenant_id == tenant_id, table.c.name == name))
        await tx.insert(table, [{"tenant_id": tenant_id, "name": name, "number": number, "at": moment}])
    sums = await counts(tx) if found else {}
    for name in {name for _, name, _ in found}:
        await _put_day(tx, COUNTED + name, sums[name])


async def add_to_days(tx: Transaction, name: str, numbers: Mapping[str, int]) -> None:
    """Add to how often something happened, by day."""
    table = tables.day_total
    for day, number in numbers.items():
        mine = (table.c.day == day, table.c.name == name)
        before = await tx.scalar(select(table.c.number).where(*mine))
        await tx.execute(delete(table).where(*mine))
        await tx.insert(table, [{"day": day, "name": name, "number": int(before or 0) + number}])


async def _put_day(tx: Transaction, name: str, number: int) -> None:
    table, day = tables.day_total, f"{now():%Y-%m-%d}"
    await tx.execute(delete(table).where(table.c.day == day, table.c.name == name))
    await tx.insert(table, [{"day": day, "name": name, "number": number}])


async def counts(tx: Transaction, admin_id: str | None = None) -> dict[str, int]:
    """How much of each counted thing there is, over all tenants or one admin's."""
    table = tables.counted.c
    query = select(table.name, func.sum(table.number)).group_by(table.name).order_by(table.name)
    query = _hers(query, table.tenant_id, admin_id)
    return {row[0]: int(row[1]) for row in await tx.all(query)}


async def most(tx: Transaction, name: str, limit: int, admin_id: str | None = None) -> list[tuple[str, int]]:
    """The tenants that have most of a counted thing: slug and number."""
    table, tenant = tables.counted, tables.tenant
    query = select(tenant.c.slug, table.c.number).join(table, table.c.tenant_id == tenant.c.id)
    query = query.where(table.c.name == name).order_by(table.c.number.desc(), tenant.c.slug).limit(limit)
    query = _hers(query, tenant.c.id, admin_id)
    return [(row[0], int(row[1])) for row in await tx.all(query)]


async def totals_by_day(tx: Transaction, name: str, since: str) -> dict[str, int]:
    """What was kept of something by day, from a day on."""
    table = tables.day_total.c
    query = select(table.day, table.number).where(table.name == name, table.day >= since)
    return {row[0]: int(row[1]) for row in await tx.all(query)}
