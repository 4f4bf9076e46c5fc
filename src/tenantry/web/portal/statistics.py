"""The tab of statistics: the platform in numbers, drawn, each picture with its table."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from tenantry.platform.statistics import Counted, Worked
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
    shown: dict[str, Any] = {
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


def _short(found: Counted) -> Counted:
    """By weeks, which end today, where there are too many days to tell apart."""
    if len(found.growth) <= LONG:
        return found
    weeks = [found.operations[max(end - 7, 0) : end] for end in range(len(found.operations), 0, -7)]
    worked = [
        Worked(
            week[0].day, *(sum(getattr(day, name) for day in week) for name in ("done", "failed", "cancelled", "open"))
        )
        for week in reversed(weeks)
    ]
    return replace(found, growth=found.growth[::-1][::7][::-1], operations=worked)


def _drawn(shares: list[Share] | Any) -> list[tuple[Share, Any]]:
    """Each with a bar beside the largest."""
    most = max((one.bytes for one in shares), default=0)
    return [(one, charts.bar(one.name or "this machine", one.bytes, most)) for one in shares]
