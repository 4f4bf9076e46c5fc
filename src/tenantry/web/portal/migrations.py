"""The tab of migrations: at which schemas the fleet stands, and bringing it to the newest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Final, get_args

from fastapi import APIRouter, Form
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from tenantry.errors import OperationNotFound, TenantryError
from tenantry.operations.due import Due, Fleet
from tenantry.operations.report import NAMED
from tenantry.platform.rehearse import METHOD, duration, locked
from tenantry.registry.journal import Operation
from tenantry.resources import Phase
from tenantry.web.portal import charts
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visit, Visiting

HERE: Final = "/admin/migrations"
RUNS: Final = 10
SHOWN: Final = 20
"""Tenants that are named of those that are to be migrated alike."""

NEWEST: Final = 0
"""The colour of the newest version; older ones take the others."""

router = APIRouter(prefix="/migrations", route_class=Page)


class Asked(BaseModel):
    """The form of a run, as it was filled in."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True, str_max_length=10_000)

    canary: int = 1
    waves: str = "100%"
    stop_after: str = ""
    parallel: int | None = None
    rate: str = ""
    phase: str = ""
    to: str = ""
    blueprint: str = ""
    tenants: str = ""
    sample: str = ""
    what: str = "run"

    @property
    def wanted(self) -> dict[str, Any]:
        """What a run and a rehearsal of it take alike."""
        return {
            "to": self.to or None,
            "phase": self.phase or None,
            "blueprint": self.blueprint or None,
            "slugs": tuple(self.tenants.replace(",", " ").split()),
        }

    async def start(self, visit: Visit) -> Operation:
        """Begin it."""
        if self.what == "rehearse":
            return await visit.platform.rehearsals.run(self.sample or None, parallel=self.parallel, **self.wanted)
        waves = [one for one in self.waves.replace(",", " ").split() if one]
        limits = {"parallel": self.parallel, "rate": self.rate or None, "stop_after": self.stop_after or None}
        return await visit.platform.migrations.run(self.canary, waves, **limits, **self.wanted)  # type: ignore[arg-type]


@router.get("")
@asks("migrate.status")
async def index(visit: Visiting) -> Response:
    """At which versions the fleet is, and what was run."""
    return await _page(visit, Asked())


async def _page(visit: Visit, asked: Asked, problem: TenantryError | None = None) -> Response:
    with visit.acting():
        fleets = await visit.platform.migrations.status()
        runs = await visit.platform.operations.list(verb="migrate", limit=RUNS)
        rehearsals = await visit.platform.operations.list(verb="rehearse", limit=RUNS)
        try:
            now = await visit.platform.migrations.under_way()
        except OperationNotFound:
            now = None
    shown: dict[str, Any] = {
        "fleets": [_picture(fleet) for fleet in fleets],
        "runs": runs,
        "rehearsals": rehearsals,
        "now": now,
        "asked": asked,
        "phases": get_args(Phase),
        "blueprints": sorted({fleet.blueprint for fleet in fleets}),
    }
    status = problem.status if problem else 200
    return visit.page("migrations.html", status=status, current=HERE, problem=problem, **shown)


def _picture(fleet: Fleet) -> dict[str, Any]:
    """A bar of the versions, the newest first, and what it shows in words."""
    older = sorted((one for one in fleet.versions if one != fleet.newest), key=lambda one: one or "", reverse=True)
    names = ([fleet.newest] if fleet.newest in fleet.versions else []) + older
    parts = [
        (name or "none", fleet.versions[name], NEWEST if name == fleet.newest else 1 + at % (charts.COLOURS - 1))
        for at, name in enumerate(names)
    ]
    behind = sum(number for name, number in fleet.versions.items() if name != fleet.newest)
    title = f"Versions of {fleet.blueprint}.{fleet.resource}"
    return {"fleet": fleet, "parts": parts, "behind": behind, "svg": charts.stack(title, parts)}


