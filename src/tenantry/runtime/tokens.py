"""Verified bearer tokens that name a tenant (RFC 7519, by the advice of RFC 8725)."""

from __future__ import annotations

from typing import Any, Final

from tenantry.errors import ConfigError, InvalidToken
from tenantry.runtime.settings import Jwt

TOKEN_LENGTH: Final = 8192
"""The longest token looked at, in bytes."""


class Verifier:
    """Checks signature, times, issuer and audience, and reads the one claim that names the tenant."""

    def __init__(self, jwt: Jwt) -> None:
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet
        from joserfc.jwt import ClaimsOption, JWTClaimsRegistry

        if not jwt.algorithms or any(name.lower() == "none" for name in jwt.algorithms):
            raise ConfigError(where="routing.jwt", reason="a token without a signature names nobody")
        self._jwt = jwt
        try:
            self._keys = KeySet.import_key_set({"keys": list(jwt.keys.get("keys", ()))})
        except (JoseError, ValueError, TypeError) as error:
            raise ConfigError(where="routing.jwt.jwks", reason=f"the key set cannot be used ({error})") from error
        options: dict[str, ClaimsOption] = {"exp": {"essential": True}}
        if jwt.issuer is not None:
            options["iss"] = {"essential": True, "value": jwt.issuer}
        if jwt.audience is not None:
            options["aud"] = {"essential": True, "value": jwt.audience}
        self._claims = JWTClaimsRegistry(None, jwt.leeway, **options)

    def claim(self, token: bytes) -> Any:
        """What the token's claim holds. Raises `InvalidToken` for every token that is not entirely right."""
        from joserfc.errors import JoseError
        from joserfc.jwt import decode

        if len(token) > TOKEN_LENGTH:
            raise InvalidToken(reason=f"it is longer than {TOKEN_LENGTH} bytes")
        try:
            claims = decode(token, self._keys, algorithms=self._jwt.algorithms).claims
            self._claims.validate(claims)
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            reason = getattr(error, "description", "") or str(error) or "it cannot be read"
            raise InvalidToken(reason=reason[:200].rstrip(".")) from error
        if self._jwt.claim not in claims:
            raise InvalidToken(reason=f"it has no claim '{self._jwt.claim}'")
        return claims[self._jwt.claim]


def bearer(authorization: bytes | None) -> bytes | None:
    """The token of an Authorization header (RFC 6750 section 2.1), or None where it carries another scheme."""
    if authorization is None:
        return None
    scheme, _, token = authorization.strip().partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else None
