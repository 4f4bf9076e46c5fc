"""Who calls the API: the bearer of a token, and nobody else. Cookies open nothing here, so nothing can be forged."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tenantry.identity import Principal
from tenantry.web.api.guard import admitted

_scheme = HTTPBearer(auto_error=False, description="A token of `tenantry token create`.")


async def bearer(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]) -> Principal:
    """Who sent the request: the guard knew before anything of it was read. Here it is said in the description."""
    return admitted(request)
