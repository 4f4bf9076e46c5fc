"""The second factor: codes by time (TOTP, RFC 6238) and recovery codes for whoever lost the device."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from typing import Final

import pyotp

from tenantry.credentials import ALPHABET
from tenantry.errors import SignInRefused
from tenantry.identity import throttle
from tenantry.refusals import SecondFactorNeeded
from tenantry.registry import Registry, Transaction, people

STEP: Final = 30
"""Seconds for which a code holds; the one before and the one after are taken too, for clocks that go wrong."""

CODES: Final = 10
"""Recovery codes that are given out at once."""


def enrolment(mail: str, platform: str) -> tuple[str, str]:
    """A new secret (base32) and its address (otpauth://) for an authenticator app."""
    secret = pyotp.random_base32()
    return secret, pyotp.TOTP(secret).provisioning_uri(name=mail, issuer_name=platform)


def step_of(secret: str, code: str, last: int) -> int | None:
    """The time step a code belongs to, if it is a code of this secret that was not used before."""
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


def counted(row: people.AdminRow, device: str | None) -> list[tuple[str, str]]:
    """What wrong codes are counted for: a device that signed in before by itself, so that nobody who learned the

    password keeps the owner out.
    """
    kind, key = throttle.keys(f"second\0{row.id}", "", device)[0]
    return [(kind if kind == "device" else "second", key)]


async def check(
    registry: Registry, row: people.AdminRow, code: str | None, count: Sequence[tuple[str, str]], whence: str
) -> None:
    """Hold that the second factor is there. Raises `SecondFactorNeeded`, `SignInRefused` or `TooManyTries`."""
    if not code:
        raise SecondFactorNeeded
    async with registry.write(f"admin:{row.mail}") as tx:
        await throttle.begin(tx, count)
        row = await people.find(tx, row.id)  # of two at once, one finds the code used
        if await _uses(tx, registry, row, code):
            await throttle.passed(tx, count)
            return
        tx.audit("admin.refused", row.mail, factor="second", address=whence)
    raise SignInRefused(
        "The code is wrong, or was used before.", remedy="Wait for the next one, or use a recovery code."
    )


async def _uses(tx: Transaction, registry: Registry, row: people.AdminRow, code: str) -> bool:
    """Use a code up, of either kind; whether it is one."""
    if row.totp is None:
        return False
    step = step_of(registry.vault.open_platform(f"totp:{row.id}", row.totp), code, row.totp_used)
    if step is not None:
        await people.change(tx, row.id, totp_used=step)
        return True
    if await people.use_recovery_code(tx, row.id, digest(code)):
        tx.audit("admin.recovery_code", row.mail, left=await people.recovery_codes(tx, row.id))
        return True
    return False
