"""Proof of work: a browser computes for a second before it may ask for something costly. No captcha, no third party.

A challenge is a text; its answer a number, so that the SHA-256 of `challenge:number` begins with so many zero bits.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from typing import Final

from tenantry.refusals import WorkNeeded
from tenantry.registry import Transaction, Vault, people

HOLDS: Final = timedelta(hours=2)
"""How long a challenge can be answered."""

WAIT: Final = timedelta(seconds=10)
"""After so long a challenge counts without an answer: for browsers without scripts."""


def challenge(vault: Vault, bits: int, moment: datetime) -> str:
    """A challenge of so many bits, signed."""
    text = f"{bits}.{int(moment.timestamp())}.{secrets.token_urlsafe(12)}"
    return f"{text}.{_sign(vault, text)}"


async def check(tx: Transaction, vault: Vault, given: str, answer: str, moment: datetime) -> bool:
    """Use a challenge up; whether it was answered, and not only waited for.

    Raises `WorkNeeded` where it is neither answered nor old enough, was used before, or is none of ours.
    """
    text, _, seal = given.rpartition(".")
    if not hmac.compare_digest(seal.encode(errors="replace"), _sign(vault, text).encode()):
        raise WorkNeeded(seconds=int(WAIT.total_seconds()))
    bits, issued, _ = text.split(".", 2)
    age = moment - datetime.fromtimestamp(int(issued), moment.tzinfo)
    done = is_done(given, answer, int(bits))
    if age > HOLDS or not (done or age >= WAIT):
        raise WorkNeeded(seconds=int(WAIT.total_seconds()))
    if not await people.spend(tx, hashlib.sha256(f"work\0{text}".encode()).hexdigest(), moment + HOLDS):
        raise WorkNeeded(seconds=int(WAIT.total_seconds()))
    return done


def is_done(given: str, answer: str, bits: int) -> bool:
    """Whether this number is the answer."""
    if not (answer.isascii() and answer.isdigit() and len(answer) <= 12):
        return False
    found = hashlib.sha256(f"{given}:{answer}".encode()).digest()
    return int.from_bytes(found[:8], "big") >> (64 - bits) == 0


def _sign(vault: Vault, text: str) -> str:
    return vault.sign_head(f"work\0{text}")
