"""The entrance: the pages of a tenant's users at its own host or path, answered by the middleware below `/.tenantry/`.

Here they sign in and out, choose passwords by links, keep their accounts, and its admins keep the others'.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from tenantry.credentials import Role
from tenantry.errors import TenantryError
from tenantry.model import Environment
from tenantry.refusals import MethodRefused, PageNotFound
from tenantry.runtime import pages
from tenantry.runtime.accounts import Accounts
from tenantry.runtime.asked import OWN, SAFE, Asked
from tenantry.runtime.proofs import Proofs
from tenantry.runtime.sessions import Sessions
from tenantry.runtime.settings import Postman, Settings

__all__ = ["ENTRANCE", "FILES", "Entrance"]

FILES: Final = "entrance"
"""Below it lie the files that these pages, and others of ours, load."""

ENTRANCE: Final = ("sign-in", "sign-out", "passkey", "forgot", "link", "me", "users", FILES)
"""What the paths of its pages begin with, below `/.tenantry/`."""

KEPT: Final = [("cache-control", "public, max-age=86400"), ("x-content-type-options", "nosniff")]

log = logging.getLogger(__name__)


class Entrance:
    """Answers the pages of tenants' users."""

    def __init__(
        self,
        settings: Settings,
        accounts: Accounts,
        proofs: Proofs,
        sessions: Sessions,
        keys: Callable[[Environment], bytes],
        values: Callable[[Environment], Mapping[str, Any]],
        postman: Postman | None,
    ) -> None:
        self.brand = settings.brand
        self.accounts = accounts
        self.proofs = proofs
        self.sessions = sessions
        self.keys = keys
        self.values = values
        self.postman = postman if postman is not None and postman.is_set_up else None
        self.address = postman.address if postman is not None else None  # of a tenant, as the platform knows it
        self.secure = settings.secure_cookies
        self._users = settings.users
        self._under_way: set[asyncio.Task[None]] = set()

    async def answer(self, environment: Environment, asked: Asked) -> pages.Answer:
        """A page. Called within the tenant's context."""
        from tenantry.runtime.entrance import account, door, people  # noqa: F401 -- they enter their addresses
        from tenantry.runtime.entrance.visit import Visit, find

        path = asked.path[len(OWN) :]
        if path.startswith(f"{FILES}/"):
            return _file(path.partition("/")[2])
        if self._users.get(environment.tenant.blueprint) is None:
            raise PageNotFound(remedy="Tenants of this blueprint have no users.")
        route, varying, methods = find(asked.method, path)
        if route is None and not methods:
            raise PageNotFound(remedy="Go on from the first page.")
        if route is None:
            raise MethodRefused
        visit = Visit(self, environment, asked)
        await visit.find()
        if route.role is not None and visit.who is None:
            return visit.to_sign_in()
        try:
            if asked.method not in SAFE:
                visit.refuse_foreign()
            if route.role is Role.ADMIN and visit.user.role is not Role.ADMIN:
                return visit.page("refused.html", status=403)
            return await route.page(visit, *varying)
        except TenantryError as error:
            return visit.page("refused.html", problem=error)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something after the answer, in the current tenant's context; a failure goes to the log."""
        task = asyncio.create_task(_logged(work))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """End what is to be done after answers, then no more is."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(one for one in self._under_way if one.get_loop() is loop), return_exceptions=True)


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except TenantryError as error:
        log.error("A letter to a tenant's user was not sent: %s", error)


def _file(name: str) -> pages.Answer:
    """A file that pages load, or the style sheet of a color: `entrance/color/2f6f4f.css`."""
    from tenantry.runtime.entrance import look

    if name in look.FILES:
        body, kind = look.file(name), look.FILES[name]
    elif name.startswith("color/") and (made := look.style(name[6:].removesuffix(".css"))):
        body, kind = made.encode(), look.FILES["entrance.css"]
    else:
        raise PageNotFound(remedy="Go on from the first page.")
    return pages.Answer(200, [("content-type", kind), ("content-length", str(len(body))), *KEPT], body)
