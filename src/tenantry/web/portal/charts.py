"""Charts that are drawn here: shapes alone, which stretch; what is to be read stands beside them in HTML."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from markupsafe import Markup

COLOURS: Final = 8
"""Classes s0 to s7 of the stylesheet, in which series take turns."""

HEIGHT: Final = 100
STEP: Final = 10
GAP: Final = 2

_FRAME: Final = Markup(
    '<svg class="{name}" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img">'
    "<title>{title}</title><desc>{told}</desc>{shapes}</svg>"
)
_RECT: Final = Markup('<rect class="s{colour}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"/>')


def columns(title: str, rows: Sequence[tuple[str, Sequence[int]]], names: Sequence[str]) -> Markup:
    """A column for each row (label, numbers), its numbers on top of one another."""
    top = max((sum(numbers) for _, numbers in rows), default=0) or 1
    shapes = [
        _RECT.format(colour=colour, x=at * STEP, y=HEIGHT - end, width=STEP - GAP, height=end - start)
        for at, (_, numbers) in enumerate(rows)
        for colour, (start, end) in enumerate(_stacked([number * HEIGHT / top for number in numbers]))
        if end > start
    ]
    totals = [sum(numbers[place] for _, numbers in rows) for place in range(len(names))]
    told = ", ".join(f"{total} {name}" for name, total in zip(names, totals, strict=True))
    return _svg("columns", title, told, shapes, max(1, len(rows)) * STEP - GAP, HEIGHT)


def line(title: str, rows: Sequence[tuple[str, int]]) -> Markup:
    """A line through the numbers, from zero up."""
    top = max((number for _, number in rows), default=0) or 1
    points = " ".join(f"{at * STEP},{HEIGHT - number * HEIGHT / top:g}" for at, (_, number) in enumerate(rows))
    width = max(1, len(rows) - 1) * STEP
    under = Markup('<polygon class="under" points="0,{} {} {},{}"/>').format(HEIGHT, points, width, HEIGHT)
    shapes = [under, Markup('<polyline class="line" points="{}"/>').format(points)]
    told = f"From {rows[0][1]} on {rows[0][0]} to {rows[-1][1]} on {rows[-1][0]}." if rows else "Nothing yet."
    return _svg("lines", title, told, shapes, width, HEIGHT)


def stack(title: str, parts: Sequence[tuple[str, int, int]]) -> Markup:
    """One bar of parts (label, number, colour)."""
    whole = sum(number for _, number, _ in parts) or 1
    spans = _stacked([number * 100 / whole for _, number, _ in parts])
    shapes = [
        _RECT.format(colour=colour, x=start, y=0, width=end - start, height=1)
        for (_, _, colour), (start, end) in zip(parts, spans, strict=True)
    ]
    return _svg("stack", title, ", ".join(f"{number} {label}" for label, number, _ in parts), shapes, 100, 1)


def bar(title: str, number: float, of: float, colour: int = 1) -> Markup:
    """How much of a whole."""
    width = min(100.0, 100 * number / of) if of else 0.0
    shape = _RECT.format(colour=colour, x=0, y=0, width=width, height=1)
    return _svg("meter", title, f"{width:.0f} percent", [shape], 100, 1)


def _stacked(numbers: Sequence[float]) -> list[tuple[float, float]]:
    """From where to where each number reaches on top of those before."""
    ends = list(accumulate(numbers))
    return list(zip([0.0, *ends], ends, strict=False))


def _svg(name: str, title: str, told: str, shapes: Sequence[Markup], width: float, height: float) -> Markup:
    inner = Markup("").join(shapes)
    return _FRAME.format(name=name, width=width, height=height, title=title, told=told, shapes=inner)
