"""Where organizations' providers send people back to, and tell of sign-outs: at the platform's own host.

No person's right is asked for here, but what a tenant sealed or a provider signed. What `anybody` says is the answer to
whoever comes without it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from tenantry.context import tenant_context
from tenantry.errors import TenantryError
from tenantry.identity.sso.flow import Answer, cookie_of
from tenantry.registry.sso import SessionAt
from tenantry.sso_refusals import SsoRefused
from tenantry.web.house import House, Opened, opened
from tenantry.web.portal.asking import Page, anybody
from tenantry.web.portal.frame import cookie, keep, render

log = logging.getLogger(__name__)

MINUTES: Final = 10
"""For so long the browser keeps what belongs to a sign-in under way."""

router = APIRouter(prefix="/sso", route_class=Page)

Longish = Annotated[str, Query(max_length=4000)]
Token = Annotated[str, Form(max_length=40_000)]
Posted = Annotated[str, Form(alias="SAMLResponse")]
State = Annotated[str, Form(alias="RelayState")]


@router.get("/{organization}/start")
@anybody(gives=403)
async def start(request: Request, organization: str, ticket: Longish = "") -> Response:
    """On to the provider."""
    here = await opened(request)
    try:
        begun = await here.platform.sso.sign_ons.start(organization, ticket)
    except SsoRefused as error:
        return _told(here, error)
    response = RedirectResponse(begun.address, 303)
    keep(response, request, begun.cookie, begun.value, MINUTES * 60)
    return response


@router.get("/{organization}/callback")
@anybody(gives=403)
async def callback(request: Request, organization: str, state: Longish = "") -> Response:
    """Back from the provider, and on to the tenant; after a trial, what was seen."""
    here = await opened(request)
    bare = cookie_of(state)
    cookies = {bare: request.cookies.get(cookie(bare, request), "")}
    try:
        answer = await here.platform.sso.sign_ons.answer(organization, dict(request.query_params), cookies)
        response = _tried(here, organization, answer) if answer.is_trial else RedirectResponse(answer.onward, 303)
    except SsoRefused as error:
        response = _told(here, error)
    response.delete_cookie(cookie(bare, request), path="/", secure=request.url.scheme == "https")
    return response


@router.get("/{organization}/metadata")
@anybody(gives=404)
async def metadata(request: Request, organization: str) -> Response:
    """What the platform says of itself to a SAML provider."""
    here = await opened(request)
    sign_ons = here.platform.sso.sign_ons
    try:
        told = await sign_ons.saml.metadata(organization, sign_ons.place(organization))
    except SsoRefused as error:
        return _told(here, error)
    return Response(told, media_type="application/samlmetadata+xml")


@router.post("/{organization}/acs")
@anybody(gives=404)
async def acs(request: Request, organization: str, answer: Posted = "", state: State = "") -> Response:
    """A SAML provider's page posts its answer here, from another site; on to where the browser's cookie comes along."""
    here = await opened(request)
    try:
        return RedirectResponse(await here.platform.sso.sign_ons.posted(organization, answer, state), 303)
    except SsoRefused as error:
        return _told(here, error)


@router.get("/{organization}/sign-out")
@anybody(gives=404)
async def sign_out(request: Request, organization: str) -> Response:
    """On to the provider, which signs its own people out, and tells everybody who has to know."""
    here = await opened(request)
    try:
        where = await here.platform.sso.sign_ons.leave(organization)
    except SsoRefused as error:
        return _told(here, error)
    if where:
        return RedirectResponse(where, 303)
    said = "This organization's provider has no address to sign out at: sign out at the provider itself."
    return render(here, "sso.html", heading="You are signed out at that tenant", said=said)


@router.get("/{organization}/signed-out")
@anybody()
async def signed_out(request: Request, organization: str) -> Response:
    """Back from the provider."""
    return _said_out(await opened(request))


@router.post("/{organization}/back-channel")
@anybody(gives=400)
async def back_channel(request: Request, organization: str, logout_token: Token = "") -> Response:
    """The provider tells that somebody signed out (OpenID Connect Back-Channel Logout 1.0, section 2.8)."""
    here = await opened(request)
    try:
        await end(request, await here.platform.sso.sign_ons.told_of_end(organization, logout_token))
    except TenantryError as error:
        log.warning("A notice of a sign-out was refused: %s", error)
        content = {"error": "invalid_request", "error_description": error.code}
        return _json(400, content)
    return Response(status_code=200, headers={"cache-control": "no-store"})


@router.get("/{organization}/front-channel")
@anybody(gives=404)
async def front_channel(request: Request, organization: str, iss: Longish = "", sid: Longish = "") -> Response:
    """The provider leads the browser here in a frame as somebody signs out."""
    here = await opened(request)
    try:
        await end(request, await here.platform.sso.sign_ons.ended_in_front(organization, iss, sid))
    except SsoRefused as error:
        return _told(here, error)
    return _said_out(here)


async def end(request: Request, sessions: Sequence[SessionAt]) -> None:
    """End sessions in the tenants' own databases. Raises what keeps one from ending: the provider asks once more."""
    if not sessions:
        return
    house: House = request.app.state.house
    runtime, sign_ons = await house.runtime(), (await house.opened()).platform.sso.sign_ons
    for one in sessions:
        served = runtime.resolver.table.tenants.get(one.tenant_id, ())
        environment = next((found for found in served if found.id == one.environment_id), None)
        if environment is not None:
            with tenant_context(environment):
                await runtime.accounts.end_outside(one.outside)
        await sign_ons.forget(one)


def _tried(here: Opened, organization: str, answer: Answer) -> Response:
    shown: dict[str, Any] = {"answer": answer, "back": f"/admin/organizations/{organization}/sso"}
    return render(here, "sso_trial.html", **shown)


def _told(here: Opened, error: SsoRefused) -> Response:
    return render(here, "sso.html", status=error.status, heading="You are not signed in", said="", problem=error)


def _said_out(here: Opened) -> Response:
    said = "Your organization's sign-in is over, here and at every tenant that was opened by it."
    return render(here, "sso.html", heading="You are signed out", said=said)


def _json(status: int, content: dict[str, str]) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse(content, status)
