"""Who makes the current request: `current_user()` and `require(role)`, the same in every framework."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from tenantry.context import current_environment, support_access
from tenantry.credentials import Role
from tenantry.errors import ForeignSession, InvalidToken, RuntimeMissing, TenantryError
from tenantry.model import Environment
from tenantry.refusals import RoleNeeded, UserNeeded
from tenantry.runtime.accounts import User
from tenantry.runtime.asked import OWN, SAFE, Asked
from tenantry.runtime.pages import prefers_json
from tenantry.runtime.tokens import bearer, name_of

if TYPE_CHECKING:
    from tenantry.runtime.runtime import Runtime

RANKS: Final = {Role.USER: 0, Role.SUPERUSER: 1, Role.ADMIN: 2}
"""Each role may what those of a smaller rank may."""

SIGN_IN: Final = f"{OWN}sign-in"
"""Our own page to sign in, where it is answered."""

NEXT_LENGTH: Final = 2000
"""The longest address, in characters, to which somebody returns after signing in."""


class Visit:
    """A request within a tenant, and whose it is: looked up once, where it says that it is somebody's."""

    __slots__ = ("_ask", "_error", "_looked", "_raw", "_runtime", "_user", "_waits", "environment")

    def __init__(
        self, runtime: Runtime, environment: Environment, ask: Callable[[Any], Asked], raw: Any, waits: bool = False
    ) -> None:
        self.environment = environment
        self._runtime = runtime
        self._ask = ask  # makes what follows of `raw`, the request as the server gave it
        self._raw = raw
        self._waits = waits  # whether nobody has looked before the application asks: it has no event loop
        self._looked = False
        self._user: User | None = None
        self._error: TenantryError | None = None

    @property
    def asked(self) -> Asked:
        """The request."""
        return self._ask(self._raw)

    async def look(self) -> None:
        """Look up who it is; called within the tenant's context."""
        self._looked = True
        try:
            self._user = await self._found(self.asked)
        except TenantryError as error:  # what needs no user is answered all the same
            self._error = error

    @property
    def user(self) -> User | None:
        """Who it is. Raises what looking it up raised."""
        if self._waits and not self._looked:
            _refuse_to_block()
            self._runtime.wait(self.look())
        if self._error is not None:
            raise self._error
        return self._user

    @property
    def known(self) -> User | None:
        """Who it is, as far as anybody has looked."""
        return self._user

    def is_of(self, user: User) -> None:
        """Take in who it is, from a page of ours that has looked itself."""
        self._looked, self._user = True, user

    @property
    def sign_in(self) -> str | None:
        """Where a browser that shows a page is sent to sign in; None for all others."""
        asked, page = self.asked, self._runtime.sign_in
        shows = asked.headers.get("sec-fetch-dest", "document") in ("document", "iframe", "frame")
        accept = asked.headers.get("accept", "")
        if page is None or not shows or "text/html" not in accept or prefers_json(accept):
            return None
        path = "/" + asked.path.lstrip("/\\")
        came = f"{path}?{asked.query}" if asked.query else path
        if asked.method not in SAFE or len(came) > NEXT_LENGTH or path == page:
            return asked.root + page
        return f"{asked.root}{page}?next={quote(asked.root + came, safe='/')}"

    async def _found(self, asked: Asked) -> User | None:
        runtime = self._runtime
        if runtime.settings.users.get(self.environment.tenant.blueprint) is None or support_access() is not None:
            return None
        token = bearer(asked.headers.get("authorization", "").encode("latin-1", "replace"))
        if token is not None and name_of(token) is not None:  # an application's own tokens are its own matter
            return await runtime.recent.user(token, lambda: runtime.grants.user(token))
        cookie = asked.cookies.get(runtime.sessions.name(asked.root))
        if not cookie:
            return None
        try:
            shown = cookie.encode(errors="replace")
            return await runtime.recent.user(shown, lambda: runtime.accounts.signed_in(runtime.sessions.read(cookie)))
        except InvalidToken:  # one that is over, or no session at all, is as none
            return None


_visit: ContextVar[Visit | None] = ContextVar("tenantry_visit", default=None)


@contextmanager
def visiting(visit: Visit | None) -> Iterator[None]:
    """Work for a request inside this block."""
    token = _visit.set(visit)
    try:
        yield
    finally:
        _visit.reset(token)


def current_visit() -> Visit | None:
    """The request that is answered here for the current tenant; None outside of one. Raises `NoTenant`."""
    environment, visit = current_environment(), _visit.get()
    return visit if visit is not None and visit.environment.id == environment.id else None


def current_user() -> User | None:
    """The user of the current tenant who makes this request; None where nobody is signed in, and outside a request.

    Raises `NoTenant`; `ForeignSession` for another tenant's cookie; and what opening the tenant's database raises.
    """
    visit = current_visit()
    return visit.user if visit is not None else None


def require(role: Role | str = Role.USER) -> User:
    """The user who makes this request, who has at least this role: "user", "superuser" or "admin".

    Raises `UserNeeded` (401; a browser is sent to sign in) where nobody is signed in, `RoleNeeded` (403) for a smaller
    role, and what `current_user` raises; a browser with another tenant's cookie is sent to sign in, too.
    """
    wanted = Role(role)
    try:
        user = current_user()
    except ForeignSession as error:
        if page := _sign_in():
            raise UserNeeded(sign_in=page) from error
        raise
    if user is None:
        raise UserNeeded(sign_in=_sign_in())
    if RANKS[user.role] < RANKS[wanted]:
        raise RoleNeeded(login=user.login, role=user.role.value, wanted=wanted.value)
    return user


def _sign_in() -> str | None:
    visit = current_visit()
    return visit.sign_in if visit is not None else None


def _refuse_to_block() -> None:
    """An event loop that waits for itself waits for ever."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeMissing("Who makes this request is not known here.", remedy="Call it before `runtime.wait(…)`.")
