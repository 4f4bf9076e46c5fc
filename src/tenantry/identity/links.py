"""Links of one use, by which somebody chooses a password, and the letters that bring them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from datetime import timedelta
from functools import partial
from typing import Final

from tenantry.config import Config
from tenantry.errors import TenantryError
from tenantry.identity import throttle
from tenantry.identity.principal import digest
from tenantry.mail import Letter, Post, sample
from tenantry.refusals import LinkInvalid
from tenantry.registry import Registry, Transaction, people
from tenantry.registry.database import NAME, now, plain

INVITED: Final = timedelta(days=7)
"""How long an invitation holds."""

RESET: Final = timedelta(hours=1)
"""How long a link to a new password holds."""

PAUSE_MS: Final = (500, 1000)
"""Before a forgotten password is looked after: at least, and at most so much more. Its answer is out by then."""

log = logging.getLogger(__name__)


async def new_link(tx: Transaction, row: people.AdminRow, purpose: str) -> str:
    """A link for somebody. Earlier ones for the same purpose lead nowhere any more, except to a forgotten password:

    a stranger who asks in somebody's name does not take her own link away.
    """
    link = secrets.token_urlsafe(32)
    holds = INVITED if purpose == "invite" else RESET
    entered = {"digest": digest(link), "admin_id": row.id, "purpose": purpose, "expires": now() + holds}
    await people.add_link(tx, entered, keep=purpose == "forgot")
    return link


async def follow(tx: Transaction, link: str) -> tuple[people.AdminRow | None, str]:
    """Whose link this is, and what for; None where it makes the first superadmin. Raises `LinkInvalid`."""
    found = await people.link(tx, digest(link))
    if found is None:
        raise LinkInvalid
    row = None if found[0] is None else await people.find(tx, found[0])
    if await people.superadmins(tx) if row is None else not row.active:
        raise LinkInvalid
    return row, found[1]


async def follow_owned(tx: Transaction, link: str) -> tuple[people.AdminRow, str]:
    """Whose link this is, and what for. Raises `LinkInvalid`, also where it is nobody's yet."""
    row, purpose = await follow(tx, link)
    if row is None:
        raise LinkInvalid
    return row, purpose


def address(config: Config, link: str) -> str:
    """Where a link is followed: made of the configuration alone, never of what a request says."""
    return f"{config.portal}/link/{link}"


def letter(config: Config, row: people.AdminRow, purpose: str, link: str) -> Letter:
    """The letter that brings a link. It is not sent once the link opens nothing any more."""
    return _letter(config, row.name, row.mail, purpose, link)


def _letter(config: Config, name: str, mail: str, purpose: str, link: str) -> Letter:
    platform, invited = config.platform.name, purpose == "invite"
    if invited:
        subject, action = f"You are invited to {platform}", "Choose a password"
        told = f"You are invited to run {platform} as {mail}. Choose a password; the link holds for 7 days, and once."
    else:
        subject, action = f"A new password for {platform}", "Choose a new password"
        why = "You asked for" if purpose == "forgot" else "A superadmin sends you"
        told = f"{why} a link to a new password for {mail}. It holds for an hour, and once."
    otherwise = ("If you did not ask for it, do nothing: your password stays as it is.",) if purpose == "forgot" else ()
    return Letter(
        subject,
        (f"Hello {name},", told, *otherwise),
        address(config, link),
        action,
        kind=f"admin.{purpose}",
        until=now() + (INVITED if invited else RESET),
    )


def _sample(config: Config, purpose: str) -> Letter:
    return _letter(config, "Ana", f"ana@{config.platform.domain}", purpose, "a-link-that-opens-nothing")


for _purpose in ("invite", "reset", "forgot"):
    sample(f"admin.{_purpose}")(partial(_sample, purpose=_purpose))


class Forgotten:
    """Answers to those who forgot their password: the same answer, as soon, whether or not the address is known."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self._registry = registry
        self._config = config
        self._post = Post(config)
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def is_possible(self) -> bool:
        """Whether mail can be sent at all."""
        return self._post.is_set_up

    async def ask(self, mail: str, whence: str) -> None:
        """Send a link to whoever has this address. Raises `TooManyTries`, alike for known and unknown ones."""
        login = plain(mail.strip().lower(), NAME)
        keys = throttle.keys(f"forgot\0{login}", f"forgot\0{throttle.network(whence)}", None)
        counted = [("forgot", key) for _, key in keys]
        async with self._registry.write() as tx:
            await throttle.begin(tx, counted)
        task = asyncio.create_task(self._send(login, whence))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _send(self, login: str, whence: str) -> None:
        least, more = PAUSE_MS
        await asyncio.sleep((least + secrets.randbelow(more)) / 1000)
        try:
            async with self._registry.write() as tx:
                row = await people.by_mail(tx, login)
                if row is None or not row.active:
                    return
                link = await new_link(tx, row, "forgot")
                await self._post.queue(tx, row.mail, letter(self._config, row, "forgot", link))
                tx.audit("admin.forgot", row.mail, address=whence)
        except TenantryError as error:
            log.error("A link to a new password was not sent: %s", error)

    async def close(self) -> None:
        """Queue what was asked for, then no more."""
        await asyncio.gather(*self._under_way, return_exceptions=True)
