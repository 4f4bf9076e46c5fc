"""Passkeys of admin users: kept in the control database, and bound to the platform's own address."""

from __future__ import annotations

from urllib.parse import urlsplit

from tenantry import authenticators
from tenantry.authenticators import HOLDS, Made
from tenantry.config import Config
from tenantry.registry import Registry, Transaction, people
from tenantry.registry.database import now


class Passkeys:
    """Makes the questions, checks the answers."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self._registry = registry
        domain = urlsplit(config.url).hostname or config.platform.domain
        sign = registry.vault.sign_head
        self._site = authenticators.Passkeys(config.platform.name, domain, (config.url,), sign)

    def to_register(self, row: people.AdminRow, there: list[people.PasskeyRow]) -> str:
        """What a browser is asked to make, as JSON."""
        return self._site.to_register(row.id, row.mail, row.name, [one.id for one in there])

    async def registered(self, tx: Transaction, row: people.AdminRow, answer: str) -> Made:
        """What an authenticator made. Raises `AccountError`."""
        made = self._site.registered(row.id, answer)
        if not await people.spend(tx, made.spent, now() + HOLDS):
            raise authenticators.late()
        return made

    def to_sign_in(self) -> str:
        """What a browser is asked to sign, as JSON."""
        return self._site.to_sign_in()

    async def owner(self, answer: str) -> people.AdminRow:
        """Who signed. Raises `SignInRefused`."""
        read = self._site.read(answer)
        async with self._registry.write() as tx:  # of two at once, one finds the challenge spent
            found = await people.passkey(tx, read.id)
            row = await people.find(tx, found.admin_id) if found else None
            if found is None or row is None or not row.active:
                raise authenticators.refusal()
            count = self._site.signed(read, found.admin_id, found.public_key, found.sign_count)
            if not await people.spend(tx, read.spent, now() + HOLDS):
                raise authenticators.refusal()
            await people.use_passkey(tx, found.id, count)
            return row
