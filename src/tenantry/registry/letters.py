"""Letters that are to be sent, addresses that nothing is sent to, and keys that sign mail."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import delete, func, or_, select, update

from tenantry.model import new_id
from tenantry.registry import tables
from tenantry.registry.database import IN_LIMIT, Transaction, chunks, now, plain
from tenantry.registry.vault import Vault

REASON: Final = 500
"""The longest reason that is kept, in characters."""


class LetterState(StrEnum):
    """Where a letter is."""

    QUEUED = "queued"
    SENT = "sent"
    FAILED = "failed"
    HELD = "held"  # nothing is sent to its address


@dataclass(frozen=True, slots=True)
class LetterRow:
    """A letter, without what it says."""

    id: str
    kind: str
    state: str
    recipient: str
    slug: str | None  # of the tenant in whose look it is
    subject: str
    attempts: int
    created: datetime
    due: datetime | None
    until: datetime | None
    ended: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """A letter that this worker alone is to try now."""

    id: str
    claim: str
    recipient: str
    tenant_id: str | None
    sealed: bytes = field(repr=False)
    attempts: int  # this one counted
    created: datetime


@dataclass(frozen=True, slots=True)
class Hold:
    """An address that nothing is sent to."""

    address: str
    reason: str
    since: datetime


@dataclass(frozen=True, slots=True)
class MailKey:
    """A key that signs mail."""

    selector: str
    algorithm: str
    record: str  # what is to stand in DNS
    created: datetime
    sealed: bytes = field(repr=False)


_TABLE: Final = tables.letter
_ROW: Final = (
    *(_TABLE.c[name] for name in ("id", "kind", "state", "recipient")),
    tables.tenant.c.slug,
    *(_TABLE.c[name] for name in ("subject", "attempts", "created", "due", "until", "ended", "reason")),
)
_ROWS: Final = select(*_ROW).outerjoin(tables.tenant, tables.tenant.c.id == _TABLE.c.tenant_id)


def field_of(letter_id: str) -> str:
    """Under which name the vault seals what a letter says."""
    return f"letter:{letter_id}"


async def add(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Enter a letter."""
    await tx.insert(_TABLE, [row])


async def told(tx: Transaction, once: str) -> bool:
    """Whether there is a letter by this key."""
    return await tx.first(select(_TABLE.c.id).where(_TABLE.c.once == once)) is not None


async def find(tx: Transaction, letter_id: str) -> LetterRow | None:
    """A letter by its id."""
    row = await tx.first(_ROWS.where(_TABLE.c.id == plain(letter_id)))
    return LetterRow(*row) if row else None


async def page(
    tx: Transaction, state: str | None, search: str | None, tenant: str | None, before: str | None, limit: int
) -> list[LetterRow]:
    """Letters, newest first, those before the id of one."""
    query = _ROWS.order_by(_TABLE.c.id.desc()).limit(limit)
    if state:
        query = query.where(_TABLE.c.state == plain(state))
    if search:
        wanted = plain(search).lower()
        columns = (_TABLE.c.recipient, func.lower(_TABLE.c.subject), _TABLE.c.kind)
        query = query.where(or_(*(column.contains(wanted, autoescape=True) for column in columns)))
    if tenant:
        query = query.where(tables.tenant.c.slug == plain(tenant))
    if before:
        query = query.where(_TABLE.c.id < plain(before))
    return [LetterRow(*row) for row in await tx.all(query)]


async def counts(tx: Transaction) -> dict[str, int]:
    """How many letters there are of each state."""
    return dict(tuple(row) for row in await tx.all(select(_TABLE.c.state, func.count()).group_by(_TABLE.c.state)))


# --- sending ------------------------------------------------------------------------------------------------------


async def any_due(tx: Transaction) -> bool:
    """Whether a letter is to be tried."""
    return await tx.first(select(_TABLE.c.id).where(_TABLE.c.due <= now()).limit(1)) is not None


async def claim(tx: Transaction, lease: timedelta) -> Claimed | None:
    """The letter that waits longest, for the caller alone; for others it is due again when the lease is over.

    Letters that are too late and those to addresses that nothing is sent to end here.
    """
    columns = [_TABLE.c[name] for name in ("id", "recipient", "tenant_id", "sealed", "attempts", "created", "until")]
    while row := await tx.first(select(*columns).where(_TABLE.c.due <= now()).order_by(_TABLE.c.due).limit(1)):
        stop = await _stop(tx, row.recipient, row.until)
        if stop is not None:
            await _put(tx, row.id, state=stop[0].value, reason=stop[1], due=None, claim=None, ended=now())
            continue
        mark, attempts = new_id(), row.attempts + 1
        await _put(tx, row.id, claim=mark, attempts=attempts, due=now() + lease)
        return Claimed(row.id, mark, row.recipient, row.tenant_id, row.sealed, attempts, row.created)
    return None


