"""The tab of servers: what room they have, whether they answer, and taking them in and out of use."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Form
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from tenantry.errors import ServerUnfit, TenantryError
from tenantry.operations.placement import BACKENDS
from tenantry.platform.servers import ServerRow
from tenantry.web.portal import charts
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visit, Visiting

HERE: Final = "/admin/servers"

FULL: Final = 0.9
"""From this share of its capacity on, a server's bar warns."""

TENANTS: Final = 200
"""Tenants of a server that its page names."""

DONE: Final = {
    "open": "New tenants are placed on '{name}'.",
    "drain": "No more tenants are placed on '{name}'; those that are there are served.",
    "close": "Nobody is served from '{name}' until it is opened.",
    "remove": "'{name}' is forgotten.",
}

router = APIRouter(prefix="/servers", route_class=Page)


class Added(BaseModel):
    """The form of a new server, as it was filled in."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True, str_max_length=10_000)

    name: str = ""
    kind: str = "postgres"
    url: str = ""
    capacity: int | None = None
    connections: int = 80
    labels: str = ""


@router.get("")
@asks("server.list")
async def index(visit: Visiting, ask: bool = False) -> Response:
    """All servers; each is asked whether it answers where somebody waits for that."""
    return await _page(visit, Added(), ask=ask)


async def _page(visit: Visit, added: Added, problem: TenantryError | None = None, ask: bool = False) -> Response:
    with visit.acting():
        rows = await visit.platform.servers.list(ask=ask)
    shown: dict[str, Any] = {"rows": [(row, _room(row)) for row in rows], "asked": ask, "added": added}
    status = problem.status if problem else 200
    return visit.page("servers.html", status=status, current=HERE, kinds=list(BACKENDS), problem=problem, **shown)


def _room(row: ServerRow) -> Any:
    """How full it is, drawn; None where it has no limit."""
    if not row.capacity:
        return None
    colour = 2 if row.used >= row.capacity else 3 if row.used >= row.capacity * FULL else 0
    return charts.bar(f"{row.used} of {row.capacity} databases", row.used, row.capacity, colour)


@router.post("")
@asks("server.add")
async def add(visit: Visiting, added: Annotated[Added, Form()]) -> Response:
    """Let tenants be placed on one more server, after a check of it."""
    labels = added.labels.replace(",", " ").split()
    try:
        with visit.acting():
            await visit.platform.servers.add(
                added.name, added.kind, added.url, added.capacity, added.connections, labels
            )
    except TenantryError as error:
        if error.status in (401, 403):
            raise
        return await _page(visit, added, error)
    return visit.go(f"{HERE}/{added.name}", f"'{added.name}' was checked, and tenants are placed on it.")


@router.get("/{name}")
@asks("server.show")
async def one(visit: Visiting, name: str, check: bool = False) -> Response:
    """One server with what lies on it; where asked for, with what a check finds."""
    return await _one(visit, name, check)


async def _one(visit: Visit, name: str, check: bool = False, problem: TenantryError | None = None) -> Response:
    with visit.acting():
        details = await visit.platform.servers.show(name, ask=False)
        found = (await visit.platform.servers.check(name))[name] if check else None
    shown: dict[str, Any] = {"details": details, "room": _room(details.row), "findings": found, "named": TENANTS}
    status = problem.status if problem else 200
    return visit.page("server.html", status=status, current=HERE, problem=problem, **shown)


@router.post("/{name}/{action}")
@asks("server.open", "server.drain", "server.close", "server.remove")
async def act(visit: Visiting, name: str, action: str, typed: Annotated[str, Form(max_length=200)] = "") -> Response:
    """Open, drain, close or forget it; what cuts tenants off wants its name typed."""
    servers = visit.platform.servers
    try:
        with visit.acting():
            if action in ("close", "remove") and typed.strip() != name:
                reason = f"its name was to be typed, and '{typed}' is another"
                raise ServerUnfit(server=name, reason=reason, remedy=f"Type '{name}' to go on.")
            if action == "remove":
                await servers.remove(name)
            elif action in DONE:
                await {"open": servers.open, "drain": servers.drain, "close": servers.close}[action](name)
            else:
                raise ServerUnfit(server=name, reason=f"'{action}' is nothing that can be done with it")
    except TenantryError as error:
        if error.status in (401, 403, 404):
            raise
        return await _one(visit, name, problem=error)
    where = HERE if action == "remove" else f"{HERE}/{name}"
    return visit.go(where, DONE[action].format(name=name), "warn" if action == "close" else "good")
