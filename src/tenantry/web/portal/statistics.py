"""The tab of statistics: the platform in numbers, drawn, each picture with its table."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from markupsafe import Markup
from starlette.responses import Response

from tenantry.platform.statistics import Thing
from tenantry.registry.statistics import Share
from tenantry.web.portal import charts
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visiting

HERE: Final = "/admin/statistics"
SPANS: Final = (7, 30, 90, 366)
ENDS: Final = (("done", 0), ("cancelled", 1), ("failed", 2), ("open", 3))
"""How operations end, each with its colour: the order in which they stand on one another."""

router = APIRouter(prefix="/statistics", route_class=Page)


@router.get("")
@asks("platform.statistics")
async def index(visit: Visiting, days: Annotated[int, Query(ge=1, le=366)] = 30) -> Response:
    """All of them."""
    with visit.acting():
        found = await visit.platform.statistics.show(days)
    growth = charts.line("Tenants", [(one.day, one.tenants) for one in found.growth])
    names = [name for name, _ in ENDS]
    worked = [(one.day, [getattr(one, name) for name in names]) for one in found.operations]
    grown = [(one, _growth(one)) for one in found.things if one.days]
    shown: dict[str, Any] = {
        "grown": grown,
        "asked": sum(one.number or 0 for one in found.requests or ()),
        "requests": charts.columns(
            "API requests", [(one.day, [one.number or 0]) for one in found.requests or ()], ["requests"]
        ),
        "found": found,
        "days": days,
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


def _growth(thing: Thing) -> Markup:
    """A line through the days on which it was counted; between them it stays as it was."""
    last, rows = 0, []
    for one in thing.days:
        last = last if one.number is None else one.number
        rows.append((one.day, last))
    return charts.line(thing.name, rows)


def _drawn(shares: list[Share] | Any) -> list[tuple[Share, Any]]:
    """Each with a bar beside the largest."""
    most = max((one.bytes for one in shares), default=0)
    return [(one, charts.bar(one.name or "this machine", one.bytes, most)) for one in shares]
