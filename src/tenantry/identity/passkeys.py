"""Passkeys (W3C WebAuthn): what an authenticator signs is checked against the platform's own address.

A challenge is 16 random octets, the moment (8), and an HMAC of both with its purpose (32). So asking for one writes
nothing, and only one that was answered rightly is kept, until it would be too old, to count once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import webauthn
from webauthn.helpers import (
    base64url_to_bytes,
    bytes_to_base64url,
    parse_authentication_credential_json,
    parse_client_data_json,
    parse_registration_credential_json,
)
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from tenantry.config import Config
from tenantry.errors import AccountError, SignInRefused
from tenantry.registry import Registry, Transaction, people
from tenantry.registry.database import now

HOLDS: Final = timedelta(minutes=5)
"""How long a challenge may take to be answered."""

LONGEST: Final = 20_000
"""Characters of an answer."""

SIGN_IN: Final = "sign-in"
_FAULTS: Final = (WebAuthnException, ValueError, TypeError, KeyError)


@dataclass(frozen=True, slots=True)
class Made:
    """A passkey as an authenticator made it."""

    id: str
    public_key: bytes
    sign_count: int


class Passkeys:
    """Makes the questions, checks the answers."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self._registry = registry
        self._name = config.platform.name
        self._origin = config.url
        self._domain = urlsplit(config.url).hostname or config.platform.domain

    def to_register(self, row: people.AdminRow, there: list[people.PasskeyRow]) -> str:
        """What a browser is asked to make, as JSON; an authenticator that has one makes no second one."""
        options = webauthn.generate_registration_options(
            rp_id=self._domain,
            rp_name=self._name,
            user_id=row.id.encode(),
            user_name=row.mail,
            user_display_name=row.name,
            challenge=self._challenge(f"register\0{row.id}"),
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[PublicKeyCredentialDescriptor(id=base64url_to_bytes(one.id)) for one in there],
        )
        return webauthn.options_to_json(options)

    async def registered(self, tx: Transaction, row: people.AdminRow, answer: str) -> Made:
        """What an authenticator made. Raises `AccountError`."""
        try:
            credential = parse_registration_credential_json(answer[:LONGEST])
            challenge = parse_client_data_json(credential.response.client_data_json).challenge
            made = webauthn.verify_registration_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self._domain,
                expected_origin=self._origin,
                require_user_verification=True,
            )
        except _FAULTS as error:
            reason = str(error)[:200]
            raise AccountError(f"The passkey was not taken: {reason}", remedy="Try again.") from error
        if not self._is_ours(challenge, f"register\0{row.id}") or not await _spend(tx, challenge):
            raise AccountError("The passkey was not taken: it came too late, or twice.", remedy="Try again.")
        return Made(bytes_to_base64url(made.credential_id), made.credential_public_key, made.sign_count)

    def to_sign_in(self) -> str:
        """What a browser is asked to sign, as JSON; it offers the passkeys that it has for this domain."""
        options = webauthn.generate_authentication_options(
            rp_id=self._domain,
            challenge=self._challenge(SIGN_IN),
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return webauthn.options_to_json(options)

    async def owner(self, answer: str) -> people.AdminRow:
        """Who signed. Raises `SignInRefused`."""
        try:
            credential = parse_authentication_credential_json(answer[:LONGEST])
            challenge = parse_client_data_json(credential.response.client_data_json).challenge
        except _FAULTS as error:
            raise _refusal() from error
        if not self._is_ours(challenge, SIGN_IN):
            raise _refusal()
        async with self._registry.write() as tx:  # of two at once, one finds the challenge spent
            found = await people.passkey(tx, bytes_to_base64url(credential.raw_id))
            row = await people.find(tx, found.admin_id) if found else None
            if found is None or row is None or not row.active:
                raise _refusal()
            count = self._signed(credential, challenge, found)
            if not await _spend(tx, challenge):
                raise _refusal()
            await people.use_passkey(tx, found.id, count)
            return row

    def _signed(self, credential: Any, challenge: bytes, found: people.PasskeyRow) -> int:
        """How often the authenticator says it was used."""
        handle = credential.response.user_handle
        if handle is not None and handle != found.admin_id.encode():
            raise _refusal()
        try:
            verified = webauthn.verify_authentication_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self._domain,
                expected_origin=self._origin,
                credential_public_key=found.public_key,
                credential_current_sign_count=found.sign_count,
                require_user_verification=True,
            )
        except _FAULTS as error:
            raise _refusal() from error
        return verified.new_sign_count

    def _challenge(self, purpose: str) -> bytes:
        head = secrets.token_bytes(16) + int(time.time()).to_bytes(8, "big")
        return head + self._sign(purpose, head)

    def _is_ours(self, challenge: bytes, purpose: str) -> bool:
        head, seal = challenge[:24], challenge[24:]
        age = time.time() - int.from_bytes(head[16:], "big")
        return hmac.compare_digest(seal, self._sign(purpose, head)) and -1 <= age <= HOLDS.total_seconds()

    def _sign(self, purpose: str, head: bytes) -> bytes:
        return bytes.fromhex(self._registry.vault.sign_head(f"passkey\0{purpose}\0{head.hex()}"))


async def _spend(tx: Transaction, challenge: bytes) -> bool:
    return await people.spend(tx, hashlib.sha256(challenge).hexdigest(), now() + HOLDS)


def _refusal() -> SignInRefused:
    return SignInRefused("This passkey opens nothing here.", remedy="Try another one, or sign in by your password.")
