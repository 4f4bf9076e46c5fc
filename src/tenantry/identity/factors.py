"""The second factor: codes by time (TOTP, RFC 6238) and recovery codes for whoever lost the device."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyotp

from tenantry.credentials import ALPHABET
from tenantry.errors import SecondFactorNeeded, SignInRefused
from tenantry.identity import throttle
from tenantry.registry import Registry, people

if TYPE_CHECKING:
    from tenantry.identity.signin import Client

STEP: Final = 30
"""Seconds for which a code holds; the one before and the one after are taken too, for clocks that go wrong."""

CODES: Final = 10
"""Recovery codes that are given out at once."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an authenticator app is given, by a picture or by hand."""

    secret: str  # base32
    uri: str  # otpauth://


def enrolment(mail: str, platform: str) -> Enrolment:
    """A new secret, which nobody uses before a first code of it was given."""
    secret = pyotp.random_base32()
    return Enrolment(secret, pyotp.TOTP(secret).provisioning_uri(name=mail, issuer_name=platform))


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


async def check(registry: Registry, row: people.AdminRow, code: str | None, client: Client) -> None:
    """Hold that the second factor is there. Raises `SecondFactorNeeded`, `SignInRefused` or `TooManyTries`."""
    if not code:
        raise SecondFactorNeeded
    counted = [("second", throttle.keys(f"second\0{row.id}", client.address, None)[0][1])]
    async with registry.read() as tx:
        await throttle.refuse(tx, counted)
    assert row.totp is not None
    secret = registry.vault.open_platform(f"totp:{row.id}", row.totp)
    async with registry.write(f"admin:{row.mail}") as tx:
        row = await people.find(tx, row.id)  # of two at once, one finds the code used
        step = step_of(secret, code, row.totp_used)
        if step is not None:
            await people.change(tx, row.id, totp_used=step)
            await people.drop_failures(tx, [key for _, key in counted])
            return
        if await people.use_recovery_code(tx, row.id, digest(code)):
            tx.audit("admin.recovery_code", row.mail, left=await people.recovery_codes(tx, row.id))
            return
        await throttle.failed(tx, counted)
        tx.audit("admin.refused", row.mail, factor="second", address=client.address)
    raise SignInRefused(
        "The code is wrong, or was used before.", remedy="Wait for the next one, or use a recovery code."
    )
