"""Errors over the wire: problem details (RFC 9457) with the error's own code and remedy."""

from __future__ import annotations

import json
import logging
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import compile_path

from tenantry.errors import TenantryError
from tenantry.refusals import (
    BodyTooLarge,
    BodyUnreadable,
    InvalidRequest,
    MethodRefused,
    PageNotFound,
    RouteUnknown,
    TooManyRequests,
    TooManyTries,
)
from tenantry.scim_refusals import ScimRefused
from tenantry.web.api.guard import Guarded
from tenantry.web.portal.frame import refused

MEDIA: Final = "application/problem+json"

FAULTS: Final = 20
"""Wrong values that one answer names."""

SHOWN: Final = 200
"""Characters of a name that somebody made up."""

SCIM: Final = "/scim/"
"""How addresses begin at which organizations' providers are answered."""

SCIM_ERROR: Final = "urn:ietf:params:scim:api:messages:2.0:Error"

RETRY_SECONDS: Final = 2
"""When a client may ask again that was refused because something is out of reach."""

log = logging.getLogger(__name__)


class Problem(BaseModel):
    """Why a request was refused, and what to do about it."""

    type: str = Field(examples=["urn:tenantry:error:tenant.not_found"])
    title: str = Field(examples=["There is no tenant 'acme'."])
    status: int = Field(examples=[404])
    code: str = Field(examples=["tenant.not_found"])
    remedy: str = Field(examples=["`tenantry tenant list` names them all."])
    errors: list[dict[str, Any]] = Field(default=[], description="Each value that was wrong: where it stood, and why.")


_SECONDS: Final = {"description": "Seconds after which it may be asked again.", "schema": {"type": "string"}}
_WAIT: Final = {"headers": {"Retry-After": _SECONDS}}

_STATUSES: Final[dict[int, tuple[str, dict[str, Any]]]] = {
    400: ("The request cannot be read, or names no proper host.", {}),
    401: ("Nobody is signed in by this token.", {"headers": {"WWW-Authenticate": {"schema": {"type": "string"}}}}),
    403: ("The token or its owner may not do this.", {}),
    404: ("What was named is not there, or is another admin's.", {}),
    409: ("As things are, this cannot be done.", {}),
    413: ("The body is too large.", {}),
    415: ("The body is no JSON.", {}),
    422: ("A value keeps no rule.", {}),
    429: ("Too many requests.", _WAIT),
    500: ("What was asked for went wrong; the code says how.", {}),
    503: ("The control database or a server cannot be reached.", _WAIT),
}


def problems_of(body: bool = False) -> dict[int | str, dict[str, Any]]:
    """The answers that refuse, for the description of a route with a body or without."""
    content = {MEDIA: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        code: {"description": text, "content": content, **more}
        for code, (text, more) in _STATUSES.items()
        if body or code not in (413, 415)
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


def of(error: TenantryError, **headers: str) -> Response:
    """The answer to an error of Tenantry's own."""
    if error.status == 401:
        headers["WWW_Authenticate"] = "Bearer"
    if isinstance(error, TooManyTries | TooManyRequests):
        headers["Retry_After"] = str(error.details.get("seconds", 1))
    if error.status == 503:
        headers["Retry_After"] = str(RETRY_SECONDS)
    return answer(error.status, error.code, error.message, error.hint, **headers)


def _by_scim(error: TenantryError) -> Response:
    """The answer to an organization's provider (RFC 7644 section 3.12), which shows it to an administrator."""
    response = of(error)
    text: dict[str, Any] = {"schemas": [SCIM_ERROR], "status": str(error.status), "detail": str(error)}
    if isinstance(error, ScimRefused) and error.keyword:
        text["scimType"] = error.keyword
    headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
    return Response(json.dumps(text), error.status, headers, "application/scim+json")


def _is_page(request: Request) -> bool:
    route = request.scope.get("route")
    provisions = isinstance(route, Guarded) and request.method not in ("GET", "HEAD")  # browsers look, programs do
    return request.url.path.startswith("/admin/") and not provisions


async def told(request: Request, error: TenantryError) -> Response:
    """The answer to an error: a page where one was asked for."""
    if _is_page(request):
        return await refused(request, error)
    response = _by_scim(error) if request.url.path.startswith(SCIM) else of(error)
    response.headers.update(error.details.get("headers") or getattr(request.state, "rate", {}))
    return response


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, TenantryError)
    return await told(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    some = error.errors()[:FAULTS]
    faults = [{"where": [str(part)[:SHOWN] for part in one["loc"]], "reason": one["msg"]} for one in some]
    first = InvalidRequest(where=".".join(faults[0]["where"][1:]), reason=faults[0]["reason"])
    if _is_page(request):
        return await refused(request, first)
    return answer(422, first.code, first.message, "See /api/openapi.json for what is taken.", faults)


_PLAIN: Final[dict[int, type[TenantryError]]] = {
    400: BodyUnreadable,
    404: RouteUnknown,
    405: MethodRefused,
    413: BodyTooLarge,
}
"""What the frame's own refusals are called here."""


async def _plain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = _PLAIN.get(error.status_code)
    if known is None:
        return answer(error.status_code, "request.invalid", str(error.detail))
    if _is_page(request):
        missing = error.status_code in (404, 405)  # whoever looks at where a form is sent finds no page there
        response = await refused(request, PageNotFound() if missing else known(limit=error.detail))
    else:
        response = await told(request, known(limit=error.detail))
    if error.status_code == 405:
        response.status_code = 405
        response.headers["allow"] = ", ".join(_methods(request))
    return response


def _methods(request: Request) -> list[str]:
    """What this address takes: of all routes that lead there, not of the first alone."""
    path, found = request.url.path, set[str]()
    for route in iter_route_contexts(request.app.routes):
        if isinstance(route.original_route, APIRoute) and compile_path(str(route.path))[0].match(path):
            found |= route.methods or set()
    return sorted(found)


async def _gone(request: Request, error: Exception) -> Response:
    """Nobody reads this: the browser took its request back, as it does while somebody types on."""
    return Response(status_code=400)


async def broken(request: Request, error: Exception) -> Response:
    """The answer to a fault of ours."""
    route = getattr(request.scope.get("route"), "path", "?")  # what stands in its place may be somebody's link
    log.error("%s %s failed", request.method, route, exc_info=error)
    unknown = TenantryError("Something went wrong here; the log tells what.", remedy="Tell whoever runs the platform.")
    return await told(request, unknown)
