"""Shades of a site's colour on which text can be read (WCAG 2.2, success criterion 1.4.3)."""

from __future__ import annotations

import colorsys
import re
from typing import Final

CONTRAST: Final = 4.5
"""The least contrast of text to what is behind it."""

_HEX: Final = re.compile(r"#[0-9a-f]{6}")


def check(value: str) -> str | None:
    """The colour as '#rrggbb', or None where it is none."""
    value = value.strip().lower()
    return value if _HEX.fullmatch(value) else None


def _channels(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue


def _hex(red: float, green: float, blue: float) -> str:
    return "#" + "".join(f"{round(255 * min(1.0, max(0.0, channel))):02x}" for channel in (red, green, blue))


def luminance(colour: str) -> float:
    """Relative luminance, 0 for black to 1 for white (WCAG 2.2)."""
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in _channels(colour))
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def mix(one: str, other: str, share: float) -> str:
    """One colour with a share (0 to 1) of another."""
    return _hex(*(a + (b - a) * share for a, b in zip(_channels(one), _channels(other), strict=True)))


def readable(colour: str, behind: str, least: float = CONTRAST) -> str:
    """The nearest shade of a colour that reads well on what is behind it."""
    towards = "#000000" if luminance(behind) > 0.18 else "#ffffff"
    shades = (mix(colour, towards, step / 20) for step in range(21))
    return next((shade for shade in shades if contrast(shade, behind) >= least), towards)


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on the colour."""
    return max("#ffffff", "#14110f", key=lambda ink: contrast(ink, colour))


def palette(colour: str) -> tuple[str, ...]:
    """Six colours that go with one: deep, itself, a warm neighbour, a cool neighbour, pale, and its opposite."""
    hue, light, full = colorsys.rgb_to_hls(*_channels(colour))
    full = max(0.28, full) if full > 0.08 else full

    def turned(turn: float, lightness: float, strength: float = 1.0) -> str:
        return _hex(*colorsys.hls_to_rgb((hue + turn) % 1.0, lightness, min(1.0, full * strength)))

    return (
        turned(-0.03, 0.2, 0.8),
        turned(0.0, min(0.58, max(0.36, light))),
        turned(0.09, 0.66, 1.05),
        turned(-0.11, 0.54, 0.75),
        turned(0.06, 0.91, 0.75),
        turned(0.5, 0.68),
    )
