"""An authenticator in software: makes a passkey and signs by it, as a device does (W3C WebAuthn, sections 6 and 7)."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url

PRESENT_AND_VERIFIED = 0x05
WITH_KEY = 0x40


@dataclass
class Authenticator:
    """A device with one passkey for one address."""

    origin: str  # http://localhost
    domain: str  # localhost
    id: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    count: int = 0

    @property
    def name(self) -> str:
        """The passkey's id over the wire."""
        return bytes_to_base64url(self.id)

    @property
    def public(self) -> bytes:
        """The public key as COSE has it (RFC 9053, section 7.1)."""
        point = self.key.public_key().public_numbers()
        cose = {1: 2, 3: -7, -1: 1, -2: point.x.to_bytes(32, "big"), -3: point.y.to_bytes(32, "big")}
        return cbor2.dumps(cose)

    def register(self, options: str) -> str:
        """The answer to what a site asks to make."""
        attested = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + self.public
        data = self._data(PRESENT_AND_VERIFIED | WITH_KEY) + attested
        made = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        return self._answer(
            clientDataJSON=self._client("webauthn.create", options), attestationObject=bytes_to_base64url(made)
        )

    def sign(self, options: str) -> str:
        """The answer to what a site asks to sign."""
        self.count += 1
        data, client = self._data(PRESENT_AND_VERIFIED), self._client("webauthn.get", options)
        signed = data + hashlib.sha256(base64url_to_bytes(client)).digest()
        signature = self.key.sign(signed, ec.ECDSA(hashes.SHA256()))
        return self._answer(
            clientDataJSON=client,
            authenticatorData=bytes_to_base64url(data),
            signature=bytes_to_base64url(signature),
        )

    def _data(self, flags: int) -> bytes:
        return hashlib.sha256(self.domain.encode()).digest() + bytes([flags]) + self.count.to_bytes(4, "big")

    def _client(self, kind: str, options: str) -> str:
        told = {"type": kind, "challenge": json.loads(options)["challenge"], "origin": self.origin}
        return bytes_to_base64url(json.dumps(told).encode())

    def _answer(self, **response: Any) -> str:
        return json.dumps({"id": self.name, "rawId": self.name, "type": "public-key", "response": response})
