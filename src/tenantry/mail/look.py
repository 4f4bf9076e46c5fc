"""How a letter looks: who signs it, its color, its picture, and whom an answer goes to."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parseaddr
from typing import Any, Final

from email_validator import EmailNotValidError, validate_email

from tenantry import brand
from tenantry.brand import Picture
from tenantry.config import Config
from tenantry.model import PRODUCTION, Tenant, facts_of, resolve_values

NAME: Final = "mail_name"
REPLY_TO: Final = "mail_reply_to"
"""The values of a blueprint that a tenant's letters take, beside the color and the logo that its pages show, too."""

log = logging.getLogger(__name__)


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
        return brand.ink(self.color)


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
    wanted = {NAME, REPLY_TO, config.users.color, config.users.logo}
    declared = {key: value.default for key, value in blueprint.values.items() if key in wanted and not value.secret}
    own = resolve_values(declared, tenant.settings, facts_of(tenant, PRODUCTION, config.platform.domain))
    return _with_own(config, replace(platform, name=tenant.name), own, tenant.slug)


def _with_own(config: Config, look: Look, own: Mapping[str, Any], slug: str) -> Look:
    named = (NAME, config.users.color, config.users.logo, REPLY_TO)
    name, color, logo, reply_to = (str(own.get(key or "") or "").strip() for key in named)
    if color and not brand.is_color(color):
        log.warning("%s: its color is none such as #1a5fb4; the platform's is taken", slug)
        color = ""
    if reply_to and not _is_address(reply_to):
        log.warning("%s: %s is no mail address; the platform's is taken", slug, REPLY_TO)
        reply_to = ""
    return Look(
        " ".join(name.split())[:200] or look.name,
        color or look.color,
        _own_logo(config, logo, slug) if logo else look.logo,
        reply_to or look.reply_to,
    )


def _own_logo(config: Config, logo: str, slug: str) -> Picture | None:
    """A tenant's logo, where letters can carry it: a picture at its own host is for pages alone."""
    return None if brand.is_path(logo) else _picture(config, logo, f"the logo of {slug}")


def _is_address(text: str) -> bool:
    try:
        validate_email(parseaddr(text)[1], check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return False
    return text.isprintable()


def _picture(config: Config, named: str, where: str) -> Picture | None:
    try:
        return brand.picture(config.root, named)
    except (OSError, ValueError) as error:
        log.warning("%s: %s; letters go without it", where, error)
        return None
