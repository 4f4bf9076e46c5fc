"""Where organizations' providers tell of their people (SCIM 2.0, RFC 7644): at the platform's own host.

A token of the organization is asked for before anything of a request is read. Sessions and tokens of admin users open
nothing here, and these tokens open nothing elsewhere.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from fastapi.security.utils import get_authorization_scheme_param
from starlette.responses import Response

from tenantry.scim_refusals import ScimNotFiltered, ScimNotFound, ScimTokenWrong, ScimUnsupported
from tenantry.web.api.guard import count_stranger, refuse_media
from tenantry.web.doors import Says, says
from tenantry.web.house import opened
from tenantry.web.rates import Rates

if TYPE_CHECKING:
    from tenantry.identity.scim.directory import Directory
    from tenantry.registry.directory import ScimToken

MEDIA: Final = "application/scim+json"

LATER: Final = "tenantry.identity.scim.directory"
"""What takes a second to import, and few platforms need."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Scim(APIRoute):
    """A route that lets in the bearers of organizations' tokens, each to its own organization."""

    def get_route_handler(self) -> Handler:
        """What answers a request."""
        Says.of(self.endpoint, self.path)
        answer = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            request.state.directory = await _directory(request)
            request.state.token = await _admit(request)
            if request.method in ("POST", "PUT", "PATCH"):
                refuse_media(request)
            response = await answer(request)
            response.headers.update(request.state.rate)
            return response

        return guarded


router = APIRouter(prefix="/scim/{organization}/v2", route_class=Scim)

tells = says(Says((), 401))
"""Whoever comes without a token of the organization is told 401."""


class Asked(NamedTuple):
    """What answers, and for whom."""

    directory: Directory
    token: ScimToken
    match: str | None  # If-Match
    query: Mapping[str, str]


def _asked(request: Request) -> Asked:
    state = request.state
    return Asked(state.directory, state.token, request.headers.get("if-match"), request.query_params)


async def _directory(request: Request) -> Directory:
    held = request.app.state
    if not hasattr(held, "directory"):
        kind = (await asyncio.to_thread(import_module, LATER)).Directory
        platform = (await opened(request)).platform
        held.directory = kind(platform.registry, platform.config)
    found: Directory = held.directory
    return found


async def _admit(request: Request) -> ScimToken:
    """Whose token it is. Raises `ScimTokenWrong` and `TooManyRequests`."""
    scheme, token = get_authorization_scheme_param(request.headers.get("authorization"))
    directory: Directory = request.state.directory
    try:
        if scheme.lower() != "bearer" or not token:
            raise ScimTokenWrong
        found = await directory.admit(request.path_params["organization"], token)
    except ScimTokenWrong:
        count_stranger(request)
        raise
    rates: Rates = request.app.state.rates
    request.state.rate = rates.tokens.count(f"scim/{found.id}")
    return found


# --- what this service says of itself -----------------------------------------------------------------------------


@router.get("/ServiceProviderConfig")
@tells
async def config(request: Request) -> Response:
    """What is supported."""
    from tenantry.identity.scim import wire

    return _answer(wire.config(_where(request)))


@router.get("/ResourceTypes")
@tells
async def resource_types(request: Request) -> Response:
    """What there is."""
    from tenantry.identity.scim import wire

    return _described(request, wire.resource_types(_where(request)))


@router.get("/ResourceTypes/{name}")
@tells
async def resource_type(request: Request, name: str) -> Response:
    """One of them."""
    from tenantry.identity.scim import wire

    return _one("resource type", name, wire.resource_types(_where(request)))


@router.get("/Schemas")
@tells
async def schemas(request: Request) -> Response:
    """Of which attributes it is made."""
    from tenantry.identity.scim import wire

    return _described(request, wire.schemas(_where(request)))


@router.get("/Schemas/{name}")
@tells
async def schema(request: Request, name: str) -> Response:
    """One of them."""
    from tenantry.identity.scim import wire

    return _one("schema", name, wire.schemas(_where(request)))


# --- people -------------------------------------------------------------------------------------------------------


@router.get("/Users")
@tells
async def people(request: Request) -> Response:
    """Those who are asked for."""
    asked = _asked(request)
    return _answer(await asked.directory.people(asked.token, asked.query))


@router.post("/Users")
@tells
async def join(request: Request) -> Response:
    """Somebody joins."""
    asked = _asked(request)
    return _made(await asked.directory.join(asked.token, await request.body()))


@router.get("/Users/{person}")
@tells
async def person(request: Request, person: str) -> Response:
    """Somebody."""
    asked = _asked(request)
    return _read(request, await asked.directory.person(asked.token, person, asked.query))


