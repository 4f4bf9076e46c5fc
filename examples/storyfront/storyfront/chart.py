"""Views by day as a drawing in the page itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Final

from markupsafe import Markup

WIDTH: Final = 1080
HEIGHT: Final = 178
_BASE: Final = 138


def bars(days: Sequence[tuple[str, int]]) -> Markup:
    """A bar for each day. The same figures stand in a table below it, for those who do not see the drawing."""
    top = _round_up(max(views for _, views in days))
    step = WIDTH / len(days)
    parts = []
    for share in (0.5, 1.0):
        y = _BASE - 112 * share
        parts.append(
            f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y:g}" y2="{y:g}"/>'
            f'<text class="tick" x="0" y="{y - 5:g}">{top * share:g}</text>'
        )
    for at, (day, views) in enumerate(days):
        height, x = 112 * views / top, at * step
        parts.append(
            f'<g class="day"><title>{_name(day)}: {views} views</title>'
            f'<rect class="hit" x="{x:.1f}" y="0" width="{step:.1f}" height="{_BASE}"/>'
            f'<rect x="{x + step * 0.16:.1f}" y="{_BASE - max(height, 2):.1f}" width="{step * 0.68:.1f}" '
            f'height="{max(height, 2):.1f}" rx="3"/></g>'
        )
        if at % 7 == len(days) % 7 or at == len(days) - 1:
            anchor = "end" if at == len(days) - 1 else "middle"
            x = WIDTH if anchor == "end" else x + step / 2
            parts.append(f'<text class="tick" x="{x:.1f}" y="{_BASE + 22}" text-anchor="{anchor}">{_name(day)}</text>')
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Views on each of the last {len(days)} days">{"".join(parts)}</svg>'
    )


def _name(day: str) -> str:
    found = date.fromisoformat(day)
    return f"{found.day} {found:%b}"


def _round_up(value: int) -> int:
    """The next of 4, 10, 20, 40, 100, 200, …"""
    size = 1
    while True:
        for lead in (4, 10, 20):
            if value <= lead * size:
                return lead * size
        size *= 10
