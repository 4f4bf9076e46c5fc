"""What goes through addresses and cookies while somebody signs in, sealed with the platform key."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tenantry.errors import SealBroken
from tenantry.registry.vault import Vault
from tenantry.sso_refusals import HandoverWrong, SsoRefused

HOLDS: Final = 600
"""Seconds in which somebody signs in at the provider."""

CODE: Final = "sso-code:"
"""Under this and its hash it is sealed who a code stands for."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where a sign-in began. The tenant's process seals it, the platform opens it."""

    tenant: str = ""  # id; "" for a trial in the portal
    environment: str = ""  # id
    root: str = ""  # the tenant's address, without a slash at the end
    browser: str = ""  # SHA-256 of the cookie at the tenant
    back: str = "/"  # where somebody wanted to go, within the tenant
    until: float = field(default_factory=lambda: time.time() + HOLDS)  # seconds since 1970

    def sealed(self, vault: Vault, organization: str) -> str:
        """As it goes through an address."""
        return seal(vault, f"sso-ticket:{organization}", asdict(self))

    @classmethod
    def opened(cls, vault: Vault, organization: str, given: str) -> Ticket:
        """Raises `HandoverWrong`."""
        ticket = cls(**unseal(vault, f"sso-ticket:{organization}", given, HandoverWrong()))
        if ticket.until < time.time():
            raise HandoverWrong
        return ticket


def seal(vault: Vault, field: str, content: Mapping[str, Any]) -> str:
    """Some values as one text, which opens for this field alone."""
    return base64.urlsafe_b64encode(vault.seal_platform(field, json.dumps(content))).decode().rstrip("=")


def unseal(vault: Vault, field: str, given: str, otherwise: SsoRefused) -> dict[str, Any]:
    """What was sealed for this field. Raises what is given."""
    try:
        sealed = base64.urlsafe_b64decode(given + "=" * (-len(given) % 4))
        found: dict[str, Any] = json.loads(vault.open_platform(field, sealed))
    except (SealBroken, ValueError) as error:
        raise otherwise from error
    return found
