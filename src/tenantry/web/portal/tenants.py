"""The tab of tenants: the list, what is done to many of them at once, and lists in and out as CSV."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.datastructures import UploadFile
from starlette.responses import Response, StreamingResponse

from tenantry.errors import ConfigError, TenantryError
from tenantry.model import Status
from tenantry.platform import csvfile
from tenantry.registry.tenants import SORTS, TenantRow, cursor
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visit, Visiting

PAGE: Final = 50

CHUNK: Final = 1000
"""Tenants that an export reads at a time."""

CHOSEN: Final = 50
"""Organizations among which one is chosen; of more, the name of one is typed."""

LIST_BYTES: Final = 4_000_000
"""The largest list of tenants that is taken by a form."""

COLUMNS: Final = ("slug", "name", "plan", "blueprint", "status", "reason", "created")

router = APIRouter(route_class=Page)

Wanted = Annotated[str, Query(max_length=300)]


@router.get("/")
@asks("tenant.list")
async def index(
    visit: Visiting,
    search: Wanted = "",
    status: Wanted = "",
    blueprint: Wanted = "",
    plan: Wanted = "",
    sort: Wanted = "slug",
    after: Wanted = "",
    before: Wanted = "",
) -> Response:
    """Tenants as wanted, page by page."""
    wanted = _wanted(search, status, blueprint, plan)
    with visit.acting():
        rows = await visit.platform.tenants.list(
            **wanted, sort=sort, limit=PAGE + 1, after=after or None, before=before or None
        )
        every = visit.principal.is_superadmin
        organizations = await visit.platform.organizations.list(limit=CHOSEN + 1) if every else []
    back = bool(before) and not after
    beyond = len(rows) > PAGE
    rows = rows[-PAGE:] if back else rows[:PAGE]
    filters = {key: value for key, value in wanted.items() if value}
    onward = filters | ({"sort": sort} if sort != "slug" else {})
    config = visit.platform.config
    shown: dict[str, Any] = {
        "rows": rows,
        "wanted": {key: value or "" for key, value in wanted.items()} | {"sort": sort},
        "filters": filters,
        "newer": urlencode(onward | {"before": cursor(rows[0], sort)}) if rows and (beyond if back else after) else "",
        "older": urlencode(onward | {"after": cursor(rows[-1], sort)}) if rows and (back or beyond) else "",
        "orders": {name: urlencode(filters | {"sort": _turned(name, sort)}) for name in SORTS},
        "exported": urlencode(onward),
        "blueprints": list(config.blueprints),
        "plans": list(config.plans),
        "organizations": organizations,
        "chosen": CHOSEN,
    }
    return visit.page("tenants.html", current="/admin/", statuses=list(Status), **shown)


def _wanted(search: str, status: str, blueprint: str, plan: str) -> dict[str, Any]:
    return {"search": search or None, "status": status or None, "blueprint": blueprint or None, "plan": plan or None}


def _turned(name: str, sort: str) -> str:
    return f"-{name}" if sort == name else name


# --- many at once -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one of many."""

    slug: str
    told: str
    problem: TenantryError | None = None
    operation: str | None = None


@router.post("/tenants/-/many")
@asks("tenant.list", gives=200)
async def many(visit: Visiting) -> Response:
    """Do something to each of the ticked tenants, and tell of each what became of it."""
    form = await visit.request.form()
    slugs = list(dict.fromkeys(str(slug) for slug in form.getlist("slug")))[:PAGE]
    action, reason, organization = (str(form.get(name, "")) for name in ("action", "reason", "organization"))
    if not slugs:
        return visit.go("/admin/", "Tick the tenants first, then choose what is to be done.", "warn")
    does = _doing(visit, action, reason, organization)
    answers = []
    with visit.acting():
        for slug in slugs:
            try:
                answers.append(await does(slug))
            except TenantryError as error:
                answers.append(Answer(slug, error.message, error))
    return visit.page("tenants_answers.html", current="/admin/", action=action, answers=answers)


