"""A year's plan as a drawing (SVG): names on the left, weeks to the right, a bar for each booking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Final

from markupsafe import Markup, escape

from planner.plan import Bar, Group, Line, Plan

WEEK: Final = 20  # width of a week, in pixels
NAMES: Final = 176  # width of the names
HEAD: Final = 50
ROW: Final = {"staff": 38, "equipment": 25}
GAP: Final = 5  # above and below the bars of a row
SITE: Final = 30  # height of a site's heading

To = Callable[[str], str]


def width(plan: Plan) -> int:
    """The drawing's width in pixels, without the names."""
    return len(plan.weeks) * WEEK


def height(plan: Plan) -> int:
    """Its height in pixels."""
    return HEAD + sum(SITE + sum(ROW[line.kind] for line in group.lines) for group in plan.groups) + 8


def _x(plan: Plan, day: date) -> float:
    inside = min(max(day, plan.starts), plan.ends + timedelta(days=1))
    return (inside - plan.starts).days * WEEK / 7


def _day(day: date) -> str:
    return f"{day.day} {day:%b}"


def names(plan: Plan, to: To) -> Markup:
    """The names of all lines, which stay in sight while the weeks are moved."""
    parts, y = [], HEAD
    for group in plan.groups:
        parts.append(f'<text class="site" x="0" y="{y + SITE - 9}">{escape(group.name)}</text>')
        y += SITE
        for line in group.lines:
            parts.append(_name(line, y, to))
            y += ROW[line.kind]
    return _svg("plan-names", NAMES, height(plan), "Names", parts)


def _name(line: Line, y: int, to: To) -> str:
    tall = line.kind == "staff"
    about = f'<text class="about" x="0" y="{y + 30}">{escape(_cut(line.about, 30))}</text>' if tall else ""
    title = f"{line.name}{', ' + line.about if line.about else ''}"
    return (
        f'<a href="{escape(to(f"/{line.kind}/{line.id}"))}"><title>{escape(title)}</title>'
        f'<text class="name" x="0" y="{y + (17 if tall else 16)}">{escape(_cut(line.name, 24))}</text>{about}</a>'
    )


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def weeks(plan: Plan, to: To, today: date) -> Markup:
    """The weeks with everything in them."""
    parts = [*_hatches(), *_grid(plan)]
    y = HEAD
    for group in plan.groups:
        parts += _closed(plan, group, y)
        parts.append(f'<line class="site-line" x1="0" x2="{width(plan)}" y1="{y + SITE - 0.5}" y2="{y + SITE - 0.5}"/>')
        y += SITE
        for line in group.lines:
            parts += _line(plan, line, y, to)
            y += ROW[line.kind]
    parts += _milestones(plan)
    if plan.starts <= today <= plan.ends:
        x = _x(plan, today) + WEEK / 14
        parts.append(
            f'<g id="today" class="today"><title>Today, {_day(today)}</title>'
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{HEAD - 6}" y2="{height(plan)}"/>'
            f'<circle cx="{x:.1f}" cy="{HEAD - 6}" r="3.5"/></g>'
        )
    return _svg("plan-weeks", width(plan), height(plan), f"Bookings of {plan.year}, week by week", parts)


def _svg(name: str, wide: int, high: int, label: str, parts: list[str]) -> Markup:
    return Markup(
        f'<svg class="{name}" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" role="group" '
        f'aria-label="{label}">{"".join(parts)}</svg>'
    )


def _hatches() -> Iterator[str]:
    yield (
        '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<line class="hatch" x1="0" y1="0" x2="0" y2="6"/></pattern></defs>'
    )


def _grid(plan: Plan) -> Iterator[str]:
    """Months, weeks with their numbers, and every second week shaded."""
    bottom = height(plan)
    for number, monday in enumerate(plan.weeks):
        x = number * WEEK
        if number % 2:
            yield f'<rect class="shade" x="{x}" y="{HEAD - 18}" width="{WEEK}" height="{bottom - HEAD + 18}"/>'
        yield f'<text class="week" x="{x + WEEK / 2:g}" y="{HEAD - 22}">{monday.isocalendar().week}</text>'
    for month in range(1, 13):
        first = date(plan.year, month, 1)
        x = _x(plan, first)
        for top, end in ((4, 18), (HEAD - 16, bottom)):  # not through the weeks' numbers
            yield f'<line class="month-line" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{end}"/>'
        yield f'<text class="month" x="{x + 6:.1f}" y="15">{first:%B}</text>'


