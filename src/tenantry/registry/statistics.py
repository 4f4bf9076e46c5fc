"""Counts over the whole platform, and what tenants' resources take up. Each takes the transaction it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, func, or_, select, update

from tenantry.model import Status, Usage
from tenantry.registry import tables
from tenantry.registry.database import Transaction, now
from tenantry.registry.journal import State

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


async def tenants_by(tx: Transaction, column: str) -> dict[str, int]:
    """How many tenants there are of each status, blueprint or plan ("" for none), the most first."""
    of = func.coalesce(tables.tenant.c[column], "")
    rows = await tx.all(select(of, func.count()).group_by(of).order_by(func.count().desc()))
    return {row[0]: row[1] for row in rows}


async def made_by_day(tx: Transaction, since: datetime) -> tuple[int, dict[str, int]]:
    """How many of today's tenants are older than a moment; and by day, how many were made since."""
    table = tables.tenant
    older = await tx.scalar(select(func.count()).select_from(table).where(table.c.created < since))
    day = tx.day(table.c.created)
    rows = await tx.all(select(day, func.count()).where(table.c.created >= since).group_by(day))
    return int(older), {str(row[0]): row[1] for row in rows}


async def operations_by_day(tx: Transaction, since: datetime) -> dict[str, dict[str, int]]:
    """By day and by how they ended ("open" where they did not), how many operations were asked for."""
    table = tables.operation
    first = f"{int(since.timestamp() * 1000):012x}"
    day = tx.day(table.c.created)
    query = select(day, table.c.state, func.count()).where(table.c.id >= f"{first[:8]}-{first[8:]}")  # UUIDv7: by age
    found: dict[str, dict[str, int]] = {}
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


async def storage(tx: Transaction) -> Storage:
    """What all tenants take up."""
    part = tables.resource.c
    sums = [func.coalesce(func.sum(column), 0) for column in (part.used_bytes, part.used_rows, part.used_files)]
    row = await tx.first(select(*sums, func.count(part.used_bytes), func.count(), func.min(part.measured)))
    size, rows, files, measured, resources, oldest = row
    return Storage(int(size), int(rows), int(files), measured, resources, oldest)


async def storage_by_server(tx: Transaction) -> list[Share]:
    """What lies on each server, the most first; "" for the data directory."""
    name, part = func.coalesce(tables.resource.c.server, ""), tables.resource.c
    size = func.coalesce(func.sum(part.used_bytes), 0)
    rows = await tx.all(select(name, size, func.count()).group_by(name).order_by(size.desc()))
    return [Share(row[0], int(row[1]), row[2]) for row in rows]


async def largest(tx: Transaction, limit: int) -> list[Share]:
    """The tenants that take up most."""
    tenant, environment, part = tables.tenant, tables.environment, tables.resource
    size = func.sum(part.c.used_bytes)
    query = (
        select(tenant.c.slug, size, func.count())
        .join(environment, environment.c.tenant_id == tenant.c.id)
        .join(part, part.c.environment_id == environment.c.id)
        .where(part.c.used_bytes.is_not(None))
        .group_by(tenant.c.id, tenant.c.slug)
        .order_by(size.desc(), tenant.c.slug)
        .limit(limit)
    )
    return [Share(row[0], int(row[1]), row[2]) for row in await tx.all(query)]


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
