"""The pages of a laboratory: its plan, its lists, and a form for each thing it keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import tenantry
from planner import picture, plan, store
from planner.kinds import KINDS, Kind
from planner.web import Visitor, form_of, go, kind_of, render, root_of, visitor


def today() -> date:
    """This day in Central Europe, where these laboratories are."""
    return datetime.now(ZoneInfo("Europe/Zurich")).date()


def year_of(request: Request) -> int:
    """The year that is asked for, otherwise this one."""
    asked = request.query_params.get("year", "")
    if not asked:
        return today().year
    if not re.fullmatch("2[01][0-9]{2}", asked) or int(asked) == 2199:
        raise HTTPException(404, "There is no plan of that year.")
    return int(asked)


def site_of(request: Request) -> int | None:
    """The site that is asked for; None for all."""
    asked = request.query_params.get("site", "")
    return int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 9 else None


async def home(request: Request) -> Response:
    """The plan of a year as a picture, and as a table for those who do not see one."""
    who = await visitor(request)
    year, site = year_of(request), site_of(request)
    async with tenantry.tenant_session() as session:
        found = await plan.load(session, year, site)
        sites = await store.every(session, KINDS["sites"])

    def to(path: str) -> str:
        return root_of(request) + path

    return render(
        request, "plan.html", visitor=who, plan=found, year=year, site=site, sites=sites, today=today(),
        names=picture.names(found, to), weeks=picture.weeks(found, to, today()), wide=picture.width(found),
        full=plan.warnings(found),
    )  # fmt: skip


# --- lists and forms ----------------------------------------------------------------------------------------------


async def listed(request: Request) -> Response:
    """All things of one kind."""
    who, kind = await visitor(request), kind_of(request)
    async with tenantry.tenant_session() as session:
        rows = await store.every(session, kind)
        names = await store.names(session, [one.to for one in kind.refs])
    return render(request, "list.html", visitor=who, kind=kind, rows=rows, names=names, may=who.may_change(kind))


async def new(request: Request) -> Response:
    """The form for a new thing, and what it sends."""
    who, kind = await visitor(request), kind_of(request)
    who.check_change(kind)
    async with tenantry.tenant_session() as session:
        if request.method == "GET":
            asked = {one.name: request.query_params.get(one.name) or one.default for one in kind.fields}
            return await _form(session, who, kind, asked)
        given = await form_of(request)
        values, wrong = kind.read(given)
        if not wrong:
            try:
                await store.add(session, kind, values, who.who)
                return go(request, after(kind, values))
            except store.Refused as error:
                wrong = {"": str(error)}
        return await _form(session, who, kind, given, wrong=wrong)


async def edit(request: Request) -> Response:
    """The form for a thing that is there; it changes or removes it."""
    who, kind = await visitor(request), kind_of(request)
    row_id = request.path_params["id"]
    async with tenantry.tenant_session() as session:
        row = await store.one(session, kind, row_id)
        if row is None:
            raise HTTPException(404, f"There is no such {kind.one}.")
        if request.method == "GET":
            return await _form(session, who, kind, row, row_id)
        who.check_change(kind)
        given = await form_of(request)
        removing = given.pop("do", "") == "remove"
        values, wrong = ({}, {}) if removing else kind.read(given)
        if not wrong:
            try:
                if removing:
                    await store.remove(session, kind, row_id, who.who)
                else:
                    await store.change(session, kind, row_id, values, who.who)
                return go(request, after(kind, values or row))
            except store.Refused as error:
                wrong = {"": str(error)}
        return await _form(session, who, kind, given or row, row_id, wrong=wrong)


def after(kind: Kind, values: Mapping[str, Any]) -> str:
    """Where to go when a thing was written: a booking is seen in the plan of its year."""
    return (
        f"/?year={values['starts'].isocalendar().year}" if kind.path in ("bookings", "vacations") else f"/{kind.path}"
    )


async def _form(
    session: AsyncSession, who: Visitor, kind: Kind, values: Mapping[str, Any], row_id: int | None = None,
    wrong: Mapping[str, str] | None = None,
) -> Response:  # fmt: skip
    choices = await store.names(session, [one.to for one in kind.refs])
    if kind.path == "bookings":  # a phase is told by its project, too
        projects = choices["projects"]
        choices["phases"] = {
            row["id"]: f"{projects[row['project_id']]}: {row['name']}"
            for row in await store.every(session, KINDS["phases"])
        }
    history = await store.history(session, row_id) if kind.path == "bookings" and row_id else []
    shown = {one.name: _shown(values.get(one.name)) for one in kind.fields}
    return render(
        who.request, "form.html", 422 if wrong else 200, visitor=who, kind=kind, values=shown, wrong=wrong or {},
        choices=choices, row_id=row_id, may=who.may_change(kind), history=history,
    )  # fmt: skip


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
