"""Mail: letters in text and HTML, handed to the SMTP server that the configuration names (RFC 5321).

await Post(config).send("ana@example.org", Letter("Welcome", ("Hello.",), "https://example.org/", "Begin"))
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, localtime, make_msgid, parseaddr
from functools import cache
from typing import Final

from email_validator import EmailNotValidError, validate_email
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from tenantry.config import Config
from tenantry.errors import AccountError
from tenantry.refusals import MailFailed

__all__ = ["Letter", "Post", "check_mail"]

PATIENCE: Final = 20.0
"""Seconds for each answer of the SMTP server."""

PORTS: Final = {"starttls": 587, "tls": 465, "off": 25}
"""Submission (RFC 6409), submission over TLS (RFC 8314), relay."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What a mail says: paragraphs, and at most one address to go to."""

    subject: str
    paragraphs: Sequence[str]
    link: str = ""
    action: str = ""  # what following the link does, in two or three words


class Post:
    """Sends letters in the platform's name."""

    def __init__(self, config: Config) -> None:
        self._config = config

    @property
    def is_set_up(self) -> bool:
        """Whether the configuration names a server."""
        return self._config.mail.host is not None

    async def send(self, to: str, letter: Letter) -> None:
        """Hand a letter to the server. Raises `MailFailed`, also where no server is set."""
        import aiosmtplib  # most processes send nothing

        mail = self._config.mail
        if mail.host is None:
            raise MailFailed(to=to, reason="no server is set for mail")
        try:
            await aiosmtplib.send(
                self.message(to, letter),
                hostname=mail.host,
                port=mail.port or PORTS[mail.tls],
                username=mail.user,
                password=mail.password.get_secret_value() if mail.password else None,
                use_tls=mail.tls == "tls",
                start_tls=mail.tls == "starttls",
                tls_context=self._trusted() if mail.tls != "off" else None,
                timeout=PATIENCE,
            )
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise MailFailed(to=to, reason=f"{type(error).__name__}: {error}"[:300]) from error

    def message(self, to: str, letter: Letter) -> EmailMessage:
        """The letter as it is sent."""
        platform = self._config.platform
        name, address = parseaddr(self._config.mail.sender or f"tenantry@{platform.domain}")
        message = EmailMessage()
        message["From"] = Address(name or platform.name, addr_spec=address)
        message["To"] = Address(addr_spec=to)
        message["Subject"] = letter.subject
        message["Date"] = format_datetime(localtime())
        message["Message-ID"] = make_msgid(domain=address.rpartition("@")[2])
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody is away for this one
        values = {"letter": letter, "platform": platform}
        message.set_content(_templates().get_template("letter.txt").render(values))
        message.add_alternative(_templates().get_template("letter.html").render(values), subtype="html")
        return message

    def _trusted(self) -> ssl.SSLContext:
        ca = self._config.mail.ca
        return ssl.create_default_context(cafile=str(self._config.root / ca) if ca else None)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("tenantry.mail", ""),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
    )


def check_mail(mail: str) -> str:
    """A mail address in small letters. Raises `AccountError`."""
    try:
        found = validate_email(mail.strip(), check_deliverability=False)
    except EmailNotValidError as error:
        raise AccountError(
            f"'{mail[:100]}' is no mail address: {error}", remedy="Write it like ana@example.org."
        ) from error
    return found.normalized.lower()
