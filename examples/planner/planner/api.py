"""The same things for programs: GET and POST /api/bookings; GET, PATCH and DELETE /api/bookings/7; GET /api/plan.

They bring a token of the laboratory's, which Tenantry gives out and looks at.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import tenantry
from planner import plan, store
from planner.kinds import Kind
from planner.site import site_of, year_of
from planner.web import HEADERS, LARGEST, kind_of, path_of, root_of, visitor


def asked(request: Request) -> bool:
    """Whether a request is a program's."""
    return path_of(request).startswith("/api/")


def answer(content: Any, status: int = 200, **headers: str) -> Response:
    """JSON, with dates as ISO 8601 has them."""

    def plain(value: Any) -> str:
        if isinstance(value, date | datetime):
            return value.isoformat()
        raise TypeError(type(value).__name__)

    return Response(json.dumps(content, default=plain), status, {**HEADERS, **headers}, "application/json")


def refused(status: int, said: str, **more: Any) -> Response:
    """Why not, in a sentence and by field."""
    return answer({"error": said, **more}, status)


async def year(request: Request) -> Response:
    """The plan of a year: `/api/plan?year=2026&site=1`."""
    await visitor(request)
    async with tenantry.tenant_session() as session:
        return answer(plan.as_json(await plan.load(session, year_of(request), site_of(request))))


async def many(request: Request) -> Response:
    """List the things of a kind, or add one."""
    who, kind = await visitor(request), kind_of(request)
    async with tenantry.tenant_session() as session:
        if request.method == "GET":
            return answer(await store.every(session, kind, _where(request, kind)))
        who.check_change(kind)
        values, wrong = kind.read(await _sent(request))
        if wrong:
            return refused(422, "Some values are wrong.", fields=wrong)
        try:
            row_id = await store.add(session, kind, values, who.who)
        except store.Refused as error:
            return refused(409, str(error))
        made = await store.one(session, kind, row_id)
    return answer(made, 201, location=f"{root_of(request)}/api/{kind.path}/{row_id}")


def _where(request: Request, kind: Kind) -> dict[str, int]:
    """`?project_id=3` keeps the rows that name it."""
    known = {one.name for one in kind.refs}
    asked = {name: value for name, value in request.query_params.items() if name in known}
    if not all(value.isascii() and value.isdigit() and len(value) < 10 for value in asked.values()):
        raise HTTPException(422, "An id is a number.")
    return {name: int(value) for name, value in asked.items()}


async def single(request: Request) -> Response:
    """Read, change or remove one thing."""
    who, kind = await visitor(request), kind_of(request)
    row_id = request.path_params["id"]
    async with tenantry.tenant_session() as session:
        try:
            if request.method == "DELETE":
                who.check_change(kind)
                there = await store.remove(session, kind, row_id, who.who)
                return Response(status_code=204) if there else refused(404, f"There is no such {kind.one}.")
            if request.method == "PATCH":
                who.check_change(kind)
                values, wrong = kind.read(await _sent(request), partly=True)
                if wrong:
                    return refused(422, "Some values are wrong.", fields=wrong)
                await store.change(session, kind, row_id, values, who.who)
        except store.Refused as error:
            return refused(409, str(error))
        row = await store.one(session, kind, row_id)
    return answer(row) if row else refused(404, f"There is no such {kind.one}.")


async def _sent(request: Request) -> dict[str, Any]:
    """The JSON object that a request brings. Browsers send this type across sites only where they were allowed to."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise HTTPException(415, "Send application/json.")
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > LARGEST:
        raise HTTPException(413, "That was more than is taken at once.")
    try:
        sent = await request.json()
    except ValueError:
        sent = None
    if not isinstance(sent, dict):
        raise HTTPException(422, "Send a JSON object.")
    return sent
