"""The tab of operations: what is being done, and what was, each with its live steps."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.responses import Response

from tenantry.errors import OperationRefused, TenantryError
from tenantry.platform.operations import OperationDetails
from tenantry.registry.journal import State, StepState
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visit, Visiting
from tenantry.web.portal.progress import progress

PAGE: Final = 50

FAILURES: Final = 50
"""Tenants that failed which one page names."""

HERE: Final = "/admin/operations"

DONE: Final = {
    "resume": "It goes on; what is done is not repeated.",
    "pause": "It rests after the batches under way.",
    "cancel": "It stops; what it made is undone where that can be.",
}

router = APIRouter(prefix="/operations", route_class=Page)

Wanted = Annotated[str, Query(max_length=200)]


@router.get("")
@asks("operation.list")
async def index(
    visit: Visiting, state: Wanted = "", tenant: Wanted = "", verb: Wanted = "", before: Wanted = ""
) -> Response:
    """Operations, newest first, as wanted."""
    wanted = {"state": state, "tenant": tenant.strip(), "verb": verb}
    with visit.acting():
        found = visit.platform.operations
        given = {name: value or None for name, value in wanted.items()}
        rows = await found.list(**given, limit=PAGE + 1, before=before or None)
        workers = await found.workers()
    onward = {name: value for name, value in wanted.items() if value}
    more = urlencode(onward | {"before": rows[PAGE - 1].id}) if len(rows) > PAGE else ""
    shown: dict[str, Any] = {"rows": rows[:PAGE], "more": more, "wanted": wanted, "workers": workers}
    return visit.page("operations.html", current=HERE, states=list(State), verbs=found.verbs, **shown)


@router.get("/{operation_id}")
@asks("operation.show")
async def one(visit: Visiting, operation_id: str) -> Response:
    """One operation with its steps, live."""
    return await _page(visit, operation_id)


async def _page(visit: Visit, operation_id: str, problem: TenantryError | None = None) -> Response:
    shown = await progress(visit, operation_id)
    status, does = problem.status if problem else 200, _possible(visit, shown["details"])
    return visit.page("operation.html", status=status, current=HERE, problem=problem, does=does, **shown)


def _possible(visit: Visit, details: OperationDetails) -> list[str]:
    """What can be done with it as it is now."""
    state, verb = details.operation.state, details.operation.verb
    many = visit.platform.operations.pausable(verb)
    can = {
        "pause": many and state in (State.QUEUED, State.RUNNING),
        "resume": state in (State.FAILED, State.PAUSED, State.PAUSING),
        "cancel": state in (State.QUEUED, State.RUNNING, State.PAUSING, State.PAUSED)
        and (verb != "destroy" or state is State.QUEUED),
    }
    return [action for action, possible in can.items() if possible]


@router.get("/{operation_id}/failures")
@asks("operation.items")
async def failures(visit: Visiting, operation_id: str, after: Annotated[int, Query(ge=-1, lt=2**31)] = -1) -> Response:
    """All tenants that failed, each with its cause and what to do."""
    with visit.acting():
        details = await visit.platform.operations.show(operation_id)
        rows = await visit.platform.operations.items(operation_id, StepState.FAILED, FAILURES + 1, after)
    more = rows[FAILURES - 1].position if len(rows) > FAILURES else None
    shown: dict[str, Any] = {"operation": details.operation, "failures": rows[:FAILURES], "more": more}
    return visit.page("operation_failures.html", current=HERE, **shown)


@router.post("/{operation_id}/{action}")
@asks("operation.resume", "operation.pause", "operation.cancel")
async def act(visit: Visiting, operation_id: str, action: str) -> Response:
    """Resume, pause or cancel it."""
    verbs = visit.platform.operations
    known = {"resume": verbs.resume, "pause": verbs.pause, "cancel": verbs.cancel}
    try:
        with visit.acting():
            if action not in known:
                raise OperationRefused(state="as it is", action=f"made to {action}", operation=operation_id)
            found = await known[action](operation_id)
    except OperationRefused as error:
        return await _page(visit, operation_id, error)
    return visit.go(f"{HERE}/{found.id}", DONE[action])