@router.put("/Users/{person}")
@tells
async def replace(request: Request, person: str) -> Response:
    """Somebody is as the provider says now."""
    asked = _asked(request)
    return _answer(await asked.directory.replace(asked.token, person, await request.body(), asked.match))


@router.patch("/Users/{person}")
@tells
async def patch(request: Request, person: str) -> Response:
    """Something of somebody changes."""
    asked = _asked(request)
    return _answer(await asked.directory.patch(asked.token, person, await request.body(), asked.match))


@router.delete("/Users/{person}")
@tells
async def leave(request: Request, person: str) -> Response:
    """Somebody is gone."""
    asked = _asked(request)
    await asked.directory.leave(asked.token, person, asked.match)
    return Response(status_code=204)


# --- groups -------------------------------------------------------------------------------------------------------


@router.get("/Groups")
@tells
async def groups(request: Request) -> Response:
    """Those that are asked for."""
    asked = _asked(request)
    return _answer(await asked.directory.groups(asked.token, asked.query))


@router.post("/Groups")
@tells
async def found_group(request: Request) -> Response:
    """A group begins."""
    asked = _asked(request)
    return _made(await asked.directory.found_group(asked.token, await request.body()))


@router.get("/Groups/{group}")
@tells
async def group(request: Request, group: str) -> Response:
    """A group."""
    asked = _asked(request)
    return _read(request, await asked.directory.group(asked.token, group, asked.query))


@router.put("/Groups/{group}")
@tells
async def replace_group(request: Request, group: str) -> Response:
    """A group is as the provider says now."""
    asked = _asked(request)
    return _answer(await asked.directory.replace_group(asked.token, group, await request.body(), asked.match))


@router.patch("/Groups/{group}")
@tells
async def patch_group(request: Request, group: str) -> Response:
    """Something of a group changes."""
    asked = _asked(request)
    found = await asked.directory.patch_group(asked.token, group, await request.body(), asked.match)
    return Response(status_code=204) if found is None else _answer(found)


@router.delete("/Groups/{group}")
@tells
async def end_group(request: Request, group: str) -> Response:
    """A group ends."""
    asked = _asked(request)
    await asked.directory.end_group(asked.token, group, asked.match)
    return Response(status_code=204)


# --- what is not here ---------------------------------------------------------------------------------------------


@router.post("/Bulk")
@tells
async def bulk(request: Request) -> Response:
    """Many changes at once are not taken (RFC 7644 section 3.7): each comes by itself."""
    raise ScimUnsupported(what="Bulk")


@router.get("/Me")
@tells
async def me(request: Request) -> Response:
    """Whoever asks is an organization's provider, and nobody of it (RFC 7644 section 3.11)."""
    raise ScimUnsupported(what="/Me")


@router.post("/.search")
@tells
async def search(request: Request) -> Response:
    """People and groups are asked for by GET (RFC 7644 section 3.4.3)."""
    raise ScimUnsupported(what="/.search")


# --- answers ------------------------------------------------------------------------------------------------------


def _where(request: Request) -> str:
    asked = _asked(request)
    return asked.directory.where(asked.token.organization_id)


def _answer(found: Mapping[str, Any], status: int = 200, **headers: str) -> Response:
    version = found.get("meta", {}).get("version")
    if version:
        headers["ETag"] = version
    return Response(json.dumps(found, ensure_ascii=False).encode(), status, headers, MEDIA)


def _made(found: Mapping[str, Any]) -> Response:
    return _answer(found, 201, Location=found["meta"]["location"])


def _read(request: Request, found: Mapping[str, Any]) -> Response:
    """One of them; nothing where whoever asks has it as it is (RFC 9110 section 13.1.2)."""
    tag = found.get("meta", {}).get("version", "")
    known = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    if tag and tag.removeprefix("W/") in known:
        return Response(status_code=304, headers={"ETag": tag})
    return _answer(found)


def _described(request: Request, found: list[dict[str, Any]]) -> Response:
    from tenantry.identity.scim import wire

    if "filter" in request.query_params:  # RFC 7644 section 4
        raise ScimNotFiltered
    head = {"schemas": [wire.LIST], "totalResults": len(found), "startIndex": 1, "itemsPerPage": len(found)}
    return _answer({**head, "Resources": found})


def _one(kind: str, name: str, found: list[dict[str, Any]]) -> Response:
    for one in found:
        if name.lower() == str(one["id"]).lower():
            return _answer(one)
    raise ScimNotFound(kind=kind, id=name[:60])
