"""Who calls the API: the bearer of a token, and nobody else. Cookies open nothing here, so nothing can be forged."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tenantry.identity import Principal
from tenantry.refusals import SignInNeeded
from tenantry.web.house import opened

_scheme = HTTPBearer(auto_error=False, description="A token of `tenantry token create`.")


async def bearer(
    request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]
) -> Principal:
    """Who sent the request. Raises `SignInNeeded`."""
    if given is None:
        raise SignInNeeded
    return await (await opened(request)).sign_in.by_token(given.credentials)


async def again(request: Request) -> Principal:
    """The same, where an answer takes long."""
    return await bearer(request, await _scheme(request))
