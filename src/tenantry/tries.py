"""For what a wrong guess is counted, and how long the next one waits: strangers who guess lock no owner out.

Failures are counted by what the guess came from: the address, and for each login the devices that signed in before,
each by itself, and all others together (the device cookies of the OWASP guide to slowing down guesses). So whoever
guesses from elsewhere uses up the tries of unknown devices alone; the owner's own browser has its own.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

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


def wait(kind: str, count: int) -> timedelta:
    """How long the next one waits after so many of a kind."""
    over = count - FREE[kind]
    return timedelta() if over < 0 else min(LONGEST, timedelta(seconds=2 ** min(over, 20)))


def _digest(kind: str, value: str) -> str:
    return hashlib.sha256(f"{kind}\0{value}".encode(errors="replace")).hexdigest()
