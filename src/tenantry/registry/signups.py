"""Sign-ups that are under way, invitations to them, and trials. Each function takes the transaction it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.exc import IntegrityError

from tenantry.errors import SlugTaken
from tenantry.model import Status
from tenantry.registry import tables
from tenantry.registry.database import Transaction, now, plain

_TABLE: Final = tables.sign_up
_TRIAL: Final = tables.trial


@dataclass(frozen=True, slots=True)
class SignUpRow:
    """A sign-up that is under way."""

    id: str
    slug: str
    name: str
    mail: str
    organization: str
    address: str
    terms: str | None
    tries: int  # codes that were wrong
    created: datetime
    expires: datetime
    tenant_id: str | None = None  # once it is confirmed
    operation_id: str | None = None

    @property
    def is_confirmed(self) -> bool:
        """Whether the tenant is being made, or there."""
        return self.tenant_id is not None


@dataclass(frozen=True, slots=True)
class InvitationRow:
    """An invitation to sign up, without the invitation itself."""

    id: str
    mail: str | None
    by: str
    created: datetime
    expires: datetime
    used: datetime | None


@dataclass(frozen=True, slots=True)
class TrialRow:
    """How long a tenant is tried out, and what its owner was told."""

    tenant_id: str
    slug: str
    name: str
    status: Status
    mail: str
    until: datetime
    reminded: float | None
    ended: datetime | None
    warned: datetime | None


_ROW: Final = [_TABLE.c[name] for name in SignUpRow.__dataclass_fields__]
_INVITATION: Final = [tables.sign_up_invitation.c[name] for name in InvitationRow.__dataclass_fields__]


# --- sign-ups -----------------------------------------------------------------------------------------------------


async def add(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Enter a sign-up, which holds its slug. Raises `SlugTaken` where another one holds it."""
    await forget_over(tx, now())
    try:
        await tx.insert(_TABLE, [row])
    except IntegrityError as error:
        raise SlugTaken(slug=row["slug"]) from error


async def by_ticket(tx: Transaction, digest: str) -> SignUpRow | None:
    """The sign-up that a browser goes on with."""
    row = await tx.first(select(*_ROW).where(_TABLE.c.ticket == digest, _TABLE.c.expires > now()))
    return SignUpRow(*row) if row else None


async def by_link(tx: Transaction, digest: str) -> SignUpRow | None:
    """The sign-up that a link in a mail confirms."""
    row = await tx.first(select(*_ROW).where(_TABLE.c.link == digest, _TABLE.c.expires > now()))
    return SignUpRow(*row) if row else None


async def code_of(tx: Transaction, sign_up_id: str) -> str | None:
    """The keyed hash of the code that confirms a sign-up."""
    code: str | None = await tx.scalar(select(_TABLE.c.code).where(_TABLE.c.id == sign_up_id))
    return code


async def under_way(tx: Transaction, limit: int) -> list[SignUpRow]:
    """Those that wait to be confirmed, newest first."""
    waiting = (_TABLE.c.tenant_id.is_(None), _TABLE.c.expires > now())
    return [
        SignUpRow(*row) for row in await tx.all(select(*_ROW).where(*waiting).order_by(_TABLE.c.id.desc()).limit(limit))
    ]


async def change(tx: Transaction, sign_up_id: str, **values: Any) -> None:
    """Change columns of a sign-up."""
    await tx.execute(update(_TABLE).where(_TABLE.c.id == sign_up_id).values(**values))


async def drop(tx: Transaction, sign_up_id: str) -> None:
    """Forget a sign-up; its slug is free."""
    await tx.execute(delete(_TABLE).where(_TABLE.c.id == sign_up_id))


async def forget_over(tx: Transaction, moment: datetime) -> None:
    """Forget those whose time is over."""
    await tx.execute(delete(_TABLE).where(_TABLE.c.expires <= moment))


# --- invitations --------------------------------------------------------------------------------------------------


