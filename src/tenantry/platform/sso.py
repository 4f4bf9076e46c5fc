"""How organizations sign in: their provider, its roles, and the mail domains that they have proven."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from tenantry.config import Config
from tenantry.credentials import Role
from tenantry.errors import TenantryError
from tenantry.identity import Reach, verb
from tenantry.identity.sso import domains
from tenantry.identity.sso.entities import LONGEST, Entity
from tenantry.identity.sso.fetch import Fetch
from tenantry.identity.sso.flow import SignOns
from tenantry.identity.sso.people import ENTRA, HOST, OIDC, SAML
from tenantry.identity.sso.provider import Providers
from tenantry.identity.sso.saml import sealed_keys
from tenantry.identity.sso.tickets import Ticket
from tenantry.model import new_id
from tenantry.refusals import OrganizationNotFound
from tenantry.registry import Registry, Transaction, people, sso
from tenantry.registry.people import OrganizationRow
from tenantry.registry.sso import SEALED, SsoRow
from tenantry.sso_refusals import DomainNotFound, DomainTaken, SsoInvalid, SsoMissing, SsoUntried

ISSUER: Final = 500
"""The longest issuer in characters."""

DOMAINS: Final = 100
"""Mail domains of an organization."""

ROLES: Final = 200
"""Groups or app roles that have a role here."""

CLAIM: Final = "roles"
"""The claim in which Entra ID says the app roles."""

NOBODY: Final = "none"
"""In place of a default role: whoever has none by a claim is kept out."""

_DIRECTORY: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class MailDomain:
    """A mail domain that an organization claims, and what proves it."""

    domain: str
    proven: bool
    record: str  # the name of the TXT record
    value: str  # what it has to hold


@dataclass(frozen=True, slots=True)
class SsoDetails:
    """How an organization signs in."""

    organization: str
    row: SsoRow | None
    redirect_uri: str  # what the provider has to know
    backchannel_uri: str
    frontchannel_uri: str
    signed_out_uri: str
    entity_id: str  # by SAML; its metadata are there
    acs_uri: str
    domains: Sequence[MailDomain]


@dataclass(frozen=True, slots=True)
class SsoFinding:
    """One thing that was looked at."""

    ok: bool
    what: str
    remedy: str = ""


class Sso:
    """Every verb on an organization's single sign-on."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self._registry = registry
        self._config = config
        home = config.platform.domain == "localhost" or config.platform.domain.endswith(".localhost")
        self.sign_ons = SignOns(registry, config, Providers(Fetch(inside=home)))

    @verb("sso.show", "platform:read", Reach.PLATFORM)
    async def show(self, organization: str) -> SsoDetails:
        """How an organization signs in, what its provider has to know, and its mail domains."""
        async with self._registry.read() as tx:
            return await self._details(tx, await _organization(tx, organization))

    @verb("sso.set", "platform:write", Reach.PLATFORM)
    async def set(
        self,
        organization: str,
        client_id: str = "",
        secret: str | None = None,
        issuer: str | None = None,
        directory: str | None = None,
        metadata_url: str | None = None,
        metadata: str | None = None,
        default_role: str = Role.USER.value,
        claim: str | None = None,
        roles: Mapping[str, str] | None = None,
        only: bool = False,
    ) -> SsoDetails:
        """Let an organization sign in by its provider: by its issuer, or by the id of a Microsoft Entra ID directory.

        A SAML 2.0 provider is known by its metadata, or by the address at which they are; it has no client id and no
        secret. Of the others the secret that is there is kept where none is given. `roles` says which group or app
        role, as `claim` names them, has which role at the tenants; `default_role` is everybody else's, or "none", which
        keeps them out. `only` turns passwords off, once somebody has come in by it as it is set up. Sessions that were
        begun by another provider end. Raises `SsoInvalid`, `SsoUntried`, or what is wrong with the metadata.
        """
        places = [issuer, directory, metadata_url, metadata]
        if sum(map(bool, places)) != 1:
            raise SsoInvalid(reason="give the issuer, the id of an Entra ID directory, or a SAML provider's metadata")
        provider = await self._saml(metadata_url, metadata) if metadata_url or metadata else _oidc(issuer, directory)
        entered = provider | _checked(client_id, provider["preset"], default_role, claim, roles or {})
        async with self._registry.write() as tx:
            row = await _organization(tx, organization)
            before = await sso.find(tx, row.id)
            sealed = await self._sealed(row, secret, before, entered)
            if only and not any(one.proven for one in await sso.domains(tx, row.id)):
                raise SsoInvalid(reason="without a proven mail domain nobody can sign in by it alone")
            kept = _kept(before, entered, sealed)
            if only and kept["worked"] is None:
                raise SsoUntried(organization=row.name)
            if before is not None and kept["way"] != before.way:
                await sso.drop_sessions(tx, row.id)
            await sso.put(tx, row.id, **entered, **kept, secret=sealed, only=only)
            await people.tell_of_sign_on(tx, row.id)
            shown = {name: value for name, value in entered.items() if name not in ("roles", "metadata")}
            tx.audit("sso.set", row.name, **shown, roles=dict(entered["roles"]), only=only, new_secret=bool(secret))
            return await self._details(tx, row)

    @verb("sso.remove", "platform:write", Reach.PLATFORM)
    async def remove(self, organization: str) -> SsoDetails:
        """Let an organization sign in by no provider: its sessions end, its domains stay. Raises `SsoMissing`."""
        async with self._registry.write() as tx:
            row = await _organization(tx, organization)
            if await sso.find(tx, row.id) is None:
                raise SsoMissing(organization=row.name)
            await sso.drop(tx, row.id)
            await people.tell_of_sign_on(tx, row.id)
            tx.audit("sso.remove", row.name)
            return await self._details(tx, row)

    @verb("sso.check", "platform:write", Reach.PLATFORM)
    async def check(self, organization: str) -> Sequence[SsoFinding]:
        """Ask the provider what it says of itself, and tell what is right and what is not."""
        async with self._registry.read() as tx:
            found = await self._details(tx, await _organization(tx, organization))
        if found.row is None:
            raise SsoMissing(organization=found.organization)
        findings = await self._asked(found.row)
        proven = [one.domain for one in found.domains if one.proven]
        if proven:
            return [*findings, SsoFinding(True, f"Proven mail domains: {', '.join(proven)}.")]
        return [*findings, SsoFinding(False, "No mail domain is proven: nobody can sign in.", "Add one and prove it.")]

    @verb("sso.add_domain", "platform:write", Reach.PLATFORM)
    async def add_domain(self, organization: str, domain: str) -> SsoDetails:
        """Claim a mail domain; what its DNS has to hold is told."""
        name = domains.check_domain(domain)
        async with self._registry.write() as tx:
            row = await _organization(tx, organization)
            there = await sso.domains(tx, row.id)
            if len(there) >= DOMAINS:
                raise SsoInvalid(reason=f"an organization has at most {DOMAINS} mail domains")
            if all(one.domain != name for one in there):
                await sso.claim(tx, row.id, name, secrets.token_urlsafe(24))
                tx.audit("sso.add_domain", row.name, domain=name)
            return await self._details(tx, row)

    @verb("sso.prove_domain", "platform:write", Reach.PLATFORM)
    async def prove_domain(self, organization: str, domain: str) -> SsoDetails:
        """Look whether the DNS proves a domain. Raises `DomainUnproven`, or `DomainTaken`."""
        async with self._registry.read() as tx:
            row = await _organization(tx, organization)
            claimed = await _claimed(tx, row, domain)
        await domains.refuse_unproven(claimed.domain, claimed.token, self._config.sso.resolvers)
        async with self._registry.write() as tx:
            again = await _claimed(tx, row, claimed.domain)
            if await sso.owner(tx, again.domain) not in (None, row.id):
                raise DomainTaken(domain=again.domain)
            if again.token == claimed.token:
                await sso.prove(tx, row.id, again.domain)
                tx.audit("sso.prove_domain", row.name, domain=again.domain)
            return await self._details(tx, row)

    @verb("sso.remove_domain", "platform:write", Reach.PLATFORM)
    async def remove_domain(self, organization: str, domain: str) -> SsoDetails:
        """Let a domain go: nobody with an address in it signs in any more. Raises `DomainNotFound`."""
        async with self._registry.write() as tx:
            row = await _organization(tx, organization)
            claimed = await _claimed(tx, row, domain)
            known = await sso.find(tx, row.id)
            proven = [one.domain for one in await sso.domains(tx, row.id) if one.proven]
            if known is not None and known.only and proven == [claimed.domain]:
                raise SsoInvalid(reason=f"without {claimed.domain} nobody can sign in, and passwords are off")
            await sso.let_go(tx, row.id, claimed.domain)
            tx.audit("sso.remove_domain", row.name, domain=claimed.domain)
            return await self._details(tx, row)

    @verb("sso.trial", "platform:write", Reach.PLATFORM)
    async def trial(self, organization: str) -> str:
        """An address at which whoever opens it signs in by the provider, and sees each claim and each fault in words.

        It opens no tenant. Raises `SsoMissing`.
        """
        async with self._registry.read() as tx:
            row = await _organization(tx, organization)
            if await sso.find(tx, row.id) is None:
                raise SsoMissing(organization=row.name)
        ticket = Ticket().sealed(self._registry.vault, row.id)
        return f"{self._config.url}/sso/{row.id}/start?ticket={ticket}"

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _asked(self, row: SsoRow) -> list[SsoFinding]:
        try:
            return await (self._asked_saml(row) if row.preset == SAML else self._asked_oidc(row))
        except TenantryError as error:
            return [SsoFinding(False, error.message, error.hint)]

    async def _asked_saml(self, row: SsoRow) -> list[SsoFinding]:
        keys = len((await self.sign_ons.saml.entity(row)).certificates)
        return [SsoFinding(True, f"{row.issuer} says what it is, and has {keys} key{'' if keys == 1 else 's'}.")]

    async def _asked_oidc(self, row: SsoRow) -> list[SsoFinding]:
        providers = self.sign_ons.providers
        provider = await providers.discover(row.issuer)
        keys = len((await providers.keys(provider, None))["keys"])
        told = [SsoFinding(True, f"{provider.issuer} says what it is, and has {keys} key{'' if keys == 1 else 's'}.")]
        if not provider.end_session:
            told.append(SsoFinding(True, "It has no address at which people sign out of it."))
        if not provider.names_itself:
            told.append(SsoFinding(True, "Its answers do not name it (RFC 9207); the redirect URI tells it apart."))
        return told

    async def _saml(self, url: str | None, metadata: str | None) -> dict[str, Any]:
        """A SAML provider, by what it says of itself. Raises `SsoInvalid`, or what is wrong with it."""
        if url is not None and url:
            provider = await self.sign_ons.providers.entity(_address(url))
        elif len(metadata or "") > LONGEST:
            raise SsoInvalid(reason=f"the metadata are longer than {LONGEST:,} characters")
        else:
            provider = Entity.of(str(metadata).encode())
        if len(provider.issuer) > ISSUER or not provider.issuer.isprintable():
            raise SsoInvalid(reason="the provider's entity id is too long")
        kept = {"metadata_url": _address(url), "metadata": ""} if url else {"metadata_url": "", "metadata": metadata}
        return {"preset": SAML, "issuer": provider.issuer, **kept}

    async def _sealed(
        self, row: OrganizationRow, secret: str | None, before: SsoRow | None, entered: Mapping[str, Any]
    ) -> bytes:
        """The secret, sealed; the one that is there is sent to no other provider. By SAML it is a key of our own."""
        if entered["preset"] == SAML:
            kept = before is not None and before.preset == SAML
            return before.secret if before is not None and kept else await sealed_keys(self._registry, row.id)
        if secret:
            known = before is not None and before.preset != SAML and self._opened(before) == secret.strip()
            return (
                before.secret
                if before and known
                else self._registry.vault.seal_platform(SEALED + row.id, secret.strip())
            )
        if before is None or before.preset == SAML:
            raise SsoInvalid(reason="the client secret is missing")
        if before.issuer != entered["issuer"]:
            raise SsoInvalid(reason="another provider has another client secret")
        return before.secret

    def _opened(self, row: SsoRow) -> str:
        return self._registry.vault.open_platform(SEALED + row.organization_id, row.secret)

    async def _details(self, tx: Transaction, row: OrganizationRow) -> SsoDetails:
        at = f"{self._config.url}/sso/{row.id}"
        claimed = [
            MailDomain(one.domain, one.proven is not None, domains.record(one.domain), domains.value(one.token))
            for one in await sso.domains(tx, row.id)
        ]
        uris = (f"{at}/callback", f"{at}/back-channel", f"{at}/front-channel", f"{at}/signed-out")
        place = self.sign_ons.place(row.id)
        return SsoDetails(row.name, await sso.find(tx, row.id), *uris, place.entity, place.acs, claimed)