def _closed(plan: Plan, group: Group, y: int) -> Iterator[str]:
    tall = SITE + sum(ROW[line.kind] for line in group.lines)
    for day, name in group.holidays:
        yield (
            f'<rect class="closed" x="{_x(plan, day):.1f}" y="{y + SITE}" width="{WEEK / 7:.1f}" '
            f'height="{tall - SITE}">'
            f"<title>{_day(day)}: {escape(name)}</title></rect>"
        )


def _line(plan: Plan, line: Line, y: int, to: To) -> Iterator[str]:
    tall = ROW[line.kind]
    yield f'<line class="row-line" x1="0" x2="{width(plan)}" y1="{y + tall - 0.5}" y2="{y + tall - 0.5}"/>'
    for away in line.away:
        left, right = _x(plan, away.starts), _x(plan, away.ends + timedelta(days=1))
        title = f"{line.name}: {away.reason}, {_day(away.starts)} to {_day(away.ends)}"
        yield (
            f'<rect class="away" x="{left:.1f}" y="{y + 2}" width="{right - left:.1f}" height="{tall - 4}" rx="2">'
            f"<title>{escape(title)}</title></rect>"
        )
    for bar in line.bars:
        yield _bar(plan, line, bar, y, to)
    for full in line.full:
        x = _x(plan, full.week)
        title = f"{line.name}, week {full.week.isocalendar().week}: {full.why}"
        yield (
            f'<g class="full"><title>{escape(title)}</title>'
            f'<rect x="{x:.1f}" y="{y + tall - 4.5}" width="{WEEK}" height="3.5"/></g>'
        )


def _bar(plan: Plan, line: Line, bar: Bar, y: int, to: To) -> str:
    room = ROW[line.kind] - 2 * GAP
    left, right = _x(plan, bar.starts), _x(plan, bar.ends + timedelta(days=1))
    high = max(4.0, room * bar.percent / 100)
    top = y + GAP + room - room * bar.low / 100 - high
    about = f"{bar.project}{', ' + bar.phase if bar.phase else ''}: {line.name}, {_day(bar.starts)} to {_day(bar.ends)}"
    about += f", {bar.percent} %{', ' + bar.remark if bar.remark else ''}"
    wide = right - left - 1
    label = bar.code or bar.project
    letters = int((wide - 8) / 6.2)
    text = ""
    if high > 11 and letters >= min(3, len(label)):
        middle = top + high / 2 + (3.2 if high < 13 else 3.9)
        shown = escape(_cut(label, letters))
        small = " small" if high < 13 else ""
        text = f'<text class="{_ink(bar.colour)}{small}" x="{left + 5:.1f}" y="{middle:.1f}">{shown}</text>'
    return (
        f'<a class="bar" href="{escape(to(f"/bookings/{bar.id}"))}" aria-label="{escape(about)}">'
        f"<title>{escape(about)}</title>"
        f'<rect x="{left + 0.5:.1f}" y="{top:.1f}" width="{max(wide, 2):.1f}" height="{high:.1f}" rx="2.5" '
        f'fill="{escape(bar.colour)}"/>{text}</a>'
    )


def _ink(colour: str) -> str:
    """Dark or light letters, whichever stand out more (WCAG 2.2, relative luminance)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "dark" if luminance > 0.179 else "light"


def _milestones(plan: Plan) -> Iterator[str]:
    for stone in plan.milestones:
        x = _x(plan, stone.day) + WEEK / 14
        title = f"{_day(stone.day)}: {stone.project}, {stone.name}"
        yield (
            f'<g class="milestone"><title>{escape(title)}</title>'
            f'<path d="M{x:.1f} {HEAD - 16}l5 5-5 5-5-5z" fill="{escape(stone.colour)}"/></g>'
        )
