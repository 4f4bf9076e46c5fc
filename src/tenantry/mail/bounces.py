"""Mail that comes back: to which address it does, and what a delivery status notification says (RFC 3464)."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import Message
from typing import Any, Final
from uuid import UUID

from tenantry.config import Config
from tenantry.errors import TenantryError
from tenantry.mail import sender_of
from tenantry.registry import Registry, Vault, letters
from tenantry.registry.database import NAME, plain

LARGEST: Final = 1 << 20
"""Of a message that comes back, in bytes."""

PATIENCE: Final = 30.0
"""Seconds until the next command of whoever brings one."""

COMMANDS: Final = 50
"""How often each command is taken in one connection."""

log = logging.getLogger("tenantry.mail")

SIGNATURE: Final = 20
"""Of the token, in hex digits: 80 bits, which nobody guesses over SMTP, and the local part holds 64 octets."""

ADDRESS: Final = re.compile(rf"bounces\+([0-9a-f]{{32}})-([0-9a-f]{{{SIGNATURE}}})@[^\s<>]+", re.IGNORECASE)

STATUS: Final = re.compile(r"\b([245])\.(\d{1,3})\.(\d{1,3})\b")

TO_HEADERS: Final = ("delivered-to", "x-original-to", "envelope-to", "x-envelope-to", "to")
"""Where a message says whom it came to, which a mail server that runs a command may not."""

OURS_OR_FULL: Final = re.compile(r"5\.(1\.[789]|2\.[23]|3\.\d+|7\.\d+)")
"""Statuses for good that say nothing against the address: the sender's, a full mailbox, a limit, a rule (RFC 3463)."""


@dataclass(frozen=True, slots=True)
class Returned:
    """What became of a message that came back."""

    letter: str | None  # None: it came back for none of ours, or says nothing that is known
    recipient: str = ""
    hard: bool = False  # nothing is sent to the address any more
    reason: str = ""


def is_gone(text: str) -> bool:
    """Whether a reply for good says that there is no such address."""
    found = STATUS.search(text)
    return found is not None and found[1] + found[2] == "51" and OURS_OR_FULL.fullmatch(found[0]) is None


def domain_of(config: Config) -> str | None:
    """The domain that mail comes back to; None where none is set up."""
    mail = config.mail
    return mail.bounce_domain or (sender_of(config).rpartition("@")[2] if mail.bounces else None)


def returns_to(config: Config, vault: Vault, letter_id: str) -> str | None:
    """The address to which a letter comes back where it cannot be delivered; None where none is set up."""
    domain = domain_of(config)
    return domain and f"bounces+{UUID(letter_id).hex}-{_signature(vault, letter_id)}@{domain}"


def letter_of(vault: Vault, address: str) -> str | None:
    """The id of the letter that comes back to this address; None where it was not made here."""
    found = ADDRESS.fullmatch(address.strip().strip("<>"))
    if found is None:
        return None
    letter_id = str(UUID(found[1]))
    return letter_id if vault.verify_short(_signed(letter_id), found[2].lower()) else None


def _signed(letter_id: str) -> str:
    return f"bounce\0{letter_id}"


def _signature(vault: Vault, letter_id: str) -> str:
    return vault.sign_head(_signed(letter_id))[:SIGNATURE]


def _named(message: Message, vault: Vault) -> str | None:
    """The letter that a message came back for, by the headers that say whom it came to."""
    for name in TO_HEADERS:
        for value in message.get_all(name, []):
            for found in ADDRESS.finditer(str(value)):
                letter_id = letter_of(vault, found[0])
                if letter_id is not None:
                    return letter_id
    return None


def _reports(message: Message) -> Iterator[Message]:
    """What a notification says of each recipient."""
    for part in message.walk():
        if part.get_content_type() == "message/delivery-status":
            yield from (group for group in part.get_payload() if isinstance(group, Message) and group["action"])


def _failure(message: Message) -> tuple[str, str] | None:
    """The status and the words of what could not be delivered; None where nothing failed for good."""
    for group in _reports(message):
        status = STATUS.search(str(group.get("status", "")))
        if str(group["action"]).strip().lower() == "failed" and status is not None:
            code = str(group.get("diagnostic-code", "")).partition(";")[2].strip()
            return status[0], " ".join(code.split())[:NAME] or "no reason is given"
    return None


async def record(registry: Registry, content: bytes, address: str | None = None) -> Returned:
    """Take in a message that came back, to this address where that is known.

    Where it says that the letter failed for good the letter is marked so, and where that is the address's fault,
    nothing is sent there any more. What is no such notification changes nothing.
    """
    message = message_from_bytes(content[:LARGEST], policy=policy.compat32)
    letter_id = letter_of(registry.vault, address) if address else _named(message, registry.vault)
    failure = _failure(message)
    if letter_id is None or failure is None:
        return Returned(letter_id)
    status, words = failure
    reason = plain(f"came back: {status} {words}")
    hard = status.startswith("5.") and OURS_OR_FULL.fullmatch(status) is None
    async with registry.write("mail") as tx:
        row = await letters.came_back(tx, letter_id, reason)
        if row is None:
            return Returned(None)
        if hard:
            await letters.hold(tx, row.recipient, reason)
        tx.audit("mail.bounce", row.recipient, letter=letter_id, status=status, hard=hard)
    return Returned(letter_id, row.recipient, hard, reason)


class Inbound:
    """What the listener does with what comes: it takes mail for addresses that were made here, and nothing else."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        """Whether the address is one of ours."""
        if letter_of(self._registry.vault, address) is None:
            return "550 5.1.1 nobody reads mail here"
        if envelope.rcpt_tos:
            return "452 4.5.3 one at a time"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Take a message in; where that cannot be recorded now, it is to come again."""
        try:
            found = await record(self._registry, envelope.content, envelope.rcpt_tos[0])
        except TenantryError as error:
            log.warning("a message that came back was not recorded: %s", error)
            return "451 4.3.0 try again later"
        log.info("letter %s came back: %s", found.letter, found.reason or "it says nothing that is known")
        return "250 2.0.0 recorded"


async def listen(registry: Registry, config: Config) -> None:
    """Take in mail that comes back, for ever; return at once where none is to, or another worker has the port."""
    where = config.mail.bounces
    if where is None:
        return
    from aiosmtpd.smtp import SMTP  # most processes take none in

    def made() -> SMTP:
        return SMTP(
            Inbound(registry),
            data_size_limit=LARGEST,
            hostname=config.platform.domain,
            ident="mail",
            timeout=PATIENCE,
            command_call_limit=COMMANDS,
        )

    host, _, port = where.rpartition(":")
    try:
        server = await asyncio.get_running_loop().create_server(made, host.strip("[]"), int(port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            log.error("mail that comes back is not taken in at %s: %s", where, error.strerror)
        return
    async with server:
        await server.serve_forever()
