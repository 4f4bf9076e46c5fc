"""What a provider says of itself (OpenID Connect Discovery 1.0), its keys, and what it gives for a code."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from tenantry.identity.sso.entities import ACCEPT, Entity
from tenantry.identity.sso.fetch import JSON, Answered, Fetch
from tenantry.sso_refusals import CodeRefused, ProviderWrong, SignatureWrong

WELL_KNOWN: Final = "/.well-known/openid-configuration"

AGAIN: Final = 30.0
"""Seconds between two looks at a provider's keys because of one that is not known."""

PROVIDERS: Final = 1000
"""Of so many a process keeps what they say."""


@dataclass(frozen=True, slots=True)
class Provider:
    """What a provider says of itself."""

    issuer: str
    authorization: str
    token: str
    keys: str
    userinfo: str = ""
    end_session: str = ""
    names_itself: bool = False  # whether its answers carry `iss` (RFC 9207)

    @classmethod
    def of(cls, issuer: str, content: Any) -> Provider:
        """Read its metadata. Raises `ProviderWrong`."""
        where = issuer.rstrip("/") + WELL_KNOWN
        if not isinstance(content, Mapping):
            raise ProviderWrong(url=where, reason="it is no JSON object")
        if content.get("issuer") != issuer:
            raise ProviderWrong(url=where, reason=f"its issuer is '{str(content.get('issuer'))[:200]}', not '{issuer}'")
        found = {name: _address(content, key, where) for name, key in _ADDRESSES.items()}
        missing = next((_ADDRESSES[name] for name in ("authorization", "token", "keys") if not found[name]), None)
        if missing:
            raise ProviderWrong(url=where, reason=f"it has no {missing}")
        named = content.get("authorization_response_iss_parameter_supported") is True
        return cls(issuer=issuer, names_itself=named, **found)

    def ask(self, **query: str) -> str:
        """The address at which somebody signs in."""
        return _with(self.authorization, query)

    def leave(self, **query: str) -> str:
        """The address at which somebody signs out; "" where there is none."""
        return _with(self.end_session, query) if self.end_session else ""


_ADDRESSES: Final[Mapping[str, str]] = {
    "authorization": "authorization_endpoint",
    "token": "token_endpoint",
    "keys": "jwks_uri",
    "userinfo": "userinfo_endpoint",
    "end_session": "end_session_endpoint",
}


def _address(content: Mapping[str, Any], key: str, where: str) -> str:
    given = content.get(key, "")
    if not isinstance(given, str) or (given and urlsplit(given).scheme not in ("https", "http")):
        raise ProviderWrong(url=where, reason=f"its {key} is no address")
    return given


def _with(address: str, query: Mapping[str, str]) -> str:
    return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}"


class Providers:
    """Asks providers, and keeps what they say for as long as they allow."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._kept: dict[str, Answered] = {}
        self._looked: dict[str, float] = {}  # when keys were looked for because of one that is not known

    async def discover(self, issuer: str) -> Provider:
        """A provider. Raises `ProviderUnreachable` or `ProviderWrong`."""
        return Provider.of(issuer, await self._get(issuer.rstrip("/") + WELL_KNOWN))

    async def keys(self, provider: Provider, kid: str | None) -> dict[str, Any]:
        """Its keys (RFC 7517), fetched again where this one is not among them, but not time and again."""
        found = _key_set(provider, await self._get(provider.keys))
        if kid is None or any(key.get("kid") == kid for key in found["keys"]):
            return found
        if not self._looks_again(provider.keys):
            raise SignatureWrong(reason=f"it has no key '{kid[:100]}'")
        return _key_set(provider, await self._get(provider.keys))

    async def entity(self, url: str, issuer: str = "") -> Entity:
        """A SAML provider by its metadata. Raises `ProviderUnreachable` or `ProviderWrong`."""
        return Entity.of((await self._asked(url, ACCEPT)).body, issuer, url)

    async def entity_again(self, url: str, issuer: str) -> Entity | None:
        """It, fetched again because of a key that is not known; None where that was done a moment ago."""
        return await self.entity(url, issuer) if self._looks_again(url) else None

    def _looks_again(self, url: str) -> bool:
        """Forget what was kept, so that it is fetched again, but not time and again."""
        if time.monotonic() - self._looked.get(url, -AGAIN) < AGAIN:
            return False
        self._looked[url] = time.monotonic()
        self._kept.pop(url, None)
        return True

    async def redeem(
        self, provider: Provider, client: tuple[str, str], code: str, verifier: str, back: str
    ) -> Mapping[str, Any]:
        """The tokens for a code (RFC 6749 section 4.1.3, RFC 7636 section 4.5). Raises `CodeRefused`."""
        from httpx import BasicAuth  # few processes ask

        name, secret = (quote(one, safe="") for one in client)  # RFC 6749 section 2.3.1
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": back, "code_verifier": verifier}
        answer = await self._fetch.post(provider.token, form, BasicAuth(name, secret))
        content = answer.content if isinstance(answer.content, Mapping) else {}
        if answer.status != 200:
            told = f"{content.get('error', answer.status)} {content.get('error_description', '')}".strip()
            raise CodeRefused(reason=told[:300])
        if not isinstance(content.get("id_token"), str):
            raise CodeRefused(reason="there is no ID token in its answer")
        return content

    async def person(self, provider: Provider, access_token: object) -> Mapping[str, Any]:
        """What the provider tells of somebody at its userinfo endpoint; nothing where it has none."""
        if not provider.userinfo or not isinstance(access_token, str):
            return {}
        answer = await self._fetch.get(provider.userinfo, access_token)
        return answer.content if answer.status == 200 and isinstance(answer.content, Mapping) else {}

    async def _get(self, url: str) -> Any:
        return (await self._asked(url)).content

    async def _asked(self, url: str, accept: str = JSON) -> Answered:
        kept = self._kept.get(url)
        if kept is None or kept.until <= time.monotonic():
            kept = await self._fetch.get(url, accept=accept)
            if kept.status != 200:
                raise ProviderWrong(url=url, reason=f"it answers {kept.status}")
            while len(self._kept) >= PROVIDERS:
                self._kept.pop(next(iter(self._kept)))
            self._kept[url] = kept
        return kept


def _key_set(provider: Provider, content: Any) -> dict[str, Any]:
    keys = content.get("keys") if isinstance(content, Mapping) else None
    if not isinstance(keys, list) or not all(isinstance(key, Mapping) for key in keys):
        raise ProviderWrong(url=provider.keys, reason="it is no set of keys")
    return {"keys": [dict(key) for key in keys if key.get("use", "sig") == "sig"]}
