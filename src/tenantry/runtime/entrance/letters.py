"""The letters that bring links to a tenant's users."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from tenantry.runtime.accounts import User
from tenantry.runtime.asked import OWN
from tenantry.runtime.entrance.visit import Visit
from tenantry.runtime.proofs import FORGOT, HOLD, INVITE
from tenantry.runtime.settings import Note

IGNORE: Final = "If you did not ask for it, do nothing: your password stays as it is."


def address(visit: Visit, link: str) -> str:
    """Where a link is followed: as the platform knows the tenant, never as a request names it."""
    known = visit.here.address
    root = known(visit.environment) if known is not None else visit.asked.root
    return f"{root}{OWN}link/{link}"


async def send_link(visit: Visit, user: User, purpose: str) -> None:
    """Make a link for a user and have it sent. Raises `MailFailed` or `RegistryUnavailable`."""
    link = await visit.here.proofs.new_link(user.id, purpose)
    assert visit.here.postman is not None
    by = visit.who.user.login if visit.who else user.login
    note = letter(visit.tenant, user, purpose, address(visit, link), by)
    await visit.here.postman.send(visit.environment, user.login, note)


def letter(tenant: str, user: User, purpose: str, where: str, by: str) -> Note:
    """What it says."""
    hello = f"Hello {user.name}," if user.name else "Hello,"
    of = (f"user.{purpose}", datetime.now(UTC) + HOLD[purpose], by)
    if purpose == INVITE:
        told = f"You are invited to {tenant} as {user.login}. Choose a password; the link holds for 7 days, and once."
        return Note(f"You are invited to {tenant}", (hello, told), where, "Choose a password", *of)
    why = "You asked for" if purpose == FORGOT else f"An admin of {tenant} sends you"
    told = f"{why} a link to a new password for {user.login} at {tenant}. It holds for an hour, and once."
    paragraphs = (hello, told, *((IGNORE,) if purpose == FORGOT else ()))
    return Note(f"A new password for {tenant}", paragraphs, where, "Choose a new password", *of)
