"""Who is asking: an admin user in a browser, or one of her tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from tenantry.context import acting
from tenantry.refusals import ProofNeeded


class AdminRole(StrEnum):
    """What an admin user runs."""

    ADMIN = "admin"  # the tenants assigned to her
    SUPERADMIN = "superadmin"  # the whole platform


SCOPES: Final = (
    "tenants:read",
    "tenants:write",
    "tenants:secrets",
    "tenants:support",
    "operations:read",
    "operations:write",
    "platform:read",
    "platform:write",
    "people:read",
    "people:write",
)
"""All that a token can be allowed."""


PROVED: Final = timedelta(minutes=10)
"""After how long somebody in a browser proves once more who she is, before anything that opens her account is made."""


@dataclass(frozen=True, slots=True)
class Principal:
    """An admin user who asks for something, in a browser or by a token."""

    admin_id: str
    mail: str
    role: AdminRole
    session: str | None = None  # its id, in a browser
    token: str | None = None  # its name
    proved: datetime | None = None  # in a browser: when she last showed her password or a passkey
    scopes: frozenset[str] | None = None  # of the token; None: everything that the role may
    until: datetime | None = None  # when the token runs out

    @property
    def actor(self) -> str:
        """Whom the audit log names."""
        return f"token:{self.token} of {self.mail}" if self.token else f"admin:{self.mail}"

    @property
    def is_proved(self) -> bool:
        """Whether it is a moment ago that she proved who she is, so that new ways to sign in may be made."""
        return self.proved is not None and datetime.now(UTC) - self.proved <= PROVED

    @property
    def is_superadmin(self) -> bool:
        """Whether the whole platform is this person's to run."""
        return self.role is AdminRole.SUPERADMIN


_current: ContextVar[Principal | None] = ContextVar("tenantry_principal", default=None)


def current_principal() -> Principal | None:
    """Who is asking here; None where a process acts for itself, as commands on the platform's machine do."""
    return _current.get()


def refuse_unproved() -> None:
    """Raise `ProofNeeded` where a session asks whose owner proved long ago who she is."""
    principal = _current.get()
    if principal is not None and principal.session is not None and not principal.is_proved:
        raise ProofNeeded


def sees_only() -> str | None:
    """The id of the admin who is asking, where only her tenants may show; None: all of them."""
    principal = _current.get()
    return None if principal is None or principal.is_superadmin else principal.admin_id


@contextmanager
def acting_as(principal: Principal) -> Iterator[Principal]:
    """Do what is inside this block in somebody's name, with that person's rights and no others."""
    token = _current.set(principal)
    try:
        with acting(principal.actor):
            yield principal
    finally:
        _current.reset(token)


def digest(secret: str) -> str:
    """How a secret of 256 random bits is kept: no slow hash is needed, since nobody can guess it."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
