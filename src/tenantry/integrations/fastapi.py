"""FastAPI and Starlette: the user of a request as a dependency, roles that a path wants, and refusals answered.

@app.get("/me")
def me(user: CurrentUser) -> str: ...

@app.get("/invoices", dependencies=[requires("admin")])

app.add_exception_handler(TenantryError, refusal)
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from fastapi import Depends, Request, Response

from tenantry.credentials import Role
from tenantry.errors import TenantryError
from tenantry.runtime import pages, require
from tenantry.runtime.accounts import User
from tenantry.runtime.runtime import connected

__all__ = ["CurrentUser", "refusal", "requires"]


def requires(role: Role | str = Role.USER) -> Any:
    """A dependency that gives the user of a request who has at least this role; see `tenantry.require`."""
    wanted = Role(role)

    async def user() -> User:
        return require(wanted)

    return Depends(user)


CurrentUser: TypeAlias = Annotated[User, requires()]
"""The user who makes the request; whoever is not signed in is sent to sign in, or gets 401."""


async def refusal(request: Request, error: Exception, *, json: bool = False) -> Response:
    """The answer to an error of Tenantry's, as the middleware gives it; whoever is to sign in is sent there.

    For applications around which `tenantry serve` puts the middleware: FastAPI has answered with 500 by then. It is a
    page, or problem+json (RFC 9457) where the client prefers JSON, or where `json`: in an API, whatever comes.
    """
    if not isinstance(error, TenantryError):
        raise error
    accept = "application/json" if json else request.headers.get("accept", "")
    answer = pages.refusal(error, accept, connected().settings.data)
    return Response(answer.body, answer.status, dict(answer.headers))
