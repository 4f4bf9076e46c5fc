"""Signing in by a SAML provider (Web Browser SSO Profile), as far as it differs from OpenID Connect.

A provider's page posts its answer from another site, and cookies do not come along with that. So the answer is judged
by its signature first, and becomes a code of one use, with which the browser is sent on to the same address as by
OpenID Connect: there its cookie is with it, and has to know the request that was answered.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from tenantry import sso_refusals
from tenantry.identity.principal import digest
from tenantry.identity.sso import assertions, entities
from tenantry.identity.sso.assertions import Asserted
from tenantry.identity.sso.entities import Entity
from tenantry.identity.sso.keys import KeyPair
from tenantry.identity.sso.people import SAML
from tenantry.identity.sso.provider import Providers
from tenantry.identity.sso.tickets import seal, unseal
from tenantry.registry import Registry, people, sso
from tenantry.registry.database import now
from tenantry.registry.sso import SEALED, SsoRow
from tenantry.sso_refusals import (
    AnswerReplayed,
    NonceWrong,
    SignatureWrong,
    SsoMissing,
    SsoRefused,
    StateWrong,
    Unsolicited,
)

GOES_ON: Final = timedelta(seconds=60)
"""How long the code holds with which the browser is sent on."""

LONGEST: Final = timedelta(days=1)
"""For so long it is known which answers came, where one says that it holds for longer."""

STATE: Final = 80
"""The longest RelayState in bytes (SAML Bindings, section 3.4.3)."""

_ANSWERED: Final = "saml-answer:"

_KINDS: Final[Mapping[str, type[SsoRefused]]] = {
    kind.code: kind for kind in vars(sso_refusals).values() if isinstance(kind, type) and issubclass(kind, SsoRefused)
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the platform is for one organization's provider."""

    root: str

    @property
    def entity(self) -> str:
        """What it is called; its metadata are there."""
        return f"{self.root}/metadata"

    @property
    def acs(self) -> str:
        """Where answers are posted to."""
        return f"{self.root}/acs"


class Saml:
    """Asks SAML providers, and takes their answers."""

    def __init__(self, registry: Registry, providers: Providers) -> None:
        self._registry = registry
        self._providers = providers

    async def metadata(self, organization: str, place: Place) -> str:
        """What the platform says of itself to an organization's provider. Raises `SsoMissing`."""
        async with self._registry.read() as tx:
            known = await people.organization(tx, organization)
            row = await sso.find(tx, organization)
        if known is None or known.id != organization:
            raise SsoMissing(organization=organization[:100])
        key = self._keys(row).certificate if row is not None and row.preset == SAML else ""
        return entities.own(place.entity, place.acs, key)

    async def ask(self, row: SsoRow, place: Place, state: str, identifier: str) -> str:
        """The address at which somebody signs in. Raises what is wrong with the provider."""
        provider = await self.entity(row)
        request = entities.request(identifier, place.entity, place.acs, provider.sign_on)
        return provider.ask(request, state, self._keys(row))

    async def entity(self, row: SsoRow) -> Entity:
        """The provider, as it says of itself now. Raises `ProviderUnreachable` or `ProviderWrong`."""
        if row.metadata_url:
            return await self._providers.entity(row.metadata_url, row.issuer)
        return Entity.of(row.metadata.encode(), row.issuer, "its metadata")

    async def answered(self, row: SsoRow, place: Place, posted: str, state: str) -> Mapping[str, str]:
        """What is to be brought along to where the browser's cookie is. Raises `Unsolicited`; all else is brought."""
        if row.preset != SAML:
            raise SsoMissing(organization=row.organization_id)
        try:
            found = await self._read(row, place, posted)
            return {"state": state, "code": await self._code(row, found)}
        except Unsolicited:
            raise
        except SsoRefused as error:
            if not 0 < len(state) <= STATE:
                raise
            fault = seal(self._registry.vault, _fault(row.organization_id, state), error.as_dict())
            return {"state": state, "fault": fault}

    async def claims(self, row: SsoRow, query: Mapping[str, str], identifier: str) -> dict[str, Any]:
        """What the provider said in answer to this request. Raises what was wrong with it."""
        vault, organization = self._registry.vault, row.organization_id
        if "fault" in query:
            told = unseal(vault, _fault(organization, query.get("state", "")), query["fault"], StateWrong())
            raise _KINDS[told["code"]](told["message"], remedy=told["remedy"])
        code = query.get("code", "")
        async with self._registry.write(f"sso:{organization}") as tx:
            sealed = await sso.take_code(tx, digest(code), organization, digest(identifier))
        if sealed is None:
            raise NonceWrong
        found: dict[str, Any] = json.loads(vault.open_platform(_ANSWERED + digest(code), sealed))
        return found

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _read(self, row: SsoRow, place: Place, posted: str) -> Asserted:
        """The answer, by the keys that are known; by another one once more, as the provider may have changed them."""
        here = (place.entity, place.acs)
        try:  # a thread: a large one takes tens of milliseconds, whoever sends it
            return await asyncio.to_thread(assertions.read, posted, await self.entity(row), *here)
        except SignatureWrong:
            again = await self._providers.entity_again(row.metadata_url, row.issuer) if row.metadata_url else None
            if again is None:
                raise
            return await asyncio.to_thread(assertions.read, posted, again, *here)

    async def _code(self, row: SsoRow, found: Asserted) -> str:
        """A code for what was said, good once and for whoever made the request. Raises `AnswerReplayed`."""
        code, organization = secrets.token_urlsafe(32), row.organization_id
        sealed = self._registry.vault.seal_platform(_ANSWERED + digest(code), json.dumps(found.claims))
        once = digest(f"saml\0{organization}\0{found.id}")
        async with self._registry.write(f"sso:{organization}") as tx:
            if not await people.spend(tx, once, min(found.until, now() + LONGEST) + 2 * assertions.LEEWAY):
                raise AnswerReplayed
            bound = {"environment_id": organization, "browser": digest(found.request)}
            await sso.put_code(tx, digest=digest(code), until=now() + GOES_ON, person=sealed, **bound)
        return code

    def _keys(self, row: SsoRow) -> KeyPair:
        return KeyPair.of(self._registry.vault.open_platform(SEALED + row.organization_id, row.secret))


async def sealed_keys(registry: Registry, organization: str) -> bytes:
    """A new key for what this organization's provider is asked, sealed."""
    made = await asyncio.to_thread(KeyPair.made)
    return registry.vault.seal_platform(SEALED + organization, made.kept())


def _fault(organization: str, state: str) -> str:
    return f"saml-fault:{organization}:{state}"
