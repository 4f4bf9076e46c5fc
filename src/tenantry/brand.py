"""A tenant's own color and logo, the same on its pages and in its letters."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

LARGEST: Final = 200_000
"""Of a picture, in bytes: it travels with each letter and each page."""

SIGNATURES: Final = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF87a": "gif", b"GIF89a": "gif"}
"""How pictures begin that mail programs show."""

_COLOR: Final = re.compile(r"#[0-9a-fA-F]{6}", re.ASCII)
_DATA: Final = re.compile(r"data:image/[a-z]+;base64,(.*)", re.DOTALL)
_PATH: Final = re.compile(r"/(?!/)[A-Za-z0-9/._~%+-]{1,500}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Picture:
    """A logo."""

    kind: str  # png, jpeg or gif
    content: bytes = field(repr=False)

    @property
    def data(self) -> str:
        """The picture as an address, for pages."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.content).decode()}"


def is_color(text: str) -> bool:
    """Whether this is a color such as "#2f6f4f"."""
    return _COLOR.fullmatch(text) is not None


def ink(color: str) -> str:
    """What reads best on a color: black or white, whichever has the greater contrast (WCAG 2.2, 1.4.3)."""
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels)
    light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#000000" if (light + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"


def is_path(named: str) -> bool:
    """Whether a logo is a path at the tenant's own host, such as "/media/logo.svg": pages can show it."""
    return _PATH.fullmatch(named) is not None and ".." not in named


def picture(root: Path, named: str) -> Picture:
    """A logo out of a data: address, or out of a file beneath the platform's directory.

    Raises `ValueError` or `OSError` where it is no PNG, JPEG or GIF of at most 200 kB.
    """
    inline = _DATA.fullmatch(named)
    content = base64.b64decode(inline[1], validate=True) if inline else _file(root, named)
    kind = next((kind for begin, kind in SIGNATURES.items() if content.startswith(begin)), None)
    if kind is None or len(content) > LARGEST:
        raise ValueError(f"it is no PNG, JPEG or GIF of at most {LARGEST:,} bytes")
    return Picture(kind, content)


def _file(root: Path, named: str) -> bytes:
    path = (root / named).resolve()
    if not path.is_relative_to(root.resolve()):  # a tenant's value could name any file of this machine
        raise ValueError("it lies outside of the platform's directory")
    with path.open("rb") as file:
        return file.read(LARGEST + 1)
