"""Choosing tenants for an organization or an admin user: found by typing, out of as many as there are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import Form, Query

from tenantry.errors import AccountError
from tenantry.web.portal.frame import Visit

FOUND: Final = 20
PAGE: Final = 100

Search = Annotated[str, Query(max_length=200)]
After = Annotated[str, Query(max_length=200)]
Slugs = Annotated[Sequence[str], Form(max_length=1000)]


async def picking(visit: Visit, base: str, theirs: Sequence[str], search: str, after: str, only: str) -> dict[str, Any]:
    """What the template needs: a page of those that are there, and of those that match, which are not."""
    there = [slug for slug in theirs if only.strip().lower() in slug]
    start = bisect_right(there, after) if after else 0
    page = there[start : start + PAGE]
    known, found = set(theirs), []
    if search:
        rows = await visit.platform.tenants.list(search, limit=FOUND + 1)
        found = [{"slug": row.slug, "name": row.name, "there": row.slug in known} for row in rows]
    onward = urlencode({"only": only, "after": page[-1]}) if len(there) > start + PAGE else ""
    shown = {"base": base, "theirs": page, "count": len(theirs), "next_page": onward, "only": only}
    return {"pick": {**shown, "search": search, "found": found[:FOUND], "more": len(found) > FOUND}}


def picked(slugs: Sequence[str]) -> Sequence[str]:
    """What was chosen. Raises `AccountError` where nothing was."""
    if not slugs:
        raise AccountError("No tenant was chosen.", remedy="Go back, and tick those that are meant.")
    return slugs
