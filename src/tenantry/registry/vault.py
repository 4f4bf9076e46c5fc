"""Sealed secrets: the platform key seals each tenant's data key, which seals its secrets (AES-256-GCM, RFC 5116).

How a sealed value looks, `tenantry.seals` tells.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tenantry.errors import SealBroken, SecretKeyError
from tenantry.seals import key_id, seal, unseal

PLATFORM: Final = "platform"
CHECK: Final = b"tenantry"


class Vault:
    """Seals and opens with the platform key; a previous key still opens, until `tenantry secret rotate` is done."""

    def __init__(self, current: str, previous: str | None = None) -> None:
        self._keys = tuple(bytes.fromhex(key) for key in (current, previous) if key)

    def __repr__(self) -> str:
        return "Vault(…)"

    def new_check(self) -> bytes:
        """A sealed constant that the registry keeps, to tell at every start whether the key is the right one."""
        return seal(self._keys[0], PLATFORM, CHECK)

    def check(self, sealed: bytes) -> None:
        """Raise `SecretKeyError` unless this platform's registry was begun with one of these keys."""
        try:
            unseal(self._keys, PLATFORM, sealed)
        except SealBroken as error:
            raise SecretKeyError(
                reason="is not the key this platform was set up with",
                remedy="Put the platform's own key back. To change keys, set the new one as TENANTRY_SECRET_KEY and "
                "the old one as TENANTRY_SECRET_KEY_PREVIOUS, then run `tenantry secret rotate`.",
            ) from error

    def new_data_key(self, tenant_id: str) -> bytes:
        """A fresh data key of 32 octets for a tenant, sealed."""
        return self.seal_data_key(tenant_id, os.urandom(32))

    def seal_data_key(self, tenant_id: str, data_key: bytes) -> bytes:
        """The data key under the current platform key."""
        return seal(self._keys[0], f"{tenant_id}/data-key", data_key)

    def open_data_key(self, tenant_id: str, sealed: bytes) -> bytes:
        """A tenant's data key. Raises `SealBroken`."""
        return unseal(self._keys, f"{tenant_id}/data-key", sealed)

    def is_current(self, sealed: bytes) -> bool:
        """Whether this was sealed by the current platform key."""
        return sealed[1:5] == key_id(self._keys[0])

    def seal(self, tenant_id: str, sealed_key: bytes, field: str, plain: str) -> bytes:
        """A tenant's secret under its data key."""
        return seal(self.open_data_key(tenant_id, sealed_key), f"{tenant_id}/{field}", plain.encode())

    def open(self, tenant_id: str, sealed_key: bytes, field: str, sealed: bytes) -> str:
        """A tenant's secret. Raises `SealBroken`."""
        return unseal((self.open_data_key(tenant_id, sealed_key),), f"{tenant_id}/{field}", sealed).decode()

    def seal_platform(self, field: str, plain: str) -> bytes:
        """A secret of the platform itself under the current platform key."""
        return seal(self._keys[0], f"{PLATFORM}/{field}", plain.encode())

    def open_platform(self, field: str, sealed: bytes) -> str:
        """A secret of the platform itself. Raises `SealBroken`."""
        return unseal(self._keys, f"{PLATFORM}/{field}", sealed).decode()

    def public_keys(self) -> tuple[str, ...]:
        """The public keys, in hex, by which reports of this platform are known; the current one first."""
        return tuple(_signer(key).public_key().public_bytes_raw().hex() for key in self._keys)

    def sign_report(self, content: bytes) -> str:
        """The Ed25519 signature (RFC 8032) of a report, in hex, by a key made of the current platform key."""
        return _signer(self._keys[0]).sign(content).hex()

    @staticmethod
    def verify_report(public: str, content: bytes, signature: str) -> bool:
        """Whether a signature is that of this content by this public key; both in hex, of small letters alone."""
        try:
            if bytes.fromhex(signature).hex() != signature:
                return False
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), content)
        except (InvalidSignature, ValueError):
            return False
        return True

    def sign_head(self, content: str) -> str:
        """HMAC-SHA-256 of the audit log's head under the current platform key."""
        return _sign(self._keys[0], content)

    def verify_head(self, content: str, seal: str) -> bool:
        """Whether the head was sealed by one of the keys."""
        return any(hmac.compare_digest(_sign(key, content), seal) for key in self._keys)

    def verify_short(self, content: str, beginning: str) -> bool:
        """Whether a seal by one of the keys begins so; how much of it is enough is the caller's to say."""
        return any(hmac.compare_digest(_sign(key, content)[: len(beginning)], beginning) for key in self._keys)


def _signer(key: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hmac.new(key, b"tenantry/report\0", hashlib.sha256).digest())


def _sign(key: bytes, content: str) -> str:
    return hmac.new(key, b"tenantry/audit-head\0" + content.encode(), hashlib.sha256).hexdigest()
