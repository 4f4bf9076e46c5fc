"""The tab of verification: attacks on the isolation of tenants, and what came of them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form
from starlette.responses import Response

from tenantry.errors import TenantryError
from tenantry.platform.verify import written
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visit, Visiting

HERE: Final = "/admin/verify"
RUNS: Final = 20

KINDS: Final = {
    "breaches": "Got through",
    "untried": "Could not be tried, and counts as nothing",
    "not_promised": "Got through where nothing else is promised",
}

router = APIRouter(prefix="/verify", route_class=Page)


@router.get("")
@asks("verify.last")
async def index(visit: Visiting) -> Response:
    """The last verification, and those before."""
    return await _page(visit)


async def _page(visit: Visit, problem: TenantryError | None = None, sample: str = "", tenants: str = "") -> Response:
    with visit.acting():
        last = await visit.platform.verification.last()
        runs = await visit.platform.operations.list(verb="verify", limit=RUNS)
    verify = visit.platform.config.verify
    shown: dict[str, Any] = {"last": last, "runs": runs, "sample": sample, "tenants": tenants, "settings": verify}
    status = problem.status if problem else 200
    return visit.page("verify.html", status=status, current=HERE, problem=problem, **shown)


@router.post("")
@asks("verify.run")
async def start(
    visit: Visiting,
    sample: Annotated[str, Form(max_length=20)] = "",
    tenants: Annotated[str, Form(max_length=10_000)] = "",
) -> Response:
    """Attack all tenants, a sample, or those named."""
    slugs = tenants.replace(",", " ").split()
    try:
        with visit.acting():
            operation = await visit.platform.verification.run(sample.strip() or None, slugs)
    except TenantryError as error:
        if error.status in (401, 403):
            raise
        return await _page(visit, error, sample, tenants)
    return visit.go(f"/admin/operations/{operation.id}", "The verification is queued.")


@router.get("/{operation_id}")
@asks("verify.summary")
async def one(visit: Visiting, operation_id: str) -> Response:
    """What a verification found."""
    with visit.acting():
        summary = await visit.platform.verification.summary(operation_id)
    return visit.page("verify_report.html", current=HERE, summary=summary, kinds=KINDS)


@router.get("/{operation_id}/report.json")
@asks("verify.report")
async def signed(visit: Visiting, operation_id: str) -> Response:
    """The signed report, as a file: the bytes that were signed."""
    with visit.acting():
        found = await visit.platform.verification.report(operation_id)
    headers = {"Content-Disposition": f'attachment; filename="verify-{found["operation"]}.json"'}
    return Response(await asyncio.to_thread(written, found), media_type="application/json", headers=headers)
