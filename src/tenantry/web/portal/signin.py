"""Signing in and out, and choosing a password by a link."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from tenantry.errors import AccountError, InvalidSlug, SignInRefused, TenantryError
from tenantry.identity import first
from tenantry.identity.signin import SignedIn
from tenantry.refusals import AdminRefused, CsrfFailed, LinkInvalid, SecondFactorNeeded, TooManyTries
from tenantry.web.house import Opened, opened
from tenantry.web.portal.asking import Page, anybody, asks
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

router = APIRouter(route_class=Page)

Text = Annotated[str, Form(max_length=2000)]
Answer = Annotated[str, Form(max_length=20_000)]


@router.get("/sign-in")
@anybody()
async def form(request: Request, next: str = "/admin/") -> Response:
    """The form."""
    here = await opened(request)
    nobody = await here.sign_in.nobody()
    return render(here, "sign_in.html", next=target(next), mail="", second=False, nobody=nobody)


@router.post("/sign-in")
@anybody()
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
@anybody()
async def follow(request: Request, link: str) -> Response:
    """The form in which whoever holds a link chooses a password."""
    return await _by_link(await opened(request), link)


@router.post("/link/{link}")
@anybody()
async def take(request: Request, link: str, password: Text, mail: Text = "", name: Text = "") -> Response:
    """Choose the password, as the first superadmin also who one is; and be signed in."""
    _own(request)
    here, client = await opened(request), client_of(request)
    signed: SignedIn | None
    try:
        if (await here.sign_in.link(link))[0] is None:
            row = await first.take(here.platform.registry, link, mail, name, password)
            signed = await here.sign_in.begin(row, client)
        else:
            signed = await here.sign_in.take(link, password, client)
    except (LinkInvalid, AccountError, AdminRefused, InvalidSlug) as error:
        return await _by_link(here, link, mail, name, error)
    if signed is None:
        told = {"mood": "good", "text": "The password is changed. Sign in by it and your second factor."}
        return render(here, "sign_in.html", next="/admin/", mail="", second=False, told=told)
    return _entered(request, signed, "/admin/")


async def _by_link(
    here: Opened, link: str, mail: str = "", name: str = "", problem: TenantryError | None = None
) -> Response:
    status = problem.status if problem else 200
    shown: dict[str, Any] = {"mail": mail, "name": name, "nobody": False}
    try:
        owner, purpose = await here.sign_in.link(link)
    except LinkInvalid as error:
        shown |= {"owner": None, "purpose": "", "problem": error, "nobody": await here.sign_in.nobody()}
        return render(here, "link.html", status=error.status, **shown)
    return render(here, "link.html", status=status, owner=owner, purpose=purpose, problem=problem, **shown)


@router.get("/passkey/options")
@anybody()
async def passkey_options(request: Request) -> Response:
    """What the browser is asked to sign."""
    return Response((await opened(request)).passkeys.to_sign_in(), media_type="application/json")


@router.post("/passkey")
@anybody()
async def by_passkey(request: Request, answer: Answer, next: Text = "/admin/") -> Response:
    """Sign in by a passkey."""
    _own(request)
    here = await opened(request)
    try:
        signed = await here.sign_in.passkey(here.passkeys, answer, client_of(request))
    except (SignInRefused, TooManyTries) as error:
        shown: dict[str, Any] = {"next": target(next), "mail": "", "second": False, "problem": error}
        return render(here, "sign_in.html", status=error.status, **shown)
    return _entered(request, signed, target(next))


@router.get("/forgot")
@anybody()
async def forgot(request: Request) -> Response:
    """The form by which a new password is asked for."""
    here = await opened(request)
    return render(here, "forgot.html", possible=here.forgotten.is_possible, asked=False, mail="")


@router.post("/forgot")
@anybody(gives=200)
async def ask(request: Request, mail: Text) -> Response:
    """Send a link to whoever has this address; the answer tells nobody whether somebody has it."""
    _own(request)
    here = await opened(request)
    shown: dict[str, Any] = {"possible": here.forgotten.is_possible, "mail": mail}
    try:
        if here.forgotten.is_possible:
            await here.forgotten.ask(mail, client_of(request).address)
    except TooManyTries as error:
        return render(here, "forgot.html", status=error.status, asked=False, problem=error, **shown)
    return render(here, "forgot.html", asked=True, **shown)


@router.post("/sign-out")
@asks("account.end_session")
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
