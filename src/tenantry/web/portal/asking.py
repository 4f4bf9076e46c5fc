"""Which right each page takes. A page says it where it is defined, and is asked for it before it does anything.

@router.post("/edit")
@asks("tenant.edit")
async def edit(visit: Visiting, slug: str) -> Response: ...

What the page's path names is asked for here: its tenant, its operation. What a form names besides, the verb itself asks
for.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from tenantry.identity import RIGHTS, Right
from tenantry.identity.rights import allow
from tenantry.web.doors import Endpoint, Says, says
from tenantry.web.portal.frame import VISIT, visit

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def asks(verb: str, *more: str, gives: int | None = None) -> Callable[[Endpoint], Endpoint]:
    """Let a page be served to whoever may do this, all of it; it then gives this status."""
    return says(Says((verb, *more), gives))


def anybody(gives: int | None = None) -> Callable[[Endpoint], Endpoint]:
    """Let a page be served to everybody, also to those who are not signed in."""
    return says(Says((), gives))


class Page(APIRoute):
    """A page that says its right. Raises `RightMissing` for one that says none: it is never served."""

    def get_route_handler(self) -> Handler:
        """What answers: first who it is and whether she may, then the page."""
        answer = super().get_route_handler()
        said = Says.of(self.endpoint, self.path)
        rights = [RIGHTS[verb] for verb in said.verbs]
        if not rights:
            return answer

        async def asked(request: Request) -> Response:
            found = await visit(request)
            registry = found.platform.registry
            for right in rights:
                if _is_named(right, request):
                    await allow(found.principal, right, registry, request.path_params)
            request.scope[VISIT] = found
            return await answer(request)

        return asked


def _is_named(right: Right, request: Request) -> bool:
    return right.reach.argument is None or right.reach.argument in request.path_params
