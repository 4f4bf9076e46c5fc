"""Who is signed in, and what each may do. Sessions and accounts are Tenantry's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import tenantry
from tenantry.context import support_access
from tenantry.errors import ForeignSession
from tenantry.runtime.accounts import User
from tenantry.runtime.runtime import connected

ROLES: Final = {"admin": "Admin", "superuser": "Editor", "user": "Reader"}


@dataclass(frozen=True)
class Person:
    """A user of this site."""

    id: str
    login: str
    name: str
    role: str
    active: bool

    @property
    def shown(self) -> str:
        return self.name or self.login

    @property
    def edits(self) -> bool:
        return self.role in ("admin", "superuser")

    @property
    def manages(self) -> bool:
        return self.role == "admin"


def person_of(user: User) -> Person:
    return Person(user.id, user.login, user.name, user.role.value, user.active)


def signed_in() -> Person | None:
    """The person of this request's session; nobody where it is over, or was made at another site.

    Whoever of the platform looks in sees what an admin sees; what may be changed Tenantry watches itself.
    """
    if access := support_access():
        return Person("", access.who, f"Support ({access.who})", "admin", True)
    try:
        user = tenantry.current_user()
    except ForeignSession:
        return None
    return person_of(user) if user else None


async def cookie_of(person: Person) -> str:
    """A Set-Cookie header that signs a person in, at this site and nowhere else."""
    runtime = connected()
    return await runtime.enter(await runtime.accounts.get(person.id))
