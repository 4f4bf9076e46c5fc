"""Users of a tenant whom their organization's directory tells of: shut out where they left, let in as they return."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from tenantry.runtime.trail import Source, What, note
from tenantry.runtime.userbase import UserBase

_FOUND = """
SELECT id, login, issuer, subject, active FROM {prefix}tenantry_user
WHERE (issuer = :issuer AND subject = :subject) OR login = :login OR login = :other
"""

_CHANGES = {
    What.DISABLED: "active = 0, epoch = epoch + 1",
    What.ENABLED: "active = 1",
    What.SESSIONS_ENDED: "epoch = epoch + 1",
}

DIRECTORY: Final = Source(actor="directory")
"""Who does it, in the events of these users."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the tenant who may be the person."""

    id: str
    login: str
    issuer: str | None
    subject: str | None
    active: bool


class Leavers:
    """What becomes of the current tenant's users when their organization tells of them.

    The directory outranks the rule that a tenant keeps an admin: whoever left is out.
    """

    def __init__(self, base: UserBase) -> None:
        self._base = base

    async def found(self, issuer: str, subject: str, login: str, other: str) -> Sequence[Account]:
        """Whom a provider asserted as this subject, and whose login one of these addresses is."""
        async with self._base.open() as work:
            rows = await work.all(_FOUND, issuer=issuer, subject=subject, login=login, other=other or login)
        return [Account(row.id, row.login, row.issuer, row.subject, bool(row.active)) for row in rows]

    async def shut(self, users: Collection[str]) -> None:
        """Keep users out: sessions, tokens and links end with this statement."""
        await self._change(What.DISABLED, users, "active = 1")

    async def open(self, users: Collection[str]) -> None:
        """Let users in again, who sign in anew."""
        await self._change(What.ENABLED, users, "active = 0")

    async def end(self, users: Collection[str]) -> None:
        """End their sessions."""
        await self._change(What.SESSIONS_ENDED, users, "active = 1")

    async def _change(self, what: What, users: Collection[str], where: str) -> None:
        statement = f"UPDATE {{prefix}}tenantry_user SET {_CHANGES[what]} WHERE id = :user AND {where}"  # noqa: S608 -- constants
        async with self._base.open() as work:
            for user in sorted(users):
                if await work.run(statement, user=user):
                    await note(work, what, user, source=DIRECTORY)
            await work.commit()
