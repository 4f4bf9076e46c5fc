"""Access for support into tenants. Each function takes the transaction it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, bindparam, select, update

from tenantry.model import SupportAccess
from tenantry.registry import tables
from tenantry.registry.database import Transaction, now, plain

BY_TIME: Final = "time"
"""How the audit log tells that an access ended at its time."""


@dataclass(frozen=True, slots=True)
class SupportRow:
    """One access, as lists show it."""

    id: str
    slug: str
    who: str
    reason: str
    writes: bool
    created: datetime
    expires: datetime
    used: datetime | None
    ended: datetime | None

    @property
    def state(self) -> str:
        """Whether it is "waiting" for its link to be followed, "open" or "over"."""
        if self.ended is not None or self.expires <= now():
            return "over"
        return "open" if self.used else "waiting"


_TABLE: Final = tables.support_access
_ACCESS: Final = [_TABLE.c[name] for name in ("id", "who", "reason", "created", "expires", "writes", "used", "ended")]
_ROW: Final = [_TABLE.c.id, tables.tenant.c.slug] + [
    _TABLE.c[name] for name in ("who", "reason", "writes", "created", "expires", "used", "ended")
]
_OF_TENANT: Final = tables.tenant.c.id == _TABLE.c.tenant_id


def _open() -> tuple[ColumnElement[bool], ...]:
    return _TABLE.c.ended.is_(None), _TABLE.c.expires > now()


async def add(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Enter an access, and let all processes know of it."""
    await tx.insert(_TABLE, [row])
    tx.changed(row["tenant_id"])


async def find(tx: Transaction, slug: str, access_id: str) -> SupportRow | None:
    """An access into a tenant, by its id."""
    query = select(*_ROW).join(tables.tenant, _OF_TENANT)
    row = await tx.first(query.where(tables.tenant.c.slug == plain(slug), _TABLE.c.id == plain(access_id)))
    return SupportRow(*row) if row else None


async def listed(
    tx: Transaction, slug: str | None, admin_id: str | None, limit: int, after: str | None
) -> list[SupportRow]:
    """Accesses, newest first, those after the id of one; of one tenant, and to the tenants of one admin."""
    query = select(*_ROW).join(tables.tenant, _OF_TENANT).order_by(_TABLE.c.id.desc()).limit(limit)
    if slug is not None:
        query = query.where(tables.tenant.c.slug == plain(slug))
    if admin_id is not None:
        query = query.where(_TABLE.c.tenant_id.in_(tables.tenants_of(admin_id)))
    if after is not None:
        query = query.where(_TABLE.c.id < plain(after))
    return [SupportRow(*row) for row in await tx.all(query)]


async def history(tx: Transaction, tenant_id: str, limit: int) -> list[SupportAccess]:
    """A tenant's accesses that were used, newest first: what its own people may know."""
    query = select(*_ACCESS).where(_TABLE.c.tenant_id == tenant_id, _TABLE.c.used.is_not(None))
    return [SupportAccess(*row) for row in await tx.all(query.order_by(_TABLE.c.id.desc()).limit(limit))]


@cache
def _standing_query(some: bool) -> Select[Any]:
    open_ = (_TABLE.c.ended.is_(None), _TABLE.c.expires > bindparam("moment"))
    query = select(_TABLE.c.tenant_id, *_ACCESS).where(*open_).order_by(_TABLE.c.id)
    return query.where(_TABLE.c.tenant_id.in_(bindparam("ids", expanding=True))) if some else query


async def standing(tx: Transaction, ids: Sequence[str] | None) -> dict[str, tuple[SupportAccess, ...]]:
    """By tenant, the accesses whose time is not over."""
    found: dict[str, tuple[SupportAccess, ...]] = {}
    given = {"moment": now()} | ({} if ids is None else {"ids": ids})
    for tenant_id, *row in await tx.all(_standing_query(ids is not None), given):
        found[tenant_id] = (*found.get(tenant_id, ()), SupportAccess(*row))
    return found


