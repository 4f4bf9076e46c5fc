"""What the entrance looks like: templates, the style sheet, and each tenant's own color and logo."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tenantry import brand
from tenantry.runtime.settings import Brand

if TYPE_CHECKING:
    import jinja2

STATIC: Final = Path(__file__).with_name("static")

FILES: Final[Mapping[str, str]] = {
    "entrance.css": "text/css; charset=utf-8",
    "passkeys.js": "text/javascript; charset=utf-8",
    "entrance.js": "text/javascript; charset=utf-8",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Look:
    """A tenant's own."""

    color: str = ""  # "2f6f4f"
    logo: str = ""  # a path at this host, or the picture itself as a data: address


def of(named: Brand, values: Mapping[str, Any], root: str) -> Look:
    """The look of a tenant of these values; what is no color and no picture is left out."""
    color, logo = (str(values.get(one or "") or "").strip() for one in (named.color, named.logo))
    return Look(color[1:].lower() if brand.is_color(color) else "", _logo(named, logo, root) if logo else "")


def _logo(named: Brand, logo: str, root: str) -> str:
    if brand.is_path(logo):
        return root + logo
    try:
        return brand.picture(named.root, logo).data
    except (OSError, ValueError) as error:
        log.warning("a logo is left out: %s", error)
        return ""


def style(color: str) -> str:
    """The style sheet of a color ("2f6f4f"): the color, and black or white on it, whichever is read better."""
    whole = f"#{color}"
    return f":root {{ --mark: {whole}; --on-mark: {brand.ink(whole)} }}\n" if brand.is_color(whole) else ""


@cache
def file(name: str) -> bytes:
    """One of the files that pages load."""
    return (STATIC / name).read_bytes()


@cache
def _templates() -> jinja2.Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # most processes show none of these pages

    made = Environment(
        loader=PackageLoader("tenantry.runtime.entrance"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    made.filters |= {"moment": _moment, "day": _day, "browser": browser}
    return made


def rendered(template: str, values: Mapping[str, Any]) -> str:
    """A template filled."""
    return _templates().get_template(template).render(values)


def _aware(value: datetime | int) -> datetime:
    return datetime.fromtimestamp(value, UTC) if isinstance(value, int) else value


def _moment(value: datetime | int | None) -> str:
    return f"{_aware(value):%Y-%m-%d %H:%M UTC}" if value else "never"


def _day(value: datetime | int | None) -> str:
    return f"{_aware(value):%Y-%m-%d}" if value else "never"


def browser(agent: str) -> str:
    """What a browser calls itself, in two words; what it also claims to be comes later in this order."""
    names = {"Edg/": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "Chrome/": "Chrome", "Safari/": "Safari"}
    systems = {"iPhone": "iPhone", "iPad": "iPad", "Android": "Android", "Windows": "Windows", "Mac OS": "macOS"}
    name = next((word for sign, word in names.items() if sign in agent), agent.partition(" ")[0] or "Unknown browser")
    system = next((word for sign, word in (systems | {"Linux": "Linux"}).items() if sign in agent), "")
    return f"{name} on {system}" if system else name
