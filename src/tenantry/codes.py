"""Codes of a second factor: by time (TOTP, RFC 6238), and recovery codes for whoever lost the device."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Final

from tenantry.credentials import ALPHABET

STEP: Final = 30
"""Seconds for which a code holds; the one before and the one after are taken too, for clocks that go wrong."""

CODES: Final = 10
"""Recovery codes that are given out at once."""


def enrolment(login: str, issuer: str) -> tuple[str, str]:
    """A new secret (base32) and its address (otpauth://) for an authenticator app."""
    import pyotp

    secret = pyotp.random_base32()
    return secret, address(secret, login, issuer)


def address(secret: str, login: str, issuer: str) -> str:
    """The address (otpauth://) of a secret."""
    import pyotp

    return pyotp.TOTP(secret).provisioning_uri(name=login, issuer_name=issuer)


def picture(uri: str) -> str:
    """The QR code of an address, as a data URI; dark on light, which alone all apps read."""
    import segno

    return str(segno.make(uri, micro=False).svg_data_uri(scale=5, border=4, dark="#000", light="#fff"))


def step_of(secret: str, code: str, last: int) -> int | None:
    """The time step a code belongs to, if it is a code of this secret that was not used before."""
    import pyotp

    totp, current = pyotp.TOTP(secret), int(time.time()) // STEP
    given = code.replace(" ", "")
    for step in (current, current - 1, current + 1):
        if step > last and secrets.compare_digest(totp.at(step * STEP).encode(), given.encode(errors="replace")):
            return step
    return None


def new_codes() -> list[str]:
    """Recovery codes of 57 bits each, in two groups of letters."""
    return ["-".join("".join(secrets.choice(ALPHABET) for _ in range(5)) for _ in range(2)) for _ in range(CODES)]


def digest(code: str) -> str:
    """How a recovery code is kept; hyphens and spaces do not count."""
    return hashlib.sha256(code.replace("-", "").replace(" ", "").encode(errors="replace")).hexdigest()
