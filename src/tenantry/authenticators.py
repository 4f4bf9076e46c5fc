"""Passkeys (W3C WebAuthn): what is asked of an authenticator, and whether its answer holds. Nothing is kept here.

A challenge is 16 random octets, the moment (8), and an HMAC of both with its purpose (32). So asking for one writes
nothing; whoever takes an answer keeps `Answer.spent` until it would be too old, so that it counts once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from tenantry.errors import AccountError, SignInRefused

HOLDS: Final = timedelta(minutes=5)
"""How long a challenge may take to be answered."""

LONGEST: Final = 20_000
"""Characters of an answer."""

SIGN_IN: Final = "sign-in"


@dataclass(frozen=True, slots=True)
class Made:
    """A passkey as an authenticator made it."""

    id: str
    public_key: bytes
    sign_count: int
    spent: str  # what the challenge is kept as


@dataclass(frozen=True, slots=True)
class Answer:
    """What an authenticator says of itself; `Passkeys.signed` tells whether it is so."""

    id: str
    handle: bytes | None  # whose passkey it is, as the authenticator knows it
    challenge: bytes
    credential: Any

    @property
    def spent(self) -> str:
        """What the challenge is kept as."""
        return _spent(self.challenge)


@dataclass(frozen=True, slots=True)
class Passkeys:
    """Makes the questions and checks the answers for one site."""

    name: str  # what people call the site
    domain: str  # what its passkeys are bound to
    origins: Collection[str]  # where browsers may be while they answer
    sign: Callable[[str], str]  # a keyed hash (hex) of a text

    def to_register(self, owner: str, login: str, name: str, there: Collection[str]) -> str:
        """What a browser is asked to make, as JSON; an authenticator that has one (`there`) makes no second one."""
        import webauthn
        from webauthn.helpers import base64url_to_bytes
        from webauthn.helpers.structs import (
            AuthenticatorSelectionCriteria,
            PublicKeyCredentialDescriptor,
            ResidentKeyRequirement,
            UserVerificationRequirement,
        )

        options = webauthn.generate_registration_options(
            rp_id=self.domain,
            rp_name=self.name,
            user_id=owner.encode(),
            user_name=login,
            user_display_name=name or login,
            challenge=self.challenge(_to_register(owner)),
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[PublicKeyCredentialDescriptor(id=base64url_to_bytes(one)) for one in there],
        )
        return webauthn.options_to_json(options)

    def registered(self, owner: str, answer: str) -> Made:
        """What an authenticator made. Raises `AccountError`."""
        import webauthn
        from webauthn.helpers import (
            bytes_to_base64url,
            parse_client_data_json,
            parse_registration_credential_json,
        )

        try:
            credential = parse_registration_credential_json(answer[:LONGEST])
            challenge = parse_client_data_json(credential.response.client_data_json).challenge
            made = webauthn.verify_registration_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self.domain,
                expected_origin=list(self.origins),
                require_user_verification=True,
            )
        except _faults() as error:
            raise AccountError(f"The passkey was not taken: {str(error)[:200]}", remedy="Try again.") from error
        if not self.is_ours(challenge, _to_register(owner)):
            raise late()
        key, count = made.credential_public_key, made.sign_count
        return Made(bytes_to_base64url(made.credential_id), key, count, _spent(challenge))

    def to_sign_in(self) -> str:
        """What a browser is asked to sign, as JSON; it offers the passkeys that it has for this domain."""
        import webauthn
        from webauthn.helpers.structs import UserVerificationRequirement

        options = webauthn.generate_authentication_options(
            rp_id=self.domain,
            challenge=self.challenge(SIGN_IN),
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return webauthn.options_to_json(options)

    def read(self, answer: str) -> Answer:
        """What came, if it answers a question of ours. Raises `SignInRefused`."""
        from webauthn.helpers import (
            bytes_to_base64url,
            parse_authentication_credential_json,
            parse_client_data_json,
        )

        try:
            credential = parse_authentication_credential_json(answer[:LONGEST])
            challenge = parse_client_data_json(credential.response.client_data_json).challenge
        except _faults() as error:
            raise refusal() from error
        if not self.is_ours(challenge, SIGN_IN):
            raise refusal()
        return Answer(bytes_to_base64url(credential.raw_id), credential.response.user_handle, challenge, credential)

    def signed(self, answer: Answer, owner: str, public_key: bytes, sign_count: int) -> int:
        """How often the authenticator says it was used, where it signed. Raises `SignInRefused`."""
        import webauthn

        if answer.handle is not None and answer.handle != owner.encode():
            raise refusal()
        try:
            verified = webauthn.verify_authentication_response(
                credential=answer.credential,
                expected_challenge=answer.challenge,
                expected_rp_id=self.domain,
                expected_origin=list(self.origins),
                credential_public_key=public_key,
                credential_current_sign_count=sign_count,
                require_user_verification=True,
            )
        except _faults() as error:
            raise refusal() from error
        return verified.new_sign_count

    def challenge(self, purpose: str) -> bytes:
        """A challenge for a purpose."""
        head = secrets.token_bytes(16) + int(time.time()).to_bytes(8, "big")
        return head + self._seal(purpose, head)

    def is_ours(self, challenge: bytes, purpose: str) -> bool:
        """Whether it was made here, for this, a moment ago."""
        head, seal = challenge[:24], challenge[24:]
        age = time.time() - int.from_bytes(head[16:], "big")
        return hmac.compare_digest(seal, self._seal(purpose, head)) and -1 <= age <= HOLDS.total_seconds()

    def _seal(self, purpose: str, head: bytes) -> bytes:
        return bytes.fromhex(self.sign(f"passkey\0{purpose}\0{head.hex()}"))


def late() -> AccountError:
    """The refusal of a passkey whose question was asked long ago, or answered before."""
    return AccountError("The passkey was not taken: it came too late, or twice.", remedy="Try again.")


def refusal() -> SignInRefused:
    """The refusal of a passkey, whatever it is refused for."""
    return SignInRefused("This passkey opens nothing here.", remedy="Try another one, or sign in by your password.")


def _to_register(owner: str) -> str:
    return f"register\0{owner}"


def _spent(challenge: bytes) -> str:
    return hashlib.sha256(challenge).hexdigest()


def _faults() -> tuple[type[Exception], ...]:
    from webauthn.helpers.exceptions import WebAuthnException

    return WebAuthnException, ValueError, TypeError, KeyError
