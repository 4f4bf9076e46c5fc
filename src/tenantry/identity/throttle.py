"""Slows down who guesses passwords, without letting strangers lock an owner out.

Failures are counted by what the guess came from: the address, and for each login the devices that signed in before,
each by itself, and all others together (the device cookies of the OWASP guide to slowing down guesses). So whoever
guesses from elsewhere uses up the tries of unknown devices alone; the owner's own browser has its own.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from tenantry.refusals import TooManyTries
from tenantry.registry import Transaction, people
from tenantry.registry.database import now

FREE: Final[Mapping[str, int]] = {"device": 5, "unknown": 10, "address": 30, "second": 5, "forgot": 5, "own": 5}
"""Failures before the first wait, by what they are counted for."""

LONGEST: Final = timedelta(minutes=15)
"""The longest wait; it begins with a second and doubles with each failure."""

FORGOTTEN: Final = timedelta(hours=24)
"""After how long without one earlier failures count no more."""


def keys(login: str, address: str, device: str | None) -> list[tuple[str, str]]:
    """What a failure of this login, from this address and device, is counted for: its kind and its key."""
    whence = ("device", f"{login}\0{device}") if device else ("unknown", login)
    return [(kind, _digest(kind, value)) for kind, value in (whence, ("address", network(address)))]


def network(address: str) -> str:
    """An address, or the network of 64 bits that an IPv6 host has to itself (RFC 6177)."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address


async def refuse(tx: Transaction, counted: Sequence[tuple[str, str]]) -> None:
    """Raise `TooManyTries` while somebody has to wait."""
    moment = now()
    found = await people.failures(tx, [key for _, key in counted])
    wait = max((until - moment for _, until in found.values()), default=timedelta())
    if wait > timedelta():
        raise TooManyTries(seconds=max(1, round(wait.total_seconds())))


async def begin(tx: Transaction, counted: Sequence[tuple[str, str]]) -> None:
    """Count a try as a failure before it is looked at: of a thousand that come at once, each counts.

    Raises `TooManyTries`. `passed` takes it back.
    """
    await refuse(tx, counted)
    moment = now()
    found = await people.failures(tx, [key for _, key in counted])
    for kind, key in counted:
        before, until = found.get(key, (0, moment))
        count = 1 if moment - until > FORGOTTEN else before + 1
        await people.put_failures(tx, key, count, moment + _wait(kind, count))
    await people.forget_failures(tx, moment - FORGOTTEN)


async def passed(tx: Transaction, counted: Sequence[tuple[str, str]]) -> None:
    """Take a try back that was none of a guesser's. A device that its owner used begins anew.

    Others do not: whoever guesses would go on for free after each time that the owner signs in.
    """
    found = await people.failures(tx, [key for _, key in counted])
    for kind, key in counted:
        count = 0 if kind == "device" else found.get(key, (1, now()))[0] - 1
        if count:
            await people.put_failures(tx, key, count, now())
        else:
            await people.drop_failures(tx, [key])


def _wait(kind: str, count: int) -> timedelta:
    over = count - FREE[kind]
    return timedelta() if over < 0 else min(LONGEST, timedelta(seconds=2 ** min(over, 20)))


def _digest(kind: str, value: str) -> str:
    return hashlib.sha256(f"{kind}\0{value}".encode(errors="replace")).hexdigest()
