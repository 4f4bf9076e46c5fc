"""A year's plan: the rows of people and equipment with their bookings, vacations and too full weeks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from planner import store
from planner.kinds import KINDS
from planner.store import Row

DAY: Final = timedelta(days=1)
WEEK: Final = timedelta(days=7)


@dataclass(frozen=True)
class Bar:
    """One booking, and where it lies in the height of its row: from `low` to `low + percent` per cent."""

    id: int
    project: str
    code: str
    colour: str
    phase: str
    starts: date
    ends: date
    percent: int
    remark: str
    low: int = 0


@dataclass(frozen=True)
class Away:
    starts: date
    ends: date
    reason: str


@dataclass(frozen=True)
class Full:
    """A week in which somebody has more to do than can be done."""

    week: date  # its Monday
    why: str


@dataclass
class Line:
    """One person or one piece of equipment."""

    kind: str  # "staff" or "equipment"
    id: int
    name: str
    about: str
    site: int
    percent: int
    bars: list[Bar] = field(default_factory=list)
    away: list[Away] = field(default_factory=list)
    full: list[Full] = field(default_factory=list)


@dataclass(frozen=True)
class Group:
    """A site with its lines."""

    id: int
    name: str
    lines: list[Line]
    holidays: list[tuple[date, str]]


@dataclass(frozen=True)
class Milestone:
    day: date
    name: str
    project: str
    colour: str


@dataclass(frozen=True)
class Plan:
    """A year, in whole weeks (ISO 8601)."""

    year: int
    starts: date  # a Monday
    ends: date  # a Sunday
    groups: list[Group]
    projects: list[Row]
    milestones: list[Milestone]

    @property
    def weeks(self) -> list[date]:
        """The Mondays."""
        return [self.starts + WEEK * number for number in range(((self.ends - self.starts).days + 1) // 7)]

    @property
    def lines(self) -> Iterator[Line]:
        return (line for group in self.groups for line in group.lines)


def span(year: int) -> tuple[date, date]:
    """The first Monday and the last Sunday of a year's weeks."""
    return date.fromisocalendar(year, 1, 1), date.fromisocalendar(year + 1, 1, 1) - DAY


_BOOKINGS: Final = text("""
SELECT booking.id, staff_id, equipment_id, booking.starts, booking.ends, booking.percent, booking.remark,
  project.name AS project, project.code, project.colour, coalesce(phase.name, '') AS phase
FROM booking JOIN project ON project.id = booking.project_id LEFT JOIN phase ON phase.id = booking.phase_id
WHERE booking.starts <= :ends AND booking.ends >= :starts
ORDER BY booking.starts, booking.percent DESC, booking.id
""")
_ABOUT: Final = text("""
SELECT staff_id, equipment_id, string_agg(value, ' · ' ORDER BY position, title) AS value
FROM column_value JOIN plan_column ON plan_column.id = column_id WHERE shown GROUP BY staff_id, equipment_id
""")
_AWAY: Final = text("SELECT * FROM vacation WHERE starts <= :ends AND ends >= :starts ORDER BY starts")
_CLOSED: Final = text("SELECT * FROM holiday WHERE day BETWEEN :starts AND :ends ORDER BY day")
_MILESTONES: Final = text("""
SELECT phase.ends AS day, phase.name, project.name AS project, project.colour
FROM phase JOIN project ON project.id = project_id
WHERE milestone AND phase.ends BETWEEN :starts AND :ends ORDER BY 1, 2
""")


async def load(session: AsyncSession, year: int, site: int | None = None) -> Plan:
    """The plan of a year, of all sites or of one."""
    starts, ends = span(year)
    within = {"starts": starts, "ends": ends}
    sites = [row for row in await store.every(session, KINDS["sites"]) if site in (None, row["id"])]
    lines = await _lines(session, starts, ends)
    for row in await session.execute(_BOOKINGS, within):
        line = lines.get(("staff", row.staff_id) if row.staff_id else ("equipment", row.equipment_id))
        if line is not None:
            bar = Bar(
                row.id, row.project, row.code, row.colour, row.phase, row.starts, row.ends, row.percent, row.remark
            )
            line.bars.append(bar)
    for row in await session.execute(_AWAY, within):
        if line := lines.get(("staff", row.staff_id)):
            line.away.append(Away(row.starts, row.ends, row.reason))
    closed = [(row.day, row.name, row.site_id) for row in await session.execute(_CLOSED, within)]
    projects = await store.every(session, KINDS["projects"])
    groups = []
    for row in sites:
        own = [line for line in lines.values() if line.site == row["id"]]
        groups.append(Group(row["id"], row["name"], own, [(d, n) for d, n, s in closed if s in (None, row["id"])]))
    plan = Plan(
        year, starts, ends, [group for group in groups if group.lines or len(groups) == 1],
        [row for row in projects if row["starts"] <= ends and row["ends"] >= starts],
        [Milestone(*row) for row in await session.execute(_MILESTONES, within)],
    )  # fmt: skip
    for line in plan.lines:
        line.bars = list(stacked(line.bars))
        line.full = list(too_full(line, plan.weeks))
    return plan


