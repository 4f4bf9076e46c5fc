"""The tab of organizations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Form
from starlette.responses import Response

from tenantry.errors import NotConfirmed, TenantryError
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visit, Visiting
from tenantry.web.portal.picking import After, Picker, Search, Slugs, picked

HERE: Final = "/admin/organizations"
PAGE: Final = 50

router = APIRouter(prefix="/organizations", route_class=Page)

Text = Annotated[str, Form(max_length=2000)]


@router.get("")
@asks("org.list")
async def index(visit: Visiting, search: Search = "", after: After = "") -> Response:
    """Organizations by name, as wanted."""
    return await _index(visit, search=search, after=after)


async def _index(visit: Visit, *, search: str = "", after: str = "", status: int = 200, **more: Any) -> Response:
    with visit.acting():
        rows = await visit.platform.organizations.list(search or None, PAGE + 1, after or None)
    onward = urlencode({"search": search, "after": rows[PAGE - 1].name}) if len(rows) > PAGE else ""
    shown = {
        "rows": rows[:PAGE],
        "search": search,
        "onward": onward,
        "typed": {"name": "", "mail": "", "role": "admin"},
        **more,
    }
    return visit.page("organizations.html", current=HERE, status=status, **shown)


@router.post("")
@asks("org.create")
async def create(visit: Visiting, name: Text = "", mail: Text = "") -> Response:
    """Make one."""
    try:
        with visit.acting():
            row = await visit.platform.organizations.create(name, mail)
    except TenantryError as error:
        return await _index(visit, status=error.status, problem=error, typed={"name": name, "mail": mail})
    return visit.go(f"{HERE}/{row.id}", f"The organization {row.name} is made. Assign its tenants below.")


@router.get("/{organization}")
@asks("org.show")
async def show(
    visit: Visiting, organization: str, search: Search = "", after: After = "", only: Search = ""
) -> Response:
    """One organization with its tenants."""
    return await _show(visit, organization, search=search, after=after, only=only)


async def _show(
    visit: Visit, organization: str, *, search: str = "", after: str = "", only: str = "", **more: Any
) -> Response:
    pick, show = Picker(search, after, only), visit.platform.organizations.show
    with visit.acting():
        found = await show(organization, *pick.page)
        row = found.row

        async def known() -> Sequence[str]:
            return (await show(row.id, *pick.same)).tenants

        picker = await pick.shown(visit, f"{HERE}/{row.id}", found.tenants, row.tenants, known)
        sso, scim = await visit.platform.sso.show(row.id), await visit.platform.scim.show(row.id)
    shown: dict[str, Any] = {"row": row, "sso": sso, "scim": scim, "typed": {"name": row.name, "mail": row.mail}}
    return visit.page("organization.html", current=HERE, **(shown | picker | more))


@router.post("/{organization}")
@asks("org.edit")
async def edit(visit: Visiting, organization: str, name: Text = "", mail: Text = "") -> Response:
    """Change its name or its administrator's address."""
    try:
        with visit.acting():
            row = await visit.platform.organizations.edit(organization, name, mail)
    except TenantryError as error:
        typed = {"name": name, "mail": mail}
        return await _show(visit, organization, status=error.status, problem=error, typed=typed)
    return visit.go(f"{HERE}/{row.id}", f"The organization is now {row.name}, {row.mail}.")


@router.post("/{organization}/assign")
@asks("org.assign")
async def assign(visit: Visiting, organization: str, slugs: Slugs = ()) -> Response:
    """Put tenants into it."""
    with visit.acting():
        row = await visit.platform.organizations.assign(organization, picked(slugs))
    return visit.go(f"{HERE}/{row.id}", f"{', '.join(slugs)}: now of {row.name}, which has {row.tenants}.")


@router.post("/{organization}/unassign")
@asks("org.unassign")
async def unassign(visit: Visiting, organization: str, slugs: Slugs = ()) -> Response:
    """Take tenants out of it."""
    with visit.acting():
        row = await visit.platform.organizations.unassign(organization, picked(slugs))
    return visit.go(f"{HERE}/{row.id}", f"{', '.join(slugs)}: no longer of {row.name}, which has {row.tenants}.")


@router.post("/{organization}/remove")
@asks("org.remove")
async def remove(visit: Visiting, organization: str, confirm: Text = "") -> Response:
    """Forget it, once its name was typed; its tenants stay."""
    with visit.acting():
        row = (await visit.platform.organizations.show(organization, limit=1)).row
        if confirm.strip() != row.name:
            error = NotConfirmed(slug=row.name, remedy="Type the name exactly as it is shown.")
            return await _show(visit, organization, status=error.status, problem=error)
        freed = await visit.platform.organizations.remove(row.id)
    kept = f" Its {len(freed)} tenants stay, and belong to none." if freed else ""
    return visit.go(HERE, f"The organization {row.name} is deleted.{kept}")
