"""The pages of sign-up, at /signup: the form, the mail's link or code, the steps, and the way into the tenant."""

from __future__ import annotations

import asyncio
import tempfile
import zipfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, FastAPI, Form, Query, Request
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response, StreamingResponse

from tenantry.errors import TenantryError
from tenantry.model import Status
from tenantry.platform.signup import TRIES, Application
from tenantry.refusals import CsrfFailed, SignUpGone
from tenantry.registry.journal import State
from tenantry.web.armour import HEADERS
from tenantry.web.house import Opened, opened
from tenantry.web.hub import News
from tenantry.web.portal.asking import Page, anybody
from tenantry.web.portal.frame import foreign, render, rendered
from tenantry.web.portal.progress import STILL, event

router = APIRouter(route_class=Page)

Text = Annotated[str, Form(max_length=2000)]
Typed = Annotated[str, Query(max_length=200)]

POLICY: Final = "content-security-policy"

SOON: Final = 0.5
"""Seconds in which a tenant is there, as a rule: only where it takes longer are its steps worth a page."""

FIELDS: Final = ("slug", "name", "mail", "organization", "invitation")
"""What stands in the form again, after something was wrong with it."""


def install(app: FastAPI) -> None:
    """Add the pages to the application."""
    app.include_router(router, prefix="/signup", include_in_schema=False)


@router.get("")
@anybody()
async def form(request: Request, invitation: Typed = "", slug: Typed = "") -> Response:
    """The form."""
    return await _form(await opened(request), {"invitation": invitation, "slug": slug})


@router.get("/-/slug")
@anybody()
async def slug(request: Request, slug: Typed = "") -> Response:
    """Whether a slug can be had, as one types it."""
    here, wanted = await opened(request), slug.strip()
    found = await here.platform.signups.check(wanted) if wanted else None
    return HTMLResponse(rendered("_signup_slug.html", wanted=found, domain=here.platform.config.platform.domain))


@router.post("")
@anybody()
async def begin(
    request: Request,
    slug: Text = "",
    name: Text = "",
    mail: Text = "",
    organization: Text = "",
    terms: Text = "",
    invitation: Text = "",
    challenge: Text = "",
    answer: Text = "",
) -> Response:
    """Hold the name and send the mail; or tell what is wrong, with all that was typed."""
    _own(request)
    here = await opened(request)
    given = Application(slug.strip(), name, mail, organization, bool(terms), invitation, challenge, answer.strip())
    try:
        ticket = await here.platform.signups.begin(given, request.client.host if request.client else "")
    except TenantryError as error:
        typed = {key: str(getattr(given, key)) for key in FIELDS} | {"terms": terms, "challenge": challenge}
        return await _form(here, typed, error)
    return RedirectResponse(f"/signup/{ticket}", 303)


async def _form(here: Opened, typed: Mapping[str, str], problem: TenantryError | None = None) -> Response:
    signups, settings = here.platform.signups, here.platform.config.signup
    try:
        signups.refuse_closed()
        invited = await signups.invited(typed.get("invitation", ""))
    except TenantryError as error:
        return render(here, "signup_closed.html", status=error.status, problem=error)
    kept = problem is not None and problem.code == "signup.work"  # it goes on to grow old
    shown = {
        "typed": {key: typed.get(key, "") for key in (*FIELDS, "terms")},
        "wanted": await signups.check(typed["slug"]) if typed.get("slug") and problem else None,
        "invited": invited.mail if invited else None,
        "settings": settings,
        "domain": here.platform.config.platform.domain,
        "challenge": typed["challenge"] if kept else signups.challenge(),
    }
    return render(here, "signup.html", status=problem.status if problem else 200, problem=problem, **shown)


# --- the mail's link and code -------------------------------------------------------------------------------------


@router.get("/link/{link}")
@anybody()
async def follow(request: Request, link: str) -> Response:
    """A page with a button: programs that look at links in advance confirm nothing."""
    return await _by_link(await opened(request), link)


@router.post("/link/{link}")
@anybody()
async def confirm(request: Request, link: str) -> Response:
    """Make the tenant, and go on to its steps."""
    _own(request)
    here = await opened(request)
    try:
        ticket = await here.platform.signups.confirm(link)
    except TenantryError as error:
        return await _by_link(here, link, error)
    return RedirectResponse(f"/signup/{ticket}", 303)


async def _by_link(here: Opened, link: str, problem: TenantryError | None = None) -> Response:
    try:
        row = await here.platform.signups.followed(link)
    except SignUpGone as error:
        return render(here, "signup_closed.html", status=error.status, problem=error)
    status = problem.status if problem else 200
    domain = here.platform.config.platform.domain
    return render(here, "signup_confirm.html", status=status, problem=problem, row=row, domain=domain)


