"""The campaigns as a drawing: where each bar, each task and each month stands. The template draws it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final

from agency.store import Row

WIDTH, TOP, LINE = 1180, 34, 58
"""Width of the drawing, height of its heading and of each line, in pixels."""

SPAN: Final = (timedelta(days=120), timedelta(days=240))
"""How far from today the drawing reaches, back and ahead."""


@dataclass(frozen=True)
class Dot:
    """A task on the line of its campaign."""

    x: float
    task: Row
    late: bool


@dataclass(frozen=True)
class Bar:
    """A campaign."""

    campaign: Row
    x: float
    y: int
    width: float
    done: float  # of the width
    dots: list[Dot] = field(default_factory=list)


@dataclass(frozen=True)
class Timeline:
    """Everything there is to draw."""

    first: date
    last: date
    today: date
    bars: list[Bar]

    @property
    def height(self) -> int:
        return TOP + LINE * len(self.bars)

    def x(self, day: date) -> float:
        """Where a day begins."""
        return round(WIDTH * ((day - self.first).days / ((self.last - self.first).days + 1)), 1)

    def months(self) -> Iterator[tuple[float, str]]:
        """Where each month begins, and its name; the first may have begun before."""
        day = self.first
        while day <= self.last:
            ahead = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
            if (ahead - day).days > 6:
                yield self.x(day), f"{day:%B}" if day.month > 1 else f"{day:%B %Y}"
            day = ahead


def late(task: Row, today: date) -> bool:
    """Whether a task should have been done."""
    return bool(task["state"] != "done" and task["due"] < today)


def timeline(campaigns: Sequence[Row], tasks: Sequence[Row], today: date) -> Timeline:
    """The campaigns of these months, with their tasks."""
    back, ahead = today - SPAN[0], today + SPAN[1]
    shown = [row for row in campaigns if row["starts"] <= ahead and row["ends"] >= back]
    first = max(back, min((row["starts"] for row in shown), default=today) - timedelta(days=4))
    last = min(ahead, max((row["ends"] for row in shown), default=today) + timedelta(days=6))
    made = Timeline(min(first, today), max(last, today), today, [])
    day = timedelta(days=1)
    for row in shown:
        start = made.x(max(row["starts"], made.first))
        width = round(made.x(min(row["ends"], made.last) + day) - start, 1)
        done = round(width * row["done"] / row["tasks"], 1) if row["tasks"] else 0.0
        bar = Bar(row, start, TOP + LINE * len(made.bars), width, done)
        bar.dots.extend(
            Dot(made.x(task["due"]) + 4, task, late(task, today))
            for task in tasks
            if task["campaign_id"] == row["id"] and made.first <= task["due"] <= made.last
        )
        made.bars.append(bar)
    return made
