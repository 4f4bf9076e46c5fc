"""Mail: what is queued, sent and failed, whom nothing is sent to, and the keys that sign it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tenantry.config import Config
from tenantry.errors import UsageError
from tenantry.identity import Reach, verb
from tenantry.mail import Letter, bounces, check_mail, names, sender_of, signing
from tenantry.mail.bounces import Returned
from tenantry.mail.delivery import Delivery
from tenantry.mail.names import Published
from tenantry.refusals import HoldNotFound, LetterNotFound
from tenantry.registry import Registry, journal, letters
from tenantry.registry.database import now
from tenantry.registry.letters import Hold, LetterRow, LetterState, MailKey

LISTED: Final = 100


@dataclass(frozen=True, slots=True)
class MailStatus:
    """How mail is sent from here."""

    server: str | None  # None: none is sent
    sender: str
    comes_back_to: str | None  # the domain; None: nobody hears of what does
    counts: Mapping[str, int]  # letters by state
    held: int  # addresses that nothing is sent to
    keys: Sequence[MailKey]  # that sign
    workers: int  # that live: without one nothing is sent


@dataclass(frozen=True, slots=True)
class Released:
    """An address that mail is sent to again."""

    address: str
    letters: int  # that were held for it, and go now


class Mails:
    """Every verb on mail."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self._registry = registry
        self._config = config

    @verb("mail.status", "platform:read", Reach.PLATFORM)
    async def status(self) -> MailStatus:
        """How mail is sent, and how much waits."""
        mail, sender = self._config.mail, sender_of(self._config)
        async with self._registry.read() as tx:
            return MailStatus(
                server=mail.host,
                sender=sender,
                comes_back_to=bounces.domain_of(self._config),
                counts={state.value: 0 for state in LetterState} | await letters.counts(tx),
                held=len(await letters.holds(tx)),
                keys=signing.in_use(await letters.keys(tx)),
                workers=len(await journal.workers(tx, self._config.worker.dead_after)),
            )

    @verb("mail.list", "platform:read", Reach.PLATFORM)
    async def list(
        self,
        state: str | None = None,
        search: str | None = None,
        tenant: str | None = None,
        limit: int = LISTED,
        before: str | None = None,
    ) -> Sequence[LetterRow]:
        """Letters, newest first, without what they say; `before` is the id of the last one of the page before."""
        async with self._registry.read() as tx:
            return await letters.page(tx, state, search, tenant, before, limit)

    @verb("mail.retry", "platform:write", Reach.PLATFORM)
    async def retry(self, letter: str) -> LetterRow:
        """Try a letter again that failed or is held, for two days from its beginning. Raises `LetterNotFound`."""
        async with self._registry.write() as tx:
            if not await letters.requeue(tx, letter):
                raise LetterNotFound(letter=letter)
            row = await letters.find(tx, letter)
            assert row is not None
            tx.audit("mail.retry", row.recipient, letter=row.id)
            return row

    @verb("mail.held", "platform:read", Reach.PLATFORM)
    async def held(self) -> Sequence[Hold]:
        """The addresses that nothing is sent to, newest first, each with why."""
        async with self._registry.read() as tx:
            return [*(await letters.holds(tx)).values()]

    @verb("mail.release", "platform:write", Reach.PLATFORM)
    async def release(self, address: str) -> Released:
        """Send to an address again, and what was held for it. Raises `HoldNotFound`."""
        wanted = check_mail(address)
        async with self._registry.write() as tx:
            number = await letters.release(tx, wanted)
            if number is None:
                raise HoldNotFound(address=wanted)
            tx.audit("mail.release", wanted, letters=number)
            return Released(wanted, number)

    # --- signing --------------------------------------------------------------------------------------------------

    @verb("mail.dkim", "platform:write", Reach.PLATFORM)
    async def dkim(self, algorithm: str = "rsa") -> MailKey:
        """A new key that signs mail from now on, in place of the one before: "rsa" or "ed25519"."""
        if algorithm not in signing.ALGORITHMS:
            raise UsageError(given=algorithm, wanted=" or ".join(signing.ALGORITHMS))
        private, record = signing.new_key(algorithm)
        async with self._registry.write() as tx:
            there = {key.selector for key in await letters.keys(tx)}
            base = f"t{now():%Y%m%d}{algorithm[0]}"
            selector = next(name for at in range(1000) if (name := f"{base}{at or ''}") not in there)
            sealed = self._registry.vault.seal_platform(signing.field_of(selector), private)
            entered = {"selector": selector, "algorithm": algorithm, "record": record, "created": now()}
            await letters.add_key(tx, {**entered, "sealed": sealed})
            tx.audit("mail.dkim", selector, algorithm=algorithm)
            return next(key for key in await letters.keys(tx) if key.selector == selector)

    @verb("mail.check", "platform:read", Reach.PLATFORM)
    async def check(self) -> Sequence[Published]:
        """What DNS says of the sender's domain: SPF, DKIM and DMARC, and what is missing."""
        async with self._registry.read() as tx:
            keys = signing.in_use(await letters.keys(tx))
        return await names.check(sender_of(self._config).rpartition("@")[2], keys, bounces.domain_of(self._config))

    # --- on the platform's own machine ----------------------------------------------------------------------------

    async def bounce(self, message: bytes, to: str | None = None) -> Returned:
        """Take in a message that came back. No verb: a mail server hands it over on this machine."""
        return await bounces.record(self._registry, message, to)

    async def test(self, to: str) -> None:
        """Hand a letter over at once, to see whether the server takes it. Raises `MailFailed`."""
        name = self._config.platform.name
        told = "You read this, so mail from here arrives."
        await Delivery(self._registry, self._config).test(
            check_mail(to), Letter(f"A test of {name}", (told,), kind="test")
        )

    async def deliver(self, *, alone: bool = False) -> int:
        """Send what is due now; `alone`: only where no worker lives that does. How many letters were taken."""
        if alone:
            async with self._registry.read() as tx:
                if await journal.workers(tx, self._config.worker.dead_after):
                    return 0
        return (await Delivery(self._registry, self._config).some()).sent