def _doing(visit: Visit, action: str, reason: str, organization: str) -> Callable[[str], Awaitable[Answer]]:
    tenants = visit.platform.tenants

    async def suspend(slug: str) -> Answer:
        return Answer(slug, "It is being suspended.", operation=(await tenants.suspend(slug, reason)).id)

    async def resume(slug: str) -> Answer:
        return Answer(slug, "It is being resumed.", operation=(await tenants.resume(slug)).id)

    async def assign(slug: str) -> Answer:
        row = await visit.platform.organizations.assign(organization, [slug])
        return Answer(slug, f"It belongs to {row.name}.")

    known = {"suspend": suspend, "resume": resume, "assign": assign}
    if action not in known:
        raise ConfigError(f"'{action[:40]}' cannot be done to many tenants.", remedy=f"Choose: {', '.join(known)}.")
    return known[action]


# --- lists in and out ---------------------------------------------------------------------------------------------


@router.get("/tenants/-/export.csv")
@asks("tenant.list")
async def export(
    visit: Visiting, search: Wanted = "", status: Wanted = "", blueprint: Wanted = "", plan: Wanted = "",
    sort: Wanted = "slug",
) -> Response:  # fmt: skip
    """The tenants as wanted, all of them, as CSV."""
    wanted = _wanted(search, status, blueprint, plan)
    first = await _some(visit, wanted, sort, None)

    async def stream() -> AsyncIterator[str]:
        yield csvfile.written([COLUMNS])
        rows = first
        while rows:
            yield csvfile.written(map(_cells, rows))
            rows = await _some(visit, wanted, sort, cursor(rows[-1], sort)) if len(rows) == CHUNK else []

    named = {"Content-Disposition": 'attachment; filename="tenants.csv"'}
    return StreamingResponse(stream(), media_type="text/csv; charset=utf-8", headers=named)


async def _some(visit: Visit, wanted: Mapping[str, Any], sort: str, after: str | None) -> list[TenantRow]:
    with visit.acting():
        return list(await visit.platform.tenants.list(**wanted, sort=sort, limit=CHUNK, after=after))


def _cells(row: TenantRow) -> list[str]:
    return [row.slug, row.name, row.plan or "", row.blueprint, row.status, row.reason, row.created.isoformat()]


@router.get("/tenants/-/import")
@asks("tenant.import")
async def import_form(visit: Visiting) -> Response:
    """The form to which a list is given."""
    return _import_page(visit)


@router.post("/tenants/-/import")
@asks("tenant.import")
async def import_list(visit: Visiting) -> Response:
    """Make the tenants of a list; the operation's page names each bad row with its line."""
    form = await visit.request.form()
    given = form.get("file")
    text, named = str(form.get("text", "")), "the text"
    blueprint, plan = (str(form.get(name, "")) or None for name in ("blueprint", "plan"))
    try:
        if isinstance(given, UploadFile) and given.filename:
            if (given.size or 0) > LIST_BYTES:
                raise ConfigError("The file is too large.", remedy=f"Import at most {LIST_BYTES:,} bytes at a time.")
            named = given.filename[:200]
            text = csvfile.decoded(await given.read(), named)
        with visit.acting():
            operation = await visit.platform.tenants.import_text(text, named, blueprint, plan)
    except TenantryError as error:
        return _import_page(visit, error, text if named == "the text" else "", blueprint, plan)
    bad = f" {operation.failed} cannot be, and why stands below." if operation.failed else ""
    told = f"{operation.total} rows were read.{bad}"
    return visit.go(f"/admin/operations/{operation.id}", told, "warn" if bad else "good")


def _import_page(
    visit: Visit,
    problem: TenantryError | None = None,
    text: str = "",
    blueprint: str | None = None,
    plan: str | None = None,
) -> Response:
    config = visit.platform.config
    shown = {"text": text, "blueprint": blueprint, "plan": plan, "problem": problem}
    known = {"blueprints": list(config.blueprints), "plans": list(config.plans)}
    status = problem.status if problem else 200
    return visit.page("tenants_import.html", status=status, current="/admin/", **shown, **known)
