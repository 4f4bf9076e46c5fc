"""Sealed values (AES-256-GCM, RFC 5116): what is kept secret by a key, and bound to where it belongs.

One is a version octet, the first 4 octets of the sealing key's SHA-256, a nonce of 12 octets, and the ciphertext with
its tag. The context is its associated data, so that a value copied to another tenant or field does not open.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final

from tenantry.errors import SealBroken

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION: Final = b"\x01"
NONCE: Final = 12


def key_id(key: bytes) -> bytes:
    """What a key is known by."""
    return hashlib.sha256(b"tenantry/key-id" + key).digest()[:4]


def seal(key: bytes, context: str, plain: bytes) -> bytes:
    """A value that the key alone opens; the context is what it belongs to: a tenant, "/", a field."""
    nonce = os.urandom(NONCE)
    return VERSION + key_id(key) + nonce + _cipher(key).encrypt(nonce, plain, context.encode())


def unseal(keys: tuple[bytes, ...], context: str, sealed: bytes) -> bytes:
    """What one of the keys sealed in this context. Raises `SealBroken`."""
    from cryptography.exceptions import InvalidTag

    for key in keys:
        if sealed[:1] == VERSION and sealed[1:5] == key_id(key):
            try:
                return _cipher(key).decrypt(sealed[5 : 5 + NONCE], sealed[5 + NONCE :], context.encode())
            except (InvalidTag, ValueError):  # a nonce cut short is no tag's matter
                break
    tenant, _, field = context.partition("/")
    raise SealBroken(tenant=tenant, field=field)


def _cipher(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # commands that seal nothing start without it

    return AESGCM(key)
