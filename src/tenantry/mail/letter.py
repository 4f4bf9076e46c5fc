"""Letters: what a mail says, and how it becomes a message in text and HTML (RFC 5322, RFC 2045)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime, parseaddr
from functools import cache
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from tenantry.config import Config
from tenantry.mail.look import Look

LOGO: Final = "logo@tenantry"
"""How the HTML names the picture that travels with it (RFC 2392)."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What a mail says: paragraphs, at most one address to go to, and at most one code to type."""

    subject: str
    paragraphs: Sequence[str]
    link: str = ""
    action: str = ""  # what following the link does, in two or three words
    kind: str = "other"  # which letter it is, as "admin.invite"
    code: str = ""  # shown large
    until: datetime | None = None  # when its link opens nothing any more: it is not sent afterwards

    def packed(self) -> str:
        """All of it, to be sealed."""
        return json.dumps({**asdict(self), "until": self.until.isoformat() if self.until else None})

    @classmethod
    def unpacked(cls, text: str) -> Letter:
        """What `packed` made."""
        given = json.loads(text)
        until = datetime.fromisoformat(given["until"]) if given["until"] else None
        return cls(**given | {"until": until, "paragraphs": tuple(given["paragraphs"])})


@dataclass(frozen=True, slots=True)
class Envelope:
    """What stands around a letter."""

    sender: str  # an address, or a name and an address
    to: str
    message_id: str
    date: datetime


def compose(letter: Letter, look: Look, envelope: Envelope) -> EmailMessage:
    """The letter as it is sent. Raises `ValueError` for what no header can hold."""
    # Every line short and in ASCII, so that no server on the way has reason to change what is signed.
    policy = (SMTP if envelope.to.isascii() else SMTPUTF8).clone(cte_type="7bit")
    message = EmailMessage(policy)
    message["From"] = Address(look.name, addr_spec=parseaddr(envelope.sender)[1])
    message["To"] = Address(addr_spec=envelope.to)
    if look.reply_to:
        name, address = parseaddr(look.reply_to)
        message["Reply-To"] = Address(name, addr_spec=address)
    message["Subject"] = letter.subject
    message["Date"] = format_datetime(envelope.date)
    message["Message-ID"] = envelope.message_id
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody is away for this one
    message.set_content(as_text(letter, look), cte="quoted-printable")
    message.add_alternative(as_html(letter, look, f"cid:{LOGO}"), subtype="html", cte="quoted-printable")
    if look.logo is not None:
        html = message.get_body(("html",))
        assert html is not None
        html.add_related(
            look.logo.content,
            maintype="image",
            subtype=look.logo.kind,
            cid=f"<{LOGO}>",
            disposition="inline",
        )
    return message


def as_text(letter: Letter, look: Look) -> str:
    """The part for those who read text."""
    return _templates().get_template("letter.txt").render(letter=letter, look=look)


def as_html(letter: Letter, look: Look, logo: str) -> str:
    """The part for everybody else; `logo` is where its picture is."""
    return _templates().get_template("letter.html").render(letter=letter, look=look, logo=logo)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("tenantry.mail", ""),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


# --- samples ------------------------------------------------------------------------------------------------------

SAMPLES: Final[dict[str, Callable[[Config], Letter]]] = {}
"""One of each kind of letter with made-up content, for whoever looks at how they are."""


def sample(kind: str) -> Callable[[Callable[[Config], Letter]], Callable[[Config], Letter]]:
    """Let a function make the sample of a kind of letter."""

    def marked(make: Callable[[Config], Letter]) -> Callable[[Config], Letter]:
        SAMPLES[kind] = make
        return make

    return marked
