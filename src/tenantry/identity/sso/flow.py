"""One sign-in, from the tenant to the provider and back: nothing is written down until the provider has answered.

What has to be remembered meanwhile is sealed with the platform key: the tenant's part in the address that leads from
the tenant to the platform, the platform's part in a cookie. `state` is what the cookie is sealed for, so that an answer
opens the sign-in that this browser began, and once.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode

from tenantry.config import Config
from tenantry.identity.principal import digest
from tenantry.identity.scim.standing import let_in, standing
from tenantry.identity.sso import tokens
from tenantry.identity.sso.people import SAML, mail_of, name_of, role_of, wanted_claims
from tenantry.identity.sso.provider import Provider, Providers
from tenantry.identity.sso.saml import Place, Saml
from tenantry.identity.sso.tickets import CODE, HOLDS, Ticket, seal, unseal
from tenantry.model import Person, Tenant
from tenantry.registry import Registry, Transaction, people, sso, tenants
from tenantry.registry.database import now
from tenantry.registry.sso import SEALED, SessionAt, SsoRow
from tenantry.sso_refusals import (
    CodeRefused,
    IssuerMixedUp,
    LogoutWrong,
    ProviderRefused,
    SsoMissing,
    SsoRefused,
    StateWrong,
    TenantOfAnother,
)

HANDOVER: Final = timedelta(seconds=60)
"""How long the code that hands over to the tenant holds."""

SCOPES: Final = "openid profile email"

FINISH: Final = "/.tenantry/sso/finish"


@dataclass(frozen=True, slots=True)
class Begun:
    """The way to the provider, and what the browser keeps meanwhile."""

    address: str
    cookie: str  # its name
    value: str


@dataclass(slots=True)
class Answer:
    """What came of a provider's answer: an address to go on to; in a trial what was seen, in words."""

    onward: str = ""
    is_trial: bool = False
    told: list[str] = field(default_factory=list)  # what is right
    claims: Mapping[str, Any] = field(default_factory=dict)
    problem: SsoRefused | None = None


