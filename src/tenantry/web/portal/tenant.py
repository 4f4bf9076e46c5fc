"""The page of one tenant, and what is done to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Form
from starlette.responses import Response

from tenantry.errors import NotConfirmed, TenantryError
from tenantry.platform import TenantDetails
from tenantry.platform.support import MINUTES
from tenantry.registry.journal import Operation
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.fields import emptied, fields_of, settings_of, typed_of
from tenantry.web.portal.frame import Visit, Visiting, render
from tenantry.web.portal.progress import progress

ACCESSES: Final = 10
"""Support accesses that the page shows."""

AUDITED: Final = 10
"""Entries of the audit log that the page shows."""

router = APIRouter(prefix="/tenants/{slug}", route_class=Page)

Text = Annotated[str, Form(max_length=2000)]


def address_of(visit: Visit, found: TenantDetails) -> str | None:
    """Where a tenant is opened in a browser: its first hostname, at the port and by the protocol used here."""
    host = next((row.name for row in found.hostnames if row.canonical and row.former_until is None), None)
    if host is None:
        return None
    here = urlsplit(visit.platform.config.platform.url or str(visit.request.base_url))
    return f"{here.scheme}://{host}{f':{here.port}' if here.port else ''}/"


@router.get("")
@asks("tenant.show")
async def show(visit: Visiting, slug: str) -> Response:
    """All of it."""
    return await _page(visit, slug)


async def _page(visit: Visit, slug: str, problem: TenantryError | None = None, **more: Any) -> Response:
    platform = visit.platform
    with visit.acting():
        found, under_way = await _now(visit, slug)
        caveats = await platform.tenants.caveats(slug)
        entries = await platform.audit.list(AUDITED, slug)
        accesses = await platform.support.list(slug, ACCESSES)
    shown: dict[str, Any] = {
        "tenant": found,
        "row": found.row,
        "address": address_of(visit, found) if found.tenant.status.served else None,
        "caveats": caveats,
        "entries": entries,
        "accesses": accesses,
        "support": platform.config.support,
        "looking": {"reason": "", "minutes": MINUTES, "writes": ""},
        "opened": None,
        "host": "",
        "credentials": None,
        "login": None,
        **under_way,
    }
    status = problem.status if problem else 200
    return visit.page("tenant.html", status=status, current="/admin/", problem=problem, **(shown | more))


async def _now(visit: Visit, slug: str) -> tuple[TenantDetails, Mapping[str, Any]]:
    """The tenant, and the operation whose steps are shown; both of one moment, or the page stood there, out of date."""
    found = await visit.platform.tenants.show(slug)
    newest = found.operations[0] if found.operations else None
    shown: Mapping[str, Any] = {"details": None, "workers": 0}
    if newest and _matters(newest):
        steps = await progress(visit, newest.id)
        if newest.ended is None and not steps["details"].operation.state.live:  # it ended in between
            found = await visit.platform.tenants.show(slug)
        shown = steps if _matters(found.operations[0]) else shown
    return found, shown


def _matters(operation: Operation) -> bool:
    """Whether the page shows its steps: it is not over, or failed."""
    return operation.ended is None or operation.error is not None


@router.get("/connection")
@asks("tenant.check", "tenant.measure")
async def connection(visit: Visiting, slug: str) -> Response:
    """Test every part of it now, and measure it: a part of its page, and a page of its own."""
    with visit.acting():
        findings = await visit.platform.tenants.check(slug)
        usage = await visit.platform.tenants.measure(slug)
    shown: dict[str, Any] = {"slug": slug, "findings": findings, "usage": usage}
    if visit.request.headers.get("hx-request"):
        return render(visit.here, "_connection.html", **shown)
    return visit.page("tenant_connection.html", current="/admin/", **shown)


@router.post("/credentials")
@asks("tenant.credentials", gives=200)
async def credentials(visit: Visiting, slug: str) -> Response:
    """Show the first password: now, and never again."""
    with visit.acting():
        found = await visit.platform.tenants.credentials(slug)
    if found is None:
        return visit.go(f"/admin/tenants/{slug}", "The first password was shown before, or there is none.", "warn")
    return await _page(visit, slug, credentials=found)


@router.post("/login")
@asks("tenant.login", gives=200)
async def login(visit: Visiting, slug: str, resource: Text, environment: Text) -> Response:
    """Show the login of a part that lies on a server; the audit log tells who asked."""
    try:
        with visit.acting():
            found = await visit.platform.tenants.login(slug, resource, environment)
    except TenantryError as error:
        return await _page(visit, slug, error)
    return await _page(visit, slug, login=found)


# --- changing -----------------------------------------------------------------------------------------------------


@router.get("/edit")
@asks("tenant.edit")
async def edit_form(visit: Visiting, slug: str) -> Response:
    """The form of what can be changed."""
    return await _edit_page(visit, slug)


@router.post("/edit")
@asks("tenant.edit")
async def edit(visit: Visiting, slug: str) -> Response:
    """Change its name, plan and values."""
    typed = {key: str(value) for key, value in (await visit.request.form()).items()}
    try:
        with visit.acting():
            found = await visit.platform.tenants.show(slug)
            blueprint = visit.platform.config.blueprints[found.row.blueprint]
            name, plan = typed.get("name", ""), typed.get("plan") or None
            unset = emptied(blueprint, typed, found.tenant.settings)
            await visit.platform.tenants.edit(slug, name, plan, settings_of(blueprint, typed), unset)
    except TenantryError as error:
        return await _edit_page(visit, slug, error, typed)
    return visit.go(f"/admin/tenants/{slug}", f"{slug} is being changed.")


@router.post("/rename")
@asks("tenant.rename")
async def rename(visit: Visiting, slug: str, to: Text) -> Response:
    """Give it another slug."""
    try:
        with visit.acting():
            operation = await visit.platform.tenants.rename(slug, to.strip())
    except TenantryError as error:
        return await _edit_page(visit, slug, error, to=to)
    return visit.go(f"/admin/tenants/-/made/{operation.id}")


async def _edit_page(
    visit: Visit,
    slug: str,
    problem: TenantryError | None = None,
    typed: Mapping[str, str] | None = None,
    to: str = "",
) -> Response:
    with visit.acting():
        found = await visit.platform.tenants.show(slug)
    if typed is None:
        standing = {"name": found.row.name, "plan": found.row.plan or ""} | typed_of(found.tenant.settings)
        typed = standing
    config = visit.platform.config
    shown = {
        "row": found.row,
        "typed": {key: typed.get(key, "") for key in ("name", "plan")},
        "to": to or slug,
        "plans": {key: value.title for key, value in config.plans.items()},
        "fields": fields_of(config.blueprints[found.row.blueprint], typed),
    }
    status = problem.status if problem else 200
    return visit.page("tenant_edit.html", status=status, current="/admin/", problem=problem, **shown)


@router.post("/suspend")
@asks("tenant.suspend")
async def suspend(visit: Visiting, slug: str, reason: Text = "") -> Response:
    """Refuse its requests from now on."""
    try:
        with visit.acting():
            await visit.platform.tenants.suspend(slug, reason.strip())
    except TenantryError as error:
        return await _page(visit, slug, error)
    return visit.go(f"/admin/tenants/{slug}", f"{slug} is being suspended. Its data stay as they are.")


@router.post("/activate")
@asks("tenant.activate")
async def activate(visit: Visiting, slug: str) -> Response:
    """End its trial well."""
    try:
        with visit.acting():
            await visit.platform.tenants.activate(slug)
    except TenantryError as error:
        return await _page(visit, slug, error)
    return visit.go(f"/admin/tenants/{slug}", f"{slug} is being activated.")


@router.post("/resume")
@asks("tenant.resume")
async def resume(visit: Visiting, slug: str) -> Response:
    """Serve it again."""
    try:
        with visit.acting():
            await visit.platform.tenants.resume(slug)
    except TenantryError as error:
        return await _page(visit, slug, error)
    return visit.go(f"/admin/tenants/{slug}", f"{slug} is being resumed.")


# --- support access -----------------------------------------------------------------------------------------------


@router.post("/support")
@asks("support.open", gives=200)
async def look_in(visit: Visiting, slug: str, reason: Text = "", minutes: Text = "", writes: Text = "") -> Response:
    """Open support access; the link is shown now, and never again."""
    looking = {"reason": reason, "minutes": minutes, "writes": writes}
    try:
        with visit.acting():
            found = await visit.platform.tenants.show(slug)
            length = int(minutes) if minutes.isdecimal() and len(minutes) < 6 else 0
            made = await visit.platform.support.open(slug, reason, length, bool(writes))
    except TenantryError as error:
        return await _page(visit, slug, error, looking=looking)
    address = address_of(visit, found)
    link = made.link if address is None else address.rstrip("/") + made.path
    return await _page(visit, slug, opened={"link": link, "row": made.row})


@router.post("/support/{access}/end")
@asks("support.end")
async def end_look(visit: Visiting, slug: str, access: str) -> Response:
    """End support access now."""
    try:
        with visit.acting():
            await visit.platform.support.end(slug, access)
    except TenantryError as error:
        return await _page(visit, slug, error)
    return visit.go(f"/admin/tenants/{slug}", "That support access is over.")


# --- hostnames ----------------------------------------------------------------------------------------------------


@router.post("/hostnames")
@asks("hostname.add")
async def add_hostname(visit: Visiting, slug: str, host: Text, environment: Text = "production") -> Response:
    """Let one more name lead to it."""
    try:
        with visit.acting():
            name = await visit.platform.hostnames.add(slug, host.strip(), environment)
    except TenantryError as error:
        return await _page(visit, slug, error, host=host)
    return visit.go(f"/admin/tenants/{slug}", f"{name} leads to {slug}. Let its DNS point to this platform.")


@router.post("/hostnames/remove")
@asks("tenant.show", "hostname.remove")
async def remove_hostname(visit: Visiting, slug: str, host: Text) -> Response:
    """Let a name lead nowhere."""
    try:
        with visit.acting():
            name = await visit.platform.hostnames.remove(host)
    except TenantryError as error:
        return await _page(visit, slug, error)
    return visit.go(f"/admin/tenants/{slug}", f"{name} leads nowhere any more.")


# --- removing -----------------------------------------------------------------------------------------------------


@router.get("/delete")
@asks("tenant.plan_destroy")
async def delete_form(visit: Visiting, slug: str) -> Response:
    """What is going to be removed, and where the slug is typed to confirm it."""
    return await _delete_page(visit, slug)


@router.post("/delete")
@asks("tenant.destroy")
async def delete(visit: Visiting, slug: str, confirmed: Text = "") -> Response:
    """Remove it and everything of it, where its slug was typed."""
    try:
        if confirmed.strip() != slug:
            raise NotConfirmed(slug=slug, remedy=f"Type '{slug}' to remove it.")
        with visit.acting():
            operation = await visit.platform.tenants.destroy(slug)
    except TenantryError as error:
        return await _delete_page(visit, slug, error)
    return visit.go(f"/admin/operations/{operation.id}", f"{slug} is being removed.", "warn")


async def _delete_page(visit: Visit, slug: str, problem: TenantryError | None = None) -> Response:
    with visit.acting():
        found = await visit.platform.tenants.show(slug)
        planned = await visit.platform.tenants.plan_destroy(slug)
    status = problem.status if problem else 200
    shown = {"row": found.row, "planned": planned, "problem": problem}
    return visit.page("tenant_delete.html", status=status, current="/admin/", **shown)
