"""Errors over the wire: problem details (RFC 9457) with the error's own code and remedy."""

from __future__ import annotations

import json
import logging
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from tenantry.errors import TenantryError
from tenantry.refusals import InvalidRequest, PageNotFound, TooManyTries
from tenantry.web.portal.frame import refused

MEDIA: Final = "application/problem+json"

FAULTS: Final = 20
"""Wrong values that one answer names."""

SHOWN: Final = 200
"""Characters of a name that somebody made up."""

log = logging.getLogger(__name__)


class Problem(BaseModel):
    """Why a request was refused, and what to do about it."""

    type: str = Field(examples=["urn:tenantry:error:tenant.not_found"])
    title: str = Field(examples=["There is no tenant 'acme'."])
    status: int = Field(examples=[404])
    code: str = Field(examples=["tenant.not_found"])
    remedy: str = Field(examples=["`tenantry tenant list` names them all."])
    errors: list[dict[str, Any]] = Field(default=[], description="Each value that was wrong: where it stood, and why.")


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    code: {"description": text, "content": {MEDIA: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    for code, text in {
        401: "Nobody is signed in by this token.",
        403: "The token or its owner may not do this.",
        404: "What was named is not there, or is another admin's.",
        409: "As things are, this cannot be done.",
        422: "A value keeps no rule.",
        429: "Too many requests.",
        503: "The control database or a server cannot be reached.",
    }.items()
}


def answer(status: int, code: str, title: str, remedy: str = "", errors: Any = (), **headers: str) -> Response:
    """The response."""
    content = {
        "type": f"urn:tenantry:error:{code}",
        "title": title,
        "status": status,
        "code": code,
        "remedy": remedy,
        "errors": list(errors),
    }
    text = json.dumps(content, ensure_ascii=False).encode(errors="replace")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(text, status, named, MEDIA)


def install(app: FastAPI) -> None:
    """Let the application answer every error so."""
    app.add_exception_handler(TenantryError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _broken)


def of(error: TenantryError) -> Response:
    """The answer to an error of Tenantry's own."""
    headers = {"WWW_Authenticate": "Bearer"} if error.status == 401 else {}
    if isinstance(error, TooManyTries):
        headers["Retry_After"] = str(error.details.get("seconds", 1))
    return answer(error.status, error.code, error.message, error.hint, **headers)


def _is_page(request: Request) -> bool:
    return request.url.path.startswith("/admin/")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, TenantryError)
    return await refused(request, error) if _is_page(request) else of(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    some = error.errors()[:FAULTS]
    faults = [{"where": [str(part)[:SHOWN] for part in one["loc"]], "reason": one["msg"]} for one in some]
    first = InvalidRequest(where=".".join(faults[0]["where"][1:]), reason=faults[0]["reason"])
    if _is_page(request):
        return await refused(request, first)
    return answer(422, first.code, first.message, "See /api/openapi.json for what is taken.", faults)


async def _plain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if _is_page(request) and error.status_code in (404, 405):
        return await refused(request, PageNotFound())
    headers = {name.replace("-", "_"): value for name, value in (error.headers or {}).items()}
    codes = {404: "route.unknown", 405: "route.method"}
    return answer(error.status_code, codes.get(error.status_code, "request.invalid"), str(error.detail), **headers)


async def _gone(request: Request, error: Exception) -> Response:
    """Nobody reads this: the browser took its request back, as it does while somebody types on."""
    return Response(status_code=400)


async def _broken(request: Request, error: Exception) -> Response:
    route = getattr(request.scope.get("route"), "path", "?")  # what stands in its place may be somebody's link
    log.error("%s %s failed", request.method, route, exc_info=error)
    broken = TenantryError("Something went wrong here; the log tells what.", remedy="Tell whoever runs the platform.")
    return await refused(request, broken) if _is_page(request) else of(broken)
