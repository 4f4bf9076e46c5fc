"""Bearer tokens that name a tenant (RFC 7519, by the advice of RFC 8725): verified, and our own made."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tenantry.credentials import derive_key
from tenantry.errors import ConfigError, InvalidToken
from tenantry.model import Environment, KeyTurn, new_id
from tenantry.runtime.settings import Jwt, Settings

if TYPE_CHECKING:
    from joserfc.jwk import ECKey

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
            raise _invalid(error) from error
        if self._jwt.claim not in claims:
            raise InvalidToken(reason=f"it has no claim '{self._jwt.claim}'")
        return claims[self._jwt.claim]


def _invalid(error: Exception) -> InvalidToken:
    reason = getattr(error, "description", "") or str(error) or "it cannot be read"
    return InvalidToken(reason=reason[:200].rstrip("."))


# --- our own ------------------------------------------------------------------------------------------------------

ALGORITHM: Final = "ES256"
"""How our own are signed (RFC 7518 section 3.4): every library knows it."""

TYPE: Final = "at+jwt"
"""What our own say they are (RFC 9068 section 2.1), so that no other token is taken for one."""

PERIOD: Final = 30 * 86400
"""Seconds for which a tenant signs with one key."""

LEEWAY: Final = 30
"""Seconds that the clocks of our own processes may differ."""

KEYS_SECONDS: Final = 3600
"""How long others may keep the public keys: a new one is among them so long at least before it signs."""

_PKCS8: Final = bytes.fromhex("3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420")
"""What stands before a private number of P-256 (RFC 5958, RFC 5915), whose public point is computed from it."""


class Name(NamedTuple):
    """What a token's header says whose key signed it (`kid`); believed once the signature was verified."""

    tenant: str  # id
    environment: str
    period: int  # since 1970, counted in `PERIOD`
    turn: int = 0  # counted up when the keys were rotated out of turn

    @property
    def key(self) -> str:
        """Which of the environment's keys it is."""
        return f"{self.period}-{self.turn}" if self.turn else str(self.period)

    def __str__(self) -> str:
        return f"{self.tenant}.{self.environment}.{self.key}"


def name_of(token: bytes) -> Name | None:
    """Whose key one of our own tokens says it is signed with; None for all others."""
    if len(token) > TOKEN_LENGTH:
        return None
    head = token.partition(b".")[0]
    try:
        found = json.loads(base64.urlsafe_b64decode(head + b"=" * (-len(head) % 4)))
        tenant, environment, key = found["kid"].split(".")
        period, _, turn = key.partition("-")
        name = Name(tenant, environment, int(period), int(turn or 0))
        return name if found.get("typ") == TYPE and len(key) < 20 else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def standing(turns: Sequence[KeyTurn], moment: int, seconds: int) -> Sequence[KeyTurn]:
    """The turns whose keys serve, of tokens that hold for so many seconds; also one that is still to come.

    One serves until the last token is over that was signed before the next began.
    """
    over = moment - seconds - LEEWAY
    ends = [turn.since for turn in turns[1:]]
    known = [turn for turn, end in zip(turns, ends, strict=False) if end > over]
    return [*known, turns[-1]] if turns else [KeyTurn(0, 0)]


def turned(turns: Sequence[KeyTurn], moment: int, seconds: int, at_once: bool) -> Sequence[KeyTurn]:
    """The turns with a new one: announced for as long as others may keep the keys, or at once and without all others.

    One that is announced already is the new one.
    """
    known = standing(turns, moment, seconds)
    number = known[-1].number + 1
    if at_once:
        return [KeyTurn(number, moment)]
    return known if known[-1].since > moment else [*known, KeyTurn(number, moment + KEYS_SECONDS + LEEWAY)]