class SignOns:
    """Takes people through the provider of their organization."""

    def __init__(self, registry: Registry, config: Config, providers: Providers) -> None:
        self._registry = registry
        self._config = config
        self.providers = providers
        self.saml = Saml(registry, providers)

    def redirect_uri(self, organization: str) -> str:
        """The one address that an organization's provider sends people back to."""
        return f"{self._config.url}/sso/{organization}/callback"

    def place(self, organization: str) -> Place:
        """Where a SAML provider finds the platform."""
        return Place(f"{self._config.url}/sso/{organization}")

    async def start(self, organization: str, ticket: str) -> Begun:
        """Begin. Raises `SsoMissing`, `HandoverWrong`, or what is wrong with the provider."""
        Ticket.opened(self._registry.vault, organization, ticket)
        row = await self._row(organization)
        state, random, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        nonce = f"_{random}"  # as the id of a request it begins with no digit
        if row.preset == SAML:
            address = await self.saml.ask(row, self.place(organization), state, nonce)
        else:
            address = await self._ask(row, state, nonce, verifier)
        pending: dict[str, Any] = {"nonce": nonce, "verifier": verifier, "issuer": row.issuer, "ticket": ticket}
        pending["until"] = time.time() + HOLDS
        return Begun(address, cookie_of(state), seal(self._registry.vault, _field(organization, state), pending))

    async def _ask(self, row: SsoRow, state: str, nonce: str, verifier: str) -> str:
        """The address at which somebody signs in by OpenID Connect."""
        provider = await self.providers.discover(row.issuer)
        return provider.ask(
            response_type="code",
            client_id=row.client_id,
            redirect_uri=self.redirect_uri(row.organization_id),
            scope=SCOPES,
            state=state,
            nonce=nonce,
            code_challenge=_challenge(verifier),
            code_challenge_method="S256",
        )

    async def posted(self, organization: str, response: str, state: str) -> str:
        """What a SAML provider's page posts: where to go on to, with the browser's cookie. Raises `Unsolicited`."""
        row = await self._row(organization)
        query = await self.saml.answered(row, self.place(organization), response, state)
        return f"{self.redirect_uri(organization)}?{urlencode(query)}"

    async def answer(self, organization: str, query: Mapping[str, str], cookies: Mapping[str, str]) -> Answer:
        """What a provider sends somebody back with. Raises what is wrong with it; a trial tells it."""
        state = query.get("state", "")
        kept = cookies.get(cookie_of(state), "")
        pending = unseal(self._registry.vault, _field(organization, state), kept, StateWrong())
        await self._use_up(state, pending["until"])
        ticket = Ticket.opened(self._registry.vault, organization, pending["ticket"])
        answer = Answer(is_trial=not ticket.tenant)
        try:
            person = await self._person(organization, query, pending, answer)
            if not answer.is_trial:
                answer.onward = await self._hand_over(ticket, person)
        except SsoRefused as error:
            if not answer.is_trial:
                raise
            answer.problem = error
        return answer

    async def _use_up(self, state: str, until: float) -> None:
        left = until - time.time()
        async with self._registry.write() as tx:
            fresh = await people.spend(tx, digest(f"sso\0{state}"), now() + timedelta(seconds=HOLDS))
        if left <= 0 or not fresh:
            raise StateWrong

    async def _person(
        self, organization: str, query: Mapping[str, str], pending: Mapping[str, Any], answer: Answer
    ) -> Person:
        row = await self._row(organization)
        if pending["issuer"] != row.issuer:
            raise IssuerMixedUp(issuer=row.issuer)
        if row.preset == SAML:
            answer.claims = await self.saml.claims(row, query, pending["nonce"])
            answer.told.append(f"The provider {row.issuer} answered, to this browser, for this sign-in.")
            answer.told.append("The assertion carries its signature, is for this platform, and holds now.")
        else:
            await self._redeemed(row, query, pending, answer)
        person = await self._judged(row, answer)
        if row.worked is None:
            async with self._registry.write(f"sso:{person.mail}") as tx:
                await sso.works(tx, row)
        return person

    async def _redeemed(
        self, row: SsoRow, query: Mapping[str, str], pending: Mapping[str, Any], answer: Answer
    ) -> None:
        """Look at what a provider gives for its code by OpenID Connect."""
        organization = row.organization_id
        provider = await self.providers.discover(row.issuer)
        _refuse_mixed_up(row, provider, query)
        if "error" in query:
            raise ProviderRefused(reason=f"{query['error']} {query.get('error_description', '')}".strip()[:300])
        if not query.get("code"):
            raise CodeRefused(reason="it sent no code")
        answer.told.append(f"The provider {provider.issuer} answered, to this browser, for this sign-in.")
        given = await self.providers.redeem(
            provider, self._client(row), query["code"], pending["verifier"], self.redirect_uri(organization)
        )
        answer.told.append("It gave tokens for its code: client id, secret and redirect URI are right.")
        known = await tokens.id_token(self.providers, provider, given["id_token"], row.client_id, pending["nonce"])
        answer.claims = known
        answer.told.append("The ID token carries its signature, is for this platform, and holds now.")
        if any(name not in known for name in wanted_claims(row)):
            more = await self.providers.person(provider, given.get("access_token"))
            if more.get("sub") == known["sub"]:
                answer.claims = {**more, **known}

    async def _judged(self, row: SsoRow, answer: Answer) -> Person:
        claims = answer.claims
        async with self._registry.read() as tx:
            domains = [one.domain for one in await sso.domains(tx, row.organization_id) if one.proven]
        mail = mail_of(row, claims, domains)
        verified = "the address that the provider names" if row.preset == SAML else "verified"
        answer.told.append(f"{mail} is {verified}, and in a domain that the organization has proven.")
        async with self._registry.read() as tx:
            known, groups = await standing(tx, row.organization_id, row.issuer, str(claims["sub"]), mail)
        if known is not None:
            answer.told.append(f"The organization's directory knows {known.user_name}, who has not left.")
        role = role_of(row, claims, mail, groups)
        answer.told.append(f"The role at the tenants is {role.value}.")
        name, sid = name_of(claims, mail), str(claims.get("sid", ""))[:255]
        return Person(row.organization_id, row.way, row.issuer, str(claims["sub"]), mail, name, role.value, sid)

    async def _hand_over(self, ticket: Ticket, person: Person) -> str:
        code = secrets.token_urlsafe(32)
        sealed = self._registry.vault.seal_platform(CODE + digest(code), json.dumps([asdict(person), ticket.back]))
        async with self._registry.write(f"sso:{person.mail}") as tx:
            tenant = await _tenant_of(tx, ticket)
            if tenant is None or tenant.sign_on is None or tenant.sign_on.organization != person.organization:
                raise TenantOfAnother
            await let_in(tx, person.organization, person.issuer, person.subject, person.mail)
            entered = {"environment_id": ticket.environment, "browser": ticket.browser, "person": sealed}
            await sso.put_code(tx, digest=digest(code), until=now() + HANDOVER, **entered)
        return f"{ticket.root}{FINISH}?code={code}"

    # --- signing out ----------------------------------------------------------------------------------------------

    async def leave(self, organization: str) -> str:
        """Where somebody signs out at the provider; "" where it has no such address."""
        row = await self._row(organization)
        if row.preset == SAML:
            return ""
        provider = await self.providers.discover(row.issuer)
        back = f"{self._config.url}/sso/{organization}/signed-out"
        return provider.leave(client_id=row.client_id, post_logout_redirect_uri=back)

    async def told_of_end(self, organization: str, token: str) -> list[SessionAt]:
        """The sessions that a provider's notice ends. Raises what is wrong with it, also one that came before."""
        row = await self._row(organization)
        provider = await self.providers.discover(row.issuer)
        claims = await tokens.logout_token(self.providers, provider, token, row.client_id)
        async with self._registry.write() as tx:
            once = digest(f"logout\0{organization}\0{claims['jti']}")
            until = now() + timedelta(seconds=max(0.0, claims["exp"] - time.time()) + 2 * tokens.LEEWAY)
            if not await people.spend(tx, once, min(until, now() + timedelta(days=1))):
                raise LogoutWrong(reason="it came before")
            return await sso.sessions(tx, organization, str(claims.get("sub", "")), str(claims.get("sid", "")))

    async def ended_in_front(self, organization: str, issuer: str, sid: str) -> list[SessionAt]:
        """The sessions that end as the browser is led here (OpenID Connect Front-Channel Logout 1.0, section 3).

        Raises `LogoutWrong` where the provider's own session is not named: anybody may lead a browser here.
        """
        row = await self._row(organization)
        if issuer != row.issuer or not sid:
            raise LogoutWrong(reason="it names no session of this provider")
        async with self._registry.read() as tx:
            return await sso.sessions(tx, organization, "", sid)

    async def forget(self, session: SessionAt) -> None:
        """Note that a session is over."""
        async with self._registry.write() as tx:
            await sso.drop_session(tx, session.id)

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _row(self, organization: str) -> SsoRow:
        async with self._registry.read() as tx:
            row = await sso.find(tx, organization)
        if row is None:
            raise SsoMissing(organization=organization[:100])
        return row

    def _client(self, row: SsoRow) -> tuple[str, str]:
        return row.client_id, self._registry.vault.open_platform(SEALED + row.organization_id, row.secret)


def cookie_of(state: str) -> str:
    """The name of the cookie of one sign-in: several may be under way in a browser."""
    return f"tenantry_sso_{digest(state)[:12]}"


def _field(organization: str, state: str) -> str:
    return f"sso-flow:{organization}:{state}"


def _challenge(verifier: str) -> str:
    """RFC 7636 section 4.2."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def _refuse_mixed_up(row: SsoRow, provider: Provider, query: Mapping[str, str]) -> None:
    """Raise `IssuerMixedUp` where another provider answers than was asked (RFC 9207 section 2.4)."""
    named = query.get("iss")
    if (named is None and provider.names_itself) or (named is not None and named != row.issuer):
        raise IssuerMixedUp(issuer=(named or "nobody")[:200])


async def _tenant_of(tx: Transaction, ticket: Ticket) -> Tenant | None:
    """The tenant as it is now, where it is served."""
    found = await tenants.environments(tx, [ticket.tenant])
    tenant = next((one.tenant for one in found if one.id == ticket.environment), None)
    return tenant if tenant is not None and tenant.status.served else None
