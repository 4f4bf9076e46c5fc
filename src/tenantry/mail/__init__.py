"""Mail: letters in text and HTML, kept in the control database until an SMTP server took them (RFC 5321).

async with registry.write() as tx:
    await Post(config).queue(tx, "ana@example.org", Letter("Welcome", ("Hello.",), "https://example.org/", "Begin"))

A worker sends them: `tenantry.mail.delivery`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from email.utils import parseaddr
from typing import Final

from email_validator import EmailNotValidError, validate_email

from tenantry.config import Config
from tenantry.errors import AccountError
from tenantry.mail.letter import Letter, sample
from tenantry.model import new_id
from tenantry.refusals import MailFailed, NoMail
from tenantry.registry import Transaction, letters
from tenantry.registry.database import now, plain
from tenantry.registry.letters import LetterState

__all__ = ["Letter", "Post", "Posted", "check_mail", "sample"]

SUBJECT: Final = 200
"""The longest subject in characters."""


@dataclass(frozen=True, slots=True)
class Posted:
    """What became of a letter that was given to the post."""

    id: str
    held: str = ""  # why it is not sent for now: its address is held back
    new: bool = True  # whether it was not told before


class Post:
    """Takes letters in; workers send them."""

    def __init__(self, config: Config) -> None:
        self._config = config

    @property
    def is_set_up(self) -> bool:
        """Whether the configuration names a server."""
        return self._config.mail.host is not None

    async def queue(
        self, tx: Transaction, to: str, letter: Letter, tenant: str | None = None, once: str | None = None
    ) -> Posted:
        """Have a letter sent as soon as this transaction is committed, and never where it is not.

        `tenant` is the id of the one in whose look it is. Of letters with the same `once` only the first is sent.
        Raises `NoMail` where no server is set, `MailFailed` for what no mail can hold.
        """
        self._check(to, letter)
        key = hashlib.sha256(once.encode()).hexdigest() if once else None
        if key is not None and await letters.told(tx, key):
            return Posted("", new=False)
        address, made = to.strip().lower(), new_id()
        held = (await letters.holds(tx, [address])).get(address)
        moment = now()
        entered = {
            "id": made,
            "kind": letter.kind,
            "state": (LetterState.HELD if held else LetterState.QUEUED).value,
            "recipient": address,
            "tenant_id": tenant,
            "subject": plain(letter.subject, SUBJECT),
            "sealed": tx.vault.seal_platform(letters.field_of(made), letter.packed()),
            "once": key,
            "created": moment,
            "due": None if held else moment,
            "until": letter.until,
            "reason": held.reason if held else "",
        }
        await letters.add(tx, entered)
        return Posted(made, held.reason if held else "")

    def _check(self, to: str, letter: Letter) -> None:
        if not self.is_set_up:
            raise NoMail
        if not letter.subject.isprintable():
            raise MailFailed(to=to[:100], reason="its subject holds what no header can")
        try:
            validate_email(to.strip(), check_deliverability=False, test_environment=True)
        except EmailNotValidError as error:
            raise MailFailed(to=to[:100], reason=f"that is no mail address: {error}") from error


def sender_of(config: Config) -> str:
    """Whom mails come from: an address alone."""
    return parseaddr(config.mail.sender or f"tenantry@{config.platform.domain}")[1]


def check_mail(mail: str) -> str:
    """A mail address in small letters. Raises `AccountError`."""
    try:
        found = validate_email(mail.strip(), check_deliverability=False)
    except EmailNotValidError as error:
        raise AccountError(
            f"'{mail[:100]}' is no mail address: {error}", remedy="Write it like ana@example.org."
        ) from error
    return found.normalized.lower()
