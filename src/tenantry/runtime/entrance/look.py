"""What the entrance looks like: templates, the style sheet, and each tenant's own colour and logo."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tenantry.runtime.settings import EntrancePages

if TYPE_CHECKING:
    import jinja2

STATIC: Final = Path(__file__).with_name("static")

FILES: Final[Mapping[str, str]] = {
    "entrance.css": "text/css; charset=utf-8",
    "passkeys.js": "text/javascript; charset=utf-8",
    "entrance.js": "text/javascript; charset=utf-8",
}

_COLOUR: Final = re.compile(r"#(?:[0-9a-fA-F]{3}){1,2}", re.ASCII)
_LOGO: Final = re.compile(r"/(?!/)[A-Za-z0-9/._~%+-]{1,500}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Look:
    """A tenant's own."""

    colour: str = ""  # "2f6f4f"
    logo: str = ""  # a path at this host


def of(named: EntrancePages, values: Mapping[str, Any], root: str) -> Look:
    """The look of a tenant of these values; what is no colour and no path of its own is left out."""
    colour, logo = str(values.get(named.colour or "", "")), str(values.get(named.logo or "", ""))
    return Look(
        colour[1:].lower() if _COLOUR.fullmatch(colour) else "",
        f"{root}{logo}" if _LOGO.fullmatch(logo) and ".." not in logo else "",
    )


def style(colour: str) -> str:
    """The style sheet of a colour ("2f6f4f"): the colour, and black or white on it, whichever is read better."""
    whole = "".join(2 * digit for digit in colour) if len(colour) == 3 else colour
    if not _COLOUR.fullmatch(f"#{whole}"):
        return ""
    light = _luminance([int(whole[at : at + 2], 16) / 255 for at in (0, 2, 4)])
    on = "#000000" if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else "#ffffff"
    return f":root {{ --mark: #{whole}; --on-mark: {on} }}\n"


def _luminance(channels: list[float]) -> float:
    """Relative luminance (WCAG 2.2)."""
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


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