async def _stop(tx: Transaction, recipient: str, until: datetime | None) -> tuple[LetterState, str] | None:
    """Why a letter is not to be tried at all."""
    if until is not None and until <= now():
        return LetterState.FAILED, f"its link ran out at {until:%Y-%m-%d %H:%M} UTC, before it could be sent"
    found = (await holds(tx, [recipient])).get(recipient)
    return (LetterState.HELD, found.reason) if found else None


async def settle(tx: Transaction, claimed: Claimed, **values: Any) -> bool:
    """Record how a try ended; False where the lease was over, and another one tries."""
    mine = (_TABLE.c.id == claimed.id, _TABLE.c.claim == claimed.claim)
    done = await tx.execute(update(_TABLE).where(*mine).values(claim=None, **_cut(values)))
    return bool(done.rowcount)


async def _put(tx: Transaction, letter_id: str, **values: Any) -> None:
    await tx.execute(update(_TABLE).where(_TABLE.c.id == letter_id).values(**_cut(values)))


def _cut(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: plain(value, REASON) if name == "reason" else value for name, value in values.items()}


async def requeue(tx: Transaction, letter_id: str) -> bool:
    """Let a letter that failed or is held be tried again from the beginning; False where there is no such one."""
    over = (_TABLE.c.id == plain(letter_id), _TABLE.c.state.in_((LetterState.FAILED, LetterState.HELD)))
    again = _AGAIN | {"due": now()}
    done = await tx.execute(update(_TABLE).where(*over, _TABLE.c.sealed.is_not(None)).values(**again))
    return bool(done.rowcount)


_AGAIN: Final = {"state": LetterState.QUEUED.value, "attempts": 0, "ended": None, "claim": None, "reason": ""}


async def came_back(tx: Transaction, letter_id: str, reason: str) -> LetterRow | None:
    """Record that a letter came back; None where there is no such one."""
    await _put(tx, plain(letter_id), state=LetterState.FAILED.value, reason=reason, due=None, claim=None, ended=now())
    return await find(tx, letter_id)


async def forget(tx: Transaction, before: datetime) -> int:
    """Forget letters that ended before a moment."""
    over = (_TABLE.c.due.is_(None), _TABLE.c.created < before)
    return int((await tx.execute(delete(_TABLE).where(*over))).rowcount)


# --- addresses that nothing is sent to ----------------------------------------------------------------------------


async def holds(tx: Transaction, addresses: Collection[str] | None = None, limit: int = 500) -> dict[str, Hold]:
    """By address, why nothing is sent there; of these addresses, or of all."""
    table = tables.mail_hold
    query = select(table.c.address, table.c.reason, table.c.since).order_by(table.c.since.desc())
    if addresses is None:
        rows = list(await tx.all(query.limit(limit)))
    else:
        runs = chunks([plain(one) for one in addresses], IN_LIMIT)
        rows = [row for some in runs for row in await tx.all(query.where(table.c.address.in_(some)))]
    return {row.address: Hold(*row) for row in rows}


async def hold(tx: Transaction, address: str, reason: str) -> None:
    """Send nothing to an address from now on; why it was so first stays."""
    if not await holds(tx, [address]):
        await tx.insert(tables.mail_hold, [{"address": address, "reason": plain(reason, REASON), "since": now()}])


async def release(tx: Transaction, address: str) -> int | None:
    """Send to an address again, and what was held for it; how many letters, None where it was not held."""
    table, wanted = tables.mail_hold, plain(address)
    if not (await tx.execute(delete(table).where(table.c.address == wanted))).rowcount:
        return None
    mine = (_TABLE.c.recipient == wanted, _TABLE.c.state == LetterState.HELD)
    return int((await tx.execute(update(_TABLE).where(*mine).values(**_AGAIN, due=now()))).rowcount)


# --- keys ---------------------------------------------------------------------------------------------------------


async def keys(tx: Transaction) -> Sequence[MailKey]:
    """All of them, newest first."""
    table = tables.mail_key
    columns = [table.c[name] for name in ("selector", "algorithm", "record", "created", "sealed")]
    return [MailKey(*row) for row in await tx.all(select(*columns).order_by(table.c.created.desc(), table.c.selector))]


async def add_key(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Enter a key."""
    await tx.insert(tables.mail_key, [row])


async def drop_key(tx: Transaction, selector: str) -> bool:
    """Forget a key."""
    table = tables.mail_key
    return bool((await tx.execute(delete(table).where(table.c.selector == plain(selector)))).rowcount)


async def reseal(tx: Transaction, vault: Vault) -> None:
    """Seal everything here with the current platform key."""
    for letter_id, sealed in await tx.all(select(_TABLE.c.id, _TABLE.c.sealed).where(_TABLE.c.sealed.is_not(None))):
        again = vault.seal_platform(field_of(letter_id), vault.open_platform(field_of(letter_id), sealed))
        await _put(tx, letter_id, sealed=again)
    for key in await keys(tx):
        name = f"dkim:{key.selector}"
        again = vault.seal_platform(name, vault.open_platform(name, key.sealed))
        table = tables.mail_key
        await tx.execute(update(table).where(table.c.selector == key.selector).values(sealed=again))
