"""One organization's people and groups, as its provider tells of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from scim2_models import Context

from tenantry.config import Config
from tenantry.errors import AccountError
from tenantry.identity.principal import digest
from tenantry.identity.scim import members, wire
from tenantry.identity.scim.filters import Reader
from tenantry.identity.scim.standing import BEGINNING
from tenantry.mail import check_mail
from tenantry.model import NAME_LENGTH, new_id
from tenantry.registry import Registry, Transaction, directory, leaving, sso
from tenantry.registry.database import now, plain
from tenantry.registry.directory import GroupRow, PersonRow, ScimToken, fold
from tenantry.scim_refusals import (
    ScimChanged,
    ScimForeign,
    ScimNotFound,
    ScimTaken,
    ScimTokenWrong,
    ScimTooMany,
    ScimValue,
)

SEEN: Final = timedelta(minutes=1)
"""How exact the moments are at which tokens were last used."""

PEOPLE: Final = 200_000
"""People of one organization."""

GROUPS: Final = 10_000
"""Groups of one organization."""

MEMBERS: Final = 20_000
"""Members of groups that one answer holds."""

LONGEST: Final = 255
"""Characters of an id outside, and of a group's name."""

Json = dict[str, Any]


class Directory:
    """Answers a provider. Whoever asks is known by `admit`; every method takes the token that it gave."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self._registry = registry
        self._url = config.url

    def where(self, organization_id: str) -> str:
        """The address of an organization's directory."""
        return f"{self._url}/scim/{organization_id}/v2"

    async def admit(self, organization: str, token: str) -> ScimToken:
        """The organization's token. Raises `ScimTokenWrong`."""
        async with self._registry.read() as tx:
            row = await directory.token(tx, digest(token)) if token.startswith(BEGINNING) else None
        if row is None or row.organization_id != organization:
            raise ScimTokenWrong
        if row.used is None or now() - row.used > SEEN:
            async with self._registry.write() as tx:
                await directory.use_token(tx, row.id)
        return row

    # --- people ---------------------------------------------------------------------------------------------------

    async def people(self, token: ScimToken, query: Mapping[str, str]) -> Json:
        """Those who are asked for."""
        asked = wire.parameters(wire.User, query)
        wish = Reader(directory.PERSON_FIELDS, "groups").read(asked.filter.ast) if asked.filter else None
        start, count = _page(asked)
        async with self._registry.read() as tx:
            total, rows = await directory.people(tx, token.organization_id, wish, start - 1, count)
            found = await self._shown(tx, rows)
        return wire.listed(total, start, found, asked)

    async def person(self, token: ScimToken, person_id: str, query: Mapping[str, str]) -> Json:
        """One of them. Raises `ScimNotFound`."""
        asked = wire.parameters(wire.User, query)
        async with self._registry.read() as tx:
            row = await _person(tx, token, person_id)
            (found,) = await self._shown(tx, [row])
        return wire.answered(found, Context.RESOURCE_QUERY_RESPONSE, asked)

    async def join(self, token: ScimToken, body: bytes) -> Json:
        """Somebody joins. Raises `ScimTaken`, `ScimForeign`, and what else is wrong with the body."""
        given = await asyncio.to_thread(wire.user, body)
        async with self._write(token) as tx:
            if (await directory.counts(tx, token.organization_id))[0] >= PEOPLE:
                raise ScimTooMany(number=PEOPLE, what="people")
            row = await self._put(tx, token, None, given)
            (found,) = await self._shown(tx, [row])
        return wire.answered(found, Context.RESOURCE_CREATION_RESPONSE)

    async def replace(self, token: ScimToken, person_id: str, body: bytes, match: str | None) -> Json:
        """Somebody is as the provider says now; whether she may sign in stays where it says nothing of that."""
        given = await asyncio.to_thread(wire.user, body, True)
        async with self._write(token) as tx:
            before = await _person(tx, token, person_id)
            refuse_changed(before, match)
            if given.active is None:
                given.active = before.active
            row = await self._put(tx, token, before, given)
            (found,) = await self._shown(tx, [row])
        return wire.answered(found, Context.RESOURCE_REPLACEMENT_RESPONSE)

    async def patch(self, token: ScimToken, person_id: str, body: bytes, match: str | None) -> Json:
        """Something of somebody changes."""
        async with self._write(token) as tx:
            before = await _person(tx, token, person_id)
            refuse_changed(before, match)
            given = wire.user_patched(body, wire.shown_user(before, "", []))
            row = await self._put(tx, token, before, given)
            (found,) = await self._shown(tx, [row])
        return wire.answered(found, Context.RESOURCE_PATCH_RESPONSE)

    async def leave(self, token: ScimToken, person_id: str, match: str | None) -> None:
        """Somebody is gone."""
        async with self._write(token) as tx:
            row = await _person(tx, token, person_id)
            refuse_changed(row, match)
            await directory.bury(tx, row.id)
            await leaving.put(tx, token.organization_id, [row.id])
            tx.audit("scim.delete", row.user_name, organization=token.organization_id, person=row.id)

    async def _put(self, tx: Transaction, token: ScimToken, before: PersonRow | None, given: wire.User) -> PersonRow:
        """Enter what a provider says of somebody, with the marks for what follows from it."""
        whose = token.organization_id
        values = await _values(tx, whose, given)
        holder = await directory.holder(tx, whose, values["folded"])
        if holder is not None and (before is None or holder.id != before.id):
            raise ScimTaken(name=values["user_name"])
        if before is None:
            row = PersonRow(
                new_id(), whose, issuer=None, subject=None, created=now(), changed=now(), version=1, gone=None, **values
            )
            await directory.add_person(tx, _columns(row))
        elif values == {name: getattr(before, name) for name in values}:
            return before
        else:
            changed = {**values, "changed": now(), "version": before.version + 1}
            await directory.change_person(tx, before.id, **_searched(changed), held=values["folded"])
            row = await _person(tx, token, before.id)
        returns = before is None and await directory.left_before(tx, whose, {row.folded, row.mail} - {""})
        if row.active != (before is None or before.active) or returns:
            await leaving.put(tx, whose, [row.id])
        action = "scim.join" if before is None else "scim.change"
        tx.audit(action, row.user_name, organization=whose, person=row.id, active=row.active)
        return row

    async def _shown(self, tx: Transaction, rows: Sequence[PersonRow]) -> list[wire.User]:
        theirs: dict[str, list[GroupRow]] = {}
        for person_id, group in await directory.groups_of(tx, [row.id for row in rows]):
            theirs.setdefault(person_id, []).append(group)
        return [wire.shown_user(row, self.where(row.organization_id), theirs.get(row.id, [])) for row in rows]

    # --- groups ---------------------------------------------------------------------------------------------------

    async def groups(self, token: ScimToken, query: Mapping[str, str]) -> Json:
        """Those that are asked for."""
        asked = wire.parameters(wire.Group, query)
        wish = Reader(directory.GROUP_FIELDS, "members").read(asked.filter.ast) if asked.filter else None
        start, count = _page(asked)
        async with self._registry.read() as tx:
            total, rows = await directory.groups(tx, token.organization_id, wish, start - 1, count)
            found = await self._groups_shown(tx, rows, asked)
        return wire.listed(total, start, found, asked)

    async def group(self, token: ScimToken, group_id: str, query: Mapping[str, str]) -> Json:
        """One of them. Raises `ScimNotFound`."""
        asked = wire.parameters(wire.Group, query)
        async with self._registry.read() as tx:
            (found,) = await self._groups_shown(tx, [await _group(tx, token, group_id)], asked)
        return wire.answered(found, Context.RESOURCE_QUERY_RESPONSE, asked)

    async def found_group(self, token: ScimToken, body: bytes) -> Json:
        """A group begins."""
        given = await asyncio.to_thread(wire.group, body)
        async with self._write(token) as tx:
            if (await directory.counts(tx, token.organization_id))[2] >= GROUPS:
                raise ScimTooMany(number=GROUPS, what="groups")
            row = GroupRow(
                new_id(), token.organization_id, created=now(), changed=now(), version=1, **_group_values(given)
            )
            await directory.add_group(tx, {**_plain(row), "shown": fold(row.display)})
            await self._put_members(tx, row, None, members.ids_of(given.members or []))
            tx.audit("scim.group", row.display, organization=row.organization_id, group=row.id)
            (found,) = await self._groups_shown(tx, [row])
        return wire.answered(found, Context.RESOURCE_CREATION_RESPONSE)

    async def replace_group(self, token: ScimToken, group_id: str, body: bytes, match: str | None) -> Json:
        """A group is as the provider says now."""
        given = await asyncio.to_thread(wire.group, body, True)
        async with self._write(token) as tx:
            before = await _group(tx, token, group_id)
            refuse_changed(before, match)
            wanted = members.ids_of(given.members or [])
            row = await self._put_group(tx, before, _group_values(given), wanted)
            (found,) = await self._groups_shown(tx, [row])
        return wire.answered(found, Context.RESOURCE_REPLACEMENT_RESPONSE)

    async def patch_group(self, token: ScimToken, group_id: str, body: bytes, match: str | None) -> Json | None:
        """Something of a group changes; nothing to say where it was its members: there may be very many."""
        change = await asyncio.to_thread(members.read, body)
        async with self._write(token) as tx:
            before = await _group(tx, token, group_id)
            refuse_changed(before, match)
            values = _group_values(change.applied(wire.shown_group(before, "", [])))
            wanted = change.members(await directory.member_ids(tx, before.id)) if change.of_members else None
            row = await self._put_group(tx, before, values, wanted)
            if change.of_members:
                return None
            (found,) = await self._groups_shown(tx, [row])
        return wire.answered(found, Context.RESOURCE_PATCH_RESPONSE)

    async def end_group(self, token: ScimToken, group_id: str, match: str | None) -> None:
        """A group ends."""
        async with self._write(token) as tx:
            row = await _group(tx, token, group_id)
            refuse_changed(row, match)
            await self._put_members(tx, row, row, set())
            await directory.drop_group(tx, row.id)
            tx.audit("scim.group_end", row.display, organization=row.organization_id, group=row.id)

    async def _put_group(self, tx: Transaction, before: GroupRow, values: Json, wanted: set[str] | None) -> GroupRow:
        changed = {**values, "changed": now(), "version": before.version + 1}
        row = GroupRow(before.id, before.organization_id, created=before.created, **changed)
        there = await directory.member_ids(tx, before.id)
        if {name: getattr(before, name) for name in values} == values and wanted in (None, there):
            return before
        await directory.change_group(tx, before.id, **changed, shown=fold(row.display))
        await self._put_members(tx, row, before, wanted)
        tx.audit("scim.group_change", row.display, organization=row.organization_id, group=row.id)
        return row

    async def _put_members(
        self, tx: Transaction, row: GroupRow, before: GroupRow | None, wanted: set[str] | None
    ) -> None:
        """Let these be the members; whoever's role changes by that begins anew at her tenants."""
        there = await directory.member_ids(tx, row.id) if before else set()
        wanted = there if wanted is None else wanted
        added, removed = wanted - there, there - wanted
        strangers = added - await directory.those_there(tx, row.organization_id, added)
        if strangers:
            raise ScimValue(reason=f"there is no user '{min(strangers)[:60]}'")
        await directory.put_members(tx, row.id, added, removed)
        kept = await sso.find(tx, row.organization_id)
        roles: Mapping[str, str] = kept.roles if kept else {}
        now_gives, gave = _role(roles, row), _role(roles, before) if before else None
        touched = (added if now_gives else set()) | (removed if gave else set())
        touched |= (there & wanted) if now_gives != gave else set()
        ends = await directory.signed_in(tx, touched)
        if ends:
            await leaving.put(tx, row.organization_id, ends, ends=True)

    async def _groups_shown(self, tx: Transaction, rows: Sequence[GroupRow], asked: Any = None) -> list[wire.Group]:
        inside: dict[str, list[str]] = {}
        if _wants_members(asked):
            found = await directory.members(tx, [row.id for row in rows], MEMBERS + 1)
            if len(found) > MEMBERS:
                raise ScimTooMany(number=MEMBERS, what="members", remedy="Ask with excludedAttributes=members.")
            for group_id, person_id in found:
                inside.setdefault(group_id, []).append(person_id)
        return [wire.shown_group(row, self.where(row.organization_id), inside.get(row.id, [])) for row in rows]

    def _write(self, token: ScimToken) -> Any:
        return self._registry.write(f"scim:{token.name}")


