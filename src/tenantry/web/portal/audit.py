"""The tab of the audit log: who did what, the proof that nobody changed it, and all of it as a file."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response, StreamingResponse

from tenantry.errors import AuditBroken
from tenantry.platform import csvfile
from tenantry.registry import Entry
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visit, Visiting

PAGE: Final = 50
HERE: Final = "/admin/audit"

EXPORTED: Final = 1000
"""Entries that an export reads at a time."""

COLUMNS: Final = ("seq", "at", "actor", "action", "subject", "detail", "hash")

router = APIRouter(prefix="/audit", route_class=Page)

Wanted = Annotated[str, Query(max_length=200)]
Before = Annotated[int | None, Query(ge=1, lt=2**63)]


def filters(
    subject: Wanted = "", actor: Wanted = "", action: Wanted = "", since: Wanted = "", until: Wanted = ""
) -> dict[str, str]:
    """What was asked for."""
    given = {"subject": subject, "actor": actor, "action": action, "since": since, "until": until}
    return {name: value.strip() for name, value in given.items()}


Filters = Annotated[dict[str, str], Depends(filters)]


async def _entries(visit: Visit, wanted: dict[str, str], limit: int, before: int | None) -> Sequence[Entry]:
    given: dict[str, Any] = {name: value or None for name, value in wanted.items()}
    given["tenant"] = given.pop("subject")
    with visit.acting():
        return await visit.platform.audit.list(limit=limit, before=before, **given)


@router.get("")
@asks("audit.list")
async def index(visit: Visiting, wanted: Filters, before: Before = None) -> Response:
    """Entries, newest first, as wanted."""
    return await _page(visit, wanted, before)


async def _page(visit: Visit, wanted: dict[str, str], before: int | None = None, **values: Any) -> Response:
    rows = await _entries(visit, wanted, PAGE + 1, before)
    onward = {name: value for name, value in wanted.items() if value}
    more = urlencode(onward | {"before": rows[PAGE - 1].seq}) if len(rows) > PAGE else ""
    shown: dict[str, Any] = {"rows": rows[:PAGE], "more": more, "wanted": wanted, "onward": urlencode(onward)}
    return visit.page("audit.html", current=HERE, **({"whole": None} | shown | values))


@router.post("/verify")
@asks("audit.verify", gives=200)
async def verify(visit: Visiting) -> Response:
    """Walk the whole chain, and tell what was found."""
    none = filters("", "", "", "", "")
    try:
        with visit.acting():
            found = await visit.platform.audit.verify()
    except AuditBroken as error:
        return await _page(visit, none, problem=error, status=error.status)
    return await _page(visit, none, whole=found)


@router.get("/export")
@asks("audit.list")
async def export(
    visit: Visiting, wanted: Filters, kind: Annotated[str, Query(pattern="^(csv|jsonl)$")] = "csv"
) -> Response:
    """All entries as wanted, newest first, as they are read."""

    async def lines() -> AsyncIterator[str]:
        before = None
        if kind == "csv":
            yield csvfile.written([COLUMNS])
        while some := await _entries(visit, wanted, EXPORTED, before):
            rows = [asdict(entry) for entry in some]
            if kind == "csv":
                yield csvfile.written([[str(row[name]) for name in COLUMNS] for row in rows])
            else:
                yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            before = some[-1].seq

    media = "text/csv" if kind == "csv" else "application/jsonl"
    headers = {"Content-Disposition": f'attachment; filename="audit.{kind}"'}
    return StreamingResponse(lines(), media_type=f"{media}; charset=utf-8", headers=headers)
