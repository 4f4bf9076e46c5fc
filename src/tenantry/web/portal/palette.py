"""The command palette: every page, action and tenant, found by typing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import TABS, Visit, Visiting

TENANTS: Final = 8
"""Tenants that are named at most."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Somewhere to go."""

    title: str
    path: str
    kind: str  # page, action, tenant, operation
    superadmin: bool = False


ACTIONS: Final = (
    Goal("Create a tenant", "/admin/tenants/new", "action", superadmin=True),
    Goal("Migrate the fleet", "/admin/migrations", "action", superadmin=True),
    Goal("Rehearse a migration", "/admin/migrations", "action", superadmin=True),
    Goal("Verify the isolation", "/admin/verify", "action", superadmin=True),
    Goal("Add a server", "/admin/servers", "action", superadmin=True),
    Goal("Show what failed", "/admin/operations?state=failed", "action"),
    Goal("Show what runs", "/admin/operations?state=running", "action"),
    Goal("Export the audit log", "/admin/audit/export", "action"),
    Goal("My account", "/admin/me", "page"),
)

router = APIRouter(prefix="/palette", route_class=Page)


@router.get("")
@asks("tenant.list")
async def index(visit: Visiting, search: Annotated[str, Query(max_length=200)] = "") -> Response:
    """What is found, best first."""
    wanted = search.strip()
    goals = [goal for goal in _fixed(visit) if all(word in goal.title.lower() for word in wanted.lower().split())]
    if wanted:
        with visit.acting():
            rows = await visit.platform.tenants.list(search=wanted, limit=TENANTS)
        goals += [Goal(f"{row.slug} – {row.name}", f"/admin/tenants/{row.slug}", "tenant") for row in rows]
    if re.fullmatch("[0-9a-f-]{6,36}", wanted):
        goals.append(Goal(wanted, f"/admin/operations/{wanted}", "operation"))
    return visit.page("palette.html", goals=goals, search=search)


def _fixed(visit: Visit) -> Iterator[Goal]:
    every = visit.principal.is_superadmin
    yield from (Goal(tab.title, tab.path, "page") for tab in TABS if every or not tab.superadmin)
    yield from (goal for goal in ACTIONS if every or not goal.superadmin)
