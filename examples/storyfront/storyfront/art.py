"""A cover for every page that has no picture: drawn from its name and the site's colour, the same each time."""

from __future__ import annotations

import hashlib
import math
from random import Random
from typing import Final

from markupsafe import Markup

from storyfront.colour import mix, palette

WIDTH: Final = 640
HEIGHT: Final = 400


def cover(name: str, colour: str, style: str) -> Markup:
    """An SVG drawing of 640 by 400 units. It carries no text, so it is hidden from screen readers."""
    chance = Random(hashlib.sha256(name.encode()).digest())
    draw = {"hills": _hills, "tiles": _tiles, "blooms": _blooms, "lines": _lines}[style]
    return Markup(
        f'<svg class="art" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="xMidYMid slice" aria-hidden="true" '
        f'focusable="false">{"".join(draw(chance, palette(colour)))}</svg>'
    )


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}"/>'


def _disc(x: float, y: float, radius: float, fill: str) -> str:
    return f'<circle cx="{x:.0f}" cy="{y:.0f}" r="{radius:.0f}" fill="{fill}"/>'


def _hills(chance: Random, colours: tuple[str, ...]) -> list[str]:
    deep, main, warm, cool, pale, _ = colours
    sky, sun = chance.choice(((pale, warm), (mix(pale, warm, 0.45), pale), (mix(pale, cool, 0.4), warm)))
    parts = [_rect(0, 0, WIDTH, HEIGHT, sky)]
    x, y = chance.uniform(120, 520), chance.uniform(90, 190)
    parts += [_disc(x, y, chance.uniform(44, 78), sun)]
    layers = 5
    for layer in range(layers):
        far = layer / (layers - 1)
        fill = (
            mix(mix(cool, sky, 0.55), mix(main, deep, 0.75), far) if layer % 2 else mix(mix(main, sky, 0.5), deep, far)
        )
        parts.append(f'<path d="{_wave(chance, 175 + 48 * layer, 46 - 5 * layer)}" fill="{fill}"/>')
    return parts


def _wave(chance: Random, level: float, height: float) -> str:
    a, b, c = chance.uniform(0, 6.28), chance.uniform(0, 6.28), chance.uniform(0.7, 1.4)
    points = []
    for x in range(0, WIDTH + 1, 8):
        at = x / WIDTH * math.tau
        y = level + height * (math.sin(at * c + a) + 0.45 * math.sin(at * 2.3 * c + b))
        points.append(f"{x} {y:.0f}")
    return f"M0 {HEIGHT}L{' '.join(points)}L{WIDTH} {HEIGHT}Z"


def _tiles(chance: Random, colours: tuple[str, ...]) -> list[str]:
    size, parts = 80, []
    inks = (colours[1], colours[1], colours[2], colours[0], colours[3], colours[5])
    for row in range(HEIGHT // size):
        for column in range(WIDTH // size):
            x, y = column * size, row * size
            ground, figure = chance.sample((*inks, colours[4], colours[4]), 2)
            parts.append(_rect(x, y, size + 1, size + 1, ground))  # no seams
            if ground != figure:
                parts.append(_tile(chance, x, y, size, figure))
    return parts


def _tile(chance: Random, x: int, y: int, size: int, fill: str) -> str:
    turn = f'transform="rotate({90 * chance.randrange(4)} {x + size / 2:g} {y + size / 2:g})"'
    half = size // 2
    match chance.randrange(5):
        case 0:  # a quarter of a disc
            return f'<path d="M{x} {y}h{size}a{size} {size} 0 0 1-{size} {size}Z" fill="{fill}" {turn}/>'
        case 1:  # half a disc
            return f'<path d="M{x} {y}h{size}a{half} {half} 0 0 1-{size} 0Z" fill="{fill}" {turn}/>'
        case 2:
            return _disc(x + half, y + half, size * 0.28, fill)
        case 3:
            return f'<path d="M{x} {y}h{size}l-{size} {size}Z" fill="{fill}" {turn}/>'
        case _:  # a leaf
            arc = f"a{size} {size} 0 0 1"
            return f'<path d="M{x} {y}{arc} {size} {size}{arc}-{size}-{size}Z" fill="{fill}" {turn}/>'


def _blooms(chance: Random, colours: tuple[str, ...]) -> list[str]:
    deep, main, warm, cool, pale, spark = colours
    parts = [_rect(0, 0, WIDTH, HEIGHT, mix(pale, warm, chance.uniform(0.05, 0.3)))]
    for at in range(6):
        x = 60 + at * 104 + chance.uniform(-26, 26)
        y, radius = chance.uniform(90, 240), chance.uniform(36, 68)
        parts.append(
            f'<path d="M{x:.0f} {y:.0f}Q{x + chance.uniform(-40, 40):.0f} 320 {x:.0f} 420" '
            f'fill="none" stroke="{mix(deep, cool, 0.35)}" stroke-width="7"/>'
        )
        parts += _bloom(chance, x, y, radius, chance.choice((main, warm, spark)), chance.choice((pale, deep)))
    parts.append(f'<path d="{_wave(chance, 362, 14)}" fill="{mix(main, deep, 0.7)}"/>')
    return parts


def _bloom(chance: Random, x: float, y: float, radius: float, petal: str, heart: str) -> list[str]:
    count, start = chance.choice((5, 6, 8)), chance.uniform(0, 6.28)
    parts = []
    for at in range(count):
        angle = start + at * math.tau / count
        parts.append(
            _disc(x + math.cos(angle) * radius * 0.62, y + math.sin(angle) * radius * 0.62, radius * 0.5, petal)
        )
    return [*parts, _disc(x, y, radius * 0.36, heart)]


def _lines(chance: Random, colours: tuple[str, ...]) -> list[str]:
    deep, main, _, _, pale, spark = colours
    ground, ink = chance.choice(((deep, pale), (pale, deep), (mix(pale, main, 0.18), main)))
    parts = [_rect(0, 0, WIDTH, HEIGHT, ground)]
    a, b = chance.uniform(0, 6.28), chance.uniform(0, 6.28)
    peaks = [
        (chance.uniform(90, 550), chance.uniform(45, 130), chance.uniform(30, 80))
        for _ in range(chance.choice((1, 2, 3)))
    ]
    for line in range(24):
        points = []
        for x in range(0, WIDTH + 1, 10):
            lift = sum(high * math.exp(-(((x - at) / broad) ** 2)) for at, broad, high in peaks)
            lift *= 1 + math.sin(x / 23 + line * 0.9 + a) * 0.45
            y = 34 + line * 16 - lift * math.sin(math.pi * line / 23) + 5 * math.sin(x / 70 + b + line / 3)
            points.append(f"{x} {y:.0f}")
        stroke, width = (spark, 5) if line == 11 else (ink, 2)
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{stroke}" stroke-width="{width}"/>')
    return parts
