"""FastAPI: the user of a request as a dependency, and roles that a path wants.

@app.get("/me")
def me(user: CurrentUser) -> str: ...

@app.get("/invoices", dependencies=[requires("admin")])
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from fastapi import Depends

from tenantry.credentials import Role
from tenantry.runtime import require
from tenantry.runtime.accounts import User

__all__ = ["CurrentUser", "requires"]


def requires(role: Role | str = Role.USER) -> Any:
    """A dependency that gives the user of a request who has at least this role; see `tenantry.require`."""
    wanted = Role(role)

    async def user() -> User:
        return require(wanted)

    return Depends(user)


CurrentUser: TypeAlias = Annotated[User, requires()]
"""The user who makes the request; whoever is not signed in is sent to sign in, or gets 401."""