# --- inside -------------------------------------------------------------------------------------------------------


async def _person(tx: Transaction, token: ScimToken, person_id: str) -> PersonRow:
    row = await directory.person(tx, token.organization_id, person_id)
    if row is None:
        raise ScimNotFound(kind="user", id=person_id[:60])
    return row


async def _group(tx: Transaction, token: ScimToken, group_id: str) -> GroupRow:
    row = await directory.group(tx, token.organization_id, group_id)
    if row is None:
        raise ScimNotFound(kind="group", id=group_id[:60])
    return row


def refuse_changed(row: PersonRow | GroupRow, match: str | None) -> None:
    """Raise `ScimChanged` where it is not as it was when it was read (If-Match, RFC 9110 section 13.1.1)."""
    tags = {one.strip().removeprefix("W/") for one in (match or "*").split(",")}
    if "*" not in tags and f'"{row.version}"' not in tags:
        raise ScimChanged(version=row.version)


async def _values(tx: Transaction, organization_id: str, given: wire.User) -> Json:
    """What is kept of somebody. Raises `ScimForeign` and `ScimValue`."""
    proven = {one.domain for one in await sso.domains(tx, organization_id) if one.proven}
    name = _short(given.user_name, 254, "userName")
    folded = _address(name, proven)
    if not folded:
        raise ScimForeign(name=name[:100])
    addresses = given.emails or []
    if len(addresses) > wire.ADDRESSES:
        raise ScimValue(reason=f"more than {wire.ADDRESSES} mail addresses")
    for one in addresses:
        _short(one.value, 254, "emails.value"), _short(one.type, 60, "emails.type")
    parts = given.name.model_dump(scim_ctx=None, exclude_none=True) if given.name else {}
    for part, text in parts.items():
        parts[part] = _short(text, NAME_LENGTH, f"name.{part}")
    first = next((one for one in addresses if one.primary), addresses[0] if addresses else None)
    other = _address(first.value or "", proven) if first else ""
    kept = [one.model_dump(scim_ctx=None, exclude_none=True) for one in addresses]
    return {
        "external_id": _short(given.external_id, LONGEST, "externalId") or None,
        "user_name": name,
        "folded": folded,
        "mail": other if other != folded else "",
        "display": _short(given.display_name, NAME_LENGTH, "displayName"),
        "details": {"name": parts, "emails": kept},
        "active": given.active is not False,
    }


