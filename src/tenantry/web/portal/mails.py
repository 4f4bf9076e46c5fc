"""The tab of mail: what is queued, sent, failed and held back; and how letters look."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query
from starlette.responses import HTMLResponse, Response

from tenantry.errors import TenantryError
from tenantry.mail.letter import SAMPLES, Letter, as_text
from tenantry.mail.look import Look, of_platform, of_tenant
from tenantry.registry.letters import LetterState
from tenantry.web.armour import HEADERS
from tenantry.web.letters import SHOWN, shown_html
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visit, Visiting
from tenantry.web.portal.picking import Search

HERE: Final = "/admin/mail"
PAGE: Final = 50

router = APIRouter(prefix="/mail", route_class=Page)

Text = Annotated[str, Form(max_length=2000)]
Before = Annotated[str, Query(max_length=60)]


@router.get("")
@asks("mail.list", "mail.status", "mail.held")
async def index(visit: Visiting, state: Search = "", search: Search = "", before: Before = "") -> Response:
    """Letters, newest first, as wanted."""
    return await _index(visit, state, search, before)


async def _index(visit: Visit, state: str = "", search: str = "", before: str = "", **more: Any) -> Response:
    with visit.acting():
        mails = visit.platform.mails
        rows = await mails.list(state or None, search or None, None, PAGE + 1, before or None)
        shown: dict[str, Any] = {"now": await mails.status(), "held": await mails.held(), "rows": rows[:PAGE]}
    older = urlencode({"state": state, "search": search, "before": rows[PAGE - 1].id}) if len(rows) > PAGE else ""
    shown |= {"state": state, "search": search, "older": older, "states": [*LetterState]}
    return visit.page("mail.html", current=HERE, **(shown | more))


@router.post("/letters/{letter}/retry")
@asks("mail.retry")
async def retry(visit: Visiting, letter: str) -> Response:
    """Try a letter again."""
    try:
        with visit.acting():
            row = await visit.platform.mails.retry(letter)
    except TenantryError as error:
        return await _index(visit, status=error.status, problem=error)
    return visit.go(HERE, f"The letter to {row.recipient} is queued again.")


@router.post("/release")
@asks("mail.release")
async def release(visit: Visiting, address: Text = "") -> Response:
    """Send to an address again."""
    try:
        with visit.acting():
            found = await visit.platform.mails.release(address)
    except TenantryError as error:
        return await _index(visit, status=error.status, problem=error)
    letters = f"{found.letters} letter{'' if found.letters == 1 else 's'}"
    return visit.go(HERE, f"Mail goes to {found.address} again; {letters} that were held back are queued.")


# --- how letters look ---------------------------------------------------------------------------------------------


@router.get("/preview")
@asks("mail.status")
async def preview(visit: Visiting, kind: Search = "", tenant: Search = "") -> Response:
    """Each kind of letter with made-up content, in the platform's look or a tenant's."""
    try:
        letter, look = await _shown(visit, kind, tenant)
    except TenantryError as error:
        tenant, (letter, look) = "", await _shown(visit, kind, "")
        return _preview(visit, letter, look, tenant, status=error.status, problem=error)
    return _preview(visit, letter, look, tenant)


def _preview(visit: Visit, letter: Letter, look: Look, tenant: str, **more: Any) -> Response:
    query = urlencode({"kind": letter.kind, "tenant": tenant})
    shown: dict[str, Any] = {
        "letter": letter,
        "look": look,
        "tenant": tenant,
        "kinds": sorted(SAMPLES),
        "text": as_text(letter, look),
    }
    page = visit.page("mail_preview.html", current=HERE, source=f"{HERE}/preview/html?{query}", **(shown | more))
    page.headers["content-security-policy"] = f"{HEADERS['content-security-policy']}; frame-src 'self'"
    return page


@router.get("/preview/html")
@asks("mail.status")
async def html(visit: Visiting, kind: Search = "", tenant: Search = "") -> Response:
    """The letter itself, as mail programs show it."""
    letter, look = await _shown(visit, kind, tenant)
    return HTMLResponse(shown_html(letter, look), headers={"content-security-policy": SHOWN})


async def _shown(visit: Visit, kind: str, tenant: str) -> tuple[Letter, Look]:
    config = visit.platform.config
    letter = SAMPLES[kind if kind in SAMPLES else min(SAMPLES)](config)
    if not tenant:
        return letter, of_platform(config)
    with visit.acting():
        found = await visit.platform.tenants.show(tenant)
    return letter, of_tenant(config, found.tenant)
