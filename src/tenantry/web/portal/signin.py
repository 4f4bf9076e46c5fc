"""Signing in and out, and choosing a password by a link."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from tenantry.errors import AccountError, CsrfFailed, LinkInvalid, SecondFactorNeeded, SignInRefused, TooManyTries
from tenantry.identity.signin import SignedIn
from tenantry.web.house import opened
from tenantry.web.portal.frame import (
    DEVICE,
    DEVICE_SECONDS,
    SESSION,
    Visiting,
    client_of,
    cookie,
    foreign,
    keep,
    render,
    target,
)

router = APIRouter()

Text = Annotated[str, Form(max_length=2000)]


@router.get("/sign-in")
async def form(request: Request, next: str = "/admin/") -> Response:
    """The form."""
    return render(await opened(request), "sign_in.html", next=target(next), mail="", second=False)


@router.post("/sign-in")
async def sign_in(request: Request, mail: Text, password: Text, next: Text = "/admin/", code: Text = "") -> Response:
    """Sign in, and go on to where somebody wanted to go."""
    _own(request)
    here = await opened(request)
    shown = {"next": target(next), "mail": mail}
    try:
        signed = await here.sign_in.password(mail, password, client_of(request), code or None)
    except SecondFactorNeeded as error:
        return render(here, "sign_in.html", status=error.status, second=True, problem=error, **shown)
    except (SignInRefused, TooManyTries) as error:
        return render(here, "sign_in.html", status=error.status, second=bool(code), problem=error, **shown)
    return _entered(request, signed, target(next))


@router.get("/link/{link}")
async def follow(request: Request, link: str) -> Response:
    """The form in which whoever holds a link chooses a password."""
    here = await opened(request)
    try:
        owner, purpose = await here.sign_in.link(link)
    except LinkInvalid as error:
        return render(here, "link.html", status=error.status, owner=None, problem=error)
    return render(here, "link.html", owner=owner, purpose=purpose)


@router.post("/link/{link}")
async def take(request: Request, link: str, password: Text) -> Response:
    """Choose the password, and be signed in."""
    _own(request)
    here = await opened(request)
    try:
        signed = await here.sign_in.take(link, password, client_of(request))
    except LinkInvalid as error:
        return render(here, "link.html", status=error.status, owner=None, problem=error)
    except AccountError as error:
        owner, purpose = await here.sign_in.link(link)
        return render(here, "link.html", status=error.status, owner=owner, purpose=purpose, problem=error)
    return _entered(request, signed, "/admin/")


@router.post("/sign-out")
async def sign_out(visit: Visiting) -> Response:
    """End the session here."""
    await visit.here.sign_in.sign_out(visit.principal)
    response = RedirectResponse("/admin/sign-in", 303)
    response.delete_cookie(cookie(SESSION, visit.request), path="/", secure=visit.request.url.scheme == "https")
    return response


def _own(request: Request) -> None:
    """Nobody is signed in by a form of another site (login CSRF)."""
    if foreign(request):
        raise CsrfFailed


def _entered(request: Request, signed: SignedIn, where: str) -> Response:
    response = RedirectResponse(where, 303)
    keep(response, request, SESSION, signed.session)
    keep(response, request, DEVICE, signed.device, DEVICE_SECONDS)
    return response