def _address(text: str, proven: set[str]) -> str:
    """A mail address as it is compared; "" for what is none, or in no proven domain."""
    try:
        mail = check_mail(text)
        return mail if mail.rpartition("@")[2].encode("idna").decode() in proven else ""
    except (AccountError, UnicodeError):
        return ""


def _short(text: str | None, longest: int, what: str) -> str:
    if text is not None and len(text) > longest:
        raise ScimValue(reason=f"{what} is longer than {longest} characters")
    if text is not None and plain(text) != text:
        raise ScimValue(reason=f"{what} holds characters that no database keeps")
    return text or ""


def _group_values(given: wire.Group) -> Json:
    name = _short(given.display_name, LONGEST, "displayName")
    if not name.strip():
        raise ScimValue(reason="displayName is missing")
    return {"external_id": _short(given.external_id, LONGEST, "externalId") or None, "display": name}


def _columns(row: PersonRow) -> Json:
    return {**_searched(_plain(row)), "held": row.folded}


def _searched(values: Json) -> Json:
    return {**values, "shown": fold(values["display"])}


def _plain(row: PersonRow | GroupRow) -> Json:
    return {name: getattr(row, name) for name in row.__slots__}


def _role(roles: Mapping[str, str], group: GroupRow) -> str | None:
    """The role that a group gives, as the organization's single sign-on says."""
    return roles.get(group.display) or roles.get(group.external_id or "")


def _page(asked: Any) -> tuple[int, int]:
    """The first entry, counted from 1, and how many (RFC 7644 section 3.4.2.4)."""
    start = min(asked.start_index or 1, 2**31 - 1)
    return start, wire.PAGE if asked.count is None else min(asked.count, wire.PAGE)


def _wants_members(asked: Any) -> bool:
    if asked is None:
        return True
    wanted = [str(one).rpartition(":")[2].partition(".")[0].lower() for one in asked.attributes or ()]
    unwanted = [str(one).rpartition(":")[2].lower() for one in asked.excluded_attributes or ()]
    return "members" not in unwanted and (not wanted or "members" in wanted)
