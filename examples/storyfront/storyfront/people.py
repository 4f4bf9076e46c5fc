"""Who is signed in, and what each may do. Users, their sessions and every page about them are Tenantry's."""

from __future__ import annotations

from dataclasses import dataclass

import tenantry
from tenantry.errors import ForeignSession


@dataclass(frozen=True)
class Person:
    """Whoever of a site's people makes a request."""

    shown: str
    role: str
    is_user: bool = True

    @property
    def edits(self) -> bool:
        return self.role in ("admin", "superuser")

    @property
    def manages(self) -> bool:
        return self.role == "admin"


def person_of(user: tenantry.User) -> Person:
    return Person(user.name or user.login, user.role)


def signed_in() -> Person | None:
    """The person who makes this request; nobody where the session is over, or was made at another site.

    Whoever of the platform looks in sees what an admin sees; what may be changed Tenantry watches itself.
    """
    if access := tenantry.support_access():
        return Person(f"Support ({access.who})", "admin", is_user=False)
    try:
        user = tenantry.current_user()
    except ForeignSession:
        return None
    return person_of(user) if user else None
