"""DKIM (RFC 6376, RFC 8463): keys that sign mail, sealed here, their public halves in DNS."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tenantry.registry import Vault
from tenantry.registry.letters import MailKey

RSA_BITS: Final = 2048
"""What every receiver takes, and fits into one DNS record (RFC 8301)."""

ALGORITHMS: Final = ("rsa", "ed25519")

SIGNED: Final = tuple(
    name.encode()
    for name in (
        "from to subject date message-id reply-to auto-submitted mime-version content-type "
        "content-transfer-encoding list-unsubscribe list-unsubscribe-post"
    ).split()
)
"""Headers that nobody on the way may change or add."""


@dataclass(frozen=True, slots=True)
class Signer:
    """A key, opened."""

    selector: str
    algorithm: str
    key: bytes = field(repr=False)  # RSA: PEM; Ed25519: its 32 octets in base64

    def signature(self, message: bytes, domain: str) -> bytes:
        """The header, with the line end behind it."""
        import dkim  # most processes sign nothing

        present = {line.partition(b":")[0].lower() for line in message.partition(b"\r\n\r\n")[0].split(b"\r\n")}
        made: bytes = dkim.sign(
            message,
            self.selector.encode(),
            domain.encode("idna"),
            self.key,
            canonicalize=(b"relaxed", b"relaxed"),
            signature_algorithm=f"{self.algorithm}-sha256".encode(),
            include_headers=[name for name in SIGNED if name in present],
        )
        return made


def new_key(algorithm: str) -> tuple[str, str]:
    """A fresh key: its private half as text, and the record that is to stand in DNS."""
    if algorithm == "ed25519":
        made = Ed25519PrivateKey.generate()
        public = base64.b64encode(made.public_key().public_bytes_raw()).decode()
        return base64.b64encode(made.private_bytes_raw()).decode(), f"v=DKIM1; k=ed25519; p={public}"
    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    public_form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    public = base64.b64encode(key.public_key().public_bytes(*public_form)).decode()
    return key.private_bytes(*form).decode(), f"v=DKIM1; k=rsa; p={public}"


def field_of(selector: str) -> str:
    """Under which name the vault seals a key."""
    return f"dkim:{selector}"


def in_use(keys: Sequence[MailKey]) -> list[MailKey]:
    """The newest key of each algorithm: what signs."""
    return list({key.algorithm: key for key in reversed(keys)}.values())


def opened(keys: Sequence[MailKey], vault: Vault) -> list[Signer]:
    """The keys in use. Raises `SealBroken`."""
    return [
        Signer(key.selector, key.algorithm, vault.open_platform(field_of(key.selector), key.sealed).encode())
        for key in in_use(keys)
    ]


def signed(message: bytes, signers: Sequence[Signer], domain: str) -> bytes:
    """A message with one signature by each key, all of the same content."""
    return b"".join(one.signature(message, domain) for one in signers) + message
