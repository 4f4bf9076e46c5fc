"""How a letter looks: who signs it, its color, its picture, and whom an answer goes to."""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import parseaddr
from pathlib import Path
from typing import Any, Final

from email_validator import EmailNotValidError, validate_email

from tenantry.config import Config
from tenantry.model import PRODUCTION, Tenant, facts_of, resolve_values

LARGEST: Final = 200_000
"""Of a picture, in bytes: it travels with each letter."""

SIGNATURES: Final = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF87a": "gif", b"GIF89a": "gif"}
"""How pictures begin that mail programs show."""

VALUES: Final = ("mail_name", "mail_color", "mail_logo", "mail_reply_to")
"""The values of a blueprint that a tenant's letters take."""

DATA: Final = re.compile(r"data:image/[a-z]+;base64,(.*)", re.DOTALL)
COLOR: Final = re.compile(r"#[0-9a-fA-F]{6}")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Picture:
    """A logo."""

    kind: str  # png, jpeg or gif
    content: bytes = field(repr=False)

    @property
    def data(self) -> str:
        """The picture as an address, for pages."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.content).decode()}"


@dataclass(frozen=True, slots=True)
class Look:
    """How a letter looks."""

    name: str
    color: str  # "#rrggbb"
    logo: Picture | None = None
    reply_to: str | None = None

    @property
    def ink(self) -> str:
        """What reads best on the color: black or white, whichever has the greater contrast (WCAG 2.2, 1.4.3)."""
        light = _luminance(self.color)
        return "#000000" if (light + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"


def of_platform(config: Config) -> Look:
    """How the platform's own letters look."""
    chosen = config.mail.look
    named = parseaddr(config.mail.sender or "")[0]
    picture = None if chosen.logo is None else _picture(config, chosen.logo, "mail.look.logo")
    return Look(chosen.name or named or config.platform.name, chosen.color, picture, chosen.reply_to)


def of_tenant(config: Config, tenant: Tenant) -> Look:
    """How a tenant's letters look: what it says nothing of, or what makes no sense, is the platform's."""
    platform, blueprint = of_platform(config), config.blueprints.get(tenant.blueprint)
    if blueprint is None:
        return replace(platform, name=tenant.name)
    declared = {key: value.default for key, value in blueprint.values.items() if key in VALUES and not value.secret}
    own = resolve_values(declared, tenant.settings, facts_of(tenant, PRODUCTION, config.platform.domain))
    return _with_own(config, replace(platform, name=tenant.name), own, tenant.slug)


def _with_own(config: Config, look: Look, own: Mapping[str, Any], slug: str) -> Look:
    name, color, logo, reply_to = (str(own.get(key) or "").strip() for key in VALUES)
    if color and not COLOR.fullmatch(color):
        log.warning("%s: mail_color is no color such as #1a5fb4; the platform's is taken", slug)
        color = ""
    if reply_to and not _is_address(reply_to):
        log.warning("%s: mail_reply_to is no mail address; the platform's is taken", slug)
        reply_to = ""
    picture = _picture(config, logo, f"mail_logo of {slug}") if logo else None
    return Look(
        " ".join(name.split())[:200] or look.name,
        color or look.color,
        picture or look.logo,
        reply_to or look.reply_to,
    )


def _is_address(text: str) -> bool:
    try:
        validate_email(parseaddr(text)[1], check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return False
    return text.isprintable()


def _picture(config: Config, named: str, where: str) -> Picture | None:
    """A picture out of a file beneath tenantry.toml, or out of a data: address; what is none is left out."""
    try:
        inline = DATA.fullmatch(named)
        content = base64.b64decode(inline[1], validate=True) if inline else _file(config.root, named)
    except (binascii.Error, OSError, ValueError) as error:
        log.warning("%s cannot be read: %s", where, error)
        return None
    kind = next((kind for begin, kind in SIGNATURES.items() if content.startswith(begin)), None)
    if kind is None or len(content) > LARGEST:
        log.warning("%s is no PNG, JPEG or GIF of at most %d bytes; letters go without it", where, LARGEST)
        return None
    return Picture(kind, content)


def _file(root: Path, named: str) -> bytes:
    path = (root / named).resolve()
    if not path.is_relative_to(root.resolve()):  # a tenant's value could name any file of this machine
        raise ValueError("it lies outside of the platform's directory")
    with path.open("rb") as file:
        return file.read(LARGEST + 1)


def _luminance(color: str) -> float:
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
