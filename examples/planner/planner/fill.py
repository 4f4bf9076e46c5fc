"""Fills laboratories with the year that files describe: `python -m planner.fill labs/limmat.toml`.

A file names sites, people, equipment and projects; the phases of a project say in which weeks (ISO 8601) they run and
who gives how much to them. It is an example of work for a tenant outside a request.
"""

from __future__ import annotations

import asyncio
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession

import tenantry
from planner.kinds import KINDS
from planner.site import today

DAY = timedelta(days=1)
Span = tuple[date, date]


def weeks(year: int, span: Sequence[int]) -> Span:
    """From the Monday of the first week to the Friday of the last."""
    return date.fromisocalendar(year, span[0], 1), date.fromisocalendar(year, span[1], 5)


def apart(span: Span, away: Sequence[Span]) -> Iterator[Span]:
    """The parts of a span in which somebody is here."""
    start, end = span
    for first, last in sorted(away):
        if first <= end and last >= start:
            if start < first:
                yield start, first - DAY
            start = last + DAY
    while start.isoweekday() > 5:
        start += DAY
    if start <= end:
        yield start, end


class Filling:
    """One laboratory's year on its way into the database."""

    def __init__(self, session: AsyncSession, year: int) -> None:
        self.session = session
        self.year = year
        self.ids: dict[tuple[str, str], int] = {}
        self.away: dict[str, list[Span]] = defaultdict(list)

    async def add(self, path: str, **values: Any) -> int:
        """Enter one thing; remembered by its name."""
        table = KINDS[path].table
        row = await self.session.execute(insert(table).values(**values).returning(table.c.id))
        found = int(row.scalar_one())
        self.ids[path, str(values.get("name") or values.get("title"))] = found
        return found

    async def empty(self) -> None:
        """Remove what is there, but for the settings and the columns."""
        tables = "booking, phase_skill, phase, project, note, vacation, staff_skill, skill, column_value, holiday"
        await self.session.execute(text(f"TRUNCATE {tables}, equipment, staff, site, change RESTART IDENTITY"))
        for row in await self.session.execute(text("SELECT id, title FROM plan_column")):
            self.ids["columns", row.title] = row.id

    async def fill(self, lab: Mapping[str, Any]) -> None:
        """Enter everything."""
        await self.empty()
        for name in lab["skills"]:
            await self.add("skills", name=name)
        for site in lab["sites"]:
            await self.add("sites", **site)
        for day, name in lab["holidays"].items():
            await self.add("holidays", day=date.fromisoformat(f"{self.year}-{day}"), name=name)
        for person in lab["staff"]:
            await self._person(person)
        for piece in lab["equipment"]:
            skill = self.ids.get(("skills", piece.get("needs", "")))
            site = self.ids["sites", piece["site"]]
            await self.add("equipment", name=piece["name"], model=piece["model"], site_id=site, skill_id=skill)
        for project in lab["project"]:
            await self._project(project)

    async def _person(self, person: Mapping[str, Any]) -> None:
        name = person["name"]
        staff = await self.add(
            "staff", name=name, role=person["role"], site_id=self.ids["sites", person["site"]],
            percent=person.get("percent", 100),
        )  # fmt: skip
        if "office" in person:
            column = self.ids["columns", "Office"]
            await self.add("column-values", column_id=column, staff_id=staff, value=person["office"])
        for skill in person.get("skills", ()):
            await self.add("staff-skills", staff_id=staff, skill_id=self.ids["skills", skill])
        for span in person.get("away", ()):
            first, last = weeks(self.year, span)
            self.away[name].append((first, last + 2 * DAY))
            await self.add("vacations", staff_id=staff, starts=first, ends=last, reason="vacation")

    async def _project(self, project: Mapping[str, Any]) -> None:
        spans = [weeks(self.year, phase["weeks"]) for phase in project["phase"]]
        about = {name: project[name] for name in ("name", "code", "colour")}
        row = await self.add("projects", **about, starts=min(s for s, _ in spans), ends=max(e for _, e in spans))
        if "note" in project:
            await self.add("notes", body=project["note"], project_id=row, day=spans[0][0])
        for phase, span in zip(project["phase"], spans, strict=True):
            await self._phase(row, phase, span)

    async def _phase(self, project: int, phase: Mapping[str, Any], span: Span) -> None:
        milestone = phase.get("milestone", False)
        row = await self.add(
            "phases", project_id=project, name=phase["name"], starts=span[0], ends=span[1], milestone=milestone
        )
        given = {"project_id": project, "phase_id": row}
        for name, percent in phase.get("team", {}).items():
            staff = self.ids["staff", name]
            for starts, ends in [span] if name in phase.get("careless", ()) else apart(span, self.away[name]):
                await self.add("bookings", **given, staff_id=staff, starts=starts, ends=ends, percent=percent)
        for name, span_of in phase.get("uses", {}).items():
            starts, ends = weeks(self.year, span_of)
            await self.add("bookings", **given, equipment_id=self.ids["equipment", name], starts=starts, ends=ends)


async def fill(runtime: tenantry.Runtime, slug: str, lab: Mapping[str, Any]) -> None:
    """Replace what a tenant has by the year of a file."""
    with tenantry.tenant_context(runtime.environment(slug)):
        async with tenantry.tenant_session() as session:
            await session.execute(text("SELECT set_config('planner.who', 'the example', true)"))
            await Filling(session, today().year).fill(lab)
            await session.commit()


async def main(*files: str) -> None:
    runtime = tenantry.connect("tenantry.toml")
    await runtime.start()
    try:
        for file in map(Path, files):
            await fill(runtime, file.stem, tomllib.loads(file.read_text("utf-8")))
            print(f"{file.stem} has a year now")
    finally:
        await runtime.stop()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: python -m planner.fill labs/SLUG.toml …")
    asyncio.run(main(*sys.argv[1:]))
