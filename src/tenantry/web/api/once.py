"""Requests with an Idempotency-Key are carried out once: who asks again by the same key gets the first answer."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import Request
from starlette.responses import Response

from tenantry.identity import Principal
from tenantry.refusals import KeyInUse, KeyReused
from tenantry.registry import Registry, repeats
from tenantry.web.api import wire
from tenantry.web.api.routes import Route
from tenantry.web.house import opened

LONGEST: Final = 255
JSON: Final = "application/json"


async def once(
    request: Request,
    route: Route,
    principal: Principal,
    work: Callable[[], Awaitable[Any]],
    check: Callable[[], Awaitable[None]],
) -> Any:
    """What `work` gives; or, where this request was answered before, that answer, for whom `check` lets have it still.

    Raises `KeyReused` where the key came with another request, `KeyInUse` while the first is being answered.
    """
    given = request.headers.get("idempotency-key", "")[:LONGEST]
    if not given or request.method == "GET":
        return await work()
    registry = (await opened(request)).platform.registry
    rights = (principal.role, *sorted(principal.scopes or ()))  # who may less since gets nothing of what was before
    key = _hash(principal.admin_id, principal.token or "", *rights, given)
    asked = _hash(request.method, str(request.url), (await request.body()).hex())
    async with registry.write() as tx:
        before = await repeats.begin(tx, key, asked)
    if before is not None:
        await check()
        return _again(registry, before, asked, given, key)
    try:
        result = await work()
    except BaseException:
        async with registry.write() as tx:
            await repeats.forget(tx, key)
        raise
    body = "" if route.status == 204 else wire.dumped(route.right.call, result)
    async with registry.write() as tx:  # sealed: it may hold what is shown once
        await repeats.end(tx, key, route.status, registry.vault.seal_platform(f"repeat:{key}", body).hex())
    return result


def _again(registry: Registry, before: repeats.Repeat, asked: str, given: str, key: str) -> Response:
    if before.request != asked:
        raise KeyReused(key=given)
    if before.status is None:
        raise KeyInUse(key=given)
    body = registry.vault.open_platform(f"repeat:{key}", bytes.fromhex(before.body or ""))
    return Response(body, before.status, {"Idempotent-Replayed": "true"}, JSON)


def _hash(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode(errors="replace")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()
