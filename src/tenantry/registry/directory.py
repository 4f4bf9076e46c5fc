"""Organizations' directories, as their providers tell of them by SCIM. Each function takes its transaction."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, delete, exists, func, or_, select, update

from tenantry.registry import tables, wishes
from tenantry.registry.database import IN_LIMIT, Transaction, chunks, now, plain
from tenantry.registry.wishes import Field, Wish


@dataclass(frozen=True, slots=True)
class ScimRow:
    """That an organization's directory is kept here."""

    organization_id: str
    required: bool
    created: datetime


@dataclass(frozen=True, slots=True)
class ScimToken:
    """By which a provider tells of its organization, without the token itself."""

    id: str
    organization_id: str
    name: str
    created: datetime
    used: datetime | None


@dataclass(frozen=True, slots=True)
class PersonRow:
    """Somebody of an organization."""

    id: str
    organization_id: str
    external_id: str | None
    user_name: str
    folded: str
    mail: str
    display: str
    details: Mapping[str, Any]
    active: bool
    issuer: str | None
    subject: str | None
    created: datetime
    changed: datetime
    version: int
    gone: datetime | None

    @property
    def is_in(self) -> bool:
        """Whether she may sign in."""
        return self.active and self.gone is None


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group of an organization's people."""

    id: str
    organization_id: str
    external_id: str | None
    display: str
    created: datetime
    changed: datetime
    version: int


_TOKEN: Final = [tables.scim_token.c[name] for name in ScimToken.__slots__]
_PERSON: Final = [tables.scim_person.c[name] for name in PersonRow.__slots__]
_GROUP: Final = [tables.scim_group.c[name] for name in GroupRow.__slots__]


def fold(text: str) -> str:
    """A text as it is searched: capitals and composed letters mean nothing."""
    return unicodedata.normalize("NFC", text).lower()


_p, _g = tables.scim_person.c, tables.scim_group.c

PERSON_FIELDS: Final[Mapping[str, Field]] = {
    "id": Field(_p.id, str),
    "externalid": Field(_p.external_id, str),
    "username": Field(_p.folded, str, fold),
    "displayname": Field(_p.shown, str, fold),
    "active": Field(_p.active, bool),
    "meta.created": Field(_p.created, datetime),
    "meta.lastmodified": Field(_p.changed, datetime),
}
"""By which attributes people are found."""

GROUP_FIELDS: Final[Mapping[str, Field]] = {
    "id": Field(_g.id, str),
    "externalid": Field(_g.external_id, str),
    "displayname": Field(_g.shown, str, fold),
    "meta.created": Field(_g.created, datetime),
    "meta.lastmodified": Field(_g.changed, datetime),
}


def _has_member(person_id: str) -> ColumnElement[bool]:
    member = tables.scim_member.c
    return exists().where(member.group_id == _g.id, member.person_id == plain(person_id))


def _is_in(group_id: str) -> ColumnElement[bool]:
    member = tables.scim_member.c
    return exists().where(member.person_id == _p.id, member.group_id == plain(group_id))


# --- whether it is kept -------------------------------------------------------------------------------------------


async def find(tx: Transaction, organization_id: str) -> ScimRow | None:
    """How an organization's directory is kept; None where it is not."""
    table = tables.scim.c
    query = select(*(table[name] for name in ScimRow.__slots__)).where(table.organization_id == plain(organization_id))
    row = await tx.first(query)
    return ScimRow(*row) if row else None


async def begin(tx: Transaction, organization_id: str) -> None:
    """Keep it from now on."""
    await tx.insert(tables.scim, [{"organization_id": organization_id, "required": False, "created": now()}])


async def require(tx: Transaction, organization_id: str, required: bool) -> None:
    """Let nobody else sign in by the organization, or others again."""
    table = tables.scim
    await tx.execute(update(table).where(table.c.organization_id == organization_id).values(required=required))


async def forget(tx: Transaction, organization_id: str) -> None:
    """Forget all of it."""
    group, person, whose = tables.scim_group, tables.scim_person, "organization_id"
    groups = select(group.c.id).where(group.c[whose] == organization_id)
    theirs = select(person.c.id).where(person.c[whose] == organization_id)
    await tx.execute(delete(tables.scim_member).where(tables.scim_member.c.group_id.in_(groups)))
    await tx.execute(delete(tables.scim_mark).where(tables.scim_mark.c.person_id.in_(theirs)))
    for table in (group, person, tables.scim_shut, tables.scim_token, tables.scim):
        await tx.execute(delete(table).where(table.c[whose] == organization_id))


# --- tokens -------------------------------------------------------------------------------------------------------