def _kept(before: SsoRow | None, entered: Mapping[str, Any], sealed: bytes) -> dict[str, Any]:
    """What stays of the setting before: the way in, by the same provider; and that it worked, if it still must."""
    if before is None or (before.preset, before.issuer) != (entered["preset"], entered["issuer"]):
        return {"way": new_id(), "worked": None}
    here = {name: getattr(before, name) for name in entered}
    same = sealed == before.secret and _decisive(here) == _decisive(entered)
    return {"way": before.way, "worked": before.worked if same else None}


def _decisive(values: Mapping[str, Any]) -> Sequence[Any]:
    """What keeps everybody out when it is wrong: roles do where whoever has none is kept out."""
    roles = () if values["default_role"] else (values["claim"], dict(values["roles"]))
    return values["client_id"], values["metadata_url"], values["metadata"], roles


def _oidc(issuer: str | None, directory: str | None) -> dict[str, Any]:
    """A provider that speaks OpenID Connect. Raises `SsoInvalid`."""
    found = _entra(directory) if directory else _issuer(str(issuer))
    return {"preset": ENTRA if directory else OIDC, "issuer": found, "metadata_url": "", "metadata": ""}


def _checked(
    client_id: str, preset: str, default_role: str, claim: str | None, roles: Mapping[str, str]
) -> dict[str, Any]:
    """What is entered beside the provider. Raises `SsoInvalid`."""
    client_id = "" if preset == SAML else client_id.strip()
    if preset != SAML and (not client_id or len(client_id) > 255 or not client_id.isprintable()):
        raise SsoInvalid(reason="the client id is missing, or too long")
    known = [role.value for role in Role]
    if default_role not in (*known, NOBODY):
        raise SsoInvalid(reason=f"the default role is one of {', '.join((*known, NOBODY))}, not '{default_role[:50]}'")
    wrong = next((role for role in roles.values() if role not in known), None)
    if wrong is not None:
        raise SsoInvalid(reason=f"a role is one of {', '.join(known)}, not '{str(wrong)[:50]}'")
    if len(roles) > ROLES:
        raise SsoInvalid(reason=f"at most {ROLES} groups have a role")
    named = (claim or "").strip() or (CLAIM if roles else "")
    if len(named) > 100:
        raise SsoInvalid(reason="the name of the claim is too long")
    return {
        "client_id": client_id,
        "default_role": "" if default_role == NOBODY else default_role,
        "claim": named,
        "roles": {group.strip(): role for group, role in roles.items() if group.strip()},
    }


