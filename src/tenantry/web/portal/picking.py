"""Choosing tenants for an organization or an admin user: found by typing, out of as many as there are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
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


class Picker:
    """What is asked of the tenants that are there: a page of them, and out of all others those that match."""

    def __init__(self, search: str, after: str, only: str) -> None:
        self.search, self.after, self.only = search, after, only

    @property
    def page(self) -> tuple[str | None, int, str | None]:
        """Which of those that are there are wanted: that hold a text, so many, behind a slug."""
        return self.only or None, PAGE + 1, self.after or None

    @property
    def same(self) -> tuple[str | None, int]:
        """Which of those that are there match a search as well: all that are among the first of all tenants."""
        return self.search, FOUND + 1

    async def shown(
        self, visit: Visit, base: str, there: Sequence[str], count: int, known: Callable[[], Awaitable[Sequence[str]]]
    ) -> dict[str, Any]:
        """What the template needs. `there` is the page, `known` gives those of the search that are there."""
        page, found = there[:PAGE], list[dict[str, Any]]()
        rows = await visit.platform.tenants.list(self.search, limit=FOUND + 1) if self.search else []
        if rows:
            mine = set(await known())
            found = [{"slug": row.slug, "name": row.name, "there": row.slug in mine} for row in rows[:FOUND]]
        onward = urlencode({"only": self.only, "after": page[-1]}) if len(there) > PAGE else ""
        shown = {"base": base, "theirs": page, "count": count, "next_page": onward, "only": self.only}
        return {"pick": {**shown, "search": self.search, "found": found, "more": len(rows) > FOUND}}


def picked(slugs: Sequence[str]) -> Sequence[str]:
    """What was chosen. Raises `AccountError` where nothing was."""
    if not slugs:
        raise AccountError("No tenant was chosen.", remedy="Go back, and tick those that are meant.")
    return slugs