class Signer:
    """Signs and verifies the tokens of tenants, each with keys of its own, of which each serves for 30 days.

    A key is derived from the tenant's data key, which the vault seals: so every process has the same ones, none is
    stored, and all go with the tenant. What is known of the tenant says whether they were rotated out of turn.
    """

    def __init__(self, settings: Settings, keys: Callable[[Environment], bytes], clock: Callable[[], float]) -> None:
        self._keys = keys
        self._clock = clock
        self._seconds = settings.token_seconds
        self._audience = settings.token_audience or settings.domain

    def sign(self, environment: Environment, claims: Mapping[str, Any], seconds: int) -> str:
        """A token that holds for so many seconds."""
        from joserfc.jwt import encode

        moment = int(self._clock())
        name = Name(environment.tenant.id, environment.name, moment // PERIOD, self._turn(environment, moment))
        times = {"iat": moment, "nbf": moment, "exp": moment + seconds}
        whose = {"iss": issuer(environment), "aud": self._audience, "tenant_id": environment.tenant.id}
        header = {"alg": ALGORITHM, "kid": str(name), "typ": TYPE}
        key = self._key(environment, name)
        return encode(header, {**claims, **whose, **times, "jti": new_id()}, key, algorithms=[ALGORITHM])

    def verify(self, environment: Environment, token: bytes) -> Mapping[str, Any]:
        """What a token of this environment says. Raises `InvalidToken` for every other one."""
        from joserfc.errors import JoseError
        from joserfc.jwt import JWTClaimsRegistry, decode

        name, moment = name_of(token), int(self._clock())
        if name is None or (name.tenant, name.environment) != (environment.tenant.id, environment.name):
            raise InvalidToken(reason="it is another tenant's", remedy="Use it at its own tenant's address.")
        turns = [turn.number for turn in standing(environment.tenant.key_turns, moment, self._seconds)]
        if abs(name.period - moment // PERIOD) > 1 or name.turn not in turns:
            raise InvalidToken(reason="its key serves no more")
        wanted = {"iss": issuer(environment), "aud": self._audience, "tenant_id": environment.tenant.id}
        options: dict[str, Any] = {claim: {"essential": True} for claim in ("exp", "nbf", "iat", "sub", "sid")}
        try:
            claims = decode(token, self._key(environment, name), algorithms=[ALGORITHM]).claims
            JWTClaimsRegistry(lambda: int(self._clock()), LEEWAY, **options).validate(claims)
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            raise _invalid(error) from error
        for claim, value in wanted.items():  # exactly as we say it: no list that has it among others
            if claims.get(claim) != value:
                raise InvalidToken(reason=f"its claim '{claim}' is another one's")
        return claims

    def key_set(self, environment: Environment) -> dict[str, Any]:
        """The public keys as a JSON Web Key Set (RFC 7517 section 5).

        The next one is there before it signs, so that nobody has to ask again in a hurry; the one before stays until
        the last token is over that it signed.
        """
        moment = int(self._clock())
        period, whose = moment // PERIOD, (environment.tenant.id, environment.name)
        first = period - 1 if moment - period * PERIOD <= self._seconds + LEEWAY else period
        turns = standing(environment.tenant.key_turns, moment, self._seconds)
        names = [Name(*whose, one, turn.number) for turn in turns for one in range(first, period + 2)]
        return {
            "keys": [
                self._key(environment, name).as_dict(private=False) | {"kid": str(name), "alg": ALGORITHM, "use": "sig"}
                for name in names
            ]
        }

    def _turn(self, environment: Environment, moment: int) -> int:
        """The turn whose keys sign now: the last that has begun; by a clock that is behind, the only one."""
        turns = environment.tenant.key_turns
        begun = [turn.number for turn in turns if turn.since <= moment]
        return begun[-1] if begun else turns[0].number if turns else 0

    def _key(self, environment: Environment, name: Name) -> ECKey:
        data_key = self._keys(environment)
        for one in range(10):  # one of 4,294,967,296 numbers is none of the curve's
            try:
                return _imported(derive_key(data_key, f"token/{environment.name}/{name.key}/{one}"))
            except ValueError:
                continue
        raise AssertionError("ten numbers in a row cannot all be too large")


@lru_cache(maxsize=4096)
def _imported(number: bytes) -> ECKey:
    from joserfc.jwk import ECKey

    text = base64.b64encode(_PKCS8 + number)
    return ECKey.import_key(b"-----BEGIN PRIVATE KEY-----\n" + text + b"\n-----END PRIVATE KEY-----\n")


def issuer(environment: Environment) -> str:
    """Who issues the tokens of an environment: a name that stays when the tenant is renamed."""
    return f"urn:tenantry:{environment.tenant.id}:{environment.name}"


def bearer(authorization: bytes | None) -> bytes | None:
    """The token of an Authorization header (RFC 6750 section 2.1), or None where it carries another scheme."""
    if authorization is None:
        return None
    scheme, _, token = authorization.strip().partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else None