async def add_token(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Enter a token."""
    await tx.insert(tables.scim_token, [row])


async def token(tx: Transaction, digest: str) -> ScimToken | None:
    """The token of this hash."""
    row = await tx.first(select(*_TOKEN).where(tables.scim_token.c.digest == digest))
    return ScimToken(*row) if row else None


async def tokens(tx: Transaction, organization_id: str) -> list[ScimToken]:
    """An organization's tokens, newest first."""
    table = tables.scim_token.c
    query = select(*_TOKEN).where(table.organization_id == organization_id).order_by(table.created.desc(), table.id)
    return [ScimToken(*row) for row in await tx.all(query)]


async def use_token(tx: Transaction, token_id: str) -> None:
    """Note that it was used just now."""
    await tx.execute(update(tables.scim_token).where(tables.scim_token.c.id == token_id).values(used=now()))


async def drop_token(tx: Transaction, organization_id: str, token_id: str) -> bool:
    """Forget a token; whether it was this organization's."""
    table = tables.scim_token
    mine = (table.c.organization_id == organization_id, table.c.id == plain(token_id))
    return (await tx.execute(delete(table).where(*mine))).rowcount > 0


# --- people -------------------------------------------------------------------------------------------------------


async def person(tx: Transaction, organization_id: str, person_id: str) -> PersonRow | None:
    """Somebody who is there, by her id."""
    row = await tx.first(_there(organization_id).where(_p.id == plain(person_id)))
    return PersonRow(*row) if row else None


async def by_id(tx: Transaction, person_id: str) -> PersonRow | None:
    """Somebody, also one who is gone."""
    row = await tx.first(select(*_PERSON).where(_p.id == person_id))
    return PersonRow(*row) if row else None


async def holder(tx: Transaction, organization_id: str, folded: str) -> PersonRow | None:
    """Who has a user name."""
    row = await tx.first(select(*_PERSON).where(_p.organization_id == organization_id, _p.held == plain(folded)))
    return PersonRow(*row) if row else None


async def people(
    tx: Transaction, organization_id: str, wish: Wish | None, offset: int, limit: int
) -> tuple[int, list[PersonRow]]:
    """How many there are, and a page of them, in the order in which they joined."""
    query = _there(organization_id)
    if wish is not None:
        query = query.where(wishes.condition(wish, PERSON_FIELDS, {"groups": _is_in}))
    total = int(await tx.scalar(select(func.count()).select_from(query.subquery())))
    rows = await tx.all(query.order_by(_p.created, _p.id).offset(offset).limit(limit)) if limit else []
    return total, [PersonRow(*row) for row in rows]


async def search(
    tx: Transaction, organization_id: str, text: str | None, after: str | None, limit: int
) -> list[PersonRow]:
    """People by their user names, those after one, whose name or address has this text in it."""
    query = _there(organization_id).order_by(_p.folded).limit(limit)
    if text:
        held = fold(plain(text))
        query = query.where(or_(*(column.contains(held, autoescape=True) for column in (_p.folded, _p.shown))))
    if after:
        query = query.where(_p.folded > fold(plain(after)))
    return [PersonRow(*row) for row in await tx.all(query)]


async def counts(tx: Transaction, organization_id: str) -> tuple[int, int, int]:
    """How many people are there, how many of them may sign in, and how many groups there are."""
    there = (_p.organization_id == organization_id, _p.gone.is_(None))
    groups = select(func.count()).where(_g.organization_id == organization_id)
    everybody = select(func.count()).where(*there)
    return tuple(  # type: ignore[return-value]
        [int(await tx.scalar(query)) for query in (everybody, everybody.where(_p.active), groups)]
    )


async def add_person(tx: Transaction, values: Mapping[str, Any]) -> None:
    """Enter somebody."""
    await tx.insert(tables.scim_person, [values])


async def change_person(tx: Transaction, person_id: str, **values: Any) -> None:
    """Change columns of somebody."""
    await tx.execute(update(tables.scim_person).where(_p.id == person_id).values(**values))


async def bury(tx: Transaction, person_id: str) -> None:
    """Note that somebody is gone: her name is free, she is in no group, and who she was is known still."""
    await tx.execute(delete(tables.scim_member).where(tables.scim_member.c.person_id == person_id))
    await change_person(tx, person_id, held=None, gone=now(), changed=now())


async def known(
    tx: Transaction, organization_id: str, issuer: str, subject: str, mail: str
) -> tuple[PersonRow | None, bool]:
    """Who it is that a provider asserts, and whether it is somebody who is gone.

    Who signed in as that subject before comes first, then whose id outside it is, then whose user name or address
    the mail is. Nobody who is there: she may be one who is gone.
    """
    asserted = (_p.issuer == plain(issuer)) & (_p.subject == plain(subject))
    marks = (asserted, _p.external_id == plain(subject), _p.folded == fold(plain(mail)), _p.mail == fold(plain(mail)))
    for mark in marks:
        row = await tx.first(_there(organization_id).where(mark).order_by(_p.active.desc(), _p.id))
        if row is not None:
            return PersonRow(*row), False
    over = select(*_PERSON).where(_p.organization_id == organization_id, _p.gone.is_not(None), or_(*marks))
    row = await tx.first(over.limit(1))
    return (PersonRow(*row) if row else None), True


async def bind(tx: Transaction, person_id: str, issuer: str, subject: str) -> None:
    """Note as whom a provider asserted somebody."""
    await change_person(tx, person_id, issuer=plain(issuer), subject=plain(subject))


async def signed_in(tx: Transaction, ids: Collection[str]) -> set[str]:
    """Which of these people may sign in, and have."""
    found: set[str] = set()
    for some in chunks(sorted(ids), IN_LIMIT):
        query = select(_p.id).where(_p.id.in_(some), _p.active, _p.gone.is_(None), _p.subject.is_not(None))
        found |= {row[0] for row in await tx.all(query)}
    return found


async def left_before(tx: Transaction, organization_id: str, addresses: Collection[str]) -> bool:
    """Whether somebody who is gone had one of these addresses."""
    mine = (_p.organization_id == organization_id, _p.gone.is_not(None))
    query = select(func.count()).where(*mine, or_(_p.folded.in_(addresses), _p.mail.in_(addresses)))
    return bool(await tx.scalar(query))


def _there(organization_id: str) -> Select[Any]:
    return select(*_PERSON).where(_p.organization_id == organization_id, _p.gone.is_(None))


# --- groups -------------------------------------------------------------------------------------------------------


async def group(tx: Transaction, organization_id: str, group_id: str) -> GroupRow | None:
    """A group, by its id."""
    row = await tx.first(select(*_GROUP).where(_g.organization_id == organization_id, _g.id == plain(group_id)))
    return GroupRow(*row) if row else None


async def groups(
    tx: Transaction, organization_id: str, wish: Wish | None, offset: int, limit: int
) -> tuple[int, list[GroupRow]]:
    """How many there are, and a page of them."""
    query = select(*_GROUP).where(_g.organization_id == organization_id)
    if wish is not None:
        query = query.where(wishes.condition(wish, GROUP_FIELDS, {"members": _has_member}))
    total = int(await tx.scalar(select(func.count()).select_from(query.subquery())))
    rows = await tx.all(query.order_by(_g.created, _g.id).offset(offset).limit(limit)) if limit else []
    return total, [GroupRow(*row) for row in rows]


async def add_group(tx: Transaction, values: Mapping[str, Any]) -> None:
    """Enter a group."""
    await tx.insert(tables.scim_group, [values])


async def change_group(tx: Transaction, group_id: str, **values: Any) -> None:
    """Change columns of a group."""
    await tx.execute(update(tables.scim_group).where(_g.id == group_id).values(**values))


async def drop_group(tx: Transaction, group_id: str) -> None:
    """Forget a group."""
    await tx.execute(delete(tables.scim_member).where(tables.scim_member.c.group_id == group_id))
    await tx.execute(delete(tables.scim_group).where(_g.id == group_id))


async def members(tx: Transaction, group_ids: Sequence[str], limit: int) -> list[tuple[str, str]]:
    """Who is in these groups (group, person), at most `limit`."""
    member = tables.scim_member.c
    query = select(member.group_id, member.person_id).where(member.group_id.in_(group_ids))
    rows = await tx.all(query.order_by(member.group_id, member.person_id).limit(limit))
    return [(row[0], row[1]) for row in rows]


async def member_ids(tx: Transaction, group_id: str) -> set[str]:
    """Who is in a group."""
    member = tables.scim_member.c
    return {row[0] for row in await tx.all(select(member.person_id).where(member.group_id == group_id))}


async def groups_of(tx: Transaction, person_ids: Sequence[str]) -> list[tuple[str, GroupRow]]:
    """The groups that these people are in."""
    member = tables.scim_member.c
    found: list[Any] = []
    for some in chunks(person_ids, IN_LIMIT):
        query = select(member.person_id, *_GROUP).join(tables.scim_group, _g.id == member.group_id)
        found += await tx.all(query.where(member.person_id.in_(some)).order_by(_g.display, _g.id))
    return [(row[0], GroupRow(*row[1:])) for row in found]


async def those_there(tx: Transaction, organization_id: str, ids: Collection[str]) -> set[str]:
    """Which of these are ids of people who are there."""
    found: set[str] = set()
    for some in chunks([plain(one) for one in ids], IN_LIMIT):
        query = select(_p.id).where(_p.organization_id == organization_id, _p.gone.is_(None), _p.id.in_(some))
        found |= {row[0] for row in await tx.all(query)}
    return found


async def put_members(tx: Transaction, group_id: str, added: Collection[str], removed: Collection[str]) -> None:
    """Let people into a group, and others out of it."""
    member = tables.scim_member
    await tx.insert(member, [{"group_id": group_id, "person_id": one} for one in sorted(added)])
    for some in chunks(sorted(removed), IN_LIMIT):
        await tx.execute(delete(member).where(member.c.group_id == group_id, member.c.person_id.in_(some)))
