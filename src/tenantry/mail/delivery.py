"""Sends what is queued: each letter by one worker alone, again and again for two days, and at least once.

A letter is claimed, handed to the server, and recorded as sent. A worker that dies in between leaves it claimed; when
the claim is over another one sends it again by the same Message-ID, by which mail programs show it once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import idna

from tenantry.config import Config
from tenantry.errors import TenantryError
from tenantry.mail import look, sender_of, signing
from tenantry.mail.bounces import is_gone, returns_to
from tenantry.mail.letter import Envelope, Letter, compose
from tenantry.mail.signing import Signer
from tenantry.model import new_id
from tenantry.refusals import MailFailed, NoMail
from tenantry.registry import Registry, letters, tenants
from tenantry.registry.database import now
from tenantry.registry.letters import Claimed, LetterState

if TYPE_CHECKING:
    import aiosmtplib

ANSWER: Final = 20.0
"""Seconds for each answer of the SMTP server."""

TRY: Final = 60.0
"""Seconds for one letter, however slowly the server answers."""

LEASE: Final = timedelta(seconds=TRY * 2)
"""How long a letter belongs to the worker that tries it."""

PAUSES: Final = (60, 120, 300, 600, 1800, 3600, 7200, 14400)
"""Seconds until a letter is tried again, after the first try and so on; then always the last."""

GIVEN_UP: Final = timedelta(days=2)
"""After how long a letter that no server took is given up."""

KEPT: Final = timedelta(days=90)
"""How long it is kept that a letter was sent, or why not."""

LOOK: Final = 0.5
"""Seconds between two looks at what is due."""

AWAY: Final = 10.0
"""Seconds until the next, where the server takes none: each letter that is tried meanwhile has a longer pause."""

PORTS: Final = {"starttls": 587, "tls": 465, "off": 25}
"""Submission (RFC 6409), submission over TLS (RFC 8314), relay."""

SIGN_IN: Final = (530, 534, 535, 538)
"""Replies that mean the account, not the letter (RFC 4954)."""

log = logging.getLogger("tenantry.mail")


@dataclass
class Refused(Exception):
    """Why a letter was not taken."""

    reason: str
    for_good: bool = False
    gone: bool = False  # there is no such address
    unreachable: bool = False  # the server takes none for now


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message, ready to be handed over."""

    sender: str  # where it comes back to
    to: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Round:
    """What became of a look at what is due."""

    sent: int = 0
    reached: bool = True  # whether the server takes letters at all


