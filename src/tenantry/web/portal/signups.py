"""The tab of sign-ups: who is about to have a tenant, and who is invited to."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Form
from starlette.responses import Response

from tenantry.errors import TenantryError
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visit, Visiting

HERE: Final = "/admin/signups"

router = APIRouter(prefix="/signups", route_class=Page)

Text = Annotated[str, Form(max_length=2000)]


@router.get("")
@asks("signup.list", "signup.invitations")
async def index(visit: Visiting) -> Response:
    """All of them."""
    return await _index(visit)


async def _index(visit: Visit, **more: Any) -> Response:
    signups = visit.platform.signups
    with visit.acting():
        shown: dict[str, Any] = {"rows": await signups.list(), "invitations": await signups.invitations()}
    shown |= {"settings": visit.platform.config.signup, "made": None, "mail": ""}
    return visit.page("signups.html", current=HERE, **(shown | more))


@router.post("")
@asks("signup.invite", gives=200)
async def invite(visit: Visiting, mail: Text = "") -> Response:
    """Invite somebody; the link is shown once."""
    try:
        with visit.acting():
            made = await visit.platform.signups.invite(mail.strip() or None)
    except TenantryError as error:
        return await _index(visit, status=error.status, problem=error, mail=mail)
    return await _index(visit, made=made)


@router.post("/invitations/{invitation}/remove")
@asks("signup.uninvite")
async def uninvite(visit: Visiting, invitation: str) -> Response:
    """Take an invitation back."""
    with visit.acting():
        await visit.platform.signups.uninvite(invitation)
    return visit.go(HERE, "That invitation opens nothing any more.")
