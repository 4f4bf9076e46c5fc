"""Roles and passwords of a tenant's users, and the passwords Tenantry makes itself.

A password made here holds 128 random bits, so nobody can guess it and a keyed fast hash protects it as well as a slow
one would (NIST SP 800-63B section 5.1.1.2 asks for slow hashes because people choose guessable passwords). The first
password its owner chooses is hashed with Argon2id instead.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from argon2 import PasswordHasher

ALPHABET: Final = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
"""57 characters that are not taken for one another; 22 of them hold 128 bits."""

PASSWORD_LENGTH: Final = (8, 1024)
"""The shortest and the longest password in characters (NIST SP 800-63B section 5.1.1.2)."""

GENERATED: Final = "$generated$"
"""How the stored form of a generated password begins; Argon2's begins with "$argon2id$"."""


class Role(StrEnum):
    """What a user may do within a tenant."""

    ADMIN = "admin"
    SUPERUSER = "superuser"
    USER = "user"


def new_password() -> str:
    """A password of 128 random bits, in 22 characters that are not taken for one another."""
    number = secrets.randbelow(len(ALPHABET) ** 22)  # one draw, in base 57
    letters = []
    for _ in range(22):
        number, digit = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[digit])
    return "".join(letters)


def hash_generated(password: str, key: bytes) -> str:
    """The stored form of a generated password: HMAC-SHA-256 under a key of the tenant (RFC 2104)."""
    return GENERATED + hmac.new(key, b"password\0" + password.encode(), hashlib.sha256).hexdigest()


def check_generated(stored: str, password: str, key: bytes) -> bool:
    """Whether the password is the one this stored form was made from, in constant time."""
    return hmac.compare_digest(stored, hash_generated(password, key))


def derive_key(data_key: bytes, purpose: str) -> bytes:
    """A 32-byte key for one purpose out of a tenant's data key (one block of HKDF-Expand, RFC 5869 section 2.3)."""
    return hmac.new(data_key, b"tenantry/" + purpose.encode() + b"\x01", hashlib.sha256).digest()


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher  # commands that hash nothing start without it

    return PasswordHasher()


@cache
def _decoy() -> str:
    """A hash that stands in where there is none, so that an unknown login takes as long as a wrong password."""
    return _hasher().hash(secrets.token_hex())


def hash_chosen(password: str) -> str:
    """The stored form of a password that a person chose: Argon2id (RFC 9106), some 40 ms. "" where it keeps no rule."""
    return _hasher().hash(password) if len(usable(password)) >= PASSWORD_LENGTH[0] else ""


def check_chosen(stored: str, password: str) -> bool:
    """Whether the password is right; takes as long where nothing is stored."""
    from argon2.exceptions import VerificationError

    try:
        right = _hasher().verify(stored or _decoy(), usable(password))
    except (VerificationError, ValueError):
        return False
    return bool(stored) and right


def outdated(stored: str) -> bool:
    """Whether a stored form was made with weaker parameters than today's."""
    return _hasher().check_needs_rehash(stored)


def usable(password: str) -> str:
    """The password, or "" for one that nobody can have: too long, or with half a character (a lone surrogate)."""
    try:
        return password if len(password) <= PASSWORD_LENGTH[1] and password.encode() else ""
    except UnicodeEncodeError:
        return ""
