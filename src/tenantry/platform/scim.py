"""Organizations' directories: by which tokens their providers tell of them by SCIM, and what they told."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tenantry.config import Config
from tenantry.identity import Reach, verb
from tenantry.identity.principal import digest
from tenantry.identity.scim.standing import BEGINNING
from tenantry.model import new_id
from tenantry.refusals import OrganizationNotFound
from tenantry.registry import Registry, Transaction, directory, leaving, people, sso
from tenantry.registry.database import now
from tenantry.registry.directory import PersonRow, ScimToken
from tenantry.registry.people import OrganizationRow
from tenantry.scim_refusals import ScimMissing, ScimNameWrong, ScimTokenNotFound, ScimTokensFull, ScimWaiting
from tenantry.sso_refusals import SsoMissing

TOKENS: Final = 10
"""Tokens of an organization at a time: two while one is replaced, some for tries."""

TOKEN_NAME: Final = 100

PAGE: Final = 50


@dataclass(frozen=True, slots=True)
class ScimDetails:
    """An organization's directory."""

    organization: str
    address: str  # what the provider has to know, and nobody else
    kept: bool
    required: bool
    tokens: Sequence[ScimToken]
    people: int
    active: int
    groups: int
    waiting: int  # places where a change is not carried out yet


@dataclass(frozen=True, slots=True)
class MadeScimToken:
    """A new token, shown once."""

    row: ScimToken
    token: str
    address: str


@dataclass(frozen=True, slots=True)
class ScimPerson:
    """Somebody of the directory."""

    id: str
    user_name: str
    name: str
    active: bool
    external_id: str | None
    groups: Sequence[str]
    signed_in: bool  # whether she has, since the directory knows her
    changed: datetime


class Scim:
    """Every verb on an organization's directory."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self._registry = registry
        self._config = config

    @verb("scim.show", "platform:read", Reach.PLATFORM)
    async def show(self, organization: str) -> ScimDetails:
        """How an organization's directory is kept, and how much of it there is."""
        async with self._registry.read() as tx:
            return await self._details(tx, await _organization(tx, organization))

    @verb("scim.people", "platform:read", Reach.PLATFORM)
    async def people(
        self, organization: str, search: str | None = None, limit: int = PAGE, after: str | None = None
    ) -> Sequence[ScimPerson]:
        """People of the directory by their user names, those after one."""
        async with self._registry.read() as tx:
            row = await _organization(tx, organization)
            found = await directory.search(tx, row.id, search, after, limit)
            groups: dict[str, list[str]] = {}
            for person_id, group in await directory.groups_of(tx, [one.id for one in found]):
                groups.setdefault(person_id, []).append(group.display)
        return [_person(one, groups.get(one.id, ())) for one in found]

    @verb("scim.token", "people:write", Reach.PLATFORM)
    async def token(self, organization: str, name: str) -> MadeScimToken:
        """Make a token for the organization's provider: it is shown once, and holds until it is revoked."""
        name = name.strip()
        if not name or len(name) > TOKEN_NAME or not name.isprintable():
            raise ScimNameWrong(name=name[:TOKEN_NAME])
        given = BEGINNING + secrets.token_urlsafe(32)
        async with self._registry.write() as tx:
            row = await _organization(tx, organization)
            if len(await directory.tokens(tx, row.id)) >= TOKENS:
                raise ScimTokensFull(organization=row.name, number=TOKENS)
            if await directory.find(tx, row.id) is None:
                await directory.begin(tx, row.id)
            made = ScimToken(new_id(), row.id, name, now(), None)
            values = {field: getattr(made, field) for field in ScimToken.__slots__}
            await directory.add_token(tx, values | {"digest": digest(given)})
            tx.audit("scim.token", row.name, token=name)
        return MadeScimToken(made, given, self._address(row))

    @verb("scim.revoke", "people:write", Reach.PLATFORM)
    async def revoke(self, organization: str, token: str) -> ScimDetails:
        """Let a token, named by its id, open nothing any more. Raises `ScimTokenNotFound`."""
        async with self._registry.write() as tx:
            row = await _organization(tx, organization)
            if not await directory.drop_token(tx, row.id, token):
                raise ScimTokenNotFound(organization=row.name, token=token[:60])
            tx.audit("scim.revoke", row.name, token=token)
            return await self._details(tx, row)

    @verb("scim.require", "platform:write", Reach.PLATFORM)
    async def require(self, organization: str, required: bool) -> ScimDetails:
        """Let nobody sign in by the organization whom its directory does not know, or others, too, again.

        Raises `ScimMissing`, or `SsoMissing` where nobody signs in by the organization at all.
        """
        async with self._registry.write() as tx:
            row = await _organization(tx, organization)
            if await directory.find(tx, row.id) is None:
                raise ScimMissing(organization=row.name)
            if required and await sso.find(tx, row.id) is None:
                raise SsoMissing(organization=row.name)
            await directory.require(tx, row.id, required)
            tx.audit("scim.require", row.name, required=required)
            return await self._details(tx, row)

    @verb("scim.remove", "platform:write", Reach.PLATFORM)
    async def remove(self, organization: str) -> ScimDetails:
        """Keep the organization's directory no more. Who was shut out stays so.

        Raises `ScimMissing`, or `ScimWaiting` while somebody is not shut out everywhere yet.
        """
        async with self._registry.write() as tx:
            row = await _organization(tx, organization)
            if await directory.find(tx, row.id) is None:
                raise ScimMissing(organization=row.name)
            waiting = await leaving.waiting(tx, row.id)
            if waiting:
                raise ScimWaiting(organization=row.name, number=waiting)
            await directory.forget(tx, row.id)
            tx.audit("scim.remove", row.name)
            return await self._details(tx, row)

    async def _details(self, tx: Transaction, row: OrganizationRow) -> ScimDetails:
        kept = await directory.find(tx, row.id)
        counts = await directory.counts(tx, row.id)
        tokens = await directory.tokens(tx, row.id)
        waiting = await leaving.waiting(tx, row.id)
        required = kept is not None and kept.required
        return ScimDetails(row.name, self._address(row), kept is not None, required, tokens, *counts, waiting)

    def _address(self, row: OrganizationRow) -> str:
        return f"{self._config.url}/scim/{row.id}/v2"


def _person(row: PersonRow, groups: Sequence[str]) -> ScimPerson:
    known = row.subject is not None
    return ScimPerson(row.id, row.user_name, row.display, row.active, row.external_id, groups, known, row.changed)


async def _organization(tx: Transaction, wanted: str) -> OrganizationRow:
    row = await people.organization(tx, wanted)
    if row is None:
        raise OrganizationNotFound(organization=wanted)
    return row
