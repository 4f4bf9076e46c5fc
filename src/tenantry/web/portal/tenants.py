"""The tab of tenants."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.responses import Response

from tenantry.model import Status
from tenantry.web.portal.frame import Visiting

PAGE: Final = 50

router = APIRouter()

Wanted = Annotated[str, Query(max_length=200)]


@router.get("/")
async def index(
    visit: Visiting, search: Wanted = "", status: Wanted = "", blueprint: Wanted = "", after: Wanted = ""
) -> Response:
    """Tenants in the order of their slugs, as wanted."""
    wanted = {"search": search or None, "status": status or None, "blueprint": blueprint or None}
    with visit.acting():
        rows = await visit.platform.tenants.list(**wanted, limit=PAGE + 1, after=after or None)
    onward = {key: value for key, value in wanted.items() if value}
    more = urlencode(onward | {"after": rows[PAGE - 1].slug}) if len(rows) > PAGE else ""
    blueprints = list(visit.platform.config.blueprints)
    shown: dict[str, Any] = {"rows": rows[:PAGE], "more": more, "wanted": wanted, "blueprints": blueprints}
    return visit.page("tenants.html", current="/admin/", statuses=list(Status), **shown)