@router.post("/{ticket}")
@anybody()
async def confirm_by_code(request: Request, ticket: str, code: Text = "") -> Response:
    """Make the tenant by the code of the mail, and go on to its steps."""
    _own(request)
    here = await opened(request)
    try:
        await here.platform.signups.confirm_by_code(ticket, code)
    except TenantryError as error:
        return await _standing(request, ticket, error)
    return RedirectResponse(f"/signup/{ticket}", 303)


# --- as it stands -------------------------------------------------------------------------------------------------


@router.get("/{ticket}")
@anybody()
async def show(request: Request, ticket: str) -> Response:
    """What it waits for; then the steps as they go; then the way into the tenant."""
    return await _standing(request, ticket)


async def _standing(request: Request, ticket: str, problem: TenantryError | None = None) -> Response:
    here = await opened(request)
    try:
        found = await here.platform.signups.show(ticket)
    except SignUpGone as error:
        return render(here, "signup_closed.html", status=error.status, problem=error)
    status = problem.status if problem else 200
    shown: dict[str, Any] = {"row": found.row, "ticket": ticket, "domain": here.platform.config.platform.domain}
    if not found.row.is_confirmed:
        guessed = found.row.tries >= TRIES
        return render(here, "signup_wait.html", status=status, problem=problem, guessed=guessed, **shown)
    if found.tenant is not None and found.tenant.status is Status.CREATING:
        live = await request.app.state.house.serves(found.tenant.id, SOON)
        found = replace(found, tenant=live) if live else await here.platform.signups.show(ticket)
    if found.tenant is not None and found.tenant.status.served:
        code = here.platform.signups.way_in(found)
        await request.app.state.house.serves(found.tenant.id)  # the browser goes there at once
        response = render(here, "signup_ready.html", code=code, tenant=found.tenant, address=found.address, **shown)
    else:
        details = await here.platform.operations.show(str(found.row.operation_id))
        if details.operation.state is State.DONE:  # it was suspended or removed since
            return render(here, "signup_closed.html", status=SignUpGone.status, problem=SignUpGone())
        response = render(here, "signup_steps.html", details=details, **shown)
    origin = "/".join(found.address.split("/")[:3])  # the form that leads into the tenant goes there
    response.headers[POLICY] = HEADERS[POLICY].replace("form-action 'self'", f"form-action 'self' {origin}")
    return response


@router.get("/{ticket}/steps")
@anybody()
async def steps(request: Request, ticket: str) -> Response:
    """The steps now, then at every change, as server-sent events with HTML; `over` is the last."""
    here = await opened(request)
    found = await here.platform.signups.show(ticket)
    if found.row.operation_id is None:
        raise SignUpGone
    seat, operation = here.hub.seat(), found.row.operation_id

    async def stream() -> AsyncIterator[bytes]:
        async for news in here.hub.listen(operation, seat, lambda: here.platform.signups.show(ticket)):
            yield STILL if news is None else news.told(_event)

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)


def _event(news: News) -> bytes:
    shown = event("steps", rendered("_signup_steps.html", details=news.details))
    return shown + event("over", "") if news.last else shown


# --- taking the data of a closed tenant ---------------------------------------------------------------------------


@router.get("/export/{token}")
@anybody()
async def export(request: Request, token: str) -> Response:
    """A page with a button that gives the data of a tenant whose trial is over."""
    here = await opened(request)
    try:
        found = await here.platform.tenants.closed(token)
    except TenantryError as error:
        return render(here, "signup_closed.html", status=error.status, problem=error)
    return render(here, "signup_export.html", tenant=found)


@router.post("/export/{token}")
@anybody(gives=200)
async def take(request: Request, token: str) -> Response:
    """All its rows, as CSV files in one archive."""
    _own(request)
    here = await opened(request)
    folder = tempfile.TemporaryDirectory(prefix="tenantry-export-")
    try:
        found = await here.platform.tenants.closed(token)
        into, archive = Path(folder.name, "rows"), Path(folder.name, "rows.zip")
        await here.platform.tenants.export(found.slug, into)
        await asyncio.to_thread(_pack, into, archive)
    except TenantryError as error:
        folder.cleanup()
        return render(here, "signup_closed.html", status=error.status, problem=error)
    name = f"{found.slug}.zip"
    return FileResponse(archive, filename=name, media_type="application/zip", background=BackgroundTask(folder.cleanup))


def _pack(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(one for one in folder.rglob("*") if one.is_file()):
            packed.write(file, file.relative_to(folder))


def _own(request: Request) -> None:
    """Nobody signs up by a form of another site."""
    if foreign(request):
        raise CsrfFailed
