"""The tab of settings: the configuration as it is in force, and where each value comes from."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visiting

HERE: Final = "/admin/settings"

router = APIRouter(prefix="/settings", route_class=Page)


@router.get("")
@asks("platform.settings")
async def index(visit: Visiting, search: Annotated[str, Query(max_length=200)] = "", written: bool = False) -> Response:
    """All settings by section, or those that a search finds."""
    with visit.acting():
        rows = await visit.platform.settings()
        status = await visit.platform.status()
    wanted = search.strip().lower()
    sections: dict[str, list[Any]] = {}
    for row in rows:
        if (not wanted or wanted in row.key.lower()) and not (written and row.source == "default"):
            sections.setdefault(row.key.partition(".")[0], []).append(row)
    shown: dict[str, Any] = {"sections": sections, "search": search, "written": written, "platform_now": status}
    return visit.page("settings.html", current=HERE, **shown)