async def take(tx: Transaction, tenant_id: str, digest: str) -> SupportAccess | None:
    """Use a link up; what it opens, or None where it opens nothing at this tenant."""
    mine = (_TABLE.c.tenant_id == tenant_id, _TABLE.c.link == digest, _TABLE.c.link_until > now(), *_open())
    row = await tx.first(select(*_ACCESS).where(*mine))
    if row is None:
        return None
    moment = now()
    await tx.execute(update(_TABLE).where(_TABLE.c.id == row.id).values(link=None, used=moment))
    tx.changed(tenant_id)
    return SupportAccess(*{**row._mapping, "used": moment}.values())


async def end(tx: Transaction, by: str, *conditions: ColumnElement[bool]) -> int:
    """End all accesses that stand and to which conditions on the table apply; how many. Each has its audit entry."""
    query = select(_TABLE.c.id, _TABLE.c.tenant_id, tables.tenant.c.slug).join(tables.tenant, _OF_TENANT)
    rows = await tx.all(query.where(_TABLE.c.ended.is_(None), *conditions))
    for access_id, tenant_id, slug in rows:
        await tx.execute(update(_TABLE).where(_TABLE.c.id == access_id).values(ended=now(), link=None))
        tx.changed(tenant_id)
        tx.audit("support.end", slug, id=tenant_id, access=access_id, by=by)
    return len(rows)


async def end_over(tx: Transaction) -> int:
    """Enter the end of accesses whose time is over: it is the moment until which they held."""
    over = (_TABLE.c.ended.is_(None), _TABLE.c.expires <= now())
    query = select(_TABLE.c.id, _TABLE.c.tenant_id, tables.tenant.c.slug).join(tables.tenant, _OF_TENANT)
    rows = await tx.all(query.where(*over))
    for access_id, tenant_id, slug in rows:
        await tx.execute(update(_TABLE).where(_TABLE.c.id == access_id).values(ended=_TABLE.c.expires, link=None))
        tx.audit("support.end", slug, id=tenant_id, access=access_id, by=BY_TIME)
    return len(rows)


async def end_one(tx: Transaction, tenant_id: str, access_id: str, by: str) -> int:
    """End one access into a tenant; 0 where it had ended."""
    return await end(tx, by, _TABLE.c.tenant_id == tenant_id, _TABLE.c.id == plain(access_id))


async def end_of_tenant(tx: Transaction, tenant_id: str, by: str) -> int:
    """End all accesses into a tenant."""
    return await end(tx, by, _TABLE.c.tenant_id == tenant_id)


async def end_of_admin(tx: Transaction, admin_id: str, by: str, *, foreign_only: bool = False) -> int:
    """End an admin's accesses: all of them, or those into tenants that are not assigned to her."""
    conditions = [_TABLE.c.admin_id == admin_id]
    if foreign_only:
        conditions.append(_TABLE.c.tenant_id.not_in(tables.tenants_of(admin_id)))
    return await end(tx, by, *conditions)


async def forget_admin(tx: Transaction, admin_id: str) -> None:
    """Keep what was recorded, without the admin user it belonged to."""
    await tx.execute(update(_TABLE).where(_TABLE.c.admin_id == admin_id).values(admin_id=None))


async def consent(tx: Transaction, tenant_id: str) -> datetime | None:
    """Until when a tenant's people let support in."""
    moment: datetime | None = await tx.scalar(
        select(tables.tenant.c.support_until).where(tables.tenant.c.id == tenant_id)
    )
    return moment


async def put_consent(tx: Transaction, tenant_id: str, until: datetime | None) -> None:
    """Let support in until then, or from now on no more: then all accesses end."""
    table = tables.tenant
    await tx.execute(update(table).where(table.c.id == tenant_id).values(support_until=until))