@router.post("")
@asks("migrate.run")
async def start(visit: Visiting, asked: Annotated[Asked, Form()]) -> Response:
    """Begin a run or a rehearsal of it, or show what it would take."""
    try:
        with visit.acting():
            if asked.what == "plan":
                wanted = asked.wanted
                slugs = wanted.pop("slugs")
                found = await visit.platform.migrations.plan(**wanted, tenants=slugs)
                return visit.page("migration_plan.html", current=HERE, groups=_grouped(found), number=len(found))
            operation = await asked.start(visit)
    except TenantryError as error:
        if error.status in (401, 403):
            raise
        return await _page(visit, asked, error)
    if not operation.state.live:
        return visit.go(HERE, "Every tenant is at its schema already: nothing was to be migrated.")
    begun = "The rehearsal is queued." if asked.what == "rehearse" else "The migration is queued."
    return visit.go(f"/admin/operations/{operation.id}", begun)


def _grouped(found: Sequence[Due]) -> list[dict[str, Any]]:
    """Those that are to be migrated alike, with some of their names."""
    names: dict[tuple[Any, ...], list[str]] = {}
    counts: Counter[tuple[Any, ...]] = Counter()
    for one in found:
        key = (f"{one.blueprint}.{one.resource}", one.version, one.target, one.server)
        counts[key] += one.tenants
        some = names.setdefault(key, [])
        if len(some) < SHOWN:
            some.append(one.slug)
    return [
        {"resource": key[0], "before": key[1], "after": key[2], "server": key[3], "tenants": number, "some": names[key]}
        for key, number in counts.items()
    ]


@router.post("/rollback")
@asks("migrate.rollback")
async def rollback(
    visit: Visiting,
    tenant: Annotated[str, Form(max_length=200)],
    to: Annotated[str, Form(max_length=200)] = "",
    pin: Annotated[bool, Form()] = False,
) -> Response:
    """Take one tenant's newest migration back."""
    try:
        with visit.acting():
            operation = await visit.platform.migrations.rollback(tenant.strip(), to.strip() or None, pin=pin)
    except TenantryError as error:
        if error.status in (401, 403):
            raise
        return await _page(visit, Asked(), error)
    return visit.go(
        f"/admin/operations/{operation.id}", f"Taking the migration of '{operation.tenant_slug}' back is queued."
    )


@router.post("/unpin")
@asks("migrate.unpin")
async def unpin(visit: Visiting, tenant: Annotated[str, Form(max_length=200)]) -> Response:
    """Let the next run bring a tenant up again."""
    with visit.acting():
        await visit.platform.migrations.unpin(tenant)
    return visit.go(HERE, f"The next run brings '{tenant}' up again.")


@router.get("/{operation_id}/report.{kind}")
@asks("migrate.report")
async def report(visit: Visiting, operation_id: str, kind: str) -> Response:
    """What a run did, as a file."""
    with visit.acting():
        found = await visit.platform.migrations.report(operation_id, NAMED)
    text, media = (found.as_json(), "application/json") if kind == "json" else (found.as_markdown(), "text/markdown")
    ending = "json" if kind == "json" else "md"
    headers = {"Content-Disposition": f'attachment; filename="migrate-{found.operation}.{ending}"'}
    return Response(text, media_type=f"{media}; charset=utf-8", headers=headers)


@router.get("/rehearsals/{operation_id}")
@asks("migrate.rehearsal")
async def rehearsal(visit: Visiting, operation_id: str) -> Response:
    """What a rehearsal found so far."""
    with visit.acting():
        found = await visit.platform.rehearsals.report(operation_id)
    slowest = max((one.slowest for one in found.migrations), default=0.0)
    bars = [charts.bar(f"Slowest: {duration(one.slowest)}", one.slowest, slowest) for one in found.migrations]
    lines: list[tuple[Any, Markup]] = list(zip(found.migrations, bars, strict=True))
    shown: dict[str, Any] = {"report": found, "lines": lines, "duration": duration, "locked": locked, "method": METHOD}
    return visit.page("rehearsal.html", current=HERE, named=50, **shown)
