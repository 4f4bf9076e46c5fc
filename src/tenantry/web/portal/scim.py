"""An organization's directory: the tokens by which its provider tells of its people, and what it told."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Form
from starlette.responses import Response

from tenantry.errors import NotConfirmed, TenantryError
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visit, Visiting
from tenantry.web.portal.picking import After, Search

HERE: Final = "/admin/organizations"
PAGE: Final = 50

router = APIRouter(prefix="/organizations/{organization}/scim", route_class=Page)

Text = Annotated[str, Form(max_length=2000)]


@router.get("")
@asks("scim.show", "scim.people")
async def show(visit: Visiting, organization: str, search: Search = "", after: After = "") -> Response:
    """How it is kept, and who is in it."""
    return await _show(visit, organization, search=search, after=after)


@router.post("/tokens")
@asks("scim.token", gives=200)
async def token(visit: Visiting, organization: str, name: Text = "") -> Response:
    """Make a token, and show it once."""
    try:
        with visit.acting():
            made = await visit.platform.scim.token(organization, name)
    except TenantryError as error:
        return await _show(visit, organization, status=error.status, problem=error, typed=name)
    back = f"{HERE}/{made.row.organization_id}/scim"
    return visit.page("scim_token_once.html", current=HERE, made=made, back=back)


@router.post("/tokens/{token}/revoke")
@asks("scim.revoke")
async def revoke(visit: Visiting, organization: str, token: str) -> Response:
    """Let a token open nothing any more."""
    return await _done(visit, organization, "revoke", "That token opens nothing any more.", token)


@router.post("/require")
@asks("scim.require")
async def require(visit: Visiting, organization: str, required: Text = "") -> Response:
    """Let only those sign in whom it knows, or others, too."""
    told = "Only people of the directory sign in now." if required else "Others sign in, too, again."
    return await _done(visit, organization, "require", told, bool(required))


@router.post("/remove")
@asks("scim.remove")
async def remove(visit: Visiting, organization: str, confirm: Text = "") -> Response:
    """Keep it no more, once the organization's name was typed."""
    with visit.acting():
        name = (await visit.platform.organizations.show(organization, limit=1)).row.name
    if confirm.strip() != name:
        error = NotConfirmed(slug=name, remedy="Type the name exactly as it is shown.")
        return await _show(visit, organization, status=error.status, problem=error)
    return await _done(visit, organization, "remove", "The directory is kept no more.")


async def _done(visit: Visit, organization: str, verb: str, told: str, *arguments: Any) -> Response:
    try:
        with visit.acting():
            await getattr(visit.platform.scim, verb)(organization, *arguments)
    except TenantryError as error:
        return await _show(visit, organization, status=error.status, problem=error)
    return visit.go(f"{HERE}/{organization}/scim", told)


async def _show(
    visit: Visit, organization: str, *, search: str = "", after: str = "", status: int = 200, **more: Any
) -> Response:
    platform = visit.platform
    with visit.acting():
        row = (await platform.organizations.show(organization, limit=1)).row
        found = await platform.scim.show(row.id)
        people = await platform.scim.people(row.id, search or None, PAGE + 1, after or None)
        signs_on = (await platform.sso.show(row.id)).row is not None
    onward = urlencode({"search": search, "after": people[PAGE - 1].user_name}) if len(people) > PAGE else ""
    shown = {"row": row, "found": found, "people": people[:PAGE], "search": search, "onward": onward}
    shown |= {"base": f"{HERE}/{row.id}/scim", "signs_on": signs_on, "typed": ""}
    return visit.page("organization_scim.html", current=HERE, status=status, **(shown | more))
