"""Requests that may be repeated: the answer to the first is kept for whoever asks again by the same key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, select, update

from tenantry.registry import tables
from tenantry.registry.database import Transaction, now

KEPT: Final = timedelta(hours=24)
"""How long an answer is kept."""

ABANDONED: Final = timedelta(minutes=5)
"""After how long a request without an answer is taken for one whose process died."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """A request of before."""

    request: str  # a hash of what was asked
    status: int | None  # none: it is being answered
    body: str | None


async def begin(tx: Transaction, key: str, request: str) -> Repeat | None:
    """The request of before by this key; None where this is the first, which is entered."""
    table, moment = tables.idempotency, now()
    await tx.execute(delete(table).where(table.c.created < moment - KEPT))
    await tx.execute(delete(table).where(table.c.status.is_(None), table.c.created < moment - ABANDONED))
    row = await tx.first(select(table.c.request, table.c.status, table.c.body).where(table.c.key == key))
    if row is not None:
        return Repeat(*row)
    await tx.insert(table, [{"key": key, "request": request, "created": moment}])
    return None


async def end(tx: Transaction, key: str, status: int, body: str) -> None:
    """Keep the answer."""
    table = tables.idempotency
    await tx.execute(update(table).where(table.c.key == key).values(status=status, body=body))


async def forget(tx: Transaction, key: str) -> None:
    """Let the next request by this key be the first: this one did nothing."""
    await tx.execute(delete(tables.idempotency).where(tables.idempotency.c.key == key))
