"""The tab of statistics: the platform in numbers, drawn, each picture with its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from markupsafe import Markup
from starlette.responses import Response

from tenantry.platform.statistics import Counted, Day, Thing, Worked
from tenantry.registry.statistics import Share
from tenantry.web.portal import charts
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visiting

HERE: Final = "/admin/statistics"
SPANS: Final = (7, 30, 90, 366)
LONG: Final = 90
"""Days that are shown one by one; more are shown by weeks."""

ENDS: Final = (("done", 0), ("cancelled", 1), ("failed", 2), ("open", 3))
"""How operations end, each with its colour: the order in which they stand on one another."""

HAPPENED: Final = ("Site requests", "Sessions begun", "API requests")
"""What is counted by day, over the whole platform."""

router = APIRouter(prefix="/statistics", route_class=Page)


@router.get("")
@asks("platform.statistics")
async def index(visit: Visiting, days: Annotated[int, Query(ge=1, le=366)] = 30) -> Response:
    """All of them."""
    with visit.acting():
        found = _short(await visit.platform.statistics.show(days))
    growth = charts.line("Tenants", [(one.day, one.tenants) for one in found.growth])
    names = [name for name, _ in ENDS]
    worked = [(one.day, [getattr(one, name) for name in names]) for one in found.operations]
    grown = [(one, _growth(one)) for one in found.things if one.days]
    shown: dict[str, Any] = {
        "grown": grown,
        "happened": [
            (title, days, sum(one.number or 0 for one in days), _columns(title, days))
            for title, days in zip(HAPPENED, (found.served, found.begun, found.requests), strict=True)
            if days is not None
        ],
        "found": found,
        "days": days,
        "unit": "day" if len(found.growth) == days else "week",
        "spans": SPANS,
        "ends": ENDS,
        "growth": growth,
        "worked": charts.columns("Operations by day", worked, names),
        "busiest": max((sum(numbers) for _, numbers in worked), default=0),
        "servers": _drawn(found.by_server),
        "largest": _drawn(found.largest),
        "kinds": [("Status", found.by_status), ("Blueprint", found.by_blueprint), ("Plan", found.by_plan)],
    }
    return visit.page("statistics.html", current=HERE, **shown)


def _columns(title: str, days: Sequence[Day]) -> Markup:
    return charts.columns(title, [(one.day, [one.number or 0]) for one in days], [title.lower()])


def _growth(thing: Thing) -> Markup:
    """A line through the days on which it was counted; between them it stays as it was."""
    last, rows = 0, []
    for one in thing.days:
        last = last if one.number is None else one.number
        rows.append((one.day, last))
    return charts.line(thing.name, rows)


def _weeks(days: Sequence[Any]) -> list[Sequence[Any]]:
    """Seven days each, the last of which is today."""
    return [days[max(end - 7, 0) : end] for end in range(len(days), 0, -7)][::-1]


def _added(days: Sequence[Day] | None) -> list[Day] | None:
    return None if days is None else [Day(week[0].day, sum(day.number or 0 for day in week)) for week in _weeks(days)]


def _short(found: Counted) -> Counted:
    """By weeks, which end today, where there are too many days to tell apart."""
    if len(found.growth) <= LONG:
        return found
    worked = [
        Worked(
            week[0].day, *(sum(getattr(day, name) for day in week) for name in ("done", "failed", "cancelled", "open"))
        )
        for week in _weeks(found.operations)
    ]
    things = [replace(one, days=one.days[::-1][::7][::-1]) for one in found.things]
    requests, served, begun = map(_added, (found.requests, found.served, found.begun))
    growth = found.growth[::-1][::7][::-1]
    happened = {"requests": requests, "served": served, "begun": begun}
    return replace(found, growth=growth, operations=worked, things=things, **happened)  # type: ignore[arg-type]


def _drawn(shares: list[Share] | Any) -> list[tuple[Share, Any]]:
    """Each with a bar beside the largest."""
    most = max((one.bytes for one in shares), default=0)
    return [(one, charts.bar(one.name or "this machine", one.bytes, most)) for one in shares]