async def add_invitation(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Enter an invitation."""
    await tx.insert(tables.sign_up_invitation, [row])


async def invitation(tx: Transaction, digest: str) -> InvitationRow | None:
    """The invitation of this hash that holds still."""
    table = tables.sign_up_invitation.c
    query = select(*_INVITATION).where(table.digest == digest, table.expires > now(), table.used.is_(None))
    row = await tx.first(query)
    return InvitationRow(*row) if row else None


async def invitation_by_id(tx: Transaction, invitation_id: str) -> InvitationRow | None:
    """The invitation of this id."""
    row = await tx.first(select(*_INVITATION).where(tables.sign_up_invitation.c.id == plain(invitation_id)))
    return InvitationRow(*row) if row else None


async def invitations(tx: Transaction, limit: int) -> list[InvitationRow]:
    """All that were not used, newest first."""
    table = tables.sign_up_invitation.c
    query = select(*_INVITATION).where(table.used.is_(None)).order_by(table.id.desc()).limit(limit)
    return [InvitationRow(*row) for row in await tx.all(query)]


async def use_invitation(tx: Transaction, invitation_id: str) -> None:
    """Note that an invitation was used."""
    table = tables.sign_up_invitation
    await tx.execute(update(table).where(table.c.id == invitation_id).values(used=now()))


async def drop_invitation(tx: Transaction, invitation_id: str) -> None:
    """Let an invitation be good for nothing any more."""
    table = tables.sign_up_invitation
    await tx.execute(delete(table).where(table.c.id == invitation_id))


# --- trials -------------------------------------------------------------------------------------------------------

_TENANT: Final = tables.tenant
_TRIALS: Final = (
    select(_TRIAL.c.tenant_id, _TENANT.c.slug, _TENANT.c.name, _TENANT.c.status, _TRIAL.c.mail)
    .add_columns(*(_TRIAL.c[name] for name in ("until", "reminded", "ended", "warned")))
    .join(_TENANT, _TENANT.c.id == _TRIAL.c.tenant_id)
)
_ENDED: Final = (_TENANT.c.status == Status.SUSPENDED, _TRIAL.c.ended.is_not(None))


async def begin_trial(tx: Transaction, tenant_id: str, mail: str, until: datetime) -> None:
    """Let a tenant be tried out until then."""
    await tx.insert(_TRIAL, [{"tenant_id": tenant_id, "mail": mail, "until": until}])


async def trial(tx: Transaction, tenant_id: str) -> TrialRow | None:
    """A tenant's trial, also one that is over."""
    row = await tx.first(_TRIALS.where(_TRIAL.c.tenant_id == tenant_id))
    return _trial(row) if row else None


async def to_remind(tx: Transaction, ahead: float, moment: datetime, limit: int) -> list[TrialRow]:
    """Trials that end in so many seconds or less, and whose owners were not told so yet."""
    soon = (_TRIAL.c.until > moment, _TRIAL.c.until <= moment + timedelta(seconds=ahead))
    untold = or_(_TRIAL.c.reminded.is_(None), _TRIAL.c.reminded > ahead)
    return await _found(tx, limit, _TENANT.c.status == Status.TRIALING, untold, *soon)


async def over(tx: Transaction, moment: datetime, limit: int) -> list[TrialRow]:
    """Trials that are over, of tenants that are served still."""
    return await _found(tx, limit, _TENANT.c.status == Status.TRIALING, _TRIAL.c.until <= moment)


async def to_warn(tx: Transaction, before: datetime, limit: int) -> list[TrialRow]:
    """Trials that ended before a moment, of tenants that are suspended since, whose owners were not warned."""
    return await _found(tx, limit, *_ENDED, _TRIAL.c.ended <= before, _TRIAL.c.warned.is_(None))


async def to_remove(tx: Transaction, before: datetime, warned: datetime, limit: int) -> list[TrialRow]:
    """Trials that ended before a moment, of tenants that are suspended since, whose owners were warned before one."""
    return await _found(tx, limit, *_ENDED, _TRIAL.c.ended <= before, _TRIAL.c.warned <= warned)


async def _found(tx: Transaction, limit: int, *conditions: ColumnElement[bool]) -> list[TrialRow]:
    query = _TRIALS.where(*conditions).order_by(_TRIAL.c.until).limit(limit)
    return [_trial(row) for row in await tx.all(query)]


async def note_trial(tx: Transaction, tenant_id: str, **values: Any) -> None:
    """Change columns of a trial."""
    await tx.execute(update(_TRIAL).where(_TRIAL.c.tenant_id == tenant_id).values(**values))


async def end_trial(tx: Transaction, tenant_id: str) -> None:
    """Try a tenant out no more: it is activated."""
    await tx.execute(delete(_TRIAL).where(_TRIAL.c.tenant_id == tenant_id))


def _trial(row: Any) -> TrialRow:
    tenant_id, slug, name, status, *rest = row
    return TrialRow(tenant_id, slug, name, Status(status), *rest)


# --- the wizard ---------------------------------------------------------------------------------------------------


async def set_welcome(tx: Transaction, tenant_id: str, step: int | None) -> None:
    """Which step of the wizard comes next; None: there is none any more."""
    table = tables.welcome
    await tx.execute(delete(table).where(table.c.tenant_id == tenant_id))
    if step is not None:
        await tx.insert(table, [{"tenant_id": tenant_id, "step": step}])


async def welcome(tx: Transaction, tenant_id: str) -> int | None:
    """The step of the wizard that comes next."""
    step: int | None = await tx.scalar(select(tables.welcome.c.step).where(tables.welcome.c.tenant_id == tenant_id))
    return step


# --- how many -----------------------------------------------------------------------------------------------------


async def count(tx: Transaction, key: str, most: int, within: timedelta) -> float:
    """Count something for a key, a hash; seconds to wait where there were as many within a time, else 0."""
    table, moment = tables.throttle, now()
    row = await tx.first(select(table.c.failures, table.c.until).where(table.c.key == key))
    number, until = (row[0], row[1]) if row and row[1] > moment else (0, moment + within)
    if number >= most:
        return max(1.0, (until - moment).total_seconds())
    await tx.execute(delete(table).where(or_(table.c.key == key, table.c.until < moment - timedelta(days=1))))
    await tx.insert(table, [{"key": key, "failures": number + 1, "until": until}])
    return 0.0
