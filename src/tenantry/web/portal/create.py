"""Creating a tenant: a form that says what is going to happen, then the steps as they go, then where it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse, Response

from tenantry.errors import TenantNotFound, TenantryError
from tenantry.platform import PlannedStep
from tenantry.registry.journal import State
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.fields import fields_of, settings_of
from tenantry.web.portal.frame import Visit, Visiting, rendered
from tenantry.web.portal.progress import progress
from tenantry.web.portal.tenant import address_of

router = APIRouter(route_class=Page)

Typed = Annotated[str, Query(max_length=200)]


@router.get("/tenants/new")
@asks("tenant.create")
async def form(visit: Visiting) -> Response:
    """The form."""
    return await _page(visit, {})


@router.get("/tenants/-/slug")
@asks("tenant.slug")
async def slug(visit: Visiting, slug: Typed = "", to: Typed = "") -> Response:
    """Whether a tenant could have this slug, or be renamed to it, as one types it."""
    wanted = (slug or to).strip()
    problem = None
    try:
        with visit.acting():
            await visit.platform.tenants.check_slug(wanted)
    except TenantryError as error:
        problem = error
    return HTMLResponse(rendered("_slug.html", slug=wanted, problem=problem))


@router.post("/tenants/new")
@asks("tenant.create")
async def create(visit: Visiting) -> Response:
    """Show the plan, or the fields of another blueprint; or create the tenant, and go on to its steps."""
    typed = {key: str(value) for key, value in (await visit.request.form()).items()}
    if typed.get("do") != "create":
        return await _page(visit, typed)
    try:
        with visit.acting():
            operation = await visit.platform.tenants.create(**_given(visit, typed))
    except TenantryError as error:
        return await _page(visit, typed, error)
    return visit.go(f"/admin/tenants/-/made/{operation.id}")


@router.get("/tenants/-/made/{operation_id}")
@asks("operation.show")
async def made(visit: Visiting, operation_id: str) -> Response:
    """The steps as they go; then where the tenant is, and its first password to be shown."""
    shown = await progress(visit, operation_id)
    operation = shown["details"].operation
    found = None
    if operation.state is State.DONE and operation.tenant_slug:
        try:
            with visit.acting():
                found = await visit.platform.tenants.show(operation.tenant_slug)
        except TenantNotFound:  # it was removed or renamed since
            pass
    address = address_of(visit, found) if found else None
    return visit.page("tenant_made.html", current="/admin/", **shown, tenant=found, address=address)


def _given(visit: Visit, typed: Mapping[str, str]) -> dict[str, Any]:
    """What the form says, as the verb takes it."""
    blueprint = _blueprint(visit, typed)
    return {
        "slug": typed.get("slug", "").strip(),
        "name": typed.get("name", "").strip() or None,
        "blueprint": blueprint,
        "plan": typed.get("plan") or None,
        "settings": settings_of(visit.platform.config.blueprints[blueprint], typed),
        "server": typed.get("server") or None,
    }


def _blueprint(visit: Visit, typed: Mapping[str, str]) -> str:
    known = visit.platform.config.blueprints
    return typed["blueprint"] if typed.get("blueprint") in known else next(iter(known))


async def _page(visit: Visit, typed: Mapping[str, str], problem: TenantryError | None = None) -> Response:
    config, chosen = visit.platform.config, _blueprint(visit, typed)
    plan: Sequence[PlannedStep] = ()
    wrong: TenantryError | None = None
    with visit.acting():
        servers = await visit.platform.servers.list(ask=False)
        if typed.get("slug") and problem is None:
            try:
                plan = await visit.platform.tenants.plan_create(**_given(visit, typed))
            except TenantryError as error:
                wrong = error
    shown = {
        "typed": {key: typed.get(key, "") for key in ("slug", "name", "plan", "server")},
        "blueprint": chosen,
        "blueprints": {key: value.title for key, value in config.blueprints.items()},
        "plans": {key: value.title for key, value in config.plans.items()},
        "servers": servers,
        "fields": fields_of(config.blueprints[chosen], typed),
        "planned": plan,
        "wrong": wrong,
    }
    status = problem.status if problem else 200
    return visit.page("tenant_new.html", status=status, current="/admin/", problem=problem, **shown)