def _entra(directory: str) -> str:
    """The issuer of one directory of Microsoft Entra ID; "common" and "organizations" are everybody's."""
    found = directory.strip().lower()
    if not _DIRECTORY.fullmatch(found):
        raise SsoInvalid(reason=f"'{directory[:60]}' is no directory id, such as 9e3f8a5c-1f0e-4b7a-8a51-3d2c6f0b9e77")
    return f"{HOST}{found}/v2.0"


def _address(address: str) -> str:
    """An address by which a provider is asked. Raises `SsoInvalid`."""
    found = address.strip()
    parts = urlsplit(found) if found.isascii() and found.isprintable() and " " not in found else urlsplit("")
    try:
        usable = parts.scheme in ("https", "http") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or parts.fragment or parts.username is not None or len(found) > ISSUER:
        raise SsoInvalid(reason=f"'{address[:100]}' is no address of a provider, such as https://login.example.org")
    return found


def _issuer(issuer: str) -> str:
    """An issuer as it is written (OpenID Connect Discovery 1.0, section 3)."""
    found = _address(issuer)
    if urlsplit(found).query:
        raise SsoInvalid(reason=f"'{issuer[:100]}' is no issuer, such as https://login.example.org")
    if found.startswith(HOST):
        raise SsoInvalid(reason="Entra ID is set up by its directory id")
    return found


async def _organization(tx: Transaction, wanted: str) -> OrganizationRow:
    row = await people.organization(tx, wanted)
    if row is None:
        raise OrganizationNotFound(organization=wanted)
    return row


async def _claimed(tx: Transaction, row: OrganizationRow, domain: str) -> sso.DomainRow:
    name = domains.check_domain(domain)
    found = next((one for one in await sso.domains(tx, row.id) if one.domain == name), None)
    if found is None:
        raise DomainNotFound(organization=row.name, domain=name)
    return found
