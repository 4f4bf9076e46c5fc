"""What became of an organization's people and is to be carried out at its tenants yet: a mark for each place.

Marks are made in the transaction that notes the change, so that whoever dies in between loses none of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import and_, delete, func, or_, select, update

from tenantry.registry import tables
from tenantry.registry.database import IN_LIMIT, Transaction, chunks, now

LEASE: Final = timedelta(seconds=30)
"""How long a worker has a mark for itself."""

PAUSES: Final = (1, 2, 5, 15, 60)
"""Seconds until a mark that could not be carried out is tried again."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Somebody, and a place where what became of her is to be carried out."""

    person_id: str
    environment_id: str
    tenant_id: str | None  # None: the tenant is gone meanwhile
    turn: int
    ends: bool
    tries: int


_m: Final = tables.scim_mark.c


async def put(tx: Transaction, organization_id: str, people: Collection[str], *, ends: bool = False) -> None:
    """Let it be carried out for these people at each tenant of their organization."""
    for some in chunks(sorted(people), IN_LIMIT):
        again: dict[str, Any] = {"turn": _m.turn + 1, "tries": 0, "due": now(), **({"ends": True} if ends else {})}
        await tx.execute(update(tables.scim_mark).where(_m.person_id.in_(some)).values(**again))
        await _add(tx, organization_id, some, ends)


async def _add(tx: Transaction, organization_id: str, people: Sequence[str], ends: bool, *only: Any) -> None:
    place, tenant = tables.environment.c, tables.tenant.c
    query = select(place.id).join(tables.tenant, tenant.id == place.tenant_id)
    places = [row[0] for row in await tx.all(query.where(tenant.organization_id == organization_id, *only))]
    known = select(_m.person_id, _m.environment_id).where(_m.person_id.in_(people))
    there = {tuple(row) for row in await tx.all(known)}
    fresh: dict[str, Any] = {"turn": 1, "ends": ends, "tries": 0, "due": now()}
    rows = [
        {"person_id": one, "environment_id": where, **fresh}
        for one in people
        for where in places
        if (one, where) not in there
    ]
    await tx.insert(tables.scim_mark, rows)


async def arrive(tx: Transaction, organization_id: str, tenant_ids: Collection[str]) -> None:
    """Let those who have left be shut out of tenants, too, that come to the organization."""
    person, place = tables.scim_person.c, tables.environment.c
    left = or_(person.gone.is_not(None), person.active.is_(False))
    people = [row[0] for row in await tx.all(select(person.id).where(person.organization_id == organization_id, left))]
    for some in chunks(people, IN_LIMIT):
        await _add(tx, organization_id, some, False, place.tenant_id.in_(tenant_ids))


async def anything(tx: Transaction) -> bool:
    """Whether any mark is due."""
    return (await tx.first(select(_m.turn).where(*_free()).limit(1))) is not None


async def take(tx: Transaction, limit: int) -> list[Mark]:
    """Take marks that are due, which are this worker's own for a while."""
    place = tables.environment.c
    columns = (_m.person_id, _m.environment_id, place.tenant_id, _m.turn, _m.ends, _m.tries)
    query = select(*columns).join(tables.environment, place.id == _m.environment_id, isouter=True)
    query = query.where(*_free()).order_by(_m.due, _m.person_id, _m.environment_id).limit(limit)
    found = [Mark(*row) for row in await tx.all(query)]
    for mark in found:
        await tx.execute(update(tables.scim_mark).where(*_same(mark)).values(taken=now() + LEASE))
    return found


async def done(tx: Transaction, mark: Mark) -> bool:
    """Note that a mark is carried out; whether that is all: what changed meanwhile is carried out next."""
    gone = await tx.execute(delete(tables.scim_mark).where(*_same(mark), _m.turn == mark.turn))
    await tx.execute(update(tables.scim_mark).where(*_same(mark)).values(taken=None))
    return gone.rowcount > 0


async def put_off(tx: Transaction, mark: Mark) -> None:
    """Let a mark be tried again a while later."""
    pause = timedelta(seconds=PAUSES[min(mark.tries, len(PAUSES) - 1)])
    later = {"taken": None, "due": now() + pause, "tries": mark.tries + 1}
    await tx.execute(update(tables.scim_mark).where(*_same(mark)).values(**later))


def _free() -> tuple[Any, ...]:
    return _m.due <= now(), or_(_m.taken.is_(None), _m.taken <= now())


async def waiting(tx: Transaction, organization_id: str) -> int:
    """How many marks of an organization are not carried out yet."""
    person = tables.scim_person.c
    query = select(func.count()).select_from(tables.scim_mark).join(tables.scim_person, person.id == _m.person_id)
    return int(await tx.scalar(query.where(person.organization_id == organization_id)))


def _same(mark: Mark) -> tuple[Any, ...]:
    return _m.person_id == mark.person_id, _m.environment_id == mark.environment_id


# --- whom it shut out ---------------------------------------------------------------------------------------------


async def shut(tx: Transaction, organization_id: str, environment_id: str, users: Collection[str]) -> None:
    """Note which of a tenant's users are about to be disabled: they are enabled again where the person comes back."""
    there = await was_shut(tx, environment_id, users)
    rows = [{"environment_id": environment_id, "user_id": one} for one in sorted(set(users) - there)]
    await tx.insert(tables.scim_shut, [row | {"organization_id": organization_id} for row in rows])


async def was_shut(tx: Transaction, environment_id: str, users: Collection[str]) -> set[str]:
    """Which of these users were disabled so."""
    table = tables.scim_shut.c
    query = select(table.user_id).where(table.environment_id == environment_id, table.user_id.in_(users))
    return {row[0] for row in await tx.all(query)}


async def opened(tx: Transaction, environment_id: str, users: Collection[str]) -> None:
    """Note that they are enabled again."""
    table = tables.scim_shut
    await tx.execute(delete(table).where(table.c.environment_id == environment_id, table.c.user_id.in_(users)))


async def others(
    tx: Transaction, organization_id: str, person_id: str, subjects: Collection[str], logins: Collection[str]
) -> tuple[set[str], set[str]]:
    """Which of these subjects, and of these logins, are another person's who is there."""
    person = tables.scim_person.c
    query = select(person.subject, person.folded).where(
        and_(person.organization_id == organization_id, person.id != person_id, person.gone.is_(None)),
        or_(person.subject.in_(subjects), person.folded.in_(logins)),
    )
    rows = await tx.all(query)
    return {row[0] for row in rows if row[0]}, {row[1] for row in rows}