async def _lines(session: AsyncSession, starts: date, ends: date) -> dict[tuple[str, int], Line]:
    """Everybody who is here in the year, then the equipment, each by name."""
    shown = await store.settings(session)
    about = {("staff", r.staff_id) if r.staff_id else ("equipment", r.equipment_id): r.value
             for r in await session.execute(_ABOUT)}  # fmt: skip
    found: dict[tuple[str, int], Line] = {}
    for row in await store.every(session, KINDS["staff"]):
        if (row["joined"] or starts) <= ends and (row["leaves"] or ends) >= starts:
            said = _joined(row["role"], about.get(("staff", row["id"])))
            found["staff", row["id"]] = Line("staff", row["id"], row["name"], said, row["site_id"], row["percent"])
    for row in await store.every(session, KINDS["equipment"]) if shown.get("show_equipment", "yes") == "yes" else ():
        said = _joined(row["model"], about.get(("equipment", row["id"])))
        found["equipment", row["id"]] = Line("equipment", row["id"], row["name"], said, row["site_id"], 100)
    return found


def _joined(*parts: Any) -> str:
    return " · ".join(str(part) for part in parts if part)


def stacked(bars: Iterable[Bar]) -> Iterator[Bar]:
    """The bars, each as low as it can lie above those it meets."""
    placed: list[Bar] = []
    for bar in bars:
        met = [other for other in placed if other.starts <= bar.ends and other.ends >= bar.starts]
        heights = sorted({0, *(other.low + other.percent for other in met)})
        low = next((height for height in heights if _free(met, height, bar.percent)), heights[-1])
        done = Bar(**{**vars(bar), "low": min(low, max(0, 100 - bar.percent))})
        placed.append(done)
        yield done


def _free(met: Sequence[Bar], low: int, percent: int) -> bool:
    return all(low + percent <= other.low or low >= other.low + other.percent for other in met)


def too_full(line: Line, weeks: Sequence[date]) -> Iterator[Full]:
    """The weeks in which a person has more than the contract holds, or is booked while away."""
    if line.kind != "staff":
        return
    for monday in weeks:
        here = [bar for bar in line.bars if bar.starts < monday + WEEK and bar.ends >= monday]
        if not here:
            continue
        why = ""
        for day in (monday + DAY * number for number in range(5)):
            load = sum(bar.percent for bar in here if bar.starts <= day <= bar.ends)
            away = next((each for each in line.away if each.starts <= day <= each.ends), None)
            if load and away:
                why = f"booked {load} % while on {away.reason}"
            elif load > line.percent:
                why = why or f"booked {load} %, contract {line.percent} %"
        if why:
            yield Full(monday, why)


def warnings(plan: Plan) -> list[tuple[str, int, int, str]]:
    """Where too much is planned: name, first and last week by their numbers, and why."""
    found: list[tuple[str, int, int, str]] = []
    for line in plan.lines:
        for full in line.full:
            week = full.week.isocalendar().week
            if found and found[-1][0] == line.name and found[-1][2] == week - 1 and found[-1][3] == full.why:
                found[-1] = (*found[-1][:2], week, full.why)
            else:
                found.append((line.name, week, week, full.why))
    return found


def as_json(plan: Plan) -> Mapping[str, Any]:
    """The same for programs."""
    return {
        "year": plan.year, "starts": plan.starts, "ends": plan.ends, "milestones": [vars(m) for m in plan.milestones],
        "sites": [{"id": g.id, "name": g.name, "lines": [_line_json(line) for line in g.lines],
                   "holidays": [{"day": day, "name": name} for day, name in g.holidays]} for g in plan.groups],
    }  # fmt: skip


def _line_json(line: Line) -> Mapping[str, Any]:
    return {
        "kind": line.kind, "id": line.id, "name": line.name, "percent": line.percent,
        "bookings": [vars(bar) for bar in line.bars],
        "away": [vars(away) for away in line.away],
        "overbooked": [vars(full) for full in line.full],
    }  # fmt: skip
