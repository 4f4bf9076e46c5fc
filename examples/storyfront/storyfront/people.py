"""Who is signed in, and what each may do. Sessions and accounts are Tenantry's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from tenantry.context import support_access
from tenantry.errors import ForeignSession, InvalidToken
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


async def signed_in(request: Request) -> Person | None:
    """The person of this request's session; nobody where it is over, or was made at another site.

    Whoever of the platform looks in sees what an admin sees; what may be changed Tenantry watches itself.
    """
    if access := support_access():
        return Person("", access.who, f"Support ({access.who})", "admin", True)
    runtime = connected()
    try:
        session = runtime.sessions.find(request.cookies, request.scope.get("root_path", ""))
        return person_of(await runtime.accounts.signed_in(session)) if session else None
    except (ForeignSession, InvalidToken):
        return None


async def cookie_of(person: Person, root: str) -> str:
    """A Set-Cookie header that signs a person in, at this site and nowhere else."""
    runtime = connected()
    user = await runtime.accounts.get(person.id)
    return runtime.sessions.set_cookie(await runtime.accounts.begin(user), root)
