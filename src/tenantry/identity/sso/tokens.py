"""Tokens of providers: each thing that makes one wrong is an error of its own (OpenID Connect Core 1.0, 3.1.3.7).

The algorithm is looked at first, and is an asymmetric one: a public key never checks an HMAC (RFC 8725 section 3.1).
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any, Final

from tenantry.identity.sso.provider import Provider, Providers
from tenantry.sso_refusals import (
    AlgorithmRefused,
    AudienceWrong,
    ClaimMissing,
    IssuerWrong,
    LogoutWrong,
    NonceWrong,
    PartyWrong,
    SignatureWrong,
    TokenExpired,
    TokenTooEarly,
)

ALGORITHMS: Final = ("RS256", "PS256", "ES256", "Ed25519", "EdDSA")
"""Signatures that are taken (RFC 7518, RFC 8037, RFC 9864)."""

LONGEST: Final = 32_768
"""The longest token looked at, in characters; one with many groups is long."""

LEEWAY: Final = 30
"""Seconds that clocks may differ."""

LOGOUT: Final = "http://schemas.openid.net/event/backchannel-logout"


async def id_token(providers: Providers, provider: Provider, token: str, client_id: str, nonce: str) -> dict[str, Any]:
    """What an ID token says. Raises what is wrong with it."""
    claims = await signed(providers, provider, token)
    _refuse_foreign(claims, provider, client_id)
    _refuse_time(claims)
    if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
        raise NonceWrong
    return claims


async def logout_token(providers: Providers, provider: Provider, token: str, client_id: str) -> dict[str, Any]:
    """What a notice of a sign-out says (OpenID Connect Back-Channel Logout 1.0, section 2.6)."""
    claims = await signed(providers, provider, token)
    _refuse_foreign(claims, provider, client_id, named=False)
    _refuse_time(claims)
    events = claims.get("events")
    if not isinstance(events, Mapping) or not isinstance(events.get(LOGOUT), Mapping):
        raise LogoutWrong(reason="it tells of no sign-out")
    if "nonce" in claims:
        raise LogoutWrong(reason="it is an ID token")
    if not isinstance(claims.get("jti"), str) or not claims["jti"]:
        raise LogoutWrong(reason="it has no jti")
    if not any(isinstance(claims.get(name), str) and claims[name] for name in ("sub", "sid")):
        raise LogoutWrong(reason="it names neither somebody nor a session")
    return claims


async def signed(providers: Providers, provider: Provider, token: str) -> dict[str, Any]:
    """The claims of a token that the provider signed. Raises `AlgorithmRefused` or `SignatureWrong`."""
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet
    from joserfc.jwt import decode

    head = _head(token)
    if head.get("alg") not in ALGORITHMS:
        raise AlgorithmRefused(algorithm=str(head.get("alg"))[:50])
    kid = head.get("kid")
    keys = await providers.keys(provider, kid if isinstance(kid, str) else None)
    try:
        claims = decode(token, KeySet(_usable(keys["keys"])), algorithms=list(ALGORITHMS)).claims
    except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise SignatureWrong(reason=(getattr(error, "description", "") or str(error) or "none")[:200]) from error
    return dict(claims)


def _usable(keys: list[dict[str, Any]]) -> list[Any]:
    """The public keys that are known here; one of a newer kind among them does no harm."""
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    kinds: Mapping[Any, Any] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    found = []
    for key in keys:
        with contextlib.suppress(JoseError, ValueError, TypeError, KeyError):
            found.append(kinds[key.get("kty")].import_key(key))
    return found


def _head(token: str) -> Mapping[str, Any]:
    """The header of a token, which nobody vouches for yet."""
    first = token.partition(".")[0] if len(token) <= LONGEST else ""
    try:
        head = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    except (ValueError, RecursionError) as error:
        raise SignatureWrong(reason="it is no token") from error
    if not isinstance(head, Mapping):
        raise SignatureWrong(reason="it is no token")
    return head


def _refuse_foreign(claims: Mapping[str, Any], provider: Provider, client_id: str, named: bool = True) -> None:
    """Who made it, for whom."""
    if claims.get("iss") != provider.issuer:
        raise IssuerWrong(given=str(claims.get("iss"))[:200])
    given = claims.get("aud")
    audience = given if isinstance(given, list) else [given]
    if client_id not in audience:
        raise AudienceWrong(given=", ".join(map(str, audience))[:200])
    party = claims.get("azp")
    if party != client_id and (party is not None or len(audience) > 1):
        raise PartyWrong(given=str(party)[:200])
    if named and not (isinstance(claims.get("sub"), str) and 0 < len(claims["sub"]) <= 255):
        raise ClaimMissing(claim="sub")


def _refuse_time(claims: Mapping[str, Any]) -> None:
    """When it holds."""
    moment = time.time()
    if _moment(claims, "exp") <= moment - LEEWAY:
        raise TokenExpired
    for name in ("iat", *(["nbf"] if "nbf" in claims else [])):
        if _moment(claims, name) > moment + LEEWAY:
            raise TokenTooEarly


def _moment(claims: Mapping[str, Any], name: str) -> float:
    """Seconds since 1970 (RFC 7519 section 2)."""
    given = claims.get(name)
    if not isinstance(given, int | float) or isinstance(given, bool):
        raise ClaimMissing(claim=name)
    return given