class Carrier:
    """A connection to the SMTP server, made when it is needed and kept for the next letter."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._client: aiosmtplib.SMTP | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):  # what was sent is sent, however the good-bye goes
                await asyncio.wait_for(client.quit(), 1)
            client.close()

    async def hand(self, parcel: Parcel) -> None:
        """Hand a message over. Raises `Refused`."""
        import aiosmtplib

        try:
            async with asyncio.timeout(TRY):
                client = await self._connected()
                options = [] if parcel.to.isascii() else ["SMTPUTF8"]
                await client.sendmail(parcel.sender, [parcel.to], parcel.content, mail_options=options)
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _refused(error.recipients[0]) from error
        except aiosmtplib.SMTPResponseException as error:
            await self.__aexit__(None, None, None)
            raise _refused(error) from error
        except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
            await self.__aexit__(None, None, None)
            raise Refused(_words(error), unreachable=True) from error

    async def _connected(self) -> aiosmtplib.SMTP:
        """The connection. Raises `Refused` where there is none to be had."""
        import aiosmtplib

        if self._client is not None and self._client.is_connected:
            return self._client
        mail = self._config.mail
        client = aiosmtplib.SMTP(
            hostname=mail.host,
            port=mail.port or PORTS[mail.tls],
            username=mail.user,
            password=mail.password.get_secret_value() if mail.password else None,
            use_tls=mail.tls == "tls",
            start_tls=mail.tls == "starttls",
            tls_context=self._trusted() if mail.tls != "off" else None,
            timeout=ANSWER,
        )
        try:
            await client.connect()
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            client.close()
            raise Refused(_words(error), unreachable=True) from error
        self._client = client
        return client

    def _trusted(self) -> ssl.SSLContext:
        ca = self._config.mail.ca
        return ssl.create_default_context(cafile=str(self._config.root / ca) if ca else None)


def _refused(error: aiosmtplib.SMTPResponseException) -> Refused:
    for_good = 500 <= error.code < 600 and error.code not in SIGN_IN
    return Refused(f"{error.code} {error.message}", for_good, for_good and is_gone(error.message))


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"TimeoutError: no answer within {TRY:.0f} s"
    return f"{type(error).__name__}: {error}"


class Delivery:
    """Sends what is due."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self._registry = registry
        self._config = config

    async def run(self, stop: asyncio.Event) -> None:
        """Send whatever becomes due until `stop` is set; the letter in hand is seen to its end first."""
        while not stop.is_set():
            try:
                rest = LOOK if (await self.some(stop)).reached else AWAY
            except TenantryError as error:
                log.warning("%s", error)
                rest = AWAY
            except Exception:
                log.exception("sending mail failed")
                rest = AWAY
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), rest)

    async def some(self, stop: asyncio.Event | None = None) -> Round:
        """Send all that is due, until there is no more, or the server takes none."""
        if self._config.mail.host is None or not await self._any_due():
            return Round()
        sent = 0
        async with Carrier(self._config) as carrier:
            signers = await self._signers()
            while not (stop and stop.is_set()) and (claimed := await self._claim()) is not None:
                try:
                    await carrier.hand(await self._parcel(claimed, signers))
                except Refused as refused:
                    await self._not_taken(claimed, refused)
                    if refused.unreachable:
                        return Round(sent, reached=False)
                except TenantryError as error:  # it cannot be opened: the key is another one
                    await self._not_taken(claimed, Refused(str(error), for_good=True))
                else:
                    sent += await self._taken(claimed)
        return Round(sent)

    async def tidy(self) -> None:
        """Forget letters that have been over for long."""
        async with self._registry.write() as tx:
            await letters.forget(tx, now() - KEPT)

    async def test(self, to: str, letter: Letter) -> None:
        """Hand one letter over at once, beside the queue. Raises `NoMail` or `MailFailed`."""
        if self._config.mail.host is None:
            raise NoMail
        claimed = Claimed(new_id(), "", to, None, b"", 1, now())
        async with Carrier(self._config) as carrier:
            try:
                await carrier.hand(await self._packed(claimed, letter, await self._signers()))
            except Refused as refused:
                raise MailFailed(to=to, reason=refused.reason) from refused

    async def _any_due(self) -> bool:
        async with self._registry.read() as tx:
            return await letters.any_due(tx)

    async def _claim(self) -> Claimed | None:
        if not await self._any_due():
            return None
        async with self._registry.write() as tx:
            return await letters.claim(tx, LEASE)

    async def _signers(self) -> list[Signer]:
        async with self._registry.read() as tx:
            return signing.opened(await letters.keys(tx), self._registry.vault)

    async def _parcel(self, claimed: Claimed, signers: list[Signer]) -> Parcel:
        opened = self._registry.vault.open_platform(letters.field_of(claimed.id), claimed.sealed)
        return await self._packed(claimed, Letter.unpacked(opened), signers)

    async def _packed(self, claimed: Claimed, content: Letter, signers: list[Signer]) -> Parcel:
        sender = sender_of(self._config)
        own = f"<{claimed.id}@{sender.rpartition('@')[2]}>"
        to = _ascii(claimed.recipient)
        envelope = Envelope(sender, to, own, claimed.created)
        message = compose(content, await self._look(claimed.tenant_id), envelope).as_bytes()
        whole = signing.signed(message, signers, sender.rpartition("@")[2])
        return Parcel(returns_to(self._config, self._registry.vault, claimed.id) or sender, to, whole)

    async def _look(self, tenant_id: str | None) -> look.Look:
        if tenant_id is None:
            return look.of_platform(self._config)
        async with self._registry.read() as tx:
            found = await tenants.environments(tx, [tenant_id])
        return look.of_tenant(self._config, found[0].tenant) if found else look.of_platform(self._config)

    async def _taken(self, claimed: Claimed) -> bool:
        values = {"state": LetterState.SENT.value, "sealed": None, "due": None, "ended": now(), "reason": ""}
        async with self._registry.write() as tx:
            return await letters.settle(tx, claimed, **values)

    async def _not_taken(self, claimed: Claimed, refused: Refused) -> None:
        values: dict[str, Any] = {"reason": refused.reason}
        if refused.for_good or now() - claimed.created >= GIVEN_UP:
            values |= {"state": LetterState.FAILED.value, "due": None, "ended": now()}
            log.error("letter %s to %s is given up: %s", claimed.id, claimed.recipient, refused.reason)
        else:
            pause = PAUSES[min(claimed.attempts, len(PAUSES)) - 1]
            values["due"] = now() + timedelta(seconds=pause)
            log.warning("letter %s to %s waits %d s: %s", claimed.id, claimed.recipient, pause, refused.reason)
        async with self._registry.write() as tx:
            if refused.gone:
                await letters.hold(tx, claimed.recipient, refused.reason)
                tx.audit("mail.hold", claimed.recipient, letter=claimed.id)
            await letters.settle(tx, claimed, **values)


def _ascii(address: str) -> str:
    """An address with its domain as DNS has it (RFC 5891)."""
    name, _, domain = address.rpartition("@")
    return address if domain.isascii() else f"{name}@{idna.encode(domain, uts46=True).decode()}"
