"""From the platform's pages into a tenant, signed in: a code of one use, carried by the browser that signed up."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tenantry.refusals import HandoverInvalid
from tenantry.registry import Transaction, Vault, people

HOLDS: Final = timedelta(minutes=2)
"""How long a code can be used."""


@dataclass(frozen=True, slots=True)
class Handover:
    """Who goes where."""

    tenant_id: str
    login: str


def issue(vault: Vault, given: Handover, moment: datetime) -> str:
    """A code; it is nowhere kept."""
    until = int((moment + HOLDS).timestamp())
    told = json.dumps([given.tenant_id, given.login, until, secrets.token_urlsafe(16)])
    text = base64.urlsafe_b64encode(told.encode()).decode()
    return f"{text}.{_sign(vault, text)}"


async def take(tx: Transaction, vault: Vault, code: str, tenant_id: str, moment: datetime) -> Handover:
    """Use a code up at the tenant it leads to. Raises `HandoverInvalid`."""
    text, _, seal = code.rpartition(".")
    if not code.isascii() or not vault.verify_head(f"handover\0{text}", seal):
        raise HandoverInvalid
    whose, login, until, _ = json.loads(base64.urlsafe_b64decode(text))
    if whose != tenant_id or until < moment.timestamp():
        raise HandoverInvalid
    if not await people.spend(tx, hashlib.sha256(f"handover\0{text}".encode()).hexdigest(), moment + HOLDS):
        raise HandoverInvalid
    return Handover(whose, login)


def _sign(vault: Vault, text: str) -> str:
    return vault.sign_head(f"handover\0{text}")
